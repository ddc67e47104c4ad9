"""What a user's statements may take, while they run and on their connection only. Called by `run`.

The time budget is the engine's (`memoturn_storage.handle`). What it cannot stop is what SQLite does without
a pause; so values are small, patterns short, and statements not too deep. The worst single calls that these
limits leave take some 0.4 s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw

from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.sql import TEXT_BYTES
from memoturn_storage.connection import PAGE_SIZE

VALUE_BYTES = 2 << 20
MEMORY_BYTES = 256 << 20
WRITTEN_BYTES = 256 << 20

_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: VALUE_BYTES,
    apsw.SQLITE_LIMIT_SQL_LENGTH: TEXT_BYTES,
    apsw.SQLITE_LIMIT_COLUMN: 2_000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 250,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    apsw.SQLITE_LIMIT_VDBE_OP: 250_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 64,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 128,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: 32_766,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 64,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}

_STEPS_BETWEEN_LOOKS = 1_000
"""Virtual machine steps, of which some 10 write a row."""


@contextmanager
def bounded(connection: apsw.Connection, *, writing: bool) -> Iterator[None]:
    """Limit what the connection takes; what goes over it fails with an error of SQLite or `InvalidRequest`."""
    before = [(limit, connection.limit(limit, value)) for limit, value in _LIMITS.items()]
    _memory.limit()
    if writing:
        connection.set_progress_handler(_looking(connection), _STEPS_BETWEEN_LOOKS, id=_looking)
    try:
        yield
    finally:
        if writing:
            connection.set_progress_handler(None, id=_looking)
        _memory.release()
        for limit, value in before:
            connection.limit(limit, value)


def _looking(connection: apsw.Connection) -> Callable[[], bool]:
    """A progress handler that ends a statement once too much has been written to the log since now."""
    limit = connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0] + WRITTEN_BYTES // PAGE_SIZE

    def look() -> bool:
        if connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0] > limit:
            raise InvalidRequest(f"the batch writes more than {WRITTEN_BYTES >> 20} MiB; make it smaller")
        return False

    return look


class _Memory:
    """SQLite's bound on its memory, which is the process's: set while a user's statements run anywhere."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0

    def limit(self) -> None:
        with self._lock:
            self._running += 1
            apsw.hard_heap_limit(apsw.memory_used() + MEMORY_BYTES)

    def release(self) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                apsw.hard_heap_limit(0)


_memory = _Memory()
