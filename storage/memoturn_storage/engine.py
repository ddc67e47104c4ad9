"""The engine: plain synchronous work over databases, on a small fixed set of threads, kept in an object store.

`write` and `read` take a function over a transaction or a snapshot and hand back a future, so that
asynchronous servers and plain scripts use the same thing. A branch that is asked for is woken; what is
committed is shipped. `threads=0` runs everything on the calling thread (embedding, benchmarks,
simulation), through the same code; then `run_due` has to be called for what otherwise happens in the
background. Called by `memoturn_core`.

Cancelling a future before its turn takes the job out of the queue; afterwards the job runs on and a
write may still commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from zlib import crc32

import structlog

from memoturn_storage.ambient import Ambient
from memoturn_storage.branch import Branch
from memoturn_storage.errors import translate
from memoturn_storage.garbage import Garbage
from memoturn_storage.handle import Handle, ReadJob, Result, Snapshot, Transaction, WriteJob
from memoturn_storage.history import Compactor
from memoturn_storage.leases.lease import Leases
from memoturn_storage.manifest import BranchRef, Manifest
from memoturn_storage.manifests import Held, Manifests
from memoturn_storage.objects.store import ObjectStore
from memoturn_storage.publisher import Publisher, PublisherStats
from memoturn_storage.restore import Restorer
from memoturn_storage.schema import Schema
from memoturn_storage.tail import Backlog
from memoturn_storage.waking import Waker
from memoturn_storage.worker import Sweep, Worker

log = structlog.get_logger("memoturn")

T = TypeVar("T")
V = TypeVar("V")

GROUP_COMMIT = 64
"""Writes at most in one transaction."""

_POOL_THREADS = 8
_LONG_THREADS = 4
_READER_THREADS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may use, and how soon it does things."""

    threads: int = 2
    """Engine threads; 0 runs everything on the calling thread."""
    hot_cap: int = 256
    """Open branches at most; the least recently used are put to sleep."""
    queue_depth: int = 256
    """Writes that may wait for one branch before `Overloaded`."""
    ship_interval_s: float = 0.2
    """How long a commit waits for others before it is shipped."""
    backlog_bytes: int = 64 << 20
    """Of log that the object store has not taken, a branch, before writes are refused."""
    idle_s: float = 60.0
    """After which an unused branch is put to sleep."""
    cold_s: float = 3_600.0
    """After which the local files of a sleeping branch are removed; the object store has everything."""
    grace_s: float = 600.0
    """How long objects that nothing needs any more are kept for those who still read an older manifest."""
    fine_s: float = 86_400.0
    """How far back every transaction can be restored; 0: history is never cut."""
    snapshots_s: float = 2_592_000.0
    """How far back snapshots can be restored."""
    upkeep_s: float = 30.0
    """Between two looks at what is idle or has expired; the heavy passes are every twentieth."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    open_branches: int
    waiting_jobs: int
    longest_queue: int
    """The most jobs that wait for one branch."""
    unshipped_transactions: int
    unshipped_bytes: int
    oldest_unshipped_ms: int | None
    """The age of the oldest unshipped transaction; None where everything is shipped."""
    published: PublisherStats


class Engine:
    """Owns the threads and the open files of one node.

    Args:
        schema: what every database file must contain.
        ambient: clock and randomness.
        directory: where the files lie, `databases` of the data directory.
        store: the truth.
        leases: who owns which database.
    """

    def __init__(
        self,
        schema: Schema,
        ambient: Ambient,
        directory: Path,
        store: ObjectStore,
        leases: Leases,
        limits: Limits = Limits(),
    ) -> None:
        self.inline = inline = limits.threads == 0
        threads = max(1, min(limits.threads, limits.hot_cap))  # each keeps one branch open at least
        self._schema = schema
        self._ambient = ambient
        self._limits = limits
        self._lock = threading.Lock()
        self._compacting: set[BranchRef] = set()
        self._leases = leases
        self._pool: Executor = InlineExecutor() if inline else ThreadPoolExecutor(_POOL_THREADS, "memoturn-background")
        # Two, for those who read aside wait until a branch's long write is done.
        self._long_pool: Executor = InlineExecutor() if inline else ThreadPoolExecutor(_LONG_THREADS, "memoturn-long")
        self._aside: Executor = InlineExecutor() if inline else ThreadPoolExecutor(_LONG_THREADS, "memoturn-aside")
        self._readers = None if inline else ThreadPoolExecutor(_READER_THREADS, "memoturn-objects")
        self.manifests = Manifests(store, ambient, grace_ms=round(limits.grace_s * 1000))
        self.garbage = Garbage(store)
        self.restorer = Restorer(store, self._readers)
        self.publisher = Publisher(
            store,
            self.manifests,
            ambient,
            self._pool,
            interval_s=limits.ship_interval_s,
            alone=lambda branch, effect: self._worker(branch.ref).tend(branch, effect),
            left=lambda branch: self._worker(branch.ref).leave(branch),
            long=self._compact_soon,
        )
        self.compactor = Compactor(store, self.manifests, self.restorer, ambient, self.update_manifest)
        self._waker = Waker(
            schema, ambient, directory, self.manifests, self.restorer, leases, backlog_bytes=limits.backlog_bytes
        )
        self._workers = [
            Worker(
                schema,
                ambient,
                self._waker,
                self.publisher,
                self._pool,
                self._long_pool,
                capacity=max(1, limits.hot_cap // threads),
                queue_depth=limits.queue_depth,
                group=GROUP_COMMIT,
                inline=inline,
            )
            for _ in range(threads)
        ]
        if not inline:
            self.publisher.start()

    # --- jobs ------------------------------------------------------------------------------------

    def write(
        self,
        ref: BranchRef,
        work: Callable[[Transaction], T],
        *,
        deadline: float | None = None,
        durable: bool = False,
        slice_s: float | None = None,
    ) -> Future[Result[T]]:
        """Run `work` inside a group commit.

        The future resolves once the commit has landed on this machine's disk, or with `durable` once the
        object store has it; a durable write that fails with `Unavailable` may be committed all the same.
        The file is made if it does not exist. `deadline` is on `Ambient.monotonic`. `work` may be run more
        than once, and must not change anything but the transaction. What may take long is given a `slice_s`
        of the thread; if that ends it (`RequestTimeout`), `write_alone` is the place for it.

        Raises:
            Overloaded: at once, when the branch's queue is full.
        """
        job = WriteJob(work, deadline, durable, slice_s)
        self._worker(ref).submit(ref, job)
        return cast("Future[Result[T]]", job.future)

    def write_alone(
        self, ref: BranchRef, work: Callable[[Transaction], T], *, deadline: float | None = None, durable: bool = False
    ) -> Future[Result[T]]:
        """As `write`, for work that may take long: other jobs of the branch wait for it, those of others do not."""
        job = WriteJob(work, deadline, durable)
        self._worker(ref).submit_alone(ref, job)
        return cast("Future[Result[T]]", job.future)

    def read(
        self,
        ref: BranchRef,
        work: Callable[[Snapshot], T],
        *,
        deadline: float | None = None,
        durable: bool = False,
        slice_s: float | None = None,
    ) -> Future[Result[T]]:
        """Run `work` on one consistent state; a branch that was never written to reads as empty, txid 0.

        With `durable` the future resolves once the object store has that state. `slice_s` as in `write`; what it
        ends belongs to `read_aside`.
        """
        job = ReadJob(work, deadline, durable, slice_s)
        self._worker(ref).submit(ref, job)
        return cast("Future[Result[T]]", job.future)

    def read_aside(
        self, ref: BranchRef, work: Callable[[Snapshot], T], *, deadline: float | None = None
    ) -> Future[Result[T]]:
        """As `read`, on a connection of its own: for work that may take long, which nobody waits for meanwhile.

        What the branch goes through while it runs, a rewind even, does not change the state that it sees.
        """
        job = ReadJob(work, deadline)

        def run() -> Result[T]:
            branch, handle = self.exclusive(ref, self._second_handle).result()
            try:
                handle.read(job)
            finally:
                handle.close()
                branch.aside.discard(handle)
            return cast("Result[T]", job.future.result())

        return self._aside.submit(run)

    def _second_handle(self, branch: Branch) -> tuple[Branch, Handle]:
        path = None if branch.handle is None else branch.files.database
        handle = Handle(self._schema, self._ambient, path)
        # A first read, for the log is opened by its name: after a rewind that would be another file's.
        assert handle.txid >= 0  # noqa: S101
        branch.aside.add(handle)
        return branch, handle

    def peek(
        self, ref: BranchRef, kind: type[T], look: Callable[[T], V | None], *, of: Hashable = None
    ) -> Result[V] | None:
        """`Handle.peek` on an open branch whose every commit this process knows; None where that is not sure."""
        return self._worker(ref).peek(ref, kind, look, of)

    def is_open(self, ref: BranchRef) -> bool:
        return self._worker(ref).open_branch(ref) is not None

    def wake(self, ref: BranchRef) -> Future[None]:
        """Have the branch open.

        Raises:
            OwnedElsewhere, BranchNotFound, Damaged, StoreUnavailable: through the future.
        """
        return self.exclusive(ref, lambda _branch: None)

    # --- effects ---------------------------------------------------------------------------------

    def exclusive(self, ref: BranchRef, effect: Callable[[Branch], T]) -> Future[T]:
        """Run `effect` with the branch open and none of its jobs running."""
        return self._worker(ref).exclusive(ref, effect)

    def sleep(self, branch: Branch, *, discard: bool = False) -> None:
        """Close a branch, from an effect that has it to itself; with `discard` its local files go."""
        self._worker(branch.ref).sleep(branch, discard=discard)

    def update_manifest(self, ref: BranchRef, change: Callable[[Manifest], Manifest]) -> Held:
        """`Manifests.update`, through the open branch where there is one, so that it knows the new version."""
        branch = self._worker(ref).open_branch(ref)
        if branch is None:
            return self.manifests.update(ref, change)
        with branch.lock:
            branch.held = self.manifests.update(branch.held or ref, change)
            return branch.held

    def cool(self, ref: BranchRef) -> Future[bool]:
        """Remove the local files of a sleeping branch whose every commit is in the object store; whether it was.

        Raises:
            OwnedElsewhere, StoreUnavailable: through the future.
        """
        return self._worker(ref).asleep(ref, self._waker.cool)

    def _compact_soon(self, ref: BranchRef) -> None:
        with self._lock:
            if ref in self._compacting:
                return
            self._compacting.add(ref)
        self._pool.submit(self._compact, ref)

    def _compact(self, ref: BranchRef) -> None:
        try:
            self.compactor.compact(ref)
        except Exception as error:  # noqa: BLE001 - the next ship or the upkeep tries again
            problem = str(translate(error))
            log.warning("compaction put off", database=ref.uuid, branch=ref.branch, error=problem)
        finally:
            with self._lock:
                self._compacting.discard(ref)

    # --- upkeep ----------------------------------------------------------------------------------

    def run_due(self) -> None:
        """Ship what is due and put to sleep what is idle."""
        self.publisher.run_due()
        for worker in self._workers:
            worker.put_idle_to_sleep(self._limits.idle_s)

    def sweep(self, look: Sweep) -> None:
        """Have `look` see each open branch and commit what it answers, without waiting for that."""
        for worker in self._workers:
            worker.sweep(look)

    def unshipped(self) -> dict[BranchRef, Backlog]:
        """The branches that sleep with commits which the object store has not; they are shipped when they wake."""
        return {ref: backlog for worker in self._workers for ref, backlog in worker.unshipped().items()}

    def forget_unshipped(self, ref: BranchRef) -> None:
        """Another process has the branch, or it was deleted: there is nothing left to ship here."""
        self._worker(ref).forget_unshipped(ref)

    def stats(self) -> EngineStats:
        backlogs = [branch.tail.backlog for worker in self._workers for branch in worker.branches()]
        open_branches = len(backlogs)
        backlogs += self.unshipped().values()
        queues = [jobs for worker in self._workers for jobs in worker.queues()]
        oldest = [backlog.oldest_at for backlog in backlogs if backlog.oldest_at is not None]
        return EngineStats(
            open_branches=open_branches,
            waiting_jobs=sum(queues),
            longest_queue=max(queues, default=0),
            unshipped_transactions=sum(backlog.commits for backlog in backlogs),
            unshipped_bytes=sum(backlog.log_bytes for backlog in backlogs),
            oldest_unshipped_ms=self._ambient.now_ms() - min(oldest) if oldest else None,
            published=self.publisher.stats,
        )

    def close(self) -> None:
        """Finish what is queued, ship what can be shipped, close every file, release every lease.

        Later jobs are refused.
        """
        wait([closing for worker in self._workers for closing in worker.close()])
        self.publisher.close()
        self._pool.shutdown()
        self._long_pool.shutdown()
        self._aside.shutdown()
        if self._readers is not None:
            self._readers.shutdown()
        self._leases.close()

    def _worker(self, ref: BranchRef) -> Worker:
        return self._workers[crc32(ref.uuid.encode()) % len(self._workers)]


class InlineExecutor(Executor):
    """Runs each call at once, on the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as every executor does
            future.set_exception(error)
        return future
