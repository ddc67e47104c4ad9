"""An open database: one connection, its transactions, and what the layers above keep in memory for it.

A handle is used by one thread at a time, so there are no locks here. Every read and write starts by
asking the file for its txid, so that nothing kept in memory outlives a change made elsewhere. Called by
`memoturn_storage.worker`.

Group commit: `commit` runs up to a group of jobs in one transaction, each in a savepoint. One that
fails rolls back alone with its own error; the others share the txid. A failure on which SQLite rolls
the whole transaction back (an interrupted write, a full disk) makes the others run again without it,
so a job must be a function of the transaction that it is given and of nothing it changes outside.

What is committed stays in the write-ahead log until the object store has it (`memoturn_storage.tail`);
only then may `fold` write it back into the file.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import apsw

from memoturn_schemas.errors import Internal, Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.connection import BUSY_TIMEOUT_MS, CHECKPOINT_FRAMES, open_database
from memoturn_storage.errors import translate
from memoturn_storage.schema import Schema
from memoturn_storage.tail import Tail

T = TypeVar("T")
V = TypeVar("V")

_Key = tuple[type, Hashable]

_STEPS_BETWEEN_DEADLINE_CHECKS = 4_000
"""Virtual machine steps, some 100 µs of them: a bound on how late a deadline is noticed."""


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What a job returned, and the transaction that it reflects."""

    value: T
    txid: int


@dataclass(slots=True)
class _Cached:
    txid: int
    value: Any


class Snapshot:
    """One consistent state of a database, for the length of one read."""

    def __init__(
        self,
        connection: apsw.Connection,
        txid: int,
        ambient: Ambient,
        caches: dict[_Key, _Cached],
        *,
        hurried: bool = False,
    ) -> None:
        self.connection = connection
        self.hurried = hurried
        """Whether others wait for it, and what would take long is better refused (`RequestTimeout`)."""
        self.txid = txid
        self.ambient = ambient
        self._caches = caches

    def cached(self, kind: type[T], build: Callable[[apsw.Connection], T], *, of: Hashable = None) -> T:
        """What `build` makes of this state; built once and kept in step by `Transaction.maintain`.

        There is one of each kind, or one for each `of`.
        """
        entry = self._caches.get((kind, of))
        if entry is None or entry.txid != self.txid:
            entry = self._caches[kind, of] = _Cached(self.txid, build(self.connection))
        return cast(T, entry.value)


class Transaction:
    """One job's part of a group commit."""

    def __init__(self, connection: apsw.Connection, ambient: Ambient, *, hurried: bool = False) -> None:
        self.connection = connection
        self.hurried = hurried
        """As of a `Snapshot`."""
        self.ambient = ambient
        self.maintenance: list[tuple[_Key, Callable[[Any], None]]] = []
        self.rewrites = False

    def maintain(self, kind: type[T], change: Callable[[T], None], *, of: Hashable = None) -> None:
        """Apply `change` to the cached value of `kind`, if there is one, once the commit has landed.

        Whoever writes rows that a cached value mirrors must call this with the same change.
        """
        self.maintenance.append(((kind, of), change))

    def rewrite(self) -> None:
        """Nothing cached outlives this commit: for whoever writes rows of any table, and not by `maintain`."""
        self.rewrites = True


@dataclass(slots=True)
class WriteJob:
    work: Callable[[Transaction], Any]
    deadline: float | None
    durable: bool = False
    """Whether to answer only once the object store has the state that the answer reflects."""
    slice_s: float | None = None
    """How long it may run where others wait for it; it then fails as if its time were over."""
    future: Future[Result[Any]] = field(default_factory=Future)


@dataclass(slots=True)
class ReadJob:
    work: Callable[[Snapshot], Any]
    deadline: float | None
    durable: bool = False
    slice_s: float | None = None
    future: Future[Result[Any]] = field(default_factory=Future)


