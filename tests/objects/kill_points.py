"""Kills a process at each step of each write of a `FileStore`, and looks at what it leaves behind.

Run by `test_file_store` as a process of its own, which has one thread and may fork: the child sends itself SIGKILL at
the n-th event that Python's auditing reports (open, flock, link, rename, remove, mkdir ...), for each n until the
write comes to its end. Prints how many steps each write was killed at.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.store import ObjectMissing, PreconditionFailed

OLD, NEW = b"old" * 1_000, b"new" * 2_000
STEPS = ("open", "fcntl.flock", "os.", "pathlib.")

WRITES: dict[str, tuple[bytes | None, bytes | None, Callable[[FileStore, str], Any]]] = {
    "put": (None, NEW, lambda store, key: store.put(key, NEW)),
    "put over another": (OLD, NEW, lambda store, key: store.put(key, NEW)),
    "put_if_absent": (None, NEW, lambda store, key: store.put_if_absent(key, NEW)),
    "put_if_match": (OLD, NEW, lambda store, key: store.put_if_match(key, NEW, store.get(key).version)),
    "delete": (OLD, None, lambda store, key: store.delete(key)),
}
"""By name: what is there before, what is there afterwards, and the write."""


def killed(write: Callable[[], Any], step: int) -> bool:
    """Run the write in a child that dies at its step `step`; whether it came so far."""
    child = os.fork()
    if child == 0:
        left = step

        def die(event: str, _: Any) -> None:
            nonlocal left
            if event.startswith(STEPS):
                left -= 1
                if left == -1:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        write()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL


def content(store: FileStore, key: str) -> bytes | None:
    try:
        return store.get(key).data
    except ObjectMissing:
        return None


def check(directory: Path, name: str, step: int) -> bool:
    before, after, write = WRITES[name]
    store = FileStore(directory / name.replace(" ", "-") / str(step), SystemAmbient(), sync=step == 0)
    key = "v1/branch/manifest.json"
    if before is not None:
        store.put(key, before)
    was_killed = killed(lambda: write(store, key), step)
    found = content(store, key)
    assert found in ((before, after) if was_killed else (after,)), (name, step)
    listed = [(info.key, info.size) for info in store.list("")]
    assert listed == ([] if found is None else [(key, len(found))]), (name, step, listed)
    if found is None:
        version = store.put_if_absent(key, b"next")
    else:
        version = store.put_if_match(key, b"next", store.get(key).version)
    try:
        store.put_if_absent(key, b"lost")
        raise AssertionError((name, step))
    except PreconditionFailed:
        pass
    store.put_if_match(key, b"last", version)
    store.delete(key)
    return was_killed


def main() -> None:
    for name in WRITES:
        step = 0
        while check(Path(sys.argv[1]), name, step):
            step += 1
        print(f"{name}: {step}")


if __name__ == "__main__":
    main()
