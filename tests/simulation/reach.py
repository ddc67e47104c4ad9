"""The object store as one process reaches it: with its faults, with what happens meanwhile, until it dies.

Between a process and the store lie, from the outside: `FaultyStore`, which errs by the seed and asks the
world before each call what else happens in that moment; and `Reach`, which has the effect, tells the model,
and lets a process die just after it, or an effect land long after its error. Made by `simulation.processes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from memoturn_storage.manifest import Manifest
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectInfo, ObjectMissing, PreconditionFailed, StoredObject, StoreUnavailable
from simulation.model import Intent, Model, Violation

if TYPE_CHECKING:
    from simulation.processes import Process


_MANIFEST = "/manifest.json"


class Landing:
    """The store itself: tells the model of every write that lands."""

    def __init__(self, store: MemoryStore, model: Model) -> None:
        self.store = store
        self._model = model

    def put(self, key: str, data: bytes) -> None:
        self._model.object_replaced(key, self._content(key) in (None, data))
        self.store.put(key, data)

    def put_if(self, writer: Process, intent: Intent, key: str, data: bytes, version: str | None) -> str:
        landed = self.store.put_if_absent(key, data) if version is None else self.store.put_if_match(key, data, version)
        if key.endswith(_MANIFEST):
            keys = self.store._kept.keys()
            self._model.manifest_landed(Manifest.decode(data, key), landed, intent, writer.disk, keys)
        return landed

    def delete(self, intent: Intent, key: str) -> None:
        content = self._content(key)
        if content is None:
            return
        if key.endswith(_MANIFEST):
            self._model.manifest_removed(Manifest.decode(content, key).ref, intent)
        else:
            self._model.object_removed(key)
        self.store.delete(key)

    def _content(self, key: str) -> bytes | None:
        try:
            return self.store.get(key).data
        except ObjectMissing:
            return None


class Reach:
    """The inner side of one process's way to the store."""

    def __init__(self, landing: Landing, process: Process) -> None:
        self._landing = landing
        self._process = process

    def get(self, key: str) -> StoredObject:
        return self._landing.store.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._landing.store.list(prefix)

    def put(self, key: str, data: bytes) -> None:
        self._effect(key, partial(self._landing.put, key, data))

    def put_if_absent(self, key: str, data: bytes) -> str:
        return self._conditional(key, data, None)

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        return self._conditional(key, data, version)

    def delete(self, key: str) -> None:
        self._effect(key, partial(self._landing.delete, self._process.intent, key), may_be_late=False)

    def close(self) -> None:
        """The store is others' too."""

    def _conditional(self, key: str, data: bytes, version: str | None) -> str:
        landed: list[str] = []
        write = partial(self._landing.put_if, self._process, self._process.intent, key, data, version)
        self._effect(key, lambda: landed.append(write()))
        return landed[0]

    def _effect(self, key: str, effect: Callable[[], object], *, may_be_late: bool = True) -> None:
        world = self._process.world
        if may_be_late and world.chance(world.odds.late):
            world.late.append(partial(_land, effect))
            raise StoreUnavailable(f"no answer for {key}, which lands later")
        try:
            effect()
        except Violation as violation:
            world.broken.append(violation)  # the product takes it for a failure of the store
            raise
        if world.chance(world.odds.death):
            self._process.die()
            raise StoreUnavailable("this process is dead")


def _land(effect: Callable[[], object]) -> str:
    try:
        effect()
    except PreconditionFailed:
        return "too late"
    return "landed"
