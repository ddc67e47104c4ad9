"""The words by which an episode is found, beside its description: what it was labelled with, and what was done.

They are kept as two lines of one text: the labels from the beginning, the deeds from completion on. Pure;
called by `rows` and `completion`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from memoturn_schemas.episodes import Outcome, Step

DEEDS_CHARACTERS = 4_000
"""Of what was done at most, so that a long episode costs what a short one does; the earlier steps are kept."""

_TOLD = ("verdict", "reason", "artifacts", "completed", "failed", "error_details", "infeasibility_signals")


def labels(language: str | None, framework: str | None, tags: Iterable[str]) -> str:
    return _line([language or "", framework or "", *tags])


def deeds(steps: Sequence[Step], outcome: Outcome) -> str:
    """Tools, how it ended, and actions; each once, however often it was used."""
    told: list[str] = []
    for name in _TOLD:
        said: Any = outcome.get(name, "")
        told += [said] if isinstance(said, str) else said
    texts = dict.fromkeys([*(step["tool"] for step in steps), *told, *(step["action"] for step in steps)])
    line = _line(texts)
    if len(line) <= DEEDS_CHARACTERS:
        return line
    return line[:DEEDS_CHARACTERS].rpartition(" ")[0] or line[:DEEDS_CHARACTERS]


def _line(texts: Iterable[str]) -> str:
    return " ".join(" ".join(texts).split())
