"""Running a batch of a user's statements on a connection that is inside a transaction.

Whether a statement writes is what SQLite says of it once it is compiled. Whatever goes wrong ends the batch
with an error that names the statement; the caller takes the transaction back. Called by `query`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from memoturn_core.sql.bounds import MEMORY_BYTES, bounded
from memoturn_core.sql.guard import OWN_CHECKS, TABLE_LIST, Guard
from memoturn_core.sql.text import is_reserved
from memoturn_core.sql.values import Parameters, outward
from memoturn_schemas.errors import Forbidden, InvalidRequest
from memoturn_schemas.sql import QueryResult

ROWS = 10_000
"""Of one result at most."""
RESULT_BYTES = 32 << 20
"""Of all results at most."""

# The flag is a hint of little effect; ours are compiled without it, so the two are cached apart.
_USERS = apsw.SQLITE_PREPARE_PERSISTENT

_THEIRS = (
    apsw.SQLError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.RangeError,
)
"""SQLite's errors that are about the statement and its parameters."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One `q` of a request, and what to bind; several statements in it take a list's values in turn."""

    text: str
    parameters: Parameters


class _Mutates(Exception):
    """A statement is not read-only."""


def run(
    connection: apsw.Connection, batch: Sequence[Statement], *, writing: bool, hurried: bool = False
) -> list[QueryResult] | None:
    """What each statement answers; without `writing`, None as soon as one is met that is not read-only.

    Raises:
        RequestTimeout: others wait (`hurried`), and a statement may take long without a pause.
        Forbidden: a statement touches what it may not.
        InvalidRequest: a statement fails, or takes or answers too much.
        apsw.Error: the time budget ran out, or the machine is in the way.
    """
    running = _Running(connection, writing, hurried)
    try:
        with running.guard.watching(hurried=hurried), bounded(connection, writing=writing):
            results = [running.run(index, statement) for index, statement in enumerate(batch)]
    except _Mutates:
        return None
    finally:
        running.cursor.close(True)
    # COMMIT would find these, and fail for all those who share it.
    if writing and connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
        raise InvalidRequest("stmts: FOREIGN KEY constraint failed at the end of the batch")
    return results


class _Running:
    """A batch on its way."""

    def __init__(self, connection: apsw.Connection, writing: bool, hurried: bool) -> None:
        self.guard = Guard.of(connection)
        self.cursor = connection.cursor()
        self.cursor.exec_trace = self._compiled
        self._connection = connection
        self._writing = writing
        self._hurried = hurried
        self._bytes = 0
        self._text = ""
        self._names: set[str] = set()
        self._columns: list[str] = []
        self._rows: list[list[Any]] = []
        self._lists_tables = False
        self._changes = 0
        # What another request has inserted last on this connection is not this one's to know.
        connection.set_last_insert_rowid(0)

    def run(self, index: int, statement: Statement) -> QueryResult:
        try:
            self._execute(statement)
        except (Forbidden, InvalidRequest) as error:
            raise type(error)(f"stmts[{index}]: {error}") from None
        except KeyError as error:
            raise InvalidRequest(f"stmts[{index}].params: there is no value for {error.args[0]}") from None
        except UnicodeDecodeError:
            problem = "it comes upon text that is not valid UTF-8; CAST it to BLOB"
            raise InvalidRequest(f"stmts[{index}]: {problem}") from None
        except (apsw.NoMemError, MemoryError):
            raise InvalidRequest(f"stmts[{index}]: it needs more than {MEMORY_BYTES >> 20} MiB of memory") from None
        except apsw.BindingsError as error:
            raise InvalidRequest(f"stmts[{index}].params: {error}") from None
        except _THEIRS as error:
            raise InvalidRequest(f"stmts[{index}]: {error}") from None
        if self._columns:
            return QueryResult(columns=self._columns, rows=self._rows, rows_affected=0)
        # SQLite counts the changes of the last statement that changed rows, which need not be this one.
        changed = self._connection.total_changes() != self._changes
        return QueryResult(columns=[], rows=[], rows_affected=self._connection.changes() if changed else 0)

    def _execute(self, statement: Statement) -> None:
        text, given = statement.text, statement.parameters
        self._text = text
        self._names.clear()
        self.guard.begin()
        # The guard has to see a pragma each time. What was compiled elsewhere may be too heavy where others wait.
        can_cache = self._hurried and "pragma" not in text.lower()
        for row in self.cursor.execute(text, given, can_cache=can_cache, prepare_flags=_USERS):
            if self._lists_tables and is_reserved(row[1]):
                continue
            values, size = outward(row)
            self._bytes += size
            self._rows.append(values)
            if len(self._rows) > ROWS:
                raise InvalidRequest(f"the result has more than {ROWS} rows; use LIMIT")
            if self._bytes > RESULT_BYTES:
                raise InvalidRequest(f"the results have more than {RESULT_BYTES >> 20} MiB; use LIMIT")
        if isinstance(given, dict) and not given.keys() <= self._names:
            unused = sorted(given.keys() - self._names)[0]
            raise InvalidRequest(f"its params hold {unused}, which is not in its text")

    def _compiled(self, cursor: apsw.Cursor, sql: str, _bindings: Any) -> bool:
        """Called before each statement of a text runs; what the one before answered is dropped."""
        pragma = self.guard.compiled()
        if pragma in OWN_CHECKS and sql.strip() != self._text.strip():
            raise InvalidRequest(f"PRAGMA {pragma} must be alone in its q")
        if pragma is not None and cursor.is_explain:
            raise Forbidden("pragmas cannot be explained")
        if not (self._writing or cursor.is_readonly):
            raise _Mutates
        self._lists_tables = pragma == TABLE_LIST
        self._names.update(name for name in cursor.bindings_names if name is not None)
        self._columns = [name for name, *_ in cursor.get_description()]
        self._rows = []
        self._changes = self._connection.total_changes()
        return True
