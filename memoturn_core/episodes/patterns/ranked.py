"""Orders of patterns for those who list them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from memoturn_core.episodes.patterns.extraction import SHORTEST
from memoturn_core.episodes.patterns.pattern import Pattern


def highest(patterns: Iterable[Pattern], value: Callable[[Pattern], float]) -> Iterator[Pattern]:
    """The highest first, without parts: sequences that are in a longer one of the same value that was seen as often.

    Of the same value the longer ones come first, then those that were entered first. Lazy: who takes a few does not
    pay for all.
    """
    told: set[tuple[str, int, tuple[str, ...]]] = set()
    for _, equal in groupby(sorted(patterns, key=value, reverse=True), key=value):
        for pattern in sorted(equal, key=lambda each: -len(each.tools)):
            if pattern.kind == "tool_sequence":
                of, tools = (pattern.domain, pattern.occurrences), tuple(pattern.tools)
                if (*of, tools) in told:
                    continue
                told.update((*of, part) for part in _parts(tools))
            yield pattern


def strongest(patterns: Iterable[Pattern]) -> Iterator[Pattern]:
    """By their strength of now, as `highest` has it."""
    return highest(patterns, lambda pattern: pattern.strength)


def _parts(tools: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for length in range(SHORTEST, len(tools)):
        for start in range(len(tools) - length + 1):
            yield tools[start : start + length]
