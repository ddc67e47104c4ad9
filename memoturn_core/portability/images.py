"""A whole database as a file: copying a state out of it, and a copy's content back into one.

A copy is an ordinary SQLite file of the newest version, made by SQLite's online backup of one state. It is not put
back as pages: its rows replace those that are there in one transaction, which is committed, shipped and undone like
any other. So a crash leaves all or nothing, and a rewind leads back. Called by `backups` and `memoturn_mcp.cli.backup`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from memoturn_core.portability.importing import quiet
from memoturn_core.portability.tables import Table, declared, make, quoted, user_tables
from memoturn_core.portability.values import Refused
from memoturn_core.sql.text import RESERVED, is_reserved
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import AlreadyExists, Internal, InvalidRequest, MemoturnError
from memoturn_storage.connection import configure
from memoturn_storage.handle import Transaction
from memoturn_storage.schema import APPLICATION_ID

_TXID = "__memoturn_txid"
_DOCUMENTS = "__memoturn_docs_"

Rows = dict[str, int]
"""By table."""


def copy_out(connection: apsw.Connection, path: Path) -> None:
    """Make the file at `path`, which is empty, a copy of the state that the connection is reading."""
    target = apsw.Connection(str(path))
    try:
        target.execute("PRAGMA synchronous=OFF")  # whoever keeps the copy sees to it that it is on the disk
        with target.backup("main", connection, "main") as backup:
            while not backup.done:
                backup.step(1_000)
        # One file, which can be read where nothing can be written.
        target.execute("PRAGMA journal_mode=DELETE").fetchall()
    finally:
        target.close()


@contextmanager
def opened(path: Path, *, writable: bool = False) -> Iterator[apsw.Connection]:
    """A connection to a copy.

    Raises:
        InvalidRequest: it cannot be opened.
    """
    mode = "mode=rw" if writable else "immutable=1"
    try:
        connection = apsw.Connection(
            f"{path.absolute().as_uri()}?{mode}",
            flags=apsw.SQLITE_OPEN_URI | (apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY),
        )
    except apsw.CantOpenError:
        raise InvalidRequest("the file cannot be opened") from None
    try:
        yield connection
    finally:
        connection.close()


def check(connection: apsw.Connection) -> None:
    """Raise unless a copy is a sound database of ours.

    Raises:
        InvalidRequest: it is not; says what is wrong.
        Unavailable: a newer program made it.
    """
    try:
        configure(connection)
        if connection.pragma("application_id") != APPLICATION_ID:
            raise InvalidRequest("the file is no database of Memoturn")
        SCHEMA.version_of(connection)
        found: list[Any] = connection.execute("PRAGMA integrity_check(1)").fetchall()
    except MemoturnError:
        raise
    except apsw.Error:
        raise InvalidRequest("the file is no sound SQLite database") from None
    if found != [("ok",)]:
        raise InvalidRequest(f"the file is damaged: {found[0][0]}")


def rows_of(connection: apsw.Connection) -> Rows:
    """How many rows each table has that holds any."""
    counts = {table.name: table.count(connection) for table in _tables(connection)}
    return {name: count for name, count in counts.items() if count}


def holds_anything(connection: apsw.Connection) -> bool:
    """Whether there is a row or a table that a user has put there."""
    return bool(declared(connection, ("table", "view"))) or bool(rows_of(connection))


def replace(transaction: Transaction, source: apsw.Connection, *, allowed: bool) -> Rows:
    """Have the database hold what `source`, of the newest version, holds; the rows of each table.

    Raises:
        AlreadyExists: it holds something, and that is not `allowed`.
        InvalidRequest: the source has what no database of ours can have.
        Internal: what came of it is not what was to come; nothing is changed.
    """
    connection = transaction.connection
    if not allowed and holds_anything(connection):
        raise AlreadyExists("the database holds data; it is replaced only when that is asked for")
    try:
        with quiet(connection):
            _clear(connection)
            _fill(connection, source)
        wanted, got = digests(source), digests(connection)
    except (UnicodeDecodeError, apsw.SQLError, apsw.ConstraintError, apsw.MismatchError) as error:
        raise InvalidRequest("the file holds what no database of this version can hold") from error
    transaction.rewrite()
    if wanted != got:
        differing = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
        raise Internal(f"the restored tables differ from the backup's: {', '.join(differing)}")
    return rows_of(connection)


def digests(connection: apsw.Connection) -> dict[str, str]:
    """A checksum of each table's rows, rowids included, and of what users have declared."""
    found = {}
    for table in _tables(connection):
        digest = hashlib.sha256()
        # By name: a table that was migrated has its columns in another order than one that was made.
        ordered = dataclasses.replace(table, columns=sorted(table.columns))
        for row in _plain(connection, ordered) if is_reserved(table.name) else ordered.read(connection):
            digest.update(repr(row).encode())
        found[table.name] = digest.hexdigest()
    schema = declared(connection, ("table", "index", "view", "trigger"))
    return found | {"": hashlib.sha256(repr(schema).encode()).hexdigest()}


