"""How what is told of an episode is put into words: short, on one line, tools in backquotes.

Pure. Called by the modules that reflect on, summarise and hand over an episode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from memoturn_core.episodes.experience import Recovery, error_class
from memoturn_schemas.episodes import Step

_READ = 4
"""Characters that are looked at for each one that is wanted: white space may be folded, and a value may be huge."""
_NUMBERS, _TOOLS, _TOOL_CHARACTERS = 6, 8, 60
_EVER_MS = 10**15
"""A bound on what is taken for a duration: a latency is whatever an agent said."""


def line(text: str, characters: int) -> str:
    """The text on one line, with an ellipsis where it is cut."""
    folded = " ".join(text[: _READ * characters].split())
    if len(folded) <= characters and len(text) <= _READ * characters:
        return folded
    return folded[: characters - 1].rstrip() + "…"


def words(text: str, count: int, characters: int) -> str:
    """At most so many words of the text, on one line, with an ellipsis where it is cut."""
    short = line(text, characters)
    parts = short.split(" ")
    return short if len(parts) <= count else " ".join(parts[:count]).rstrip("…") + "…"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seconds(milliseconds: float) -> str:
    """A duration, with a digit more where it is short."""
    milliseconds = min(milliseconds, _EVER_MS)
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1_000:.1f} s" if milliseconds < 10_000 else f"{milliseconds / 1_000:.0f} s"


def numbers(steps: Sequence[Step]) -> str:
    """Which steps: `step 3`, `steps 3, 4 and 9`, `steps 3, 4, 5, 6, 7, 8 and 4 more`."""
    shown = [str(step["step_number"]) for step in steps[:_NUMBERS]]
    if len(steps) > _NUMBERS:
        return f"steps {', '.join(shown)} and {len(steps) - _NUMBERS} more"
    return f"step {shown[0]}" if len(shown) == 1 else f"steps {', '.join(shown[:-1])} and {shown[-1]}"


def quoted(tool: str) -> str:
    """A tool's name in backquotes."""
    return f"`{line(tool, _TOOL_CHARACTERS)}`"


def tools(steps: Sequence[Step]) -> str:
    """The tools of the steps in their order; one that repeats at once is named once."""
    names = distinct_runs(steps)
    shown = ", ".join(quoted(name) for name in names[:_TOOLS])
    return shown if len(names) <= _TOOLS else f"{shown} and {len(names) - _TOOLS} more"


def distinct_runs(steps: Iterable[Step]) -> list[str]:
    """The tools of the steps without repetitions in a row."""
    return [tool for tool, _ in groupby(step["tool"] for step in steps)]


def error(step: Step) -> str:
    """The error of a step that failed, as a class; `an error without a message` where it says nothing."""
    return line(error_class(step), 100) or "an error without a message"


def recovered(recovery: Recovery) -> str:
    """The error and what then worked."""
    failed = recovery.failed
    return f"{quoted(failed['tool'])} failed with “{error(failed)}”; what then worked was {tools(remedy(recovery))}"


def remedy(recovery: Recovery) -> list[Step]:
    """Of a remedy the steps that succeeded; there is one at least."""
    return [step for step in recovery.remedy if step["result"] is not None and step["result"]["type"] == "success"]
