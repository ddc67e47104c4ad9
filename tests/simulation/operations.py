"""What clients and the upkeep ask of a process, and what they may be answered.

Each operation says what it was answered, for the trace, and raises `Violation` where the answer or what is
found afterwards breaks a promise. The model judges what lands in the store; here is judged what a client
is told. Called by `simulation.steps` and by the state machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import apsw

from memoturn_schemas.errors import AlreadyExists, BranchNotFound, Conflict, Internal, MemoturnError, Unavailable
from memoturn_storage.branch import Branch
from memoturn_storage.branching import Moment
from memoturn_storage.handle import Result, Snapshot
from memoturn_storage.leases.lease import OwnedElsewhere
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import MAIN, BranchRef
from simulation.model import NOTHING, Intent, Line, Truth, Violation, require, rows
from simulation.processes import IDLE, Change, Process
from simulation.world import Session, World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """One statement; where it `fails`, all that it did is undone."""

    sql: str
    bindings: tuple[object, ...]
    change: Change
    fails: bool = False


def put(key: int, value: str) -> Job:
    return Job(
        "INSERT INTO notes (k, v) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
        (key, value),
        lambda content: {**content, key: value},
    )


def remove(first: int, last: int) -> Job:
    return Job(
        "DELETE FROM notes WHERE k BETWEEN ? AND ?",
        (first, last),
        lambda content: {key: value for key, value in content.items() if not first <= key <= last},
    )


def failing(job: Job) -> Job:
    return replace(job, fails=True)


class Refused(Exception):
    """What a failing job raises."""


# --- reading and writing -------------------------------------------------------------------------


def write(world: World, process: Process, ref: BranchRef, jobs: Sequence[Job], *, durable: bool, by: Session) -> str:
    """Commit the jobs as one group; each but the failing ones must be acknowledged."""
    futures: list[Future[Result[None]]] = []

    def submit(_branch: Branch) -> None:
        for job in jobs:
            future = process.engine.write(ref, _work(process, job), durable=durable)
            if not job.fails:
                future.add_done_callback(acknowledged)
            futures.append(future)

    def acknowledged(future: Future[Result[None]]) -> None:
        if future.exception() is None and process.alive:
            _acknowledged(world, process, ref, future.result().txid, durable, by)

    def call() -> str:
        process.ran.clear()
        process.engine.exclusive(ref, submit).result(0)
        results = [_result(future) for job, future in zip(jobs, futures, strict=True) if not job.fails]
        refused = [future.exception(0) for job, future in zip(jobs, futures, strict=True) if job.fails]
        fine = all(isinstance(error, Internal) and isinstance(error.__cause__, Refused) for error in refused)
        require(fine or results == [], "a failing job did not fail by itself")
        return " ".join(sorted({str(result.txid) for result in results}))

    return _ask(world, process, Intent("write", ref), call, _missing(world, ref))


def read(world: World, process: Process, ref: BranchRef, *, durable: bool, by: Session) -> str:
    """Read everything; with the transaction that the client has seen as the least that it wants."""

    def look(snapshot: Snapshot) -> None:
        if process.alive:
            head = process.disk.lines[ref].head
            require(snapshot.txid == head.txid, f"a read saw transaction {snapshot.txid}, not {head.txid}")
            require(rows(snapshot.connection) == head.content, f"a read of transaction {snapshot.txid} saw other rows")

    def answered(future: Future[Result[None]]) -> None:
        if future.exception() is None and process.alive and durable:
            _acknowledged(world, process, ref, future.result().txid, durable, by)

    def call() -> str:
        future = process.engine.read(ref, look, durable=durable)
        future.add_done_callback(answered)
        txid = _result(future).txid
        seen = by.seen.get(ref, NOTHING)
        if not process.alive:
            return "died"
        if txid < seen.txid:
            return f"{txid}, not yet {seen.txid}"
        line, truth = process.disk.lines[ref], world.model.truth(ref)
        if truth is not None and truth.states.get(seen.txid) is seen and line.base is truth.event:
            require(line.states.get(seen.txid) is seen, f"a read at {txid} went back below {seen.txid}")
        by.seen[ref] = line.states.get(txid, NOTHING)
        return str(txid)

    return _ask(world, process, Intent("read", ref), call, _missing(world, ref))


def _work(process: Process, job: Job) -> Callable[[Any], None]:
    work = process.observed(job.sql, job.bindings, job.change)
    if not job.fails:
        return work

    def failing(transaction: Any) -> None:
        transaction.connection.execute(job.sql, job.bindings)
        raise Refused

    return failing


def _acknowledged(world: World, process: Process, ref: BranchRef, txid: int, durable: bool, by: Session) -> None:
    """A client is told that a state is committed, or that the store has it; at this moment that must be so."""
    line = process.disk.lines[ref]
    state = line.states.get(txid)
    by.seen[ref] = state or NOTHING
    if txid > line.head.txid or (state is None and txid > 0):
        world.broken.append(Violation(f"transaction {txid} of {ref.branch} was acknowledged and is not committed"))
    elif durable and txid > 0 and not _in_store(world, ref, txid, line):
        world.broken.append(Violation(f"transaction {txid} of {ref.branch} was acknowledged and is not in the store"))


def _in_store(world: World, ref: BranchRef, txid: int, line: Line) -> bool:
    state, truth = line.states[txid], world.model.truth(ref)
    if truth is not None and line.base is truth.event:
        # A state that another program's change has overtaken is restorable no more, but what follows it is.
        return truth.states.get(txid) is state or (txid not in truth.states and truth.head.txid > txid)
    # Where others have carried on, who changes nothing hears of a state that once was there.
    return any(known is not None and known.states.get(txid) is state for known in world.model.truths.get(ref, []))


# --- branching -----------------------------------------------------------------------------------


def fork(world: World, process: Process, parent: BranchRef, name: str, at: Moment | None) -> str:
    child = BranchRef(parent.uuid, name)
    line = process.disk.lines.get(parent)
    least = NOTHING if line is None or process.branch(parent) is None else line.head
    intent = _intent(world, "fork", child)

    def call() -> str:
        forked = process.branching.fork(parent, name, at)
        truth = world.model.truth(parent)
        if process.alive and at is None and line is not None and truth is not None and line.base is truth.event:
            require(forked.fork_txid >= least.txid, f"a fork of {forked.fork_txid} lacks the write {least.txid} before")
        if process.alive and at is not None:
            _meant(world, parent, intent, at, forked.fork_txid)
        return str(forked.fork_txid)

    def excused(error: MemoturnError) -> bool:
        taken = any(truth is not None and truth.alive for truth in world.model.during(child, intent.began))
        return (isinstance(error, AlreadyExists) and taken) or _excused(world, parent, intent, at, error)

    return _ask(world, process, intent, call, excused)


def rewind(world: World, process: Process, ref: BranchRef, to: Moment) -> str:
    intent = _intent(world, "rewind", ref)

    def call() -> str:
        rewound = process.branching.rewind(ref, to)
        if process.alive:
            _meant(world, ref, intent, to, rewound.txid)
        return str(rewound.txid)

    return _ask(world, process, intent, call, lambda error: _excused(world, ref, intent, to, error))


def checkpoint(world: World, process: Process, ref: BranchRef, name: str) -> str:
    intent = _intent(world, "checkpoint", ref)
    return _ask(
        world,
        process,
        intent,
        lambda: str(process.branching.checkpoint(ref, name)),
        lambda error: _excused(world, ref, intent, Moment(txid=1), error),
    )


def promote(world: World, process: Process, ref: BranchRef) -> str:
    intent = _intent(world, "promote", BranchRef(ref.uuid, MAIN))
    missing = _missing(world, ref)
    return _ask(world, process, intent, lambda: str(process.branching.promote(ref).txid), missing)


def delete(world: World, process: Process, ref: BranchRef) -> str:
    intent = _intent(world, "delete", ref)

    def call() -> str:
        if process.branching.delete(ref):
            return "deleted"
        gone = [truth is None or not truth.alive for truth in world.model.during(ref, intent.began)]
        require(any(gone) or not process.alive, f"{ref.branch} was said not to be there")
        return "was not there"

    return _ask(world, process, intent, call, lambda _error: False)


def _meant(world: World, ref: BranchRef, intent: Intent, moment: Moment, txid: int) -> None:
    possible = [_resolved(truth, moment) for truth in world.model.during(ref, intent.began) if truth is not None]
    require(txid in possible, f"{moment} of {ref.branch} was taken for {txid}, not for one of {possible}")


def _resolved(truth: Truth, moment: Moment) -> int | None:
    """The transaction that is meant, None where there is none in this history."""
    if moment.checkpoint is not None and moment.checkpoint in truth.manifest.checkpoints:
        return truth.manifest.checkpoints[moment.checkpoint]
    if moment.at_ms is not None:
        return truth.txid_at(moment.at_ms)
    there = moment.txid in truth.states or (moment.txid == 0 and not truth.states)
    return moment.txid if there else None


def _excused(world: World, ref: BranchRef, intent: Intent, moment: Moment | None, error: MemoturnError) -> bool:
    """Whether the branch had no such moment, at some time since the operation began."""
    found = world.model.during(ref, intent.began)
    if moment is None:
        return isinstance(error, BranchNotFound) and _missing(world, ref, intent.began)(error)
    absent = any(truth is None or not truth.alive or not _resolved(truth, moment) for truth in found)
    return isinstance(error, BranchNotFound | Conflict) and absent


def _missing(world: World, ref: BranchRef, began: int | None = None) -> Callable[[MemoturnError], bool]:
    since = world.model.written if began is None else began

    def excused(error: MemoturnError) -> bool:
        gone = any(truth is None or not truth.alive for truth in world.model.during(ref, since))
        return isinstance(error, BranchNotFound) and gone and ref.branch != MAIN

    return excused


# --- upkeep --------------------------------------------------------------------------------------


def compact(world: World, process: Process, ref: BranchRef) -> str:
    intent = _intent(world, "compact", ref)
    return _ask(world, process, intent, lambda: str(process.compactor.compact(ref)), _absent(world, ref, intent))


def retain(world: World, process: Process, ref: BranchRef, fine_ms: int, snapshots_ms: int) -> str:
    since_ms = world.ambient.now_ms() - fine_ms if fine_ms else 0
    intent = replace(_intent(world, "retain", ref), since_ms=since_ms)

    def call() -> str:
        return str(process.compactor.retain(ref, fine_ms=fine_ms, snapshots_ms=snapshots_ms))

    return _ask(world, process, intent, call, _absent(world, ref, intent))


def collect(world: World, process: Process, uuid: str) -> str:
    intent = _intent(world, "collect", None)
    return _ask(
        world, process, intent, lambda: f"{process.collector.collect(uuid).objects} objects", lambda _error: False
    )


def drill(world: World, process: Process, ref: BranchRef) -> str:
    def call() -> str:
        result = process.drill.run(ref)
        require(result.ok is not False, f"the drill found: {result.problem}")
        return str(result.txid)

    return _ask(world, process, _intent(world, "drill", ref), call, lambda _error: False)


def tick(world: World, process: Process) -> str:
    """What happens in the background."""

    def call() -> str:
        process.engine.run_due()
        return f"{len(process.branches())} open"

    return _ask(world, process, _intent(world, "tick", None), call, lambda _error: False)


def doze(world: World, process: Process, ref: BranchRef) -> str:
    """Put one branch to sleep."""

    def call() -> str:
        branch = process.branch(ref)
        if branch is None:
            return "sleeps"
        process.engine.exclusive(ref, process._worker._ship_and_sleep).result(0)
        return "asleep"

    return _ask(world, process, _intent(world, "doze", ref), call, _missing(world, ref))


def stop(world: World, process: Process) -> str:
    """Stop as a node is asked to."""

    def call() -> str:
        process.engine.close()
        process.alive = False
        return "stopped"

    return _ask(world, process, _intent(world, "stop", None), call, lambda _error: False)


def another_program_folds(world: World, process: Process, ref: BranchRef, mode: int) -> str:
    """As `sqlite3` does when somebody looks into a file with it."""

    def call() -> str:
        files = LocalFiles(process.disk.directory, ref)
        if not files.exist():
            return "no file"
        other = apsw.Connection(str(files.database), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            other.execute("SELECT count(*) FROM notes").fetchall()
            return str(other.wal_checkpoint(mode=mode))
        finally:
            other.close()

    return _ask(world, process, _intent(world, "fold", ref), call, lambda _error: False)


def vacuum(world: World, process: Process, ref: BranchRef) -> str:
    """Rewrite the file without a transaction number.

    What is changed before the first commit that a log gets, and is folded by yet another program before that
    commit, is not noticed by the engine, and not tried here.
    """

    def effect(branch: Branch) -> None:
        if branch.handle is not None and branch.tail._salts is not None:
            branch.handle._connection.execute("VACUUM")
            process.disk.lines[ref].rewritten = True

    def call() -> str:
        process.engine.exclusive(ref, effect).result(0)
        return "done"

    return _ask(world, process, _intent(world, "vacuum", ref), call, _missing(world, ref))


# --- asking --------------------------------------------------------------------------------------


def _absent(world: World, ref: BranchRef, intent: Intent) -> Callable[[MemoturnError], bool]:
    def excused(error: MemoturnError) -> bool:
        gone = any(truth is None or not truth.alive for truth in world.model.during(ref, intent.began))
        return isinstance(error, BranchNotFound) and gone

    return excused


def _intent(world: World, kind: str, ref: BranchRef | None) -> Intent:
    return Intent(kind, ref, world.model.written)


def _result(future: Future[T]) -> T:
    require(future.done(), "an answer never came")
    return future.result(0)


def _ask(
    world: World, process: Process, intent: Intent, call: Callable[[], str], excused: Callable[[MemoturnError], bool]
) -> str:
    """What a client hears; a failure that nothing excuses is a breach."""
    process.intent = intent
    try:
        return call()
    except Violation:
        raise
    except OwnedElsewhere as error:
        return f"owned by {error.address}"
    except MemoturnError as error:
        if isinstance(error.__cause__, Violation):
            raise error.__cause__ from None
        trouble = isinstance(error, Unavailable) and not world.calm
        if process.alive and not trouble and not excused(error):
            raise Violation(f"{intent.kind} of {intent.ref} failed: {error!r}") from error
        return type(error).__name__
    finally:
        process.intent = IDLE
