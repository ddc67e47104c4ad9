"""The index of the catalogue on this machine: a small SQLite file for all processes of a data directory.

It remembers what was read from the object store and nothing else, so it may be removed. Called by
`memoturn_storage.catalog`; safe from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import apsw

from memoturn_storage.ambient import Ambient
from memoturn_storage.connection import FoldingLog, open_database
from memoturn_storage.entries import Entry
from memoturn_storage.errors import translate
from memoturn_storage.schema import Schema

SCHEMA = Schema(
    (
        """
        CREATE TABLE databases (
          name TEXT PRIMARY KEY,
          uuid TEXT NOT NULL UNIQUE,
          created_at INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE TABLE agreed (at INTEGER NOT NULL)",
        """
        ALTER TABLE databases ADD COLUMN ttl_at INTEGER;
        ALTER TABLE databases ADD COLUMN durability TEXT NOT NULL DEFAULT 'standard';
        ALTER TABLE databases ADD COLUMN live INTEGER NOT NULL DEFAULT 1;
        ALTER TABLE databases ADD COLUMN deleted_at INTEGER;
        ALTER TABLE databases ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
        ALTER TABLE databases ADD COLUMN stamp TEXT;
        CREATE INDEX databases_live ON databases (name) WHERE live;
        CREATE INDEX databases_due ON databases (ttl_at) WHERE live AND ttl_at IS NOT NULL;
        CREATE TABLE gone (uuid TEXT PRIMARY KEY) WITHOUT ROWID;
        CREATE TRIGGER databases_gone AFTER UPDATE ON databases WHEN old.uuid <> new.uuid BEGIN
          INSERT OR IGNORE INTO gone VALUES (old.uuid);
        END;
        """,
    )
)
"""`agreed` has a row once the index and the object store have told each other all names.

A row is an `Entry`, tombstones among them. `stamp` tells whether the object has changed since it was read; NULL
where that is not known. `gone` has the databases whose names were used again: their files may still be here.
"""

_COLUMNS = "name, uuid, created_at, ttl_at, durability, live, deleted_at, revision"

_REMEMBER = f"""
INSERT INTO databases ({_COLUMNS}, stamp) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
SET uuid = ?2, created_at = ?3, ttl_at = ?4, durability = ?5, live = ?6, deleted_at = ?7, revision = ?8, stamp = ?9
WHERE revision <= ?8
"""


class Index:
    """The index of one data directory. Asking it makes nothing; the file comes with what is first remembered."""

    def __init__(self, directory: Path, ambient: Ambient) -> None:
        self._directory = directory
        self._path = directory / "catalog.db"
        self._ambient = ambient
        self._lock = threading.Lock()
        self._log: FoldingLog | None = None

    def prepare(self) -> None:
        """Make the directory and the file now, unless they exist.

        Raises:
            Unavailable: the directory cannot be read or written, or a newer program made it.
        """
        with self._lock:
            self._made()

    def close(self) -> None:
        if self._log is not None:
            self._log.connection.close()

    def entries(self, condition: str, parameters: tuple[Any, ...] = ()) -> list[Entry]:
        """The entries and tombstones for which an SQL condition holds."""
        return [_entry(row) for row in self.query(f"SELECT {_COLUMNS} FROM databases WHERE {condition}", parameters)]

    def remember(self, found: Iterable[tuple[Entry, str | None]]) -> None:
        """Keep these entries with their stamps, as one transaction, but for those of which a newer one is there."""
        self.execute([(_REMEMBER, (*astuple(entry), stamp)) for entry, stamp in found])

    def query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            log = self._opened()
            if log is None:
                return []
            try:
                return log.connection.execute(sql, parameters).fetchall()
            except apsw.Error as error:
                raise translate(error) from error

    def execute(self, statements: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        """Run the statements as one transaction."""
        with self._lock:
            log = self._made()
            try:
                with log.connection:
                    for sql, parameters in statements:
                        log.connection.execute(sql, parameters)
                log.fold_if_long()
            except apsw.Error as error:
                raise translate(error) from error

    def _opened(self) -> FoldingLog | None:
        """The open index, or None where there is none on disk."""
        if self._log is None:
            with self._usable():
                if self._path.exists():
                    self._log = _open(self._path)
        return self._log

    def _made(self) -> FoldingLog:
        """The open index, which is made with its directory if there is none."""
        if self._opened() is None:
            with self._usable():
                # Nobody but the owner may read memories; an existing directory is left as it is.
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                SCHEMA.create(self._path, self._ambient)
        log = self._opened()
        assert log is not None  # noqa: S101 - the lines above put it there
        return log

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Names the directory in what goes wrong with it: whoever starts a node has to know which it is."""
        try:
            yield
        except (apsw.Error, OSError) as error:
            kind = type(translate(error))
            raise kind(f"the data directory {self._directory} cannot be used: {error}") from error


def _entry(row: Sequence[Any]) -> Entry:
    name, uuid, created_at, ttl_at, durability, live, deleted_at, revision = row
    return Entry(name, uuid, created_at, ttl_at, durability, bool(live), deleted_at, revision)


def _open(path: Path) -> FoldingLog:
    connection = open_database(path)
    try:
        if SCHEMA.version_of(connection) < SCHEMA.version:
            connection.execute("BEGIN IMMEDIATE")  # other processes may be at it
            SCHEMA.migrate(connection)
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return FoldingLog(connection)
