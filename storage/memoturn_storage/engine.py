"""The engine: plain synchronous work over databases, run on a small fixed set of threads.

`write` and `read` take a function over a transaction or a snapshot and hand back a future, so that
asynchronous servers and plain scripts use the same thing. `threads=0` runs everything on the calling
thread (embedding, benchmarks, simulation), through the same code. Called by `memoturn_core.profiles`.

Cancelling a future before its turn takes the job out of the queue; afterwards the job runs on and a
write may still commit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar, cast
from zlib import crc32

from memoturn_storage.ambient import Ambient
from memoturn_storage.handle import ReadJob, Result, Snapshot, Transaction, WriteJob
from memoturn_storage.schema import Schema
from memoturn_storage.worker import Database, Worker

T = TypeVar("T")

GROUP_COMMIT = 64
"""Writes at most in one transaction."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    open_handles: int
    waiting_jobs: int


class Engine:
    """Owns the threads and the open files of one node.

    Args:
        schema: what every database file must contain.
        ambient: clock and randomness.
        threads: engine threads; 0 runs jobs on the calling thread.
        hot_cap: open databases at most; the least recently used are closed.
        queue_depth: writes that may wait for one database before `Overloaded`.
    """

    def __init__(
        self,
        schema: Schema,
        ambient: Ambient,
        *,
        threads: int = 2,
        hot_cap: int = 256,
        queue_depth: int = 256,
    ) -> None:
        threads = min(threads, hot_cap)  # each keeps one database open at least
        self._workers = [
            Worker(
                schema,
                ambient,
                capacity=max(1, hot_cap // max(1, threads)),
                queue_depth=queue_depth,
                group=GROUP_COMMIT,
                inline=threads == 0,
            )
            for _ in range(max(1, threads))
        ]

    def write(
        self, database: Database, work: Callable[[Transaction], T], *, deadline: float | None = None
    ) -> Future[Result[T]]:
        """Run `work` inside a group commit; the future resolves once the commit has landed.

        The file is made if it does not exist. `deadline` is on `Ambient.monotonic`. `work` may be
        run more than once, and must not change anything but the transaction.

        Raises:
            Overloaded: at once, when the database's queue is full.
        """
        job = WriteJob(work, deadline)
        self._worker(database).submit(database, job)
        return cast("Future[Result[T]]", job.future)

    def read(
        self, database: Database, work: Callable[[Snapshot], T], *, deadline: float | None = None
    ) -> Future[Result[T]]:
        """Run `work` on one consistent state; a file that does not exist reads as empty, txid 0."""
        job = ReadJob(work, deadline)
        self._worker(database).submit(database, job)
        return cast("Future[Result[T]]", job.future)

    def stats(self) -> EngineStats:
        return EngineStats(
            open_handles=sum(worker.open_handles() for worker in self._workers),
            waiting_jobs=sum(worker.waiting() for worker in self._workers),
        )

    def close(self) -> None:
        """Finish what is queued and close every file. Later jobs are refused."""
        for worker in self._workers:
            worker.close()

    def _worker(self, database: Database) -> Worker:
        return self._workers[crc32(database.key.encode()) % len(self._workers)]
