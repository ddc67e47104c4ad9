"""`file://`: objects as files of one directory tree, shared by any number of processes of one machine.

Opened by `memoturn_storage.objects.opening`. An object's path below the directory is its key; what the store needs for
itself is in `.store/`, where no key can be. Network file systems are not supported: they promise neither `flock` nor
`link` as this needs them.

- **No torn object**: data goes into a temporary file and to the disk, and only then gets its name. What a killed
  process leaves in `.store/temporary/` is swept when a store is opened.
- **Create** is `link(2)`, which fails where the name is taken.
- **Replace** is `rename(2)` under an exclusive `flock`, after the content's hash, which is the version, has been
  compared. The lock files are never renamed or removed, and a key's lock is chosen by its directory: a listing holds
  it shared while it reads that directory, because `readdir` may miss a name that a rename moves meanwhile.
- **Durable**: a write returns once the data and the directory entries on the way to it are on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from memoturn_storage.ambient import Ambient
from memoturn_storage.objects.store import (
    ObjectInfo,
    ObjectMissing,
    PreconditionFailed,
    StoredObject,
    StoreUnavailable,
    check_key,
    check_prefix,
)

_OWN = ".store"
_LOCKS = 64
"""Lock files; directories share them by the hash of their path."""

_STRAY_AFTER_MS = 10 * 60_000
"""Age at which a temporary file belongs to a process that was killed."""

_TRIES = 100
"""Times that a directory is made again because deletes elsewhere, which clear up behind them, removed it."""

_REASONS = {
    errno.ENOENT: "its directory was removed",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the object is larger than a file may be",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "its directory's permissions forbid it",
    errno.EPERM: "its directory's permissions forbid it",
    errno.EMFILE: "the process has too many files open",
    errno.ENFILE: "the machine has too many files open",
}

_flush_data = getattr(os, "fdatasync", os.fsync)


class FileStore:
    """An `ObjectStore` on the directory `directory`, which is made unless it is there, without `create` by a write.

    Without `sync` nothing is flushed to the disk: for a directory in memory, and for tests.
    """

    def __init__(self, directory: Path, ambient: Ambient, *, sync: bool = True, create: bool = True) -> None:
        self._root = directory
        self._locks = directory / _OWN
        self._temporary = directory / _OWN / "temporary"
        self._ambient = ambient
        self._sync = sync
        self._made = False
        if create:
            self._make()

    def get(self, key: str) -> StoredObject:
        path = self._path(key)
        with _explained(f"object {key} could not be read"):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._require_there()
                raise ObjectMissing(key) from None
        return StoredObject(data, _version(data))

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _explained(f"object {key} could not be written"):
            with self._written(data) as temporary, self._locked(_directory(key), fcntl.LOCK_EX):
                self._place(path, lambda: temporary.rename(path))
            self._flush(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> str:
        path = self._path(key)

        def link(temporary: Path) -> None:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                raise PreconditionFailed(key) from None

        with _explained(f"object {key} could not be written"):
            try:
                with self._written(data) as temporary:
                    self._place(path, lambda: link(temporary))
            finally:
                # Who lost builds upon the winner's object, whose name the winner may not have flushed yet.
                self._flush(path.parent)
        return _version(data)

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        path = self._path(key)
        with _explained(f"object {key} could not be written"):
            with self._written(data) as temporary, self._locked(_directory(key), fcntl.LOCK_EX):
                try:
                    found = _version(path.read_bytes())
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    raise PreconditionFailed(key) from None
                if found != version:
                    raise PreconditionFailed(key)
                temporary.rename(path)
            self._flush(path.parent)
        return _version(data)

    def delete(self, key: str) -> None:
        path = self._path(key)
        self._make()
        with _explained(f"object {key} could not be deleted"):
            with (
                self._locked(_directory(key), fcntl.LOCK_EX),
                suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError),
            ):
                path.unlink()
            self._flush(self._without_empty_directories(path.parent))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._below(check_prefix(prefix))

    def close(self) -> None:
        """Nothing is held between calls."""

    # --- names -----------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _below(self, prefix: str) -> Iterator[ObjectInfo]:
        directory = self._root / prefix
        complaint = "the object store could not be listed"
        with _explained(complaint):
            try:
                with self._locked(prefix[:-1], fcntl.LOCK_SH), os.scandir(directory) as entries:
                    # A directory sorts as its objects do: by its name and a slash.
                    found = sorted(
                        (f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name, entry)
                        for entry in entries
                        if not entry.name.startswith(".")
                    )
            except (FileNotFoundError, NotADirectoryError):
                self._require_there()
                return
        for name, entry in found:
            if name.endswith("/"):
                yield from self._below(prefix + name)
                continue
            with _explained(complaint):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
            yield ObjectInfo(prefix + name, status.st_size, status.st_mtime_ns // 1_000_000)

    def _require_there(self) -> None:
        """Raise unless the directory is still what it was: a disk that was unmounted is no store without objects."""
        if self._made and not self._locks.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    # --- writing ---------------------------------------------------------------------------------

    def _make(self) -> None:
        if self._made:
            return
        with _explained("the object store could not be opened"):
            for level in (*reversed(self._root.parents), self._root, self._locks, self._temporary):
                if not level.is_dir():
                    level.mkdir(mode=0o700, exist_ok=True)
                    self._flush(level.parent)
            self._sweep()
        self._made = True

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A temporary file which holds `data`, on the disk; removed afterwards unless it was renamed."""
        self._make()
        temporary = self._temporary / self._ambient.token(16).hex()
        try:
            with temporary.open("xb") as file:
                file.write(data)
                if self._sync:
                    file.flush()
                    _flush_data(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _place(self, path: Path, place: Callable[[], object]) -> None:
        """Run `place`, which gives a file the name `path`, with the directories that it needs."""
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                place()
                return
            with suppress(FileNotFoundError):
                for level in reversed(path.relative_to(self._root).parents[:-1]):
                    with suppress(FileExistsError):
                        (self._root / level).mkdir(mode=0o700)
                        self._flush((self._root / level).parent)
        raise StoreUnavailable("another process removed what the object store was about to name; try again")

    def _without_empty_directories(self, directory: Path) -> Path:
        """Remove `directory` and those above it as far as they are empty; the first that is not."""
        while directory != self._root:
            try:
                directory.rmdir()
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    break
                raise
            directory = directory.parent
        return directory

    def _flush(self, directory: Path) -> None:
        """Put a directory's entries onto the disk; one that was removed has nothing of ours in it."""
        if not self._sync:
            return
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self, directory: str, kind: int) -> Iterator[None]:
        """Hold the lock of `directory`, against threads as well, because each call opens the file anew."""
        name = f"lock-{zlib.crc32(directory.encode()) % _LOCKS:02}"
        descriptor = os.open(self._locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            # Closing is not enough where the process was forked meanwhile: the child's copy keeps the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _sweep(self) -> None:
        oldest = self._ambient.now_ms() - _STRAY_AFTER_MS
        for stray in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                if stray.stat().st_mtime_ns // 1_000_000 < oldest:
                    stray.unlink()


def _version(data: bytes) -> str:
    return sha256(data).hexdigest()


def _directory(key: str) -> str:
    return key.rpartition("/")[0]


@contextmanager
def _explained(complaint: str) -> Iterator[None]:
    """Say what an error of the operating system means to a store, without the path that it names.

    Raises:
        StoreUnavailable: the disk is full, read-only or broken.
        ValueError: one key is the directory of another.
    """
    try:
        yield
    except (IsADirectoryError, NotADirectoryError) as error:
        raise ValueError(f"{complaint}: one key is the directory of another") from error
    except OSError as error:
        raise StoreUnavailable(f"{complaint}: {_REASONS.get(error.errno or 0, 'the disk failed')}") from error
