"""What a pattern is worth for a task: its strength, times how well it fits. Pure; called by `ranking`.

    score = worth * strength * (1 + Σ weight * feature) / (1 + Σ weight)

Features are 0...1: how similar the most similar task is that the pattern was seen in, whether the domain is the same,
and the share of its episodes that have the task's type, language, framework and tags. Each is bounded by its weight
and none is a condition: the strongest pattern of elsewhere still has a score. What feedback says is in the strength.
A pattern that is a context is worth less than others: it tells how such tasks go, and not what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from memoturn_schemas.episodes import TaskType
from memoturn_schemas.patterns import PatternKind
from memoturn_schemas.recommendations import Part

WEIGHTS: dict[Part, float] = {
    "similarity": 2.0,
    "domain": 0.5,
    "task_type": 0.3,
    "language": 0.2,
    "framework": 0.1,
    "tags": 0.1,
}
WHOLE = 1 + sum(WEIGHTS.values())
CONTEXT_WORTH = 0.5
OTHER_DOMAIN, OTHER_TASK_TYPE = 0.5, 0.75
"""What an episode of another domain or type counts for as an example: steps carry over less well than patterns."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done, as far as anybody said."""

    task_type: TaskType | None
    domain: str | None
    language: str | None
    framework: str | None
    tags: frozenset[str]

    @property
    def labels(self) -> list[Part]:
        """Which labels of episodes it can be compared with."""
        said: dict[Part, object] = {"language": self.language, "framework": self.framework, "tags": self.tags}
        return [part for part, value in said.items() if value]


@dataclass(frozen=True, slots=True)
class Labels:
    """What an episode was done with, and its tags."""

    language: str | None
    framework: str | None
    tags: frozenset[str]


def nearness(task: Task, domain: str, task_type: TaskType) -> float:
    """What an episode's similarity counts for: half in another domain than the task's, if that has one, and so on."""
    nearness = 1.0
    if task.domain not in (None, domain):
        nearness *= OTHER_DOMAIN
    if task.task_type not in (None, task_type):
        nearness *= OTHER_TASK_TYPE
    return nearness


def worth(kind: PatternKind) -> float:
    return CONTEXT_WORTH if kind == "context_pattern" else 1.0


def parts(strength: float, features: Mapping[Part, float]) -> dict[Part, float]:
    """What makes up the score; they add up to it. What a feature does not add is left out.

    Args:
        strength: times what the pattern is worth.
    """
    found: dict[Part, float] = {"strength": strength / WHOLE}
    for part, feature in features.items():
        if feature and strength:
            found[part] = strength * WEIGHTS[part] * feature / WHOLE
    return found


def shares(task: Task, episodes: Sequence[Labels]) -> dict[Part, float]:
    """For each label that the task has, the share of episodes that have it too; of its tags, the mean share."""
    if not episodes:
        return {}
    count, found = len(episodes), dict[Part, float]()
    if task.language is not None:
        found["language"] = sum(_same(each.language, task.language) for each in episodes) / count
    if task.framework is not None:
        found["framework"] = sum(_same(each.framework, task.framework) for each in episodes) / count
    if task.tags:
        found["tags"] = sum(len(each.tags & task.tags) for each in episodes) / (count * len(task.tags))
    return found


def repeats(sequence: Sequence[str], offered: Sequence[Sequence[str]]) -> bool:
    """Whether one of the sequences that are offered already has half of the steps from tool to tool of this one."""
    mine = _pairs(sequence)
    return any(2 * len(mine & _pairs(each)) >= len(mine) for each in offered)


def _pairs(sequence: Sequence[str]) -> set[tuple[str, str]]:
    return set(pairwise(sequence))


def _same(one: str | None, other: str) -> bool:
    return one is not None and one.casefold() == other.casefold()
