"""Records of one kind: the rows of a table as objects that name things by what they are, not by where they lie.

A record holds the columns of its row by their names. Rowids are not among them: what points to another row
names it by its id, and the order of the rows is that of the records. So a record means the same in every
database, and tables may grow columns without a change here. Nulls are left out. Called by `catalogue`, which
declares the kinds, and through it by `exporting` and `importing`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Protocol, cast

import apsw
import numpy as np

from memoturn_core.memory.vectors import Embeddings, OwnVectors
from memoturn_core.portability import values
from memoturn_core.portability.values import Refused
from memoturn_core.tables import SCHEMA
from memoturn_storage.handle import Transaction

Record = dict[str, Any]


class Kind(Protocol):
    """What can be told of a state, and taken into one."""

    @property
    def name(self) -> str:
        """What `kind` says in its records."""
        ...

    def records(self, connection: apsw.Connection) -> Iterator[Record]:
        """All of them, without `kind`, in the order in which they have to be taken."""
        ...

    def find(self, connection: apsw.Connection, record: Record) -> Record | None:
        """What is there in the place of a record.

        Raises:
            Refused: the record names no place.
        """
        ...

    def take(self, transaction: Transaction, record: Record) -> None:
        """Add a record, of whose place `find` says that nothing is there.

        Raises:
            Refused; apsw.ConstraintError.
        """
        ...


# --- columns -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is told that is not simply its value."""

    outward: Callable[[apsw.Connection, Any], Any]
    inward: Callable[[apsw.Connection, str, Any], Any]
    """Takes the connection, the field's name and what is told."""
    select: str = "t.{}"
    """What is read for it; `{}` is the column's name."""
    nulls: bool = False
    """Whether null is one of its values; otherwise it says that there is none."""


def identifier(write: Callable[[bytes], str], read: Callable[[str], bytes | None], example: str) -> Column:
    """An id that is kept as its bytes."""

    def inward(_connection: apsw.Connection, name: str, value: Any) -> bytes:
        key = read(value) if isinstance(value, str) else None
        if key is None:
            raise Refused(f"{name}: should be an id like {example}")
        return key

    return Column(lambda _, key: write(key), inward)


def reference(table: str, to: Column) -> Column:
    """The rowid of a row of `table`, told as the id that it has there."""

    def inward(connection: apsw.Connection, name: str, value: Any) -> int:
        key = to.inward(connection, name, value)
        rowid = connection.execute(f"SELECT rowid FROM {table} WHERE id = ?", (key,)).get
        if not isinstance(rowid, int):
            raise Refused(f"{name}: there is no {value} here")
        return rowid

    return Column(to.outward, inward, f"(SELECT id FROM {table} WHERE rowid = t.{{}})")


def json_text(dump: values.Dump) -> Column:
    return Column(
        lambda _, text: values.outward_json(text, dump),
        lambda _, name, value: values.inward_json(name, value, dump),
        nulls=True,
    )


def embedding(name: str, value: Any) -> bytes:
    """The vector that a base64 text stands for, as its float32."""
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if not data or len(data) % 4 or not np.isfinite(np.frombuffer(data, "<f4")).all():
        raise Refused(f"{name}: should be finite float32, little-endian, as base64")
    return data


VECTOR = Column(lambda _, data: base64.b64encode(data).decode(), lambda _, name, value: embedding(name, value))


