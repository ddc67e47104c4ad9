"""One engine thread: the databases that are its own, their queues, their open handles.

A database always has the same worker. The worker takes the databases that have work in turn; a turn
commits up to `group` queued writes as one transaction, then answers the queued reads, so that a busy
database does not starve the others. Called by `memoturn_storage.engine`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memoturn_schemas.errors import Overloaded, RequestTimeout, Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.handle import Handle, ReadJob, WriteJob, fail
from memoturn_storage.schema import Schema


@dataclass(frozen=True, slots=True)
class Database:
    """Where one branch of one database lives on this node: `{directory}/{key}.db`."""

    key: str
    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / f"{self.key}.db"


@dataclass(slots=True)
class _Queue:
    database: Database
    writes: deque[WriteJob] = field(default_factory=deque)
    reads: deque[ReadJob] = field(default_factory=deque)

    def drop_cancelled(self) -> None:
        self.writes = deque(job for job in self.writes if not job.future.cancelled())

    def take(self, limit: int) -> tuple[list[WriteJob], list[ReadJob]]:
        return _take(self.writes, limit), _take(self.reads, limit)


class Worker:
    """Runs jobs on its own thread, or (`inline`) on the caller's."""

    def __init__(
        self, schema: Schema, ambient: Ambient, *, capacity: int, queue_depth: int, group: int, inline: bool
    ) -> None:
        self._schema = schema
        self._ambient = ambient
        self._capacity = capacity
        self._queue_depth = queue_depth
        self._group = group
        self._handles: OrderedDict[str, Handle] = OrderedDict()
        self._unwritten: Handle | None = None
        self._wake = threading.Condition()
        self._queues: dict[str, _Queue] = {}
        self._closing = False
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(target=self._run, name="memoturn-engine", daemon=True)
            self._thread.start()

    # --- called from any thread ------------------------------------------------------------------

    def submit(self, database: Database, job: WriteJob | ReadJob) -> None:
        """Queue a job; its future is resolved by the worker.

        Raises:
            Overloaded: the database has `queue_depth` writes waiting.
            Unavailable: the engine is shutting down.
        """
        with self._wake:
            if self._closing:
                raise Unavailable("the node is shutting down")
            queue = self._queues.get(database.key)
            if queue is None:
                queue = self._queues[database.key] = _Queue(database)
            if isinstance(job, ReadJob):
                queue.reads.append(job)
            else:
                if len(queue.writes) >= self._queue_depth:
                    queue.drop_cancelled()
                if len(queue.writes) >= self._queue_depth:
                    raise Overloaded(f"the database has {self._queue_depth} writes waiting; try again")
                queue.writes.append(job)
            self._wake.notify()
        if self._thread is None:
            self._drain()

    def open_handles(self) -> int:
        return len(self._handles)

    def waiting(self) -> int:
        with self._wake:
            return sum(len(queue.writes) + len(queue.reads) for queue in self._queues.values())

    def close(self) -> None:
        """Finish what is queued, then close every file."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is None:
            self._close_handles()
        else:
            self._thread.join()

    # --- called on the worker's thread -----------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queues and not self._closing:
                    self._wake.wait()
                if not self._queues:
                    break
            self._drain()
        self._close_handles()

    def _drain(self) -> None:
        while (turn := self._next_turn()) is not None:
            self._take_turn(*turn)

    def _next_turn(self) -> tuple[Database, list[WriteJob], list[ReadJob]] | None:
        with self._wake:
            key = next(iter(self._queues), None)
            if key is None:
                return None
            queue = self._queues.pop(key)
            writes, reads = queue.take(self._group)
            if queue.writes or queue.reads:
                self._queues[key] = queue
            return queue.database, writes, reads

    def _take_turn(self, database: Database, writes: list[WriteJob], reads: list[ReadJob]) -> None:
        live_writes = [write for write in writes if self._starts(write)]
        live_reads = [read for read in reads if self._starts(read)]
        try:
            if live_writes:
                self._handle_for_writing(database).commit(live_writes)
            if live_reads:
                handle = self._handle_for_reading(database)
                for read in live_reads:
                    handle.read(read)
        except Exception as error:  # noqa: BLE001 - the file cannot be opened, or a fault of ours
            self._drop(database)
            unresolved: list[WriteJob | ReadJob] = [*live_writes, *live_reads]
            for job in unresolved:
                fail(job, error)

    def _starts(self, job: WriteJob | ReadJob) -> bool:
        if not job.future.set_running_or_notify_cancel():
            return False
        if job.deadline is not None and self._ambient.monotonic() >= job.deadline:
            fail(job, RequestTimeout("the request waited longer than its time budget; it changed nothing"))
            return False
        return True

    def _handle_for_writing(self, database: Database) -> Handle:
        handle = self._open_handle(database)
        if handle is None:
            path = database.path
            if not path.exists():
                self._schema.create(path, self._ambient)
            handle = self._remember(database, Handle(self._schema, self._ambient, path))
        return handle

    def _handle_for_reading(self, database: Database) -> Handle:
        handle = self._open_handle(database)
        if handle is not None:
            return handle
        path = database.path
        if path.exists():
            return self._remember(database, Handle(self._schema, self._ambient, path))
        if self._unwritten is None:
            self._unwritten = Handle(self._schema, self._ambient, None)
        return self._unwritten

    def _open_handle(self, database: Database) -> Handle | None:
        handle = self._handles.get(database.key)
        if handle is not None:
            self._handles.move_to_end(database.key)
        return handle

    def _remember(self, database: Database, handle: Handle) -> Handle:
        self._handles[database.key] = handle
        while len(self._handles) > self._capacity:
            self._handles.popitem(last=False)[1].close()
        return handle

    def _drop(self, database: Database) -> None:
        handle = self._handles.pop(database.key, None)
        if handle is not None:
            handle.close()

    def _close_handles(self) -> None:
        while self._handles:
            self._handles.popitem()[1].close()
        if self._unwritten is not None:
            self._unwritten.close()
            self._unwritten = None


def _take(jobs: deque[Any], limit: int) -> list[Any]:
    return [jobs.popleft() for _ in range(min(limit, len(jobs)))]
