"""What speaks for an episode beside what it says: bounded, so that no boost makes up for a worse match.

Each boost is a share of the episode's own relevance, and all together are at most `WHOLE` of it: an episode that is
more than 1 + WHOLE times as relevant as another always comes before it, however old and badly rewarded it is. Pure;
called by `choice`.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal, Self

from memoturn_core.memory.text import stems
from memoturn_schemas.episodes import TaskType

Boost = Literal["domain", "task_type", "recency", "reward"]

DOMAIN = 0.015
"""For the domain whose name the query has."""
TASK_TYPE = 0.01
"""For the type of work that a word of the query stands for."""
RECENCY = 0.015
"""For one that begins now; half as much for each half-life before."""
REWARD = 0.01
"""For a reward of `REWARD_ENOUGH` or more, and in proportion below. An open episode has none."""
WHOLE = DOMAIN + TASK_TYPE + RECENCY + REWARD

HALF_LIFE_MS = 30 * 86_400_000
REWARD_ENOUGH = 2.0

_STANDS_FOR: dict[TaskType, str] = {
    "code_generation": "add build code create generate implement introduce scaffold support write",
    "debugging": "bug crash debug diagnose error exception fail failure fix flaky hang leak reproduce traceback",
    "refactoring": "clean decouple deduplicate extract inline migrate move refactor rename restructure simplify split",
    "testing": "assert coverage fixture mock test",
    "analysis": "analyse analyze audit benchmark compare evaluate explore inspect investigate measure profile review",
    "documentation": "changelog comment describe docs docstring document documentation explain guide readme tutorial",
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a query suggests of the episodes that it looks for."""

    stems: Set[str]
    task_types: Set[TaskType]

    @classmethod
    def of(cls, query: str) -> Self:
        said = frozenset(stems(query))
        return cls(said, frozenset(type_ for type_, listed in _WORDS.items() if not said.isdisjoint(listed)))

    def boosts(
        self, *, domain: str, task_type: TaskType, started_at: int, reward: float | None, now: int
    ) -> dict[Boost, float]:
        """What speaks for an episode, each from 0 to its constant."""
        named = stems(domain)
        age = max(0, now - started_at)
        return {
            "domain": DOMAIN if named and self.stems >= set(named) else 0.0,
            "task_type": TASK_TYPE if task_type in self.task_types else 0.0,
            "recency": RECENCY * 0.5 ** (age / HALF_LIFE_MS),
            "reward": REWARD * min(1.0, max(0.0, reward or 0.0) / REWARD_ENOUGH),
        }


_WORDS: dict[TaskType, Set[str]] = {type_: frozenset(stems(listed)) for type_, listed in _STANDS_FOR.items()}