# --- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A kind whose records are the rows of one table."""

    name: str
    table: str
    key: Sequence[str]
    """The columns by which a record is found."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """Those that are told in a way of their own; some may be made up of others (`place`)."""
    untold: frozenset[str] = frozenset()
    """Columns that mean something in their own file only."""
    where: str = "1"
    order: str = "t.rowid"
    words: tuple[str, Sequence[str]] | None = None
    """The full-text index over the rows, and its columns."""
    vectors: str | None = None
    """The table of the rows' vectors."""
    embedded: type[OwnVectors] | None = None
    """Where the node embeds the rows by itself."""
    check: Callable[[Mapping[str, Any]], None] = lambda _row: None
    """Raises `Refused` for a row, as columns, that cannot be."""

    def records(self, connection: apsw.Connection) -> Iterator[Record]:
        spaces = _spaces(connection) if self.vectors else []
        for record, _ in self._select(connection, self.where, (), spaces):
            yield record

    def find(self, connection: apsw.Connection, record: Record) -> Record | None:
        condition, given = self.placed(connection, record)
        spaces = _spaces(connection) if self.vectors else []
        return next((found for found, _ in self._select(connection, condition, given, spaces)), None)

    def take(self, transaction: Transaction, record: Record) -> None:
        connection = transaction.connection
        known = self.fields
        for name in record:
            if name not in known and not (name == "vectors" and self.vectors):
                raise Refused(f"{name}: unknown field")
        row = {name: self._inward(connection, name, record[name]) if name in record else None for name in known}
        self.check(row)
        self.place(connection, row)
        held = [name for name in row if row[name] is not None]
        connection.execute(
            f"INSERT INTO {self.table} ({', '.join(held)}) VALUES ({', '.join('?' * len(held))})",
            tuple(row[name] for name in held),
        )
        rowid = connection.last_insert_rowid()
        if self.words is not None:
            index, columns = self.words
            connection.execute(
                f"INSERT INTO {index} (rowid, {', '.join(columns)}) VALUES (?{', ?' * len(columns)})",
                (rowid, *(row[column] for column in columns)),
            )
        if self.vectors is not None:
            self._take_vectors(connection, rowid, record.get("vectors", []))
        self.taken(connection, rowid, row)

    def placed(self, connection: apsw.Connection, record: Record) -> tuple[str, Sequence[Any]]:
        """The condition on the row that a record would be, and its parameters."""
        condition = " AND ".join(f"t.{name} IS ?" for name in self.key)
        return condition, [self._inward(connection, name, record.get(name)) for name in self.key]

    def place(self, connection: apsw.Connection, row: dict[str, Any]) -> None:
        """Bring a new row's columns into the form in which the table has them."""

    def taken(self, connection: apsw.Connection, rowid: int, row: Mapping[str, Any]) -> None:
        """Add what else there is of a row that was added."""

    # --- in the file -----------------------------------------------------------------------------

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """What is told, and what is read for it."""
        names = [name for name in _declared()[self.table] if name not in self.untold and name != "rowid"]
        names += [name for name in self.columns if name not in names]
        return {name: self.columns[name].select.format(name) if name in self.columns else f"t.{name}" for name in names}

    def _select(
        self, connection: apsw.Connection, condition: str, given: Sequence[Any], spaces: Sequence[Any]
    ) -> Iterator[tuple[Record, int]]:
        columns = self.fields
        rowid = "t.rowid" if self.vectors else "0"
        rows: Any = connection.execute(
            f"SELECT {rowid}, {', '.join(columns.values())} FROM {self.table} AS t WHERE {condition}"
            f" ORDER BY {self.order}",
            tuple(given),
        )
        for number, *told in rows:
            record = {
                name: self._outward(connection, name, value)
                for name, value in zip(columns, told, strict=True)
                if value is not None
            }
            if self.vectors is not None:
                vectors = self._vectors(connection, number, spaces)
                if vectors:
                    record["vectors"] = vectors
            yield record, number

    def _outward(self, connection: apsw.Connection, name: str, value: Any) -> Any:
        column = self.columns.get(name)
        return values.outward(value) if column is None else column.outward(connection, value)

    def _inward(self, connection: apsw.Connection, name: str, value: Any) -> Any:
        column = self.columns.get(name)
        if value is None and not (column is not None and column.nulls):
            return None
        if column is not None:
            return column.inward(connection, name, value)
        found = values.inward(name, value)
        declared = _declared()[self.table].get(name, "")
        if declared in _PYTHON and not isinstance(found, _PYTHON[declared]):
            raise Refused(f"{name}: should be {_CALLED[declared]}")
        return found

    # --- vectors ---------------------------------------------------------------------------------

    def _vectors(self, connection: apsw.Connection, rowid: int, spaces: Sequence[Any]) -> list[Record]:
        """The vectors of a row, each with the model that made it where that is known."""
        found = []
        for space, model in spaces:
            data = connection.execute(
                f"SELECT embedding FROM {self.vectors} WHERE rowid = ?", (space << 40 | rowid,)
            ).get
            if data is not None:
                told = {} if model is None else {"model": model}
                found.append({**told, "embedding": base64.b64encode(cast("bytes", data)).decode()})
        return found

    def _take_vectors(self, connection: apsw.Connection, rowid: int, given: Any) -> None:
        if not isinstance(given, list):
            raise Refused("vectors: should be a list")
        model_used = Embeddings.of(connection).model
        lacking = model_used is not None
        for position, vector in enumerate(given):
            name = f"vectors[{position}]"
            if not isinstance(vector, dict) or not vector.keys() <= {"model", "embedding"}:
                raise Refused(f"{name}: should be an object with model and embedding")
            data, model = embedding(f"{name}.embedding", vector.get("embedding")), vector.get("model")
            if not (model is None or isinstance(model, str)):
                raise Refused(f"{name}.model: should be a text")
            space = connection.execute(
                "SELECT id FROM __memoturn_spaces WHERE model IS ? AND dimension = ?", (model, len(data) // 4)
            ).get
            if space is None:
                connection.execute(
                    "INSERT INTO __memoturn_spaces SELECT coalesce(max(id) + 1, 0), ?, ? FROM __memoturn_spaces",
                    (model, len(data) // 4),
                )
                space = connection.last_insert_rowid()
            connection.execute(f"INSERT INTO {self.vectors} VALUES (?, ?)", (cast(int, space) << 40 | rowid, data))
            lacking = lacking and model not in (None, model_used)
        if lacking and self.embedded is not None:
            self.embedded.missed(connection, rowid)


_PYTHON: dict[str, tuple[type, ...]] = {"TEXT": (str,), "INTEGER": (int,), "REAL": (int, float), "BLOB": (bytes,)}
_CALLED = {"TEXT": "a text", "INTEGER": "an integer", "REAL": "a number", "BLOB": "bytes"}


@cache
def _declared() -> dict[str, dict[str, str]]:
    """The columns of every table of the newest version, in order, and their types."""
    connection = SCHEMA.empty()
    try:
        tables: list[Any] = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        found: dict[str, Any] = {
            table: connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
            for (table,) in tables
        }
        return {table: dict(columns) for table, columns in found.items()}
    finally:
        connection.close()


def _spaces(connection: apsw.Connection) -> list[Any]:
    return connection.execute("SELECT id, model FROM __memoturn_spaces ORDER BY id").fetchall()


def reason_of(error: apsw.Error) -> str:
    """What SQLite says of a broken rule, in the words of records."""
    said = re.sub(r"\b__memoturn_\w+\.", "", str(error))
    rule, _, fields = said.partition(" constraint failed: ")
    if rule == "NOT NULL":
        return f"{fields}: is required"
    if rule == "UNIQUE":
        return f"another record here has the same {fields.replace(', ', ' and ')}"
    return said
