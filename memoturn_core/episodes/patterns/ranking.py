"""Which patterns fit a task best: all that are promoted are considered, and the best are found without scoring each.

A pattern's score cannot be more than what its strength and the features that cost nothing allow (`_ceilings`); they are
scored in that order until no other can be among the best. Called by `recommend` and `playbook`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Self

import numpy as np
from pydantic_core import from_json

from memoturn_core.episodes.patterns.fit import (
    CONTEXT_WORTH,
    WEIGHTS,
    WHOLE,
    Labels,
    Task,
    parts,
    repeats,
    shares,
    worth,
)
from memoturn_core.episodes.patterns.known import Ints, PatternIndex, evidence_of
from memoturn_core.episodes.patterns.pattern import Pattern
from memoturn_core.episodes.patterns.strength import Floats
from memoturn_core.memory.rows import bound
from memoturn_schemas.patterns import PatternKind
from memoturn_schemas.recommendations import Feature, Part
from memoturn_storage.handle import Snapshot

SIMILAR = 20
"""Episodes that count as similar to a task at most."""
LATEST = 8
"""Episodes of a pattern, the latest ones, of which the labels are looked at."""

NEARLY = 0.5
"""The share of the highest similarity from which on another one is nearly as high."""

_SEQUENCES: frozenset[PatternKind] = frozenset({"tool_sequence", "anti_pattern"})
_AT_FIRST = 32
_ROUNDING = 1e-9
"""So that a ceiling is above the score that it is a sum of, however floats round."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A pattern with its score for a task, which is the sum of the parts."""

    pattern: Pattern
    features: dict[Part, float]
    parts: dict[Part, float]
    score: float

    @classmethod
    def of(cls, pattern: Pattern, features: dict[Part, float]) -> Self:
        made_of = parts(worth(pattern.kind) * pattern.strength, features)
        return cls(pattern, features, made_of, sum(made_of.values()))

    def order(self, more: float = 0.0) -> tuple[float, int, int]:
        """Of one whose score is higher by `more`. Ascending is best first; of equals the longer, then the older one."""
        return -round(self.score + more, 9), -len(self.pattern.tools), self.pattern.rowid


