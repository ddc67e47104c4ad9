"""The tables that users have made by SQL, of any shape: what they are, and their rows value by value.

What makes a table, an index, a view or a trigger is its SQL, which is taken as a user's statement is: nothing
reserved is reached by it. Rows keep their rowids where they have any. Called by `exporting`, `importing` and
`images`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import apsw

from memoturn_core.portability import values
from memoturn_core.portability.kinds import Record
from memoturn_core.portability.values import Refused
from memoturn_core.sql.run import Statement, run
from memoturn_core.sql.text import Unreadable, is_reserved, screen
from memoturn_schemas.errors import Forbidden, InvalidRequest
from memoturn_storage.handle import Transaction

_ROWID_NAMES = ("rowid", "_rowid_", "oid")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Table:
    """One ordinary table as it is now."""

    name: str
    columns: Sequence[str]
    """Those that are kept, not those that SQLite computes."""
    rowid: str | None
    """What its rowid is called; None where it has none, or it is a column of its own."""
    key: Sequence[str]
    """The columns that identify a row; the rowid where there is one."""

    @classmethod
    def of(cls, connection: apsw.Connection, name: str) -> Table | None:
        """None where there is no ordinary table of this name."""
        listed: Any = connection.execute(
            "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name = ?", (name,)
        ).fetchone()
        if listed is None:
            return None
        found: list[Any] = connection.execute(
            "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid", (name,)
        ).fetchall()
        columns = [column for column, *_, hidden in found if hidden == 0]
        primary = [column for column, _, pk, _ in sorted(found, key=lambda each: each[2]) if pk]
        without_rowid = bool(listed[1])
        indexed = connection.execute("SELECT 1 FROM pragma_index_list(?) WHERE origin = 'pk'", (name,)).fetchone()
        own_column = len(primary) == 1 and not without_rowid and indexed is None
        taken = {column.lower() for column, *_ in found}
        free = next((each for each in _ROWID_NAMES if each not in taken), None)
        rowid = None if without_rowid or own_column else free
        return cls(name, columns, rowid, (rowid,) if rowid else primary)

    @cached_property
    def told(self) -> Sequence[str]:
        """The columns by name, after the rowid where it has one."""
        return [*([self.rowid] if self.rowid else []), *self.columns]

    @property
    def order(self) -> str:
        """Of its rows, as SQL."""
        return ", ".join(map(quoted, self.key)) or "1"

    def read(self, connection: apsw.Connection, condition: str = "1", given: Sequence[Any] = ()) -> Iterator[list[Any]]:
        """The rows in order, each value as its type and itself; of a text its bytes, which may be no text."""
        parts = [
            f"typeof({name}), iif(typeof({name}) = 'text', CAST({name} AS BLOB), {name})"
            for name in map(quoted, self.told)
        ]
        rows: Any = connection.execute(
            f"SELECT {', '.join(parts)} FROM {quoted(self.name)} WHERE {condition} ORDER BY {self.order}", tuple(given)
        )
        for row in rows:
            yield list(zip(row[::2], row[1::2], strict=True))

    def count(self, connection: apsw.Connection) -> int:
        return cast("int", connection.execute(f"SELECT count(*) FROM {quoted(self.name)}").get)


def user_tables(connection: apsw.Connection) -> list[Table]:
    """In the order of their making."""
    found: list[Any] = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid"
    ).fetchall()
    names = [name for (name,) in found if is_users(name)]
    tables = [Table.of(connection, name) for name in names]
    return [table for table in tables if table is not None]


def is_users(name: str) -> bool:
    return not (is_reserved(name) or name.lower().startswith("sqlite_"))


def declared(connection: apsw.Connection, kinds: Sequence[str]) -> list[tuple[str, str, str]]:
    """`(type, name, sql)` of what users have made of these kinds, in the order of its making."""
    found: list[Any] = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
    ).fetchall()
    return [
        (kind, name, sql) for kind, name, table, sql in found if kind in kinds and is_users(name) and is_users(table)
    ]


def sql_of(connection: apsw.Connection, kind: str, name: str) -> str | None:
    found = connection.execute("SELECT sql FROM sqlite_schema WHERE type = ? AND name = ?", (kind, name)).get
    return cast("str | None", found)


def make(connection: apsw.Connection, kind: str, name: str, sql: str) -> None:
    """Make a thing by its SQL, as a user would.

    Raises:
        Refused: the SQL does, or touches, something else.
    """
    try:
        screen(sql)
        # A savepoint has the full-text indexes write what they keep back, before the guard judges what is written.
        with connection:
            run(connection, [Statement(sql, None)], writing=True)
    except Unreadable as error:
        raise Refused(f"sql: {error}") from None
    except (Forbidden, InvalidRequest) as error:
        raise Refused(f"sql: {str(error).removeprefix('stmts[0]: ')}") from None
    if sql_of(connection, kind, name) != sql:
        raise Refused(f"sql: should be one CREATE {kind.upper()} that makes {name}, as SQLite keeps it")


# --- records -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """Tables, or what depends on them."""

    name: str
    kinds: Sequence[str]

    def records(self, connection: apsw.Connection) -> Iterator[Record]:
        for kind, name, sql in declared(connection, self.kinds):
            yield {"type": kind, "name": name, "sql": sql}

    def find(self, connection: apsw.Connection, record: Record) -> Record | None:
        kind, name = record.get("type"), record.get("name")
        if kind not in self.kinds:
            raise Refused(f"type: should be {' or '.join(self.kinds)}")
        if not isinstance(name, str) or not is_users(name):
            raise Refused("name: should be one that a user may give")
        found: Any = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
        return None if found is None else dict(zip(("type", "name", "sql"), found, strict=True))

    def take(self, transaction: Transaction, record: Record) -> None:
        if not isinstance(record.get("sql"), str) or record.keys() != {"type", "name", "sql"}:
            raise Refused("a record of this kind has type, name and sql")
        make(transaction.connection, record["type"], record["name"], record["sql"])


@dataclass(frozen=True)
class UserRows:
    """The rows of users' tables."""

    name: str = "row"

    def records(self, connection: apsw.Connection) -> Iterator[Record]:
        for table in user_tables(connection):
            for row in table.read(connection):
                yield self._record(table, row)

    def find(self, connection: apsw.Connection, record: Record) -> Record | None:
        table, given = self._given(connection, record)
        if not table.key:
            return None
        condition = " AND ".join(f"{quoted(name)} IS {_PLACE}" for name in table.key)
        parameters = [part for name in table.key for part in _bound(name, given.get(name))]
        row = next(table.read(connection, condition, parameters), None)
        return None if row is None else self._record(table, row)

    def take(self, transaction: Transaction, record: Record) -> None:
        table, given = self._given(transaction.connection, record)
        transaction.connection.execute(
            f"INSERT INTO {quoted(table.name)} ({', '.join(map(quoted, given))})"
            f" VALUES ({', '.join([_PLACE] * len(given))})",
            [part for name, value in given.items() for part in _bound(name, value)],
        )

    def _record(self, table: Table, row: list[Any]) -> Record:
        told = [values.outward_text(value) if kind == "text" else values.outward(value) for kind, value in row]
        record: Record = {"table": table.name}
        if table.rowid is not None:
            record["rowid"] = told.pop(0)
        return record | {"values": dict(zip(table.columns, told, strict=True))}

    def _given(self, connection: apsw.Connection, record: Record) -> tuple[Table, dict[str, Any]]:
        """The table, and the values told by column."""
        name, told = record.get("table"), record.get("values")
        table = Table.of(connection, name) if isinstance(name, str) and is_users(name) else None
        if table is None:
            raise Refused(f"table: there is no table {name!r} here")
        if not record.keys() <= {"table", "rowid", "values"} or not isinstance(told, dict):
            raise Refused("a row has table, rowid where the table has one, and values")
        for column in told:
            if column not in table.columns:
                raise Refused(f"values.{column}: {table.name} has no such column")
        if table.rowid is None:
            if "rowid" in record:
                raise Refused(f"rowid: {table.name} has none")
            return table, told
        if not isinstance(record.get("rowid"), int):
            raise Refused("rowid: should be an integer")
        return table, {table.rowid: record["rowid"], **told}


