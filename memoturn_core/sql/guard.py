"""What a user's statement may touch: SQLite's authorizer, which sees what a statement really does.

Names reach a table through views, triggers, string literals and arguments of pragmas; whatever the way,
SQLite asks its authorizer while it compiles. A `Guard` is the authorizer of one connection, put there
when the first user's statement comes, and judges only while one runs (`watching`): our own statements pass.
What it does not know it refuses. Called by SQLite, and by `run`.

A statement that SQLite has compiled is not judged again, so users' statements must never be taken from
where ours are cached: `run` compiles them with a flag of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import apsw

from memoturn_core.sql import functions
from memoturn_core.sql.text import is_reserved
from memoturn_schemas.errors import Forbidden, InvalidRequest, RequestTimeout

_ON_NAMES = frozenset(
    {
        apsw.SQLITE_SELECT,
        apsw.SQLITE_READ,
        apsw.SQLITE_INSERT,
        apsw.SQLITE_UPDATE,
        apsw.SQLITE_DELETE,
        apsw.SQLITE_RECURSIVE,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_REINDEX,
    }
)
"""What may be done to a user's own things."""

_TRANSACTIONS = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT})

_REFUSED = {
    apsw.SQLITE_ATTACH: "ATTACH: a statement sees its own database only",
    apsw.SQLITE_DETACH: "DETACH: a statement sees its own database only",
    apsw.SQLITE_ANALYZE: "ANALYZE keeps samples of reserved tables and cannot be run",
    apsw.SQLITE_CREATE_VTABLE: "virtual tables cannot be made",
    apsw.SQLITE_DROP_VTABLE: "virtual tables cannot be dropped",
}
_NOT_ALLOWED = "temporary tables, views and triggers cannot be made; nor is anything else of this kind allowed"

_PRAGMAS_ON_NAMES = frozenset(
    {
        "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list",
        "foreign_key_check", "integrity_check", "quick_check",
    }
)  # fmt: skip
_PRAGMAS = frozenset(
    {
        "application_id", "collation_list", "compile_options", "data_version", "encoding", "foreign_keys",
        "freelist_count", "function_list", "page_count", "page_size", "pragma_list", "schema_version", "user_version",
    }
)  # fmt: skip
"""Those that may be read and not set."""

OWN_CHECKS = frozenset({"integrity_check", "quick_check"})
"""Pragmas that look into every table and say only whether it is sound."""

TABLE_LIST = "table_list"
"""The pragma whose rows name every table."""

_TABLES = frozenset(
    {
        "sqlite_sequence", "pragma_table_info", "pragma_table_xinfo", "pragma_index_list", "pragma_index_info",
        "pragma_index_xinfo", "pragma_foreign_key_list",
    }
)  # fmt: skip
"""Those of SQLite's own that may be read: they tell of one table, whose name is judged when they are."""

MODULES = frozenset(
    {
        "bytecode", "carray", "dbstat", "fts3", "fts3tokenize", "fts4", "fts4aux", "fts5", "fts5vocab", "geopoly",
        "rtree", "rtree_i32", "tables_used",
    }
)  # fmt: skip
"""Virtual tables that can be read without being made. `json_each` and `json_tree` are none of these."""

_SCHEMA_TABLES = frozenset({"sqlite_master", "sqlite_temp_master"})
_SCHEMA_WRITES = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})


