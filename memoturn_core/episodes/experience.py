"""What an episode that has ended tells, read from its steps: failures, decisions, runs of success, recoveries.

Pure; everything that judges an episode or learns from it reads it through this, so that all mean the same by
"a recovery". Called by the modules that complete an episode.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from memoturn_schemas.episodes import Context, Outcome, Step, TaskType

_RECOVERED_WITHIN = 5
"""Steps after a failure in which a success still counts as its recovery."""

_DECISION = re.compile(
    r"\b(?:decid(?:e|es|ed|ing)|cho(?:ose|osing|se|sen)|select(?:ed|ing)?|opt(?:ed|ing)? for|prefer\w*"
    r"|switch\w* to|instead of)\b",
    re.IGNORECASE,
)

_NORMAL_FORMS = (
    (
        re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b|\b[0-9a-f]{12,}+\b", re.IGNORECASE),
        "<id>",
    ),
    (re.compile(r"https?://\S+"), "<url>"),
    (
        re.compile(
            r"(?:[A-Za-z]:)?(?:[/\\][\w.@+-]++){2,}+[/\\]?|\B/[\w.@+-]++|(?<![\w@+-])[\w@+-]++(?:/[\w.@+-]++)++"
        ),
        "<path>",
    ),
    (re.compile(r"\d+(?:\.\d+)*"), "<n>"),
    (re.compile(r"\s+"), " "),
)
_ERROR_READ, _ERROR_CHARACTERS = 2_000, 200


@dataclass(frozen=True, slots=True)
class Recovery:
    """A step that failed, and the steps after it up to and with the one that succeeded."""

    failed: Step
    remedy: Sequence[Step]


@dataclass(frozen=True)
class Experience:
    """An episode at its end. `steps` are in the order of their numbers; there may be none."""

    task_type: TaskType
    description: str
    context: Context
    metadata: dict[str, Any]
    steps: Sequence[Step]
    outcome: Outcome
    started_at: int
    ended_at: int

    @property
    def seconds(self) -> float:
        return max(0, self.ended_at - self.started_at) / 1_000

    @property
    def succeeded(self) -> bool:
        return self.outcome["type"] in ("success", "partial_success")

    @cached_property
    def failures(self) -> list[Step]:
        return [step for step in self.steps if failed(step)]

    @cached_property
    def settled(self) -> list[Step]:
        """The steps whose result is known."""
        return [step for step in self.steps if step["result"] is not None]

    @cached_property
    def decisions(self) -> list[Step]:
        return [step for step in self.steps if decides(step)]

    @cached_property
    def runs(self) -> list[list[Step]]:
        """The longest runs of two steps or more that succeeded, in their order."""
        runs: list[list[Step]] = [[]]
        for step in self.steps:
            if succeeded(step):
                runs[-1].append(step)
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if len(run) > 1]

    @cached_property
    def recoveries(self) -> list[Recovery]:
        """Of each failure that was followed by a success soon enough: of the same tool, or else of any.

        Of failures of one tool in a row the last one counts.
        """
        found = []
        for place, step in enumerate(self.steps):
            after = self.steps[place + 1 : place + 1 + _RECOVERED_WITHIN]
            if not failed(step) or (after and failed(after[0]) and after[0]["tool"] == step["tool"]):
                continue
            good = [each for each in after if succeeded(each)]
            last = next((each for each in good if each["tool"] == step["tool"]), good[0] if good else None)
            if last is not None:
                found.append(Recovery(step, after[: after.index(last) + 1]))
        return found


def failed(step: Step) -> bool:
    """By an error or a timeout."""
    return step["result"] is not None and step["result"]["type"] != "success"


def succeeded(step: Step) -> bool:
    return step["result"] is not None and step["result"]["type"] == "success"


def decides(step: Step) -> bool:
    """Whether the step says so (`metadata.decision`), or its action speaks of choosing."""
    return bool(step["metadata"].get("decision")) or _DECISION.search(step["action"]) is not None


def error_class(step: Step) -> str:
    """Of a step that failed: its error without what differs from one time to the next (paths, ids, numbers)."""
    result = step["result"]
    return (
        "timeout" if result is None or result["type"] == "timeout" else _normal(result.get("message", "")[:_ERROR_READ])
    )


@lru_cache(1_024)
def _normal(text: str) -> str:
    for pattern, replacement in _NORMAL_FORMS:
        text = pattern.sub(replacement, text)
    return text.strip()[:_ERROR_CHARACTERS].strip()