# Text that is not valid UTF-8 can only be bound as bytes.
_PLACE = "iif(?, CAST(? AS TEXT), ?)"


def _bound(name: str, value: Any) -> tuple[int, bytes | None, Any]:
    data = values.text_bytes(name, value)
    return (0, None, values.inward(name, value)) if data is None else (1, data, None)


@dataclass(frozen=True)
class Sequences:
    """The highest rowid that each table with AUTOINCREMENT has ever had."""

    name: str = "sequence"

    def records(self, connection: apsw.Connection) -> Iterator[Record]:
        if sql_of(connection, "table", "sqlite_sequence") is not None:
            rows: list[Any] = connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name").fetchall()
            yield from ({"table": name, "seq": seq} for name, seq in rows if is_users(name))

    def find(self, connection: apsw.Connection, record: Record) -> Record | None:
        """A sequence that is further on is there in its place."""
        name, seq = record.get("table"), record.get("seq")
        if record.keys() != {"table", "seq"} or not isinstance(name, str) or type(seq) is not int:
            raise Refused("a sequence has table and seq")
        table = Table.of(connection, name) if is_users(name) else None
        if table is None or sql_of(connection, "table", "sqlite_sequence") is None:
            raise Refused(f"table: there is no table {name!r} with a sequence here")
        known = connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (name,)).get
        return record if isinstance(known, int) and known >= seq else None

    def take(self, transaction: Transaction, record: Record) -> None:
        connection = transaction.connection
        connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (record["table"],))
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (record["table"], record["seq"]))


USER_KINDS = (
    Declared("table", ("table",)),
    UserRows(),
    Sequences(),
    Declared("schema", ("index", "view", "trigger")),
)
