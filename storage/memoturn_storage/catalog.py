"""The catalogue: which databases exist, under which name, with which uuid.

What a name means is decided in the object store (`memoturn_storage.entries`), which every node shares: racing
creates converge, and so do deletions. A small SQLite file in the data directory, the index, remembers what
this machine knows of it, for all its processes; it is rebuilt from the object store where it is missing.
Names decide nothing about paths: a database's files lie under its uuid.

What is known here may be out of date. Who finds that a database cannot be opened asks `refresh`
(`memoturn_storage.deletion.moved_on`); who lists asks `learn` first. Called by `memoturn_core`, the upkeep
and `memoturn_storage.deletion`; safe from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import structlog

from memoturn_schemas.errors import AlreadyExists, Internal
from memoturn_storage.ambient import Ambient, new_uuid
from memoturn_storage.catalog_index import Index
from memoturn_storage.entries import NAMES_PREFIX as NAMES_PREFIX
from memoturn_storage.entries import Durability, Entries, Listed, Mark
from memoturn_storage.entries import Entry as Entry
from memoturn_storage.objects.store import ObjectStore

log = structlog.get_logger("memoturn")

LEARN_EVERY_S = 5.0
"""At least, between two listings of the names in the object store, for what other machines have done."""

_LEARN_SHARE = 0.1
"""Of the time, that listings may take: where there are very many names, they are less frequent."""

_SETTLED_MS = 5_000
"""Age from which on an object's time of change tells it from the next: stores count in seconds, and clocks differ."""

_KNOWN_AT_MOST = 20_000
"""Entries kept in memory, so that a node with many idle databases does not grow with their number."""

_CHUNK = 500
_READERS = 16

_THERE = "live AND (ttl_at IS NULL OR ttl_at > ?)"


