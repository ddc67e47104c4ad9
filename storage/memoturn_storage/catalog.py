"""The catalogue: which databases exist, under which name, with which uuid.

One small SQLite file in the data directory, shared by every process on it. Names decide nothing about
paths: a database's files lie under its uuid. Racing creates of one name converge on one uuid. Called
by `memoturn_core.profiles`; safe from any thread.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import apsw

from memoturn_schemas.errors import MemoturnError
from memoturn_storage.ambient import Ambient, new_uuid
from memoturn_storage.connection import open_database
from memoturn_storage.errors import translate
from memoturn_storage.handle import CHECKPOINT_FRAMES
from memoturn_storage.schema import Schema
from memoturn_storage.worker import Database

SCHEMA = Schema(
    (
        """
        CREATE TABLE databases (
          name TEXT PRIMARY KEY,
          uuid TEXT NOT NULL UNIQUE,
          created_at INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
    )
)

_KNOWN_AT_MOST = 20_000
"""Entries kept in memory, so that a node with many idle databases does not grow with their number."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One database of the catalogue; `created_at` in Unix milliseconds."""

    name: str
    uuid: str
    created_at: int


class Catalog:
    """The catalogue of a data directory. Asking it makes nothing; the directory comes with the first create."""

    def __init__(self, directory: Path, ambient: Ambient) -> None:
        self._directory = directory
        self._databases = directory / "databases"
        self._ambient = ambient
        self._lock = threading.Lock()
        self._known: dict[str, Entry] = {}
        self._wal_frames = 0
        self._opened: apsw.Connection | None = None

    def prepare(self) -> None:
        """Make the directory and the catalogue now, unless they exist.

        Raises:
            Unavailable: the directory cannot be read or written, or a newer program made it.
        """
        with self._lock:
            self._connection(create=True)

    def find(self, name: str) -> Entry | None:
        """The database of this name, made by whichever process."""
        entry = self._known.get(name)
        if entry is None:
            with self._lock:
                entry = self._select(name)
        return entry

    def create(self, name: str) -> Entry:
        """The database of this name, made now unless it exists: metadata only, no file."""
        known = self._known.get(name)
        if known is not None:
            return known
        made = Entry(name, new_uuid(self._ambient), self._ambient.now_ms())
        with self._lock:
            connection = self._connection(create=True)
            try:
                connection.execute(
                    "INSERT INTO databases VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
                    (made.name, made.uuid, made.created_at),
                )
                won = connection.changes() == 1
                if self._wal_frames >= CHECKPOINT_FRAMES:
                    with suppress(apsw.BusyError):
                        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error as error:
                raise translate(error) from error
            entry = self._remember(made) if won else self._select(name)
        assert entry is not None  # noqa: S101 - whoever won the race put it there
        return entry

    def with_prefix(self, prefix: str) -> list[Entry]:
        """The databases whose names start with `prefix`, by name."""
        with self._lock:
            rows = self._query(
                "SELECT name, uuid, created_at FROM databases WHERE name >= ? AND name < ? ORDER BY name",
                (prefix, prefix + "\U0010ffff"),
            )
        return [Entry(*row) for row in rows]

    def count(self) -> int:
        """How many databases there are."""
        with self._lock:
            return sum(count for (count,) in self._query("SELECT count(*) FROM databases"))

    def database(self, entry: Entry, branch: str) -> Database:
        """Where a branch's file lies."""
        return Database(f"{entry.uuid[:2]}/{entry.uuid}/{branch}", self._databases)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _select(self, name: str) -> Entry | None:
        rows = self._query("SELECT name, uuid, created_at FROM databases WHERE name = ?", (name,))
        return self._remember(Entry(*rows[0])) if rows else None

    def _remember(self, entry: Entry) -> Entry:
        if len(self._known) >= _KNOWN_AT_MOST:
            self._known.clear()
        self._known[entry.name] = entry
        return entry

    def _query(self, sql: str, parameters: tuple[str, ...] = ()) -> list[Any]:
        connection = self._connection(create=False)
        if connection is None:
            return []
        try:
            return connection.execute(sql, parameters).fetchall()
        except apsw.Error as error:
            raise translate(error) from error

    @overload
    def _connection(self, *, create: Literal[True]) -> apsw.Connection: ...
    @overload
    def _connection(self, *, create: bool) -> apsw.Connection | None: ...
    def _connection(self, *, create: bool) -> apsw.Connection | None:
        """The open catalogue; without `create`, None where there is none on disk."""
        if self._opened is not None:
            return self._opened
        path = self._directory / "catalog.db"
        try:
            if not path.exists():
                if not create:
                    return None
                # Nobody but the owner may read memories; an existing directory is left as it is.
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                SCHEMA.create(path, self._ambient)
            connection = open_database(path, on_wal_frames=self._note_wal_frames)
            try:
                SCHEMA.migrate(connection)
            except BaseException:
                connection.close()
                raise
        except (apsw.Error, OSError) as error:
            raise _located(error, self._directory) from error
        self._opened = connection
        return connection

    def _note_wal_frames(self, frames: int) -> None:
        self._wal_frames = frames


def _located(error: Exception, directory: Path) -> MemoturnError:
    kind = type(translate(error))
    return kind(f"the data directory {directory} cannot be used: {error}")