class Guard:
    """The authorizer of one connection."""

    def __init__(self) -> None:
        self._watching = False
        self._hurried = False
        # While SQLite is at a pragma that makes it compile statements of its own, over every table.
        self._trusting = False
        self._changes_schema = False
        self._weight = 0
        self._pragma: str | None = None

    @classmethod
    def of(cls, connection: apsw.Connection) -> Self:
        """The connection's guard; the first time, the connection is made ready for users' statements."""
        present = connection.authorizer
        if isinstance(present, cls):
            return present
        guard = cls()
        functions.fence(connection)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
        connection.authorizer = guard
        return guard

    @contextmanager
    def watching(self, *, hurried: bool) -> Iterator[None]:
        """While a user's statements run; `hurried` where others wait for them, and heavy ones belong elsewhere."""
        self._watching = True
        self._hurried = hurried
        try:
            yield
        finally:
            self._watching = False

    def compiled(self) -> str | None:
        """To be called when a statement is compiled and not yet run; the pragma that it is, if it needs care.

        While one of `OWN_CHECKS` runs nothing is judged, so no other statement may be compiled before `begin`.
        """
        pragma = self._pragma
        self.begin()
        self._trusting = pragma in OWN_CHECKS
        return pragma

    def begin(self) -> None:
        """To be called before a text is compiled: what was learnt of the statement before is forgotten."""
        self._trusting = self._changes_schema = False
        self._weight = 0
        self._pragma = None

    def __call__(
        self, action: int, first: str | None, second: str | None, database: str | None, _within: str | None
    ) -> int:
        """What SQLite asks. Raises `Forbidden` or `InvalidRequest`, which the failing statement then raises."""
        if not self._watching or self._trusting:
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_FUNCTION:
            self._function((second or "").lower())
        elif action == apsw.SQLITE_PRAGMA:
            self._pragma_of((first or "").lower(), second)
        elif action in _ON_NAMES:
            self._names(action, first, second, database)
        elif action in _TRANSACTIONS:
            raise InvalidRequest("transactions cannot be controlled: a batch is one, from its first to its last")
        else:
            raise Forbidden(_REFUSED.get(action, _NOT_ALLOWED))
        return apsw.SQLITE_OK

    def _names(self, action: int, first: str | None, second: str | None, database: str | None) -> None:
        for name in (first, second):
            if name is not None and is_reserved(name):
                raise Forbidden(f"{name} is reserved")
        if action == apsw.SQLITE_ALTER_TABLE:
            self._changes_schema = True
        if first is None or first.startswith("sqlite_autoindex_"):
            return  # an index that SQLite makes for a table, whose name was judged
        table = first.lower()
        if database == "temp" and (table != "sqlite_temp_master" or action == apsw.SQLITE_INSERT):
            raise Forbidden(_NOT_ALLOWED)
        if table in _SCHEMA_TABLES:
            self._schema_table(action, table)
        elif table in MODULES or (table.startswith(("sqlite_", "pragma_")) and table not in _TABLES):
            raise Forbidden(f"{table} cannot be used")

    def _schema_table(self, action: int, table: str) -> None:
        # SQLite lets no statement but its own change these tables, and for an update or a deletion says so
        # before it asks. Once it asks, it is at work on the schema, and what it reads then is its own affair;
        # what the user has put into the same statement (CREATE TABLE … AS SELECT) it has asked about earlier.
        if action in _SCHEMA_WRITES:
            self._changes_schema = action != apsw.SQLITE_INSERT
        elif not self._changes_schema:
            raise Forbidden(f"{table} cannot be used; PRAGMA table_list and PRAGMA table_info(t) say what there is")

    def _function(self, name: str) -> None:
        if self._changes_schema:
            if name in functions.ALLOWED or name.startswith(functions.OF_SCHEMA_CHANGES):
                return
        elif name in functions.ALLOWED:
            self._weight += functions.WEIGHT.get(name, 1)
            if self._weight > functions.WEIGHT_LIMIT:
                raise InvalidRequest("the statement calls too many functions")
            if self._hurried and self._weight > functions.HURRIED_WEIGHT_LIMIT:
                raise RequestTimeout("the statement may take long")
            return
        raise Forbidden(f"the function {name} cannot be called")

    def _pragma_of(self, name: str, argument: str | None) -> None:
        if name in _PRAGMAS_ON_NAMES:
            if argument is not None and is_reserved(argument):
                raise Forbidden(f"{argument} is reserved")
        elif name not in _PRAGMAS:
            raise Forbidden(f"PRAGMA {name} cannot be used")
        elif argument is not None:
            raise Forbidden(f"PRAGMA {name} cannot be set")
        if name in OWN_CHECKS or name == TABLE_LIST:
            self._pragma = name
            self._trusting = True
