"""`mem://`: objects in this process, for tests, simulation and trying things out.

Opened by `memoturn_storage.objects.opening`; each store is empty and alone. A version is never used twice.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile

from memoturn_storage.ambient import Ambient
from memoturn_storage.objects.store import (
    ObjectInfo,
    ObjectMissing,
    PreconditionFailed,
    StoredObject,
    check_key,
    check_prefix,
)


@dataclass(frozen=True, slots=True)
class _Kept:
    object: StoredObject
    modified_ms: int


class MemoryStore:
    """An `ObjectStore` that lasts as long as it is referred to."""

    def __init__(self, ambient: Ambient) -> None:
        self._ambient = ambient
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._keys: list[str] = []  # in order: what a listing costs depends on what it finds
        self._writes = 0

    def get(self, key: str) -> StoredObject:
        kept = self._kept.get(check_key(key))
        if kept is None:
            raise ObjectMissing(key)
        return kept.object

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._write(check_key(key), data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        with self._lock:
            if check_key(key) in self._kept:
                raise PreconditionFailed(key)
            return self._write(key, data)

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        with self._lock:
            kept = self._kept.get(check_key(key))
            if kept is None or kept.object.version != version:
                raise PreconditionFailed(key)
            return self._write(key, data)

    def delete(self, key: str) -> None:
        with self._lock:
            if self._kept.pop(check_key(key), None) is not None:
                del self._keys[bisect_left(self._keys, key)]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = list(
                takewhile(lambda key: key.startswith(prefix), islice(self._keys, bisect_left(self._keys, prefix), None))
            )
            return iter([self._info(key) for key in found])

    def _info(self, key: str) -> ObjectInfo:
        kept = self._kept[key]
        return ObjectInfo(key, len(kept.object.data), kept.modified_ms)

    def close(self) -> None:
        self._kept, self._keys = {}, []

    def _write(self, key: str, data: bytes) -> str:
        self._writes += 1
        version = str(self._writes)
        if key not in self._kept:
            insort(self._keys, key)
        self._kept[key] = _Kept(StoredObject(bytes(data), version), self._ambient.now_ms())
        return version
