"""The catalogue: which databases exist, under which name, with which uuid.

Which uuid a name means is decided once, by a conditional create in the object store, which every node
shares: racing creates converge. A small SQLite file in the data directory, the index, remembers what
this machine knows of it, for all its processes; it is rebuilt from the object store where it is missing.
Names decide nothing about paths: a database's files lie under its uuid. Called by
`memoturn_core.profiles`; safe from any thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import orjson

from memoturn_schemas.errors import Internal
from memoturn_storage.ambient import Ambient, new_uuid
from memoturn_storage.connection import FoldingLog, open_database
from memoturn_storage.errors import translate
from memoturn_storage.objects.store import ObjectMissing, ObjectStore, PreconditionFailed
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
    )
)
"""`agreed` has a row once the index and the object store have told each other all names."""

NAMES_PREFIX = "v1/_catalog/names/"

_UUID = re.compile("[0-9a-f]{32}")

_KNOWN_AT_MOST = 20_000
"""Entries kept in memory, so that a node with many idle databases does not grow with their number."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One database of the catalogue; `created_at` in Unix milliseconds."""

    name: str
    uuid: str
    created_at: int

    def encode(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def decode(cls, data: bytes, key: str) -> Entry:
        try:
            entry = cls(**orjson.loads(data))
            if _key(entry.name) != key or not _UUID.fullmatch(entry.uuid):
                raise ValueError("it is not that of this name")
        except (ValueError, TypeError) as error:
            raise Internal(f"the catalogue's entry {key} is damaged: {error!r}") from error
        return entry


class Catalog:
    """The catalogue of a data directory and an object store.

    Asking it makes nothing; the directory comes with the first create.
    """

    def __init__(self, directory: Path, store: ObjectStore, ambient: Ambient) -> None:
        self._directory = directory
        self._path = directory / "catalog.db"
        self._store = store
        self._ambient = ambient
        self._lock = threading.Lock()
        self._known: dict[str, Entry] = {}
        self._log: FoldingLog | None = None
        self._agreed = False

    def prepare(self) -> None:
        """Make the directory and the index now, unless they exist.

        Raises:
            Unavailable: the directory cannot be read or written, or a newer program made it.
        """
        with self._lock:
            self._made()

    def known(self, name: str) -> Entry | None:
        """The database of this name as far as this machine knows; never waits for the object store."""
        entry = self._known.get(name)
        if entry is None:
            with self._lock:
                entry = self._select(name)
        return entry

    def find(self, name: str) -> Entry | None:
        """The database of this name, made by whichever node; may wait for the object store.

        Raises:
            StoreUnavailable.
        """
        entry = self.known(name)
        if entry is not None:
            return entry
        try:
            key = _key(name)
            entry = Entry.decode(self._store.get(key).data, key)
        except ObjectMissing:
            return None
        return self._adopt(entry)

    def create(self, name: str) -> Entry:
        """The database of this name, made now unless it exists: metadata only, no file.

        Raises:
            StoreUnavailable: it may have been made or not; asking again finds out.
        """
        entry = self.known(name)
        if entry is None:
            entry = self._adopt(self._agreed_upon(Entry(name, new_uuid(self._ambient), self._ambient.now_ms())))
        return entry

    def with_prefix(self, prefix: str) -> list[Entry]:
        """The databases whose names start with `prefix`, by name.

        Raises:
            StoreUnavailable: a fresh node cannot learn of them.
        """
        self._agree()
        with self._lock:
            rows = self._query(
                "SELECT name, uuid, created_at FROM databases WHERE name >= ? AND name < ? ORDER BY name",
                (prefix, prefix + "\U0010ffff"),
            )
        return [Entry(*row) for row in rows]

    def count(self) -> int:
        """How many databases this machine knows of."""
        with self._lock:
            return sum(count for (count,) in self._query("SELECT count(*) FROM databases"))

    def close(self) -> None:
        if self._log is not None:
            self._log.connection.close()

    # --- the object store ------------------------------------------------------------------------

    def _agreed_upon(self, proposed: Entry) -> Entry:
        """The entry that the object store has, ours if it had none."""
        key = _key(proposed.name)
        try:
            self._store.put_if_absent(key, proposed.encode())
        except PreconditionFailed:
            return Entry.decode(self._store.get(key).data, key)
        return proposed

    def _agree(self) -> None:
        """Once in the life of an index: tell the object store of what it lacks, and learn what it has."""
        with self._lock:
            self._agreed = self._agreed or bool(self._query("SELECT 1 FROM agreed LIMIT 1"))
            if self._agreed:
                return
            here = {row[0]: Entry(*row) for row in self._query("SELECT name, uuid, created_at FROM databases")}
        there = [info.key for info in self._store.list(NAMES_PREFIX)]
        if not here and not there:
            return
        for name in here.keys() - {key.removeprefix(NAMES_PREFIX) for key in there}:
            self._agreed_upon(here[name])
        for key in there:
            if key.removeprefix(NAMES_PREFIX) not in here:
                self._adopt(Entry.decode(self._store.get(key).data, key))
        with self._lock:
            self._execute("INSERT INTO agreed VALUES (?)", (self._ambient.now_ms(),))
            self._agreed = True

    # --- the index -------------------------------------------------------------------------------

    def _adopt(self, entry: Entry) -> Entry:
        with self._lock:
            self._execute(
                "INSERT INTO databases VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET uuid = ?2, created_at = ?3",
                (entry.name, entry.uuid, entry.created_at),
            )
            return self._remember(entry)

    def _select(self, name: str) -> Entry | None:
        rows = self._query("SELECT name, uuid, created_at FROM databases WHERE name = ?", (name,))
        return self._remember(Entry(*rows[0])) if rows else None

    def _remember(self, entry: Entry) -> Entry:
        if len(self._known) >= _KNOWN_AT_MOST:
            self._known.clear()
        self._known[entry.name] = entry
        return entry

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> None:
        log = self._made()
        try:
            log.connection.execute(sql, parameters)
            log.fold_if_long()
        except apsw.Error as error:
            raise translate(error) from error

    def _query(self, sql: str, parameters: tuple[str, ...] = ()) -> list[Any]:
        log = self._existing()
        if log is None:
            return []
        try:
            return log.connection.execute(sql, parameters).fetchall()
        except apsw.Error as error:
            raise translate(error) from error

    def _existing(self) -> FoldingLog | None:
        """The open index, or None where there is none on disk."""
        if self._log is None:
            with self._usable():
                if self._path.exists():
                    self._log = _open(self._path)
        return self._log

    def _made(self) -> FoldingLog:
        """The open index, which is made with its directory if there is none."""
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


def _key(name: str) -> str:
    return f"{NAMES_PREFIX}{name}"


def _open(path: Path) -> FoldingLog:
    connection = open_database(path)
    try:
        SCHEMA.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return FoldingLog(connection)