class Ranking:
    """The patterns of one state, for one task; it is of use for the length of the job.

    Args:
        similar: rowids of episodes with their similarity to the task, 0...1.
        only: what the task says of these is a condition.
    """

    def __init__(
        self, snapshot: Snapshot, task: Task, similar: Sequence[tuple[int, float]], only: Collection[Feature] = ()
    ) -> None:
        self.known = PatternIndex.of(snapshot)
        self._connection = snapshot.connection
        self._task = task
        self._labels: dict[int, Labels] = {}
        self._labels_weight = sum(WEIGHTS[part] for part in task.labels)
        self._judged: list[Pattern] | None = None
        self._domain = self.known.of_domain(task.domain)
        self._contexts = self.known.of_kinds(["context_pattern"])
        self._similarity = self._similarities(dict(similar))
        self._most_similar = max((similarity for _, similarity in similar), default=0.0)
        self._admitted = self.known.are_promoted
        if "domain" in only:
            self._admitted = self._admitted & self._domain
        if "task_type" in only and task.task_type is not None:
            self._admitted = self._admitted & self.known.seen_in(task.task_type)
        self._ceilings = self._most()

    @property
    def promoted(self) -> int:
        """How many patterns there are that count."""
        return int(self.known.are_promoted.sum())

    @property
    def admitted(self) -> int:
        """How many of the patterns the conditions leave."""
        return int(self._admitted.sum())

    def chosen(self, count: int, *, avoid: bool, kinds: Collection[PatternKind] | None = None) -> list[Scored]:
        """The best of which anything speaks for them, without sequences that say what another one says.

        That is one that is mostly in a better one; and one that is mostly in one that feedback was given of, and was
        seen as often, for what was said of that one holds for both.
        """
        found: list[Scored] = []
        told: dict[tuple[PatternKind, str], list[list[str]]] = {}
        for each in self.best(avoid=avoid, kinds=kinds):
            if len(found) == count or not each.score:
                break
            pattern = each.pattern
            if pattern.kind in _SEQUENCES and pattern.error is None:
                before = told.setdefault((pattern.kind, pattern.domain), [])
                if repeats(pattern.tools, before) or self._is_judged_by_another(pattern):
                    continue
                before.append(pattern.tools)
            found.append(each)
        return found

    def is_near(self, scored: Scored) -> bool:
        """Whether the pattern is of the task's domain, or was seen in an episode nearly as similar as the best."""
        similarity = scored.features.get("similarity", 0.0)
        return bool(scored.features.get("domain")) or (similarity > 0 and similarity >= NEARLY * self._most_similar)

    def best(self, *, avoid: bool, kinds: Collection[PatternKind] | None = None) -> Iterator[Scored]:
        """Best first: those that go with success, or those to `avoid`; of certain kinds, or of all."""
        wanted = self._admitted & (self.known.are_failing == avoid)
        left = np.flatnonzero(wanted if kinds is None else wanted & self.known.of_kinds(kinds))
        ceiling = self._ceilings[left].max(initial=0.0)
        waiting: list[tuple[tuple[float, int, int], bool, Scored]] = []
        size = _AT_FIRST
        while len(left) or waiting:
            if len(left) and (not waiting or -waiting[0][0][0] <= ceiling):
                left, places = _highest(left, self._ceilings, size)
                for place in places.tolist():
                    scored = self._scored(place)
                    heappush(waiting, (scored.order(self._labels_add(scored.pattern)), False, scored))
                ceiling = self._ceilings[left].max(initial=-1.0)
                size *= 2
                continue
            _, is_whole, scored = heappop(waiting)
            if is_whole:
                yield scored
            else:
                whole = self._with_labels(scored)
                heappush(waiting, (whole.order(), True, whole))

    def _is_judged_by_another(self, pattern: Pattern) -> bool:
        if self._judged is None:
            rows: Any = self._connection.execute("SELECT DISTINCT pattern FROM __memoturn_pattern_feedback")
            self._judged = self.known.of_rowids(rowid for (rowid,) in rows)
        return pattern not in self._judged and any(
            (each.kind, each.domain, each.error) == (pattern.kind, pattern.domain, None)
            and each.occurrences == pattern.occurrences
            and repeats(pattern.tools, [each.tools])
            for each in self._judged
        )

    def _most(self) -> Floats:
        """What no score is above, of each pattern."""
        rest = 1 + self._labels_weight + (WEIGHTS["task_type"] if self._task.task_type is not None else 0.0)
        strengths = np.where(self._contexts, CONTEXT_WORTH, 1.0) * self.known.strengths
        features = WEIGHTS["similarity"] * self._similarity + WEIGHTS["domain"] * self._domain
        return np.asarray(strengths * (rest + features) / WHOLE + _ROUNDING)

    def _scored(self, place: int) -> Scored:
        """Without what its episodes were labelled with."""
        pattern, task = self.known.pattern(place), self._task
        features: dict[Part, float] = {
            "similarity": float(self._similarity[place]),
            "domain": float(self._domain[place]),
        }
        if task.task_type is not None:
            standing = pattern.standing
            features["task_type"] = standing.task_types.get(task.task_type, 0) / standing.occurrences
        return Scored.of(pattern, features)

    def _labels_add(self, pattern: Pattern) -> float:
        """To its score, at most."""
        return worth(pattern.kind) * pattern.strength * self._labels_weight / WHOLE

    def _with_labels(self, scored: Scored) -> Scored:
        if not self._labels_weight:
            return scored
        episodes = scored.pattern.latest(LATEST)
        self._look_at(episodes)
        labels = [self._labels[each] for each in episodes if each in self._labels]
        return Scored.of(scored.pattern, scored.features | shares(self._task, labels))

    def _look_at(self, episodes: Sequence[int]) -> None:
        """Have the labels of these."""
        unknown = [each for each in episodes if each not in self._labels]
        if not unknown:
            return
        rows: Any = self._connection.execute(
            "SELECT rowid, body ->> 'language', body ->> 'framework', body -> 'tags' FROM __memoturn_episodes"
            " WHERE rowid IN carray(?)",
            (bound(unknown),),
        )
        for rowid, language, framework, tags in rows:
            self._labels[rowid] = Labels(language, framework, frozenset(from_json(tags or "[]")))

    def _similarities(self, similar: Mapping[int, float]) -> Floats:
        """Of each pattern, the similarity of the most similar episode that speaks for it.

        That is one that failed for what to avoid, and else one that succeeded; for contexts either is.
        """
        succeeded, failed = np.zeros(len(self._domain)), np.zeros(len(self._domain))
        for episode, rowids in evidence_of(self._connection, similar):
            seen, places = self.known.seen[episode], self.known.places(rowids)
            if seen.won or seen.lost:
                found = succeeded if seen.won else failed
                found[places] = np.maximum(found[places], similar[episode])
        warnings = self.known.of_kinds(["anti_pattern"])
        return np.where(self._contexts, np.maximum(succeeded, failed), np.where(warnings, failed, succeeded))


def _highest(places: Ints, ceilings: Floats, count: int) -> tuple[Ints, Ints]:
    """Those but the highest, and the highest."""
    if len(places) <= count:
        return places[:0], places
    order = np.argpartition(-ceilings[places], count)
    return places[order[count:]], places[order[:count]]