def _plain(connection: apsw.Connection, table: Table) -> Any:
    """The rows of a table of ours, in which every text is valid."""
    columns = ", ".join(map(quoted, table.told))
    return connection.execute(f"SELECT {columns} FROM {quoted(table.name)} ORDER BY {table.order}")


def _tables(connection: apsw.Connection) -> list[Table]:
    """All ordinary tables but that of the transaction's number and those inside full-text indexes."""
    found: list[Any] = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name"
    ).fetchall()
    names = [name for (name,) in found if name != _TXID and not name.startswith("sqlite_s")]
    if _has_sequences(connection):
        names.append("sqlite_sequence")
    tables = [Table.of(connection, name) for name in names]
    return [table for table in tables if table is not None]


def _has_sequences(connection: apsw.Connection) -> bool:
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").fetchone() is None:
        return False
    return connection.execute("SELECT 1 FROM sqlite_sequence").fetchone() is not None


def _indexes(connection: apsw.Connection) -> list[str]:
    """The full-text indexes."""
    found: list[Any] = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%fts5(%'"
    ).fetchall()
    return [name for (name,) in found if name.startswith(RESERVED)]


def _clear(connection: apsw.Connection) -> None:
    for kind in ("trigger", "view"):
        for _, name, _ in declared(connection, (kind,)):
            connection.execute(f"DROP {kind} IF EXISTS {quoted(name)}")
    for table in user_tables(connection):
        connection.execute(f"DROP TABLE {quoted(table.name)}")
    for index in _indexes(connection):
        connection.execute(f"INSERT INTO {index} ({index}) VALUES ('delete-all')")
    for table in _tables(connection):
        if table.name.startswith(_DOCUMENTS):
            connection.execute(f"DROP TABLE {table.name}")
        else:
            connection.execute(f"DELETE FROM {quoted(table.name)}")


def _fill(connection: apsw.Connection, source: apsw.Connection) -> None:
    made: list[Any] = source.execute(
        "SELECT sql FROM sqlite_schema WHERE type IN ('table', 'index') AND sql IS NOT NULL"
        f" AND tbl_name GLOB '{_DOCUMENTS}*' ORDER BY rowid"
    ).fetchall()
    for (sql,) in made:
        connection.execute(sql)
    _make(connection, source, ("table",))
    for table in _tables(source):
        _copy(connection, source, table)
    for index in _indexes(connection):
        connection.execute(f"INSERT INTO {index} ({index}) VALUES ('rebuild')")
    _make(connection, source, ("index", "view", "trigger"))


def _make(connection: apsw.Connection, source: apsw.Connection, kinds: tuple[str, ...]) -> None:
    for kind, name, sql in declared(source, kinds):
        try:
            make(connection, kind, name, sql)
        except Refused as refused:
            raise InvalidRequest(f"the file has a {kind} {name} that cannot be made: {refused}") from None


def _copy(connection: apsw.Connection, source: apsw.Connection, table: Table) -> None:
    own = Table.of(connection, table.name)
    if own is None or set(own.told) != set(table.told):
        raise InvalidRequest(f"the file has a table {table.name} that no database of this version has")
    if table.name == "sqlite_sequence":
        connection.execute("DELETE FROM sqlite_sequence")
    columns = ", ".join(map(quoted, table.told))
    if is_reserved(table.name):
        places = ", ".join("?" * len(table.told))
        statement = f"INSERT INTO {quoted(table.name)} ({columns}) VALUES ({places})"
        connection.executemany(statement, _plain(source, table))
        return
    # Text that is not valid UTF-8, which only users' tables may hold, can only be bound as bytes.
    places = ", ".join(["iif(? = 'text', CAST(? AS TEXT), ?)"] * len(table.told))
    connection.executemany(
        f"INSERT INTO {quoted(table.name)} ({columns}) VALUES ({places})",
        ([part for kind, value in row for part in (kind, value, value)] for row in table.read(source)),
    )
