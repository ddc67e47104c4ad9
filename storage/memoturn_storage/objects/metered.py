"""A store that counts what is asked of another one, for metrics. Called by `memoturn_core.node`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from memoturn_storage.objects.store import (
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    PreconditionFailed,
    StoredObject,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failing:
    """Calls that failed, none having been answered since."""

    calls: int
    operation: str
    """That of the last."""


class MeteredStore:
    """`inner`, with its calls counted by operation and outcome: `ok`, `missing`, `precondition` or `error`."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._failing: Failing | None = None

    def calls(self) -> dict[tuple[str, str], int]:
        """How many calls of each operation had each outcome."""
        with self._lock:
            return dict(self._calls)

    @property
    def failing(self) -> Failing | None:
        """None where the last call was answered, and where there was none."""
        return self._failing

    def get(self, key: str) -> StoredObject:
        return self._counted("get", lambda: self._inner.get(key))

    def put(self, key: str, data: bytes) -> None:
        self._counted("put", lambda: self._inner.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> str:
        return self._counted("put_if_absent", lambda: self._inner.put_if_absent(key, data))

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        return self._counted("put_if_match", lambda: self._inner.put_if_match(key, data, version))

    def delete(self, key: str) -> None:
        self._counted("delete", lambda: self._inner.delete(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self._counted("list", lambda: list(self._inner.list(prefix))))

    def close(self) -> None:
        self._inner.close()

    def _counted(self, operation: str, call: Callable[[], T]) -> T:
        outcome = "error"
        try:
            answer = call()
            outcome = "ok"
            return answer
        except ObjectMissing:
            outcome = "missing"
            raise
        except PreconditionFailed:
            outcome = "precondition"
            raise
        finally:
            with self._lock:
                self._calls[operation, outcome] += 1
                before = 0 if self._failing is None else self._failing.calls
                self._failing = Failing(before + 1, operation) if outcome == "error" else None