class Handle:
    """An open database file, or (`path` None) the empty state of one that does not exist yet.

    Args:
        tail: notes what is committed; None only where nothing is written.
        backlog_bytes: of unshipped log, above which writes are refused.
    """

    def __init__(
        self,
        schema: Schema,
        ambient: Ambient,
        path: Path | None,
        tail: Tail | None = None,
        *,
        backlog_bytes: int = 64 << 20,
    ) -> None:
        self._schema = schema
        self._ambient = ambient
        self._tail = tail
        self._backlog_bytes = backlog_bytes
        self._deadline: float | None = None
        self._caches: dict[_Key, _Cached] = {}
        self._settled: int | None = None
        self._migrated: apsw.Connection | None = None
        self._migrated_txid = 0
        self._frames = 0
        self._connection = schema.empty() if path is None else open_database(path, sync=False)
        # Folding on close would take the only copy of unshipped transactions out of the log.
        self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connection.set_wal_hook(self._note_length)
        self._connection.set_progress_handler(self._past_deadline, _STEPS_BETWEEN_DEADLINE_CHECKS)

    def close(self, *, discard: bool = False) -> None:
        """Close the file; without `discard`, a log that is shipped is folded back into it."""
        if self._migrated is not None:
            self._migrated.close()
        if self._tail is not None and self._tail.clean and not discard:
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        self._connection.close()

    @property
    def txid(self) -> int:
        return _txid(self._connection)

    def image(self) -> bytes:
        """The database as it stands, as a file."""
        return self._connection.serialize("main")

    # --- the log ---------------------------------------------------------------------------------

    @property
    def log_is_long(self) -> bool:
        return self._frames >= CHECKPOINT_FRAMES

    def fold(self) -> None:
        """Write the log back into the file and empty it; nothing of it may be unshipped.

        Raises:
            apsw.BusyError: another program is reading the file.
        """
        # Whoever reads the file from outside may take long; the log then waits for the next fold, and nobody for it.
        self._connection.set_busy_timeout(0)
        try:
            frames, _ = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        self._frames = 0
        if self._tail is not None:
            self._tail.folded(frames)

    @property
    def size(self) -> int:
        """Bytes of the database."""
        return _integer(self._connection, "PRAGMA page_count") * _integer(self._connection, "PRAGMA page_size")

    def vacuum(self) -> None:
        """Write the file anew, without what nothing uses, and have the tail go on from it; all before is shipped."""
        self._connection.execute("VACUUM")
        self.restart_tail()

    def restart_tail(self) -> None:
        """Have the tail go on from the whole state, under a txid of its own."""
        txid = _integer(self._connection, "UPDATE __memoturn_txid SET txid = txid + 1 RETURNING txid")
        self._settled = None
        self._caches.clear()
        if self._tail is not None:
            self._tail.restart(self.image(), txid, self._frames, self._ambient.now_ms())

    def _note_length(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        self._frames = frames
        return apsw.SQLITE_OK

    # --- reading ---------------------------------------------------------------------------------

    def read(self, job: ReadJob) -> None:
        """Run one read in a transaction of its own and resolve its future."""
        try:
            with self._budget(job):
                connection = self._begin_reading()
                txid = _txid(connection)
                value = job.work(
                    Snapshot(connection, txid, self._ambient, self._caches, hurried=job.slice_s is not None)
                )
                self._settled = txid if connection is self._connection else None
        except Exception as error:  # noqa: BLE001 - every failure of a job is its caller's to hear
            fail(job, error)
        else:
            self._resolve(job, Result(value, txid))
        finally:
            for used in (self._connection, self._migrated):
                if used is not None and used.in_transaction:
                    used.execute("ROLLBACK")

    def _begin_reading(self) -> apsw.Connection:
        """A connection inside a transaction on the newest state, in the newest schema."""
        self._connection.execute("BEGIN")
        if self._schema.version_of(self._connection) == self._schema.version:
            return self._connection
        txid = _txid(self._connection)
        self._connection.execute("ROLLBACK")
        if self._migrated is None or self._migrated_txid != txid:
            if self._migrated is not None:
                self._migrated.close()
            self._migrated = self._schema.migrated_copy(self._connection)
            self._migrated.set_progress_handler(self._past_deadline, _STEPS_BETWEEN_DEADLINE_CHECKS)
            self._migrated_txid = txid
        self._migrated.execute("BEGIN")
        return self._migrated

    # --- writing ---------------------------------------------------------------------------------

    def commit(self, jobs: Sequence[WriteJob]) -> None:
        """Run the jobs as one transaction and resolve their futures once it is on disk, or shipped."""
        pending = list(jobs)
        while pending:
            try:
                self._begin_writing()
                pending = self._commit_once(pending)
            except Exception as error:  # noqa: BLE001 - BEGIN or COMMIT failed: the group shares it
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                for job in pending:
                    fail(job, error)
                pending = []

    def _begin_writing(self) -> None:
        tail = self._tail
        if tail is None:
            raise Internal("a handle without a tail was asked to write")
        if tail.log_bytes > self._backlog_bytes:
            raise Unavailable(
                f"the object store does not take what is written: {tail.commits} transactions "
                f"({tail.log_bytes >> 20} MiB of log) wait for it, and no more are accepted"
            )
        if not tail.begun:
            tail.begin(self.image())

    def _commit_once(self, jobs: list[WriteJob]) -> list[WriteJob]:
        """One attempt; returns the jobs to run again where SQLite rolled all of them back."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        self._schema.migrate(connection)
        tables_before = _integer(connection, "PRAGMA schema_version")
        done: list[tuple[WriteJob, Any, Transaction]] = []
        changed = False
        for position, job in enumerate(jobs):
            transaction = Transaction(connection, self._ambient, hurried=job.slice_s is not None)
            changes_before = connection.total_changes()
            connection.execute("SAVEPOINT job")
            try:
                with self._budget(job):
                    value = job.work(transaction)
            except Exception as error:  # noqa: BLE001 - every failure of a job is its caller's to hear
                fail(job, error)
                if not connection.in_transaction:
                    return [other for other, *_ in done] + jobs[position + 1 :]
                connection.execute("ROLLBACK TO job")
            else:
                changed = changed or connection.total_changes() != changes_before
                done.append((job, value, transaction))
            connection.execute("RELEASE job")
        # SQLite counts changed rows; a statement that only changes the schema shows in the schema's version.
        if changed or _integer(connection, "PRAGMA schema_version") != tables_before:
            txid = _integer(connection, "UPDATE __memoturn_txid SET txid = txid + 1 RETURNING txid")
            self._settled = None  # until the caches are brought forward
            connection.execute("COMMIT")
            if self._tail is not None:
                self._tail.note(txid, self._frames, self._ambient.now_ms())
            self._bring_caches_forward(txid, [transaction for *_, transaction in done])
        else:
            txid = _txid(connection)
            connection.execute("ROLLBACK")
        for job, value, _ in done:
            self._resolve(job, Result(value, txid))
        return []

    def _resolve(self, job: WriteJob | ReadJob, result: Result[Any]) -> None:
        if not (job.durable and self._tail is not None and self._tail.wait(result.txid, job.future, result)):
            job.future.set_result(result)

    def _bring_caches_forward(self, txid: int, transactions: Sequence[Transaction]) -> None:
        if any(transaction.rewrites for transaction in transactions):
            self._caches = {}
        self._caches = {key: entry for key, entry in self._caches.items() if entry.txid == txid - 1}
        for transaction in transactions:
            for key, change in transaction.maintenance:
                if key in self._caches:
                    change(self._caches[key].value)
        for entry in self._caches.values():
            entry.txid = txid
        self._settled = txid

    def peek(self, kind: type[T], look: Callable[[T], V | None], *, of: Hashable = None) -> Result[V] | None:
        """What `look` finds in a cached value that is in step with the newest commit; from any thread.

        None where there is none, where `look` finds nothing, and while a commit is being brought forward. `look`
        may run beside a change of the value and must bear it.
        """
        txid = self._settled
        entry = self._caches.get((kind, of))
        if txid is None or entry is None or entry.txid != txid:
            return None
        value = look(entry.value)
        return None if value is None or self._settled != txid else Result(value, txid)

    # --- bounds ----------------------------------------------------------------------------------

    @contextmanager
    def _budget(self, job: WriteJob | ReadJob) -> Iterator[None]:
        self._deadline = job.deadline
        if job.slice_s is not None:
            slice_end = self._ambient.monotonic() + job.slice_s
            self._deadline = slice_end if job.deadline is None else min(slice_end, job.deadline)
        try:
            yield
        finally:
            self._deadline = None

    def _past_deadline(self) -> bool:
        return self._deadline is not None and self._ambient.monotonic() >= self._deadline


def _txid(connection: apsw.Connection) -> int:
    return _integer(connection, "SELECT txid FROM __memoturn_txid")


def _integer(connection: apsw.Connection, sql: str) -> int:
    value = connection.execute(sql).get
    if not isinstance(value, int):
        raise Internal("the database file holds no transaction id; it was not made by Memoturn")
    return value


def fail(job: WriteJob | ReadJob, error: Exception) -> None:
    """Resolve the job's future with the error, unless it is resolved already."""
    if not job.future.done():
        job.future.set_exception(translate(error))
