"""One engine thread: the databases that are its own, their queues, their open branches.

A database always has the same worker. The worker takes the branches that have work in turn; a turn
commits up to `group` queued writes as one transaction, then answers the queued reads, so that a busy
branch does not starve the others.

Whatever takes long (waking a branch, shipping before a fold, a rewind) is an *effect*: it runs on the
background pool, alone with its branch, whose jobs wait meanwhile while the thread serves the others.
Called by `memoturn_storage.engine`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from functools import partial
from typing import TypeVar

import structlog

from memoturn_schemas.errors import Overloaded, RequestTimeout, Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.branch import Branch
from memoturn_storage.errors import translate
from memoturn_storage.handle import Handle, ReadJob, Result, Snapshot, Transaction, WriteJob, fail
from memoturn_storage.manifest import BranchRef
from memoturn_storage.publisher import Publisher
from memoturn_storage.schema import Schema
from memoturn_storage.slot import Effect, Slot, take
from memoturn_storage.tail import Backlog
from memoturn_storage.waking import Waker

log = structlog.get_logger("memoturn")

T = TypeVar("T")
V = TypeVar("V")

Sweep = Callable[[Snapshot], Callable[[Transaction], None] | None]
"""Looks at a branch; what it answers is then to be committed there."""


class Worker:
    """Runs jobs on its own thread, or (`inline`) on the caller's.

    Args:
        capacity: branches kept open; the least recently used are put to sleep above it.
        queue_depth: writes that may wait for one branch.
        group: writes in one transaction at most.
        pool: where effects run.
        long_pool: where those run that may take long.
    """

    def __init__(
        self,
        schema: Schema,
        ambient: Ambient,
        waker: Waker,
        publisher: Publisher,
        pool: Executor,
        long_pool: Executor,
        *,
        capacity: int,
        queue_depth: int,
        group: int,
        inline: bool,
    ) -> None:
        self._schema = schema
        self._ambient = ambient
        self._waker = waker
        self._publisher = publisher
        self._pool = pool
        self._long_pool = long_pool
        self._capacity = capacity
        self._queue_depth = queue_depth
        self._group = group
        self._unwritten: Handle | None = None
        self._wake = threading.Condition(threading.RLock())
        self._slots: dict[BranchRef, Slot] = {}
        self._ready: OrderedDict[Slot, None] = OrderedDict()
        self._open: OrderedDict[Slot, None] = OrderedDict()
        self._waking_now = 0
        self._parked: deque[Slot] = deque()
        self._unshipped: dict[BranchRef, Backlog] = {}
        self._closing = False
        self._failures_before_closing = 0
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(target=self._run, name="memoturn-engine", daemon=True)
            self._thread.start()

    # --- called from any thread ------------------------------------------------------------------

    def submit(self, ref: BranchRef, job: WriteJob | ReadJob) -> None:
        """Queue a job; its future is resolved by the worker.

        Raises:
            Overloaded: the branch has `queue_depth` writes waiting.
            Unavailable: the engine is shutting down.
        """
        with self._wake:
            slot = self._slot(ref)
            if isinstance(job, ReadJob):
                slot.reads.append(job)
            else:
                if len(slot.writes) >= self._queue_depth:
                    slot.drop_cancelled()
                if len(slot.writes) >= self._queue_depth:
                    raise Overloaded(f"the database has {self._queue_depth} writes waiting; try again")
                slot.writes.append(job)
            self._make_ready(slot)
        if self._thread is None:
            self._drain()

    def submit_alone(self, ref: BranchRef, job: WriteJob) -> None:
        """Run a write that may take long as an effect, so that it holds up nobody but its branch."""

        def run() -> None:
            if not self._starts(job):
                return
            try:
                self._awake(slot)
            except Exception as error:  # noqa: BLE001 - the failure is the caller's to hear
                fail(job, error)
            else:
                self._run_jobs(slot, [job], [])

        with self._wake:
            slot = self._slot(ref)
            slot.effects.append(Effect(run, wakes=True, long=True))
            self._make_ready(slot)
        if self._thread is None:
            self._drain()

    def exclusive(self, ref: BranchRef, effect: Callable[[Branch], T]) -> Future[T]:
        """Run `effect` on the background pool with the branch open and none of its jobs running.

        The effect may put the branch to sleep; then it is woken by the next job.
        """
        return self._promise(ref, lambda slot: effect(self._awake(slot)), wakes=True)

    def asleep(self, ref: BranchRef, effect: Callable[[BranchRef], bool]) -> Future[bool]:
        """Run `effect` while the branch cannot wake; False where it is awake."""
        return self._promise(ref, lambda slot: slot.branch is None and effect(ref), wakes=False)

    def _promise(self, ref: BranchRef, effect: Callable[[Slot], T], *, wakes: bool) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(effect(slot))
            except Exception as error:  # noqa: BLE001 - the failure is the caller's to hear
                future.set_exception(translate(error))

        with self._wake:
            slot = self._slot(ref)
            self._add_effect(slot, run, wakes=wakes)
        if self._thread is None:
            self._drain()
        return future

    def tend(self, branch: Branch, effect: Callable[[Branch], None]) -> None:
        """Run an effect that nobody waits for, if the branch is still open when its turn comes."""

        def run() -> None:
            if slot.branch is not branch:
                return
            try:
                effect(branch)
            except Exception as error:  # noqa: BLE001 - there is nobody to tell but the log
                problem = str(translate(error))
                log.warning("housekeeping failed", database=branch.ref.uuid, branch=branch.ref.branch, error=problem)

        with self._wake:
            known = self._slots.get(branch.ref)
            if known is None or self._closing:
                return
            slot = known
            self._add_effect(slot, run)
        if self._thread is None:
            self._drain()

    def open_branch(self, ref: BranchRef) -> Branch | None:
        slot = self._slots.get(ref)
        return None if slot is None else slot.branch

    def peek(self, ref: BranchRef, kind: type[T], look: Callable[[T], V | None], of: Hashable) -> Result[V] | None:
        """`Handle.peek`, on the caller's thread; None where the branch is not open here and its own."""
        slot = self._slots.get(ref)
        branch = None if slot is None else slot.branch
        handle = None if branch is None or branch.fenced else branch.handle
        if slot is None or handle is None:
            return None
        slot.used_at = self._ambient.monotonic()
        return handle.peek(kind, look, of=of)

    def branches(self) -> list[Branch]:
        """The open ones."""
        with self._wake:
            return [slot.branch for slot in self._open if slot.branch is not None]

    def unshipped(self) -> dict[BranchRef, Backlog]:
        """The branches that were put to sleep with commits which the object store has not."""
        with self._wake:
            return dict(self._unshipped)

    def forget_unshipped(self, ref: BranchRef) -> None:
        """Somebody else ships it, or there is nothing to ship any more."""
        with self._wake:
            self._unshipped.pop(ref, None)

    def queues(self) -> list[int]:
        """How many jobs wait for each branch that has any."""
        with self._wake:
            return [len(slot.writes) + len(slot.reads) for slot in self._slots.values() if slot.has_work]

    def put_idle_to_sleep(self, idle_s: float) -> None:
        """Put the branches to sleep that nobody has used for so long."""
        before = self._ambient.monotonic() - idle_s
        with self._wake:
            idle = [slot for slot in self._open if slot.used_at <= before and not slot.has_work]
        for slot in idle:
            if slot.branch is not None:
                self.tend(slot.branch, partial(self._sleep_unless_used, slot, before))

    def sweep(self, look: Sweep) -> None:
        """Have `look` see each open branch and commit what it answers; no branch is woken or kept awake by it."""
        for branch in self.branches():
            self.tend(branch, partial(self._sweep, look))

    def leave(self, branch: Branch) -> None:
        """Close the branch, whose history went on elsewhere; its next waking finds what of the files still counts."""
        self.tend(branch, self.sleep)

    def sleep(self, branch: Branch, *, discard: bool = False) -> None:
        """Close an open branch; for effects, which have it to themselves."""
        with self._wake:
            slot = self._slots[branch.ref]
            slot.branch = None
            del self._open[slot]
            if not (discard or branch.fenced or branch.tail.clean):
                self._unshipped[branch.ref] = branch.tail.backlog
        self._waker.sleep(branch, discard=discard)

    def close(self) -> list[Future[None]]:
        """Finish what is queued; returns the shipping and closing of what is open, which the pool does."""
        with self._wake:
            self._failures_before_closing = self._publisher.stats.failures
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        if self._unwritten is not None:
            self._unwritten.close()
        return [self._pool.submit(self._ship_and_sleep, branch) for branch in self.branches()]

    # --- called on the worker's thread -----------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._ready and not (self._closing and not self._busy()):
                    self._wake.wait()
                if not self._ready:
                    return
            self._drain()

    def _busy(self) -> bool:
        return any(slot.taken or slot.has_work for slot in self._slots.values())

    def _drain(self) -> None:
        while (slot := self._next_ready()) is not None:
            self._take_turn(slot)

    def _next_ready(self) -> Slot | None:
        with self._wake:
            return self._ready.popitem(last=False)[0] if self._ready else None

    def _take_turn(self, slot: Slot) -> None:
        effect: Effect | None = None
        crowding: Slot | None = None
        with self._wake:
            slot.taken = True
            if slot.branch is None and (not slot.effects or slot.effects[0].wakes):
                crowding = self._crowding()
                if crowding is None and self._full and self._thread is not None:
                    self._parked.append(slot)
                    return
                slot.waking = True
                self._waking_now += 1
            if slot.effects:
                effect = slot.effects.popleft()
            elif slot.branch is None:
                effect = self._waking(slot)
            writes = [] if effect else take(slot.writes, self._group)
            reads = [] if effect else take(slot.reads, self._group)
            if effect is None:
                slot.served = True
                slot.used_at = self._ambient.monotonic()
                self._open.move_to_end(slot)
        if effect is not None:
            pool = self._long_pool if effect.long else self._pool
            pool.submit(self._run_effect, slot, effect, crowding)
            return
        self._run_jobs(slot, [job for job in writes if self._starts(job)], [job for job in reads if self._starts(job)])
        self._put_back(slot)

    def _run_jobs(self, slot: Slot, writes: list[WriteJob], reads: list[ReadJob]) -> None:
        branch = slot.branch
        assert branch is not None  # noqa: S101 - the turn began with an open branch
        jobs: list[WriteJob | ReadJob] = [*writes, *reads]
        try:
            if writes:
                self._waker.make_file(branch).commit(writes)
            for read in reads:
                (branch.handle or self._nothing()).read(read)
        except Exception as error:  # noqa: BLE001 - the file cannot be opened, or a fault of ours
            for job in jobs:
                fail(job, error)
            self.tend(branch, self.sleep)
            return
        if not branch.tail.clean:
            self._publisher.notice(branch)
        foldable = not slot.folding and not branch.aside and branch.failures == 0
        if foldable and branch.handle is not None and branch.handle.log_is_long:
            slot.folding = True
            self.tend(branch, partial(self._fold, slot))

    def _starts(self, job: WriteJob | ReadJob) -> bool:
        if not job.future.set_running_or_notify_cancel():
            return False
        if job.deadline is not None and self._ambient.monotonic() >= job.deadline:
            fail(job, RequestTimeout("the request waited longer than its time budget; it changed nothing"))
            return False
        return True

    def _nothing(self) -> Handle:
        """What a reader sees of a branch that nobody has written to."""
        if self._unwritten is None:
            self._unwritten = Handle(self._schema, self._ambient, None)
        return self._unwritten

    # --- effects, on the background pool ---------------------------------------------------------

    def _run_effect(self, slot: Slot, effect: Effect, crowding: Slot | None) -> None:
        try:
            if crowding is not None:
                self._make_way(crowding)
            effect.run()
        finally:
            self._put_back(slot)

    def _make_way(self, slot: Slot) -> None:
        try:
            if slot.branch is not None:
                self._ship_and_sleep(slot.branch)
        except Exception as error:  # noqa: BLE001 - there is nobody to tell but the log
            log.warning("not closed", database=slot.ref.uuid, branch=slot.ref.branch, error=str(translate(error)))
        finally:
            self._put_back(slot)

    def _waking(self, slot: Slot) -> Effect:
        def wake() -> None:
            try:
                self._awake(slot)
            except Exception as error:  # noqa: BLE001 - whoever waits for the branch hears of it
                with self._wake:
                    jobs: list[WriteJob | ReadJob] = [*slot.writes, *slot.reads]
                    slot.writes.clear()
                    slot.reads.clear()
                for job in jobs:
                    if job.future.set_running_or_notify_cancel():
                        fail(job, error)

        return Effect(wake, wakes=True)

    def _awake(self, slot: Slot) -> Branch:
        """The slot's branch, woken if it sleeps."""
        branch = slot.branch
        if branch is None:
            branch = self._waker.wake(slot.ref)
            with self._wake:
                slot.branch = branch
                self._unshipped.pop(slot.ref, None)
                slot.folding = slot.served = False
                self._open[slot] = None
                slot.used_at = self._ambient.monotonic()
            if not branch.tail.clean:
                self._publisher.notice(branch)
        return branch

    def _fold(self, slot: Slot, branch: Branch) -> None:
        """Ship the rest of a long log and write it back into the file, which only this handle reads."""
        try:
            self._publisher.ship_alone(branch)
            if branch.tail.clean and branch.handle is not None:
                branch.handle.fold()
                if branch.tail.broken:  # others have written to the file
                    self._publisher.notice(branch)
        finally:
            slot.folding = False

    def _sweep(self, look: Sweep, branch: Branch) -> None:
        if branch.handle is None or branch.fenced:
            return
        looking = ReadJob(look, None)
        branch.handle.read(looking)
        work = looking.future.result().value
        if work is not None:
            job = WriteJob(work, None)
            self._run_jobs(self._slots[branch.ref], [job], [])
            job.future.result()

    def _sleep_unless_used(self, slot: Slot, before: float, branch: Branch) -> None:
        if slot.used_at <= before and not (slot.writes or slot.reads):
            self._ship_and_sleep(branch)

    def _ship_and_sleep(self, branch: Branch) -> None:
        """Ship what can be shipped; what cannot stays in the log and is found when the branch wakes."""
        try:
            # On the way out one failure is enough: waiting for each in turn could take many minutes.
            if not self._closing or self._publisher.stats.failures == self._failures_before_closing:
                self._publisher.ship_alone(branch)
        except Exception as error:  # noqa: BLE001 - the object store is down; nothing is lost
            log.warning("not shipped", database=branch.ref.uuid, branch=branch.ref.branch, error=str(translate(error)))
        self.sleep(branch)

    # --- slots -----------------------------------------------------------------------------------

    def _slot(self, ref: BranchRef) -> Slot:
        if self._closing:
            raise Unavailable("the node is shutting down")
        slot = self._slots.get(ref)
        if slot is None:
            slot = self._slots[ref] = Slot(ref)
        return slot

    def _add_effect(self, slot: Slot, run: Callable[[], None], *, wakes: bool = False) -> None:
        slot.effects.append(Effect(run, wakes))
        self._make_ready(slot)

    @property
    def _full(self) -> bool:
        return len(self._open) + self._waking_now >= self._capacity

    def _crowding(self) -> Slot | None:
        """Who has to sleep before one more wakes, taken from its turns: the least recently used of the idle ones,
        or else of those who had a turn. None where there is room, or nobody can go now.
        """
        free = [slot for slot in self._open if not slot.taken and (slot.served or not slot.has_work)]
        if not self._full or not free:
            return None
        crowding = min(free, key=lambda slot: slot.has_work)
        crowding.taken = True
        self._ready.pop(crowding, None)
        return crowding

    def _make_ready(self, slot: Slot) -> None:
        if not slot.taken:
            self._ready[slot] = None
            self._wake.notify()

    def _put_back(self, slot: Slot) -> None:
        """After a turn or an effect: ready again where there is more to do, forgotten where there is nothing."""
        with self._wake:
            slot.taken = False
            self._waking_now -= slot.waking
            slot.waking = False
            if slot.has_work:
                self._make_ready(slot)
            elif slot.branch is None:
                self._slots.pop(slot.ref, None)
            if self._parked:
                parked = self._parked.popleft()
                parked.taken = False
                self._make_ready(parked)
            if self._closing:
                self._wake.notify()
