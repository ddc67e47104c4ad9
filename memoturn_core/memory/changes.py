"""How the memories of two branches differ since the branches parted: pure functions over what each has.

A `State` is what a branch remembers at one moment; the `base` is the one that both started from. Called by `merging`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import apsw

from memoturn_core.memory.identity import format_id
from memoturn_schemas.memory import MemoryType
from memoturn_schemas.merging import Change, Forgotten

Topic = tuple[MemoryType, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is the case with one memory; the fields are columns of its row."""

    rowid: int
    id: bytes
    type: MemoryType
    topic_key: str | None
    summary: str
    created_at: int
    superseded_at: int | None
    superseded_by: bytes | None

    @property
    def topic(self) -> Topic | None:
        return None if self.topic_key is None else (self.type, self.topic_key)

    @property
    def active(self) -> bool:
        return self.superseded_at is None

    def change(self) -> Change:
        return Change(
            id=format_id(self.id),
            type=self.type,
            topic_key=self.topic_key,
            summary=self.summary,
            created_at=self.created_at,
            superseded_by=None if self.superseded_by is None else format_id(self.superseded_by),
        )

    def forgotten(self) -> Forgotten:
        return Forgotten(id=format_id(self.id), type=self.type, topic_key=self.topic_key)


class State:
    """What a branch remembers, in the order in which it came; tasks that have expired are not among it."""

    def __init__(self, standings: Iterable[Standing]) -> None:
        self._of = {standing.id: standing for standing in standings}
        self.active: dict[Topic, Standing] = {}
        """By topic."""
        self._reactivated: dict[bytes, int] = {}
        for standing in self:
            if standing.topic is not None and standing.active:
                self.active[standing.topic] = standing
            if standing.superseded_at is not None and standing.superseded_by is not None:
                known = self._reactivated.get(standing.superseded_by, standing.superseded_at)
                self._reactivated[standing.superseded_by] = max(known, standing.superseded_at)

    @classmethod
    def of(cls, connection: apsw.Connection, now_ms: int) -> Self:
        found: Any = connection.execute(
            "SELECT rowid, id, type, topic_key, summary, created_at, superseded_at, superseded_by"
            " FROM __memoturn_memories WHERE expires_at IS NULL OR expires_at > ? ORDER BY rowid",
            (now_ms,),
        )
        return cls(Standing(*row) for row in found)

    def __iter__(self) -> Iterator[Standing]:
        return iter(self._of.values())

    def get(self, id_: bytes) -> Standing | None:
        return self._of.get(id_)

    def active_since(self, standing: Standing) -> int:
        """When an active memory became so, Unix milliseconds: when it was created, or last replaced another."""
        return max(standing.created_at, self._reactivated.get(standing.id, standing.created_at))

    def has_replaced(self, id_: bytes, base: State) -> bool:
        """Whether it had this memory, and replaced it, since `base`."""
        now, then = self.get(id_), base.get(id_)
        if now is None or now.active:
            return False
        return then is None or (then.superseded_at, then.superseded_by) != (now.superseded_at, now.superseded_by)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a branch did since `base`. A memory that was superseded anew, after a revival, counts as superseded."""

    created: list[Standing]
    revived: list[Standing]
    superseded: list[Standing]
    forgotten: list[Standing]
    """As they were in `base`."""

    @classmethod
    def between(cls, base: State, state: State) -> Self:
        known = [(standing, base.get(standing.id)) for standing in state]
        return cls(
            created=[now for now, then in known if then is None],
            revived=[now for now, then in known if then is not None and now.active and not then.active],
            superseded=[now for now, then in known if then is not None and state.has_replaced(now.id, base)],
            forgotten=[then for then in base if state.get(then.id) is None],
        )


class Verdict(Enum):
    """Which of two branches has the last word on a topic."""

    OURS = "ours"
    THEIRS = "theirs"
    NEITHER = "neither"
    """Both have come to a memory of their own: a conflict."""


def judge(topic: Topic, base: State, ours: State, theirs: State, proposed: Standing) -> Verdict:
    """Whether what `theirs` proposes on a topic, a memory of its own, goes on from what `ours` has.

    A branch is behind where it still has what was there at the base, and where the other had its memory and went on
    to another. The second makes a merge known by what it left, so that one that is repeated finds nothing to do.
    """
    was, has = base.active.get(topic), ours.active.get(topic)
    if has is not None and has.id == proposed.id:
        return Verdict.OURS
    theirs_behind = (was is not None and was.id == proposed.id) or ours.has_replaced(proposed.id, base)
    if has is None:
        return Verdict.OURS if theirs_behind else Verdict.THEIRS
    ours_behind = (was is not None and was.id == has.id) or theirs.has_replaced(has.id, base)
    if ours_behind == theirs_behind:
        return Verdict.NEITHER
    return Verdict.THEIRS if ours_behind else Verdict.OURS


def conflicts(base: State, ours: State, theirs: State) -> list[tuple[Standing, Standing]]:
    """The active memories, ours and theirs, of the topics on which neither goes on from the other."""
    return [
        (ours.active[topic], proposed)
        for topic, proposed in theirs.active.items()
        if topic in ours.active and judge(topic, base, ours, theirs, proposed) is Verdict.NEITHER
    ]


def replayable(base: State, state: State) -> list[Standing]:
    """What a branch can pass on: what it created since `base`, and on each topic that it changed what it came to.

    In the order in which they were active, so that replaying them gives the history once more.
    """
    created = [standing for standing in state if base.get(standing.id) is None]
    changed = {standing.topic for standing in created}
    passed_on = {standing.id: standing for standing in created}
    for topic, active in state.active.items():
        was = base.active.get(topic)
        if topic in changed or was is None or was.id != active.id:
            passed_on[active.id] = active
    return sorted(passed_on.values(), key=_when_active)


def _when_active(standing: Standing) -> tuple[bool, int, int, int]:
    ended = standing.superseded_at or 0
    return standing.active, ended, standing.created_at, standing.rowid
