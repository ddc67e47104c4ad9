"""Writers that race: functions of a store, run by threads here and by spawned processes in `test_file_store`."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.store import ObjectMissing, ObjectStore, PreconditionFailed, StoreUnavailable

WRITERS = 16
WAIT = 60
"""Seconds after which something that should have happened counts as hung."""

ATTEMPTS = 5_000
"""Tries after which a writer that always loses counts as hung."""

T = TypeVar("T")


def create(store: ObjectStore, key: str, name: str) -> str | None:
    """The version that this writer made, None if it was not the first."""
    try:
        return store.put_if_absent(key, name.encode())
    except PreconditionFailed:
        return None


def increment(store: ObjectStore, key: str, name: str, times: int) -> None:
    """Add `times` lines to the object; each holds what is this writer's own."""
    for number in range(times):
        line = f"{name}-{number}\n".encode()
        for _ in range(ATTEMPTS):
            try:
                found = store.get(key)
                if line in found.data.splitlines(keepends=True):
                    break
                store.put_if_match(key, found.data + line, found.version)
                break
            except (PreconditionFailed, StoreUnavailable):
                continue
        else:
            raise AssertionError(f"writer {name} never got its turn")


def in_threads(run: Callable[[str], T]) -> list[T]:
    """Run once for each writer, all of them at the same time."""
    together = threading.Barrier(WRITERS)

    def start(name: str) -> T:
        together.wait(WAIT)
        return run(name)

    with ThreadPoolExecutor(WRITERS) as threads:
        return list(threads.map(start, map(str, range(WRITERS)), timeout=WAIT))


def in_processes(run: Callable[..., T], directory: Path, *arguments: Any) -> list[T]:
    """`run(store, *arguments, name)` once in each of as many processes, all of them at the same time."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WRITERS, spawn, _join, (spawn.Barrier(WRITERS),)) as processes:
        started = [processes.submit(_run, run, directory, arguments, str(number)) for number in range(WRITERS)]
        return [one.result(WAIT) for one in started]


_together: Any = None


def _join(barrier: Any) -> None:
    global _together
    _together = barrier


def _run(run: Callable[..., T], directory: Path, arguments: tuple[Any, ...], name: str) -> T:
    _together.wait(WAIT)
    return run(FileStore(directory, SystemAmbient()), *arguments, name)


def create_many(store: ObjectStore, rounds: int, name: str) -> list[int]:
    """The rounds in which this writer was the first, of as many objects."""
    return [number for number in range(rounds) if create(store, f"race/{number}", name) is not None]


def increment_counter(store: ObjectStore, times: int, name: str) -> None:
    increment(store, "counter/lines", name, times)


def lines(store: ObjectStore, key: str) -> list[str]:
    try:
        return store.get(key).data.decode().splitlines()
    except ObjectMissing:
        return []
