"""What was read and written last of a branch's key-value store, for reads that need no transaction.

A mirror of some rows: an entry is what the file holds at the branch's newest commit, absence included.
It is changed by the thread that has the branch alone, and looked at from others meanwhile: they only ever
take one entry, whole, and a change replaces an entry instead of changing it. Whoever found it in a state that
was being changed is told so by `Handle.peek`. Made and kept in step by `rows`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from sys import getsizeof
from typing import ClassVar, Self

import apsw

from memoturn_storage.lookups import Lookups

CACHE_BYTES = 1 << 20
"""Of memory, a branch, at most."""

LARGEST_VALUE = 64 << 10
"""Bytes of a value that is kept at most."""

_ENTRY_BYTES = 350
"""Of memory that an entry takes beside its texts and its value: measured, Python 3.11."""


@dataclass(slots=True, eq=False)
class Entry:
    """What a key holds: nothing where `value` is None."""

    value: bytes | None
    expires_at: int | None
    used: bool = False
    """Whether it was looked at since it last came up for eviction."""

    def value_at(self, now_ms: int) -> bytes | None:
        """The value, unless it has expired."""
        return None if self.expires_at is not None and self.expires_at <= now_ms else self.value


class KvCache:
    """Entries by namespace and key, within a bound of memory.

    What was not looked at goes first, the oldest before the others (second chance): unlike the order of a
    true LRU, a mark on the entry can be set by any thread.
    """

    lookups: ClassVar[Lookups] = Lookups()
    """By those who wanted to know what a key holds, in all branches of the process."""

    def __init__(self, capacity: int = CACHE_BYTES) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._bytes = 0

    @classmethod
    def empty(cls, _connection: apsw.Connection) -> Self:
        """What `Snapshot.cached` begins with."""
        return cls()

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, by its own account."""
        return self._bytes

    def find(self, ns: str, key: str) -> Entry | None:
        """What the key holds; None where that is not known. From any thread."""
        entry = self._entries.get((ns, key))
        if entry is not None:
            entry.used = True
        return entry

    def keep(self, ns: str, key: str, entry: Entry) -> None:
        """The key holds this from now on."""
        self.drop(ns, key)
        if entry.value is not None and len(entry.value) > LARGEST_VALUE:
            return
        self._entries[ns, key] = entry
        self._bytes += _size(ns, key, entry)
        while self._bytes > self._capacity:
            self._evict()

    def drop(self, ns: str, key: str) -> None:
        """Know nothing of the key."""
        entry = self._entries.pop((ns, key), None)
        if entry is not None:
            self._bytes -= _size(ns, key, entry)

    def _evict(self) -> None:
        (ns, key), entry = self._entries.popitem(last=False)
        if entry.used:
            entry.used = False
            self._entries[ns, key] = entry
        else:
            self._bytes -= _size(ns, key, entry)


def _size(ns: str, key: str, entry: Entry) -> int:
    return getsizeof(ns) + getsizeof(key) + getsizeof(entry.value) + _ENTRY_BYTES
