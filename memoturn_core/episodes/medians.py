"""How long the completed episodes of each domain took, kept in order in memory: their medians are looked up.

A mirror of two measures of each completed episode, read once from an open file and then kept in step by each
commit. A completion is measured by the domain as it stood at its last commit. Called by `completion`, `deletion`
and `bulk`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import apsw

from memoturn_core.episodes.reward import Typical
from memoturn_core.profiles import Profile
from memoturn_storage.handle import Transaction

ENOUGH = 5
"""Completed episodes of a domain from which on its medians say what is typical of it."""


class Length(NamedTuple):
    """Of one completed episode."""

    seconds: float
    steps: int

    @classmethod
    def of(cls, started_at: int, ended_at: int, steps: int) -> Self:
        return cls(max(0, ended_at - started_at) / 1_000, steps)


class Medians:
    """The lengths of completed episodes by domain."""

    def __init__(self) -> None:
        self._domains: dict[str, tuple[array[float], array[float]]] = {}

    @classmethod
    def read(cls, connection: apsw.Connection) -> Self:
        medians = cls()
        rows: list[Any] = connection.execute(
            "SELECT domain, started_at, ended_at, step_count FROM __memoturn_episodes WHERE outcome IS NOT NULL"
        ).fetchall()
        for domain, *measured in rows:
            for known, new in zip(medians._of(domain), Length.of(*measured), strict=True):
                known.append(new)
        medians._domains = {
            domain: (array("d", sorted(seconds)), array("d", sorted(steps)))
            for domain, (seconds, steps) in medians._domains.items()
        }
        return medians

    def typical(self, domain: str, further: Sequence[Length] = ()) -> Typical | None:
        """Of a domain's episodes and of `further` ones; None where they are too few."""
        seconds, steps = self._domains.get(domain, (array("d"), array("d")))
        if len(seconds) + len(further) < ENOUGH:
            return None
        if further:
            seconds, steps = seconds[:], steps[:]
            for length in further:
                insort(seconds, length.seconds)
                insort(steps, length.steps)
        return Typical(_median(seconds), _median(steps))

    # --- kept in step ----------------------------------------------------------------------------

    @classmethod
    def insert(cls, transaction: Transaction, domain: str, length: Length) -> None:
        """An episode is completed."""
        transaction.maintain(cls, lambda medians: medians._insert(domain, length))

    @classmethod
    def delete(cls, transaction: Transaction, domain: str, length: Length) -> None:
        """A completed episode is deleted."""
        transaction.maintain(cls, lambda medians: medians._delete(domain, length))

    def _insert(self, domain: str, length: Length) -> None:
        for known, new in zip(self._of(domain), length, strict=True):
            insort(known, new)

    def _delete(self, domain: str, length: Length) -> None:
        for known, old in zip(self._of(domain), length, strict=True):
            del known[bisect_left(known, old)]
        if not self._domains[domain][0]:
            del self._domains[domain]

    def _of(self, domain: str) -> tuple[array[float], array[float]]:
        return self._domains.setdefault(domain, (array("d"), array("d")))


async def medians_of(profile: Profile) -> Medians:
    """Those of the profile's branch, for its next write.

    Raises:
        DatabaseNotFound, BranchNotFound.
    """
    found = profile.peek(Medians, lambda medians: medians)
    if found is None:
        found = await profile.read(lambda snapshot: snapshot.cached(Medians, Medians.read))
    return found.value


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
