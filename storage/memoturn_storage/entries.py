"""The catalogue in the object store: one object a name, which says what database the name means, if any.

It is the one truth of creation and of deletion. A name gets its object by a conditional create; whatever
happens to the name later replaces it by compare-and-swap: a deletion leaves a tombstone in it, a re-creation
puts an entry with a fresh uuid in the tombstone's place. It is never removed, so it always knows when the
last database of the name was deleted. Each replacement has a higher `revision`, by which who has kept an
entry tells which of two is the newer, and no content ever comes back.

Beside the names lie marks, one for each database that is being deleted or of which objects are left: what
`memoturn_storage.deletion` has to finish. Called by `memoturn_storage.catalog`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import orjson

from memoturn_schemas.errors import Internal, Unavailable
from memoturn_storage.objects.store import ObjectMissing, ObjectStore, PreconditionFailed

Durability = Literal["standard", "durable"]

NAMES_PREFIX = "v1/_catalog/names/"
_MARKS_PREFIX = "v1/_catalog/deleted/"

_UUID = re.compile("[0-9a-f]{32}")

_RACES_AT_MOST = 32
"""Lost in a row, after which something is wrong that trying again does not mend."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name means; times in Unix milliseconds."""

    name: str
    uuid: str
    """Of a tombstone, that of the last database of the name."""
    created_at: int
    ttl_at: int | None = None
    """From when on the database counts as deleted; None: never."""
    durability: Durability = "standard"
    """`durable` where every write is acknowledged only once it is shipped."""
    live: bool = True
    """False for a tombstone: there is no database of this name."""
    deleted_at: int | None = None
    """When the last database of this name was deleted; never goes back, and stays when the name is used again."""
    revision: int = 1

    def exists(self, now_ms: int) -> bool:
        return self.live and not self.expired(now_ms)

    def expired(self, now_ms: int) -> bool:
        return self.ttl_at is not None and self.ttl_at <= now_ms

    @property
    def durable(self) -> bool:
        return self.durability == "durable"

    def encode(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def decode(cls, data: bytes, key: str) -> Entry:
        try:
            entry = cls(**orjson.loads(data))
            if name_key(entry.name) != key or not _UUID.fullmatch(entry.uuid):
                raise ValueError("it is not that of this name")
            numbers: list[Any] = [entry.created_at, entry.ttl_at, entry.deleted_at, entry.revision]
            if any(number is not None and type(number) is not int for number in numbers):
                raise ValueError("a number in it is none")
            states: tuple[Any, Any] = (entry.live, entry.durability)
            if type(states[0]) is not bool or states[1] not in get_args(Durability):
                raise ValueError("a state in it is none")
        except (ValueError, TypeError) as error:
            raise Internal(f"the catalogue's entry {key} is damaged: {error!r}") from error
        return entry


@dataclass(frozen=True, slots=True)
class Mark:
    """A database whose deletion was begun."""

    name: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A name as the object store lists it, without what it means."""

    name: str
    modified_ms: int
    size: int


def name_key(name: str) -> str:
    return f"{NAMES_PREFIX}{name}"


class Entries:
    """The names and marks of an object store. Every method may raise `StoreUnavailable`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    # --- names -----------------------------------------------------------------------------------

    def read(self, name: str) -> Entry | None:
        """The entry or tombstone of a name; None where there never was a database of it."""
        found = self._read(name)
        return None if found is None else found[0]

    def create(self, fresh: Callable[[], Entry]) -> tuple[Entry, bool]:
        """What the name of `fresh()` means then, and whether that was made here: it is unless there was a database.

        `fresh` gives another uuid each time; one that was put once, and whose answer was lost, is never put again,
        for it may have been used and deleted since. An entry whose time has run out stands until it is deleted.
        """
        first = fresh()
        ours = {first.uuid}

        def made(current: Entry | None) -> Entry:
            if current is not None and (current.live or current.uuid in ours):
                return current
            proposed = fresh()
            ours.add(proposed.uuid)
            if current is None:
                return proposed
            return replace(proposed, deleted_at=current.deleted_at, revision=current.revision + 1)

        # Most names are new, and then one call is enough.
        try:
            self._store.put_if_absent(name_key(first.name), first.encode())
        except PreconditionFailed:
            entry = self._change(first.name, made)
            return entry, entry.uuid in ours
        return first, True

    def offer(self, entry: Entry) -> Entry:
        """Tell the store of a database that it may not know; what it says of the name."""
        try:
            self._store.put_if_absent(name_key(entry.name), entry.encode())
        except PreconditionFailed:
            return self.read(entry.name) or entry
        return entry

    def bury(self, buried: Entry, now_ms: int) -> Entry:
        """Make the name's entry a tombstone if it still means this database; what it says after that."""

        def made(found: Entry | None) -> Entry:
            current = found or buried
            if current.uuid != buried.uuid or not current.live:
                return current
            deleted_at = max(now_ms, current.deleted_at or 0)
            return replace(current, live=False, deleted_at=deleted_at, revision=current.revision + 1)

        return self._change(buried.name, made)

    def listed(self) -> Iterator[Listed]:
        """All names and tombstones, by name."""
        for info in self._store.list(NAMES_PREFIX):
            yield Listed(info.key.removeprefix(NAMES_PREFIX), info.modified_ms, info.size)

    def _read(self, name: str) -> tuple[Entry, str] | None:
        key = name_key(name)
        try:
            stored = self._store.get(key)
        except ObjectMissing:
            return None
        return Entry.decode(stored.data, key), stored.version

    def _change(self, name: str, change: Callable[[Entry | None], Entry]) -> Entry:
        """Replace a name's entry by what `change` makes of it; one that it hands back as it is stays."""
        key = name_key(name)
        for _ in range(_RACES_AT_MOST):
            found = self._read(name)
            current = None if found is None else found[0]
            wanted = change(current)
            if wanted is current:
                return wanted
            try:
                if found is None:
                    self._store.put_if_absent(key, wanted.encode())
                else:
                    self._store.put_if_match(key, wanted.encode(), found[1])
            except PreconditionFailed:
                continue  # whoever was first, perhaps this very call: `change` knows its own work
            return wanted
        raise Unavailable(f"the name {name} is changed by too many at once; try again")

    # --- marks -----------------------------------------------------------------------------------

    def mark(self, mark: Mark) -> None:
        self._store.put(f"{_MARKS_PREFIX}{mark.uuid}", orjson.dumps(mark))

    def unmark(self, uuid: str) -> None:
        self._store.delete(f"{_MARKS_PREFIX}{uuid}")

    def marked(self, uuid: str) -> Mark | None:
        """The mark of a database, if it has one."""
        key = f"{_MARKS_PREFIX}{uuid}"
        try:
            mark = Mark(**orjson.loads(self._store.get(key).data))
            if mark.uuid != uuid or not isinstance(mark.name, str):
                raise ValueError("it is not that of this database")
        except ObjectMissing:
            return None
        except (ValueError, TypeError) as error:
            raise Internal(f"the mark of a deletion {key} is damaged: {error!r}") from error
        return mark

    def marks(self) -> list[str]:
        """The uuids of all databases that have one."""
        return [info.key.removeprefix(_MARKS_PREFIX) for info in self._store.list(_MARKS_PREFIX)]
