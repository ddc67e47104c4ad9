"""Leases between the processes of one machine that use the same data directory.

A lease is an exclusive `flock` on `{directory}/{uuid[:2]}/{uuid}/lease`. It belongs to the open file,
so the kernel drops it the moment its process dies, however it dies, and it never runs out otherwise.
The owner's address is in the file, as one line of JSON; lock files stay where they are, whoever owns
them, because a lock on a file that was replaced would protect nothing.

Taking a lease and saying who took it are two steps, and so are finding it taken and reading by whom;
finding out whether it is taken even takes it for a moment. Nobody may see another between two steps:
each of these happens under a second lock, the gate, which is a `flock` on the directory around the
file. Whoever finds the lease locked while it has the gate therefore faces its owner, never somebody who
only looked, and reads the line of that owner, never of one who died. The gate is held for a few system
calls and waited for; the lease is never waited for.

`flock` is local to a machine on some network file systems: the data directory belongs on a local disk.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memoturn_schemas.errors import Unavailable
from memoturn_storage.leases.lease import Lease, OwnedElsewhere

_LONGEST_LINE = 4_096


class FileLeases:
    """The leases of one process, which answers at `address`. Each takes a file descriptor while it is held.

    `directory` is the directory `databases` of the data directory.
    """

    def __init__(self, directory: Path, address: str) -> None:
        self._directory = directory
        self._line = json.dumps({"address": address, "pid": os.getpid()}).encode() + b"\n"
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}

    def acquire(self, database: str) -> Lease:
        if database in self._held:
            return Lease(database, None)
        with self._lock, _usable():
            if database not in self._held:
                self._held[database] = self._taken(self._path(database))
        return Lease(database, None)

    def held(self, database: str) -> bool:
        return database in self._held

    def release(self, database: str) -> None:
        with self._lock:
            descriptor = self._held.pop(database, None)
            if descriptor is not None:
                _unlock(descriptor)

    def owner(self, database: str) -> str | None:
        path = self._path(database)
        with self._lock, _usable():
            if database in self._held:
                return None
            try:
                with gate(path.parent):
                    descriptor = os.open(path, os.O_RDONLY)
                    try:
                        return None if _lock(descriptor) else _address(descriptor)
                    finally:
                        _unlock(descriptor)
            except FileNotFoundError:
                return None

    def close(self) -> None:
        with self._lock:
            while self._held:
                _, descriptor = self._held.popitem()
                _unlock(descriptor)

    def _path(self, database: str) -> Path:
        return self._directory / database[:2] / database / "lease"

    def _taken(self, path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        with gate(path.parent):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if not _lock(descriptor):
                    raise OwnedElsewhere(_address(descriptor))
                os.ftruncate(descriptor, 0)
                if os.pwrite(descriptor, self._line, 0) != len(self._line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except BaseException:
                _unlock(descriptor)
                raise
            return descriptor


@contextmanager
def gate(directory: Path) -> Iterator[None]:
    """One process or thread at a time; waits for the others. The directory must exist."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _unlock(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    # Closing is not enough where a fork of this process has the file open too.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _address(descriptor: int) -> str:
    """What the owner wrote into its lease file; "" where that cannot be read."""
    try:
        written = json.loads(os.pread(descriptor, _LONGEST_LINE, 0))
    except ValueError:
        return ""
    address = written.get("address") if isinstance(written, dict) else None
    return address if isinstance(address, str) else ""


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the database's lease cannot be used: {error.strerror}; nothing was written") from error
