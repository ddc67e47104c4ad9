"""An object store that fails as stores do, by a seeded choice: for tests and for the simulation.

What a failure says is compatible with what happened: `StoreUnavailable` may come before or after the effect, and a
conditional write may answer `PreconditionFailed` although it landed, as a store's client does when it tries again
after a lost answer. Every call draws the same two numbers from `random`, so the same seed and the same calls fail in
the same way. As safe from several threads as `random` and the inner store are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from memoturn_storage.objects.store import (
    ObjectInfo,
    ObjectStore,
    PreconditionFailed,
    StoredObject,
    StoreUnavailable,
)

Operation = Literal["get", "put", "put_if_absent", "put_if_match", "delete", "list"]
Fate = Literal["fine", "before", "after", "lost"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities, which add up to at most 1."""

    before: float = 0.0
    """The call fails and changes nothing."""

    after: float = 0.0
    """The call has its effect and fails; a listing breaks off in its middle."""

    lost: float = 0.0
    """A conditional write has its effect and says that its precondition failed; other calls are fine."""


class FaultyStore:
    """`inner` with faults; `down` makes every call fail, `delay` is told how long each call takes, in seconds."""

    def __init__(
        self,
        inner: ObjectStore,
        random: Random,
        faults: Faults | Mapping[Operation, Faults],
        *,
        delay: Callable[[float], None] = lambda seconds: None,
        slowest: float = 0.0,
    ) -> None:
        self.inner = inner
        self.down = False
        self.fates: Counter[tuple[Operation, Fate]] = Counter()
        self._random = random
        self._faults = faults
        self._delay = delay
        self._slowest = slowest

    def get(self, key: str) -> StoredObject:
        return self._run("get", key, lambda: self.inner.get(key))

    def put(self, key: str, data: bytes) -> None:
        self._run("put", key, lambda: self.inner.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> str:
        return self._run("put_if_absent", key, lambda: self.inner.put_if_absent(key, data))

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        return self._run("put_if_match", key, lambda: self.inner.put_if_match(key, data, version))

    def delete(self, key: str) -> None:
        self._run("delete", key, lambda: self.inner.delete(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        fate = self._fate("list")
        if fate == "before":
            raise StoreUnavailable("the listing failed")
        found = list(self.inner.list(prefix))
        return self._broken_off(found) if fate == "after" else iter(found)

    def close(self) -> None:
        self.inner.close()

    def _run(self, operation: Operation, key: str, call: Callable[[], T]) -> T:
        fate = self._fate(operation)
        if fate == "before":
            raise StoreUnavailable(f"{operation} of {key} failed")
        result = call()
        if fate == "after":
            raise StoreUnavailable(f"the answer to {operation} of {key} was lost")
        if fate == "lost":
            raise PreconditionFailed(key)
        return result

    def _fate(self, operation: Operation) -> Fate:
        drawn, slowness = self._random.random(), self._random.random()
        self._delay(slowness * self._slowest)
        faults = self._faults if isinstance(self._faults, Faults) else self._faults.get(operation, Faults())
        fate: Fate = "fine"
        if self.down or drawn < faults.before:
            fate = "before"
        elif drawn < faults.before + faults.after:
            fate = "after"
        elif drawn < faults.before + faults.after + faults.lost and operation in ("put_if_absent", "put_if_match"):
            fate = "lost"
        self.fates[operation, fate] += 1
        return fate

    def _broken_off(self, found: Sequence[ObjectInfo]) -> Iterator[ObjectInfo]:
        yield from found[: len(found) // 2]
        raise StoreUnavailable("the listing broke off")