class Catalog:
    """The catalogue of a data directory and an object store.

    Asking it makes nothing; the directory comes with the first create.
    """

    def __init__(self, directory: Path, store: ObjectStore, ambient: Ambient) -> None:
        self._entries = Entries(store)
        self._index = Index(directory, ambient)
        self._ambient = ambient
        self._lock = threading.Lock()
        self._known: dict[str, Entry] = {}
        self._agreed = False
        self._learning = threading.Lock()
        self._learn_at: float | None = None

    def prepare(self) -> None:
        """Make the directory and the index now, unless they exist.

        Raises:
            Unavailable: the directory cannot be read or written, or a newer program made it.
        """
        self._index.prepare()

    def close(self) -> None:
        self._index.close()

    # --- one name --------------------------------------------------------------------------------

    def known(self, name: str) -> Entry | None:
        """The database of this name as far as this machine knows; never waits for the object store."""
        return self._existing(self._newest_known(name))

    def find(self, name: str) -> Entry | None:
        """The database of this name, made by whichever node; may wait for the object store.

        Raises:
            StoreUnavailable.
        """
        return self.known(name) or self._existing(self.refresh(name))

    def refresh(self, name: str) -> Entry | None:
        """What the object store says of a name now, a tombstone too; None where nobody has heard of it.

        Raises:
            StoreUnavailable.
        """
        entry = self._entries.read(name)
        # Names stay in the store for ever: one that is not there yet is only known here.
        return self._newest_known(name) if entry is None else self._adopt(entry)

    def deleted_at(self, name: str) -> int | None:
        """When the last database of this name was deleted, Unix milliseconds; None: never, as far as is known here.

        From memory. What it says is as new as the last `find` or `refresh` of the name.
        """
        entry = self._newest_known(name)
        return None if entry is None else entry.deleted_at

    def create(self, name: str) -> Entry:
        """The database of this name, made now unless it exists: metadata only, no file.

        Raises:
            StoreUnavailable: it may have been made or not; asking again finds out.
        """
        return self.known(name) or self._create(name, None, "standard")[0]

    def create_new(self, name: str, *, ttl_ms: int | None = None, durability: Durability = "standard") -> Entry:
        """A new database of this name: metadata only, no file. Of those who race, one makes it.

        Raises:
            AlreadyExists: there is one.
            StoreUnavailable: it may have been made or not.
        """
        entry, made = self._create(name, ttl_ms, durability)
        if not made:
            raise AlreadyExists(f"there is a database {name} already")
        return entry

    def bury(self, entry: Entry) -> Entry:
        """Turn the name of this database into a tombstone, unless it means another already; what it says then.

        Raises:
            StoreUnavailable.
        """
        return self._adopt(self._entries.bury(entry, self._ambient.now_ms()))

    def _create(self, name: str, ttl_ms: int | None, durability: Durability) -> tuple[Entry, bool]:
        def fresh() -> Entry:
            now_ms = self._ambient.now_ms()
            ttl_at = None if ttl_ms is None else now_ms + ttl_ms
            return Entry(name, new_uuid(self._ambient), now_ms, ttl_at, durability)

        entry, made = self._entries.create(fresh)
        return self._adopt(entry), made

    def _existing(self, entry: Entry | None) -> Entry | None:
        return entry if entry is not None and entry.exists(self._ambient.now_ms()) else None

    # --- what has to be finished -----------------------------------------------------------------

    def mark(self, entry: Entry) -> int:
        """Say in the object store that the deletion of this database is begun; when that was, Unix milliseconds."""
        began_ms = self._ambient.now_ms()
        self._entries.mark(Mark(entry.name, entry.uuid))
        return began_ms

    def unmark(self, uuid: str) -> None:
        self._entries.unmark(uuid)

    def marked(self, uuid: str) -> Mark | None:
        return self._entries.marked(uuid)

    def marks(self) -> list[str]:
        """The uuids of the databases, of all nodes, whose deletion is begun and of which something may be left."""
        return self._entries.marks()

    def due(self) -> list[Entry]:
        """The databases that this machine knows of whose time has run out, and which are not deleted yet."""
        return self._index.entries(
            "live AND ttl_at IS NOT NULL AND ttl_at <= ? ORDER BY ttl_at", (self._ambient.now_ms(),)
        )

    def with_uuid(self, uuid: str) -> Entry | None:
        """The entry or tombstone of this database, as far as this machine knows."""
        return next(iter(self._index.entries("uuid = ?", (uuid,))), None)

    def gone(self, uuid: str) -> bool:
        """Whether this machine knows that the name of this database was used again."""
        return bool(self._index.query("SELECT 1 FROM gone WHERE uuid = ?", (uuid,)))

    # --- many names ------------------------------------------------------------------------------

    def with_prefix(self, prefix: str) -> list[Entry]:
        """The databases whose names start with `prefix`, by name.

        Raises:
            StoreUnavailable: a fresh node cannot learn of them.
        """
        self._agree()
        ends = (prefix, prefix + "\U0010ffff")
        return self._index.entries(
            f"name >= ? AND name < ? AND {_THERE} ORDER BY name", (*ends, self._ambient.now_ms())
        )

    def page(self, after: str, limit: int) -> list[Entry]:
        """The first `limit` databases whose names come after this one, by name, as far as this machine knows.

        Raises:
            StoreUnavailable: a fresh node cannot learn of them.
        """
        self._agree()
        return self._index.entries(
            f"name > ? AND {_THERE} ORDER BY name LIMIT ?", (after, self._ambient.now_ms(), limit)
        )

    def count(self) -> int:
        """How many databases this machine knows of."""
        return sum(count for (count,) in self._index.query("SELECT count(*) FROM databases WHERE live"))

    def learn(self) -> None:
        """Learn what other machines have made and deleted, unless that was done a moment ago (`LEARN_EVERY_S`), or is.

        Costs a listing of all names in the object store, and a read of each that has changed.

        Raises:
            StoreUnavailable.
        """
        self._agree()
        if not self._learning.acquire(blocking=False):
            return
        try:
            began = self._ambient.monotonic()
            if self._learn_at is None or began >= self._learn_at:
                for _ in self._take_over():
                    pass
                self._note_learnt(began)
        finally:
            self._learning.release()

    def _agree(self) -> None:
        """Once in the life of an index: tell the object store of what it lacks, and learn what it has."""
        self._agreed = self._agreed or bool(self._index.query("SELECT 1 FROM agreed LIMIT 1"))
        if self._agreed:
            return
        began = self._ambient.monotonic()
        here = {entry.name: entry for entry in self._index.entries("live", ())}
        there = {listed.name for listed in self._take_over()}
        if not here and not there:
            return
        for name in here.keys() - there:
            self._adopt(self._entries.offer(here[name]))
        self._index.execute([("INSERT INTO agreed VALUES (?)", (self._ambient.now_ms(),))])
        self._agreed = True
        self._note_learnt(began)

    def _note_learnt(self, began: float) -> None:
        now = self._ambient.monotonic()
        self._learn_at = now + max(LEARN_EVERY_S, (now - began) / _LEARN_SHARE)

    def _take_over(self) -> Iterator[Listed]:
        """Go through the names in the object store and read those that are not in the index as they are there."""
        listing = self._entries.listed()
        while chunk := list(islice(listing, _CHUNK)):
            now_ms = self._ambient.now_ms()
            bounds = (chunk[0].name, chunk[-1].name)
            stamps = dict(self._index.query("SELECT name, stamp FROM databases WHERE name BETWEEN ? AND ?", bounds))
            seen = {listed.name: _stamp(listed, now_ms) for listed in chunk}
            changed = [name for name, stamp in seen.items() if stamp is None or stamp != stamps.get(name)]
            found = self._read_all(changed)
            if found:
                self._index.remember((entry, seen[entry.name]) for entry in found)
            for entry in found:
                if entry.name in self._known:
                    self._indexed(entry.name)
            yield from chunk

    def _read_all(self, names: Sequence[str]) -> list[Entry]:
        if len(names) < _READERS:
            found = [self._readable(name) for name in names]
        else:
            with ThreadPoolExecutor(_READERS, "memoturn-catalogue") as readers:
                found = list(readers.map(self._readable, names))
        return [entry for entry in found if entry is not None]

    def _readable(self, name: str) -> Entry | None:
        try:
            return self._entries.read(name)
        except Internal as error:  # who asks for this name hears of it, and not everybody who lists
            log.error("a name left out", error=str(error))
            return None

    # --- what is remembered ----------------------------------------------------------------------

    def _adopt(self, entry: Entry) -> Entry:
        """Remember an entry of the object store, unless a newer one is known here; the newer one."""
        if self._known.get(entry.name) != entry:
            self._index.remember([(entry, None)])
        return self._indexed(entry.name) or entry

    def _newest_known(self, name: str) -> Entry | None:
        return self._known.get(name) or self._indexed(name)

    def _indexed(self, name: str) -> Entry | None:
        found = self._index.entries("name = ?", (name,))
        if not found:
            return None
        with self._lock:
            known = self._known.get(name)
            if known is not None and known.revision > found[0].revision:
                return known
            if len(self._known) >= _KNOWN_AT_MOST:
                self._known.clear()
            self._known[name] = found[0]
            return found[0]


def _stamp(listed: Listed, now_ms: int) -> str | None:
    """Tells this state of a name's object from every other; None while it is too young for that."""
    return f"{listed.modified_ms}-{listed.size}" if now_ms - listed.modified_ms >= _SETTLED_MS else None
