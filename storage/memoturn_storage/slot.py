"""A branch in the eyes of its engine thread: its queues, whether it is open, and who has it.

Changed under the lock of its worker. Used by `memoturn_storage.worker`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from memoturn_storage.branch import Branch
from memoturn_storage.handle import ReadJob, WriteJob
from memoturn_storage.manifest import BranchRef


@dataclass(frozen=True, slots=True)
class Effect:
    run: Callable[[], None]
    wakes: bool
    """Whether it opens the branch where that sleeps."""
    long: bool = False
    """Whether it may take as long as a request may, and so does not belong among those that others wait for."""


@dataclass(slots=True, eq=False)
class Slot:
    """A branch that is open or has work."""

    ref: BranchRef
    writes: deque[WriteJob] = field(default_factory=deque)
    reads: deque[ReadJob] = field(default_factory=deque)
    effects: deque[Effect] = field(default_factory=deque)
    branch: Branch | None = None
    taken: bool = False
    """Whether a turn or an effect has it, so that no other begins."""
    waking: bool = False
    """Whether a place among the open ones is kept for it."""
    served: bool = False
    """Whether it had a turn since it was woken: then it may make room for others although it has more to do."""
    folding: bool = False
    used_at: float = 0.0

    @property
    def has_work(self) -> bool:
        return bool(self.effects or self.writes or self.reads)

    def drop_cancelled(self) -> None:
        self.writes = deque(job for job in self.writes if not job.future.cancelled())


def take(jobs: deque[Any], limit: int) -> list[Any]:
    return [jobs.popleft() for _ in range(min(limit, len(jobs)))]
