"""The catalogue: which databases exist, under which name, with which uuid.

One small SQLite file in the data directory, shared by every process on it. Names decide nothing about
paths: a database's files lie under its uuid. Racing creates of one name converge on one uuid. Called
by `memoturn_core.profiles`; safe from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from memoturn_storage.ambient import Ambient, new_uuid
from memoturn_storage.connection import FoldingLog, open_database
from memoturn_storage.errors import translate
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
        self._path = directory / "catalog.db"
        self._databases = directory / "databases"
        self._ambient = ambient
        self._lock = threading.Lock()
        self._known: dict[str, Entry] = {}
        self._log: FoldingLog | None = None

    def prepare(self) -> None:
        """Make the directory and the catalogue now, unless they exist.

        Raises:
            Unavailable: the directory cannot be read or written, or a newer program made it.
        """
        with self._lock:
            self._made()

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
            log = self._made()
            try:
                log.connection.execute(
                    "INSERT INTO databases VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
                    (made.name, made.uuid, made.created_at),
                )
                won = log.connection.changes() == 1
                log.fold_if_long()
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
        if self._log is not None:
            self._log.connection.close()

    def _select(self, name: str) -> Entry | None:
        rows = self._query("SELECT name, uuid, created_at FROM databases WHERE name = ?", (name,))
        return self._remember(Entry(*rows[0])) if rows else None

    def _remember(self, entry: Entry) -> Entry:
        if len(self._known) >= _KNOWN_AT_MOST:
            self._known.clear()
        self._known[entry.name] = entry
        return entry

    def _query(self, sql: str, parameters: tuple[str, ...] = ()) -> list[Any]:
        log = self._existing()
        if log is None:
            return []
        try:
            return log.connection.execute(sql, parameters).fetchall()
        except apsw.Error as error:
            raise translate(error) from error

    def _existing(self) -> FoldingLog | None:
        """The open catalogue, or None where there is none on disk."""
        if self._log is None:
            with self._usable():
                if self._path.exists():
                    self._log = _open(self._path)
        return self._log

    def _made(self) -> FoldingLog:
        """The open catalogue, which is made with its directory if there is none."""
        if self._existing() is None:
            with self._usable():
                # Nobody but the owner may read memories; an existing directory is left as it is.
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                SCHEMA.create(self._path, self._ambient)
        log = self._existing()
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


def _open(path: Path) -> FoldingLog:
    connection = open_database(path)
    try:
        SCHEMA.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return FoldingLog(connection)
