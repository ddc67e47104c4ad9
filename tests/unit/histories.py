"""Histories of random states in the real format, for tests: an owner that remembers every state it shipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.connection import PAGE_SIZE
from memoturn_storage.formats.checksums import PageChecksums
from memoturn_storage.formats.ltx import LtxFile, apply_to_image, encode
from memoturn_storage.garbage import Garbage
from memoturn_storage.history import Compactor
from memoturn_storage.manifest import (
    BranchRef,
    Manifest,
    Parent,
    Position,
    Segment,
    Snapshot,
    segment_key,
    snapshot_key,
)
from memoturn_storage.manifests import Manifests
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectInfo, ObjectStore, StoredObject
from memoturn_storage.restore import Restorer
from memoturn_storage.tail import snapshot_file

UUID = "ab" * 16
MAIN = BranchRef(UUID)
GRACE_MS = 60_000


class Interrupted:
    """A store during the calls of which something else happens: `action`, once, before call `call` from now."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self._left = 0
        self._action: Callable[[], object] | None = None

    @contextmanager
    def interrupted(self, call: int, action: Callable[[], object]) -> Iterator[None]:
        self._left, self._action = call, action
        try:
            yield
        finally:
            self._action = None

    def get(self, key: str) -> StoredObject:
        self._count()
        return self.inner.get(key)

    def put(self, key: str, data: bytes) -> None:
        self._count()
        self.inner.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        self._count()
        return self.inner.put_if_absent(key, data)

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        self._count()
        return self.inner.put_if_match(key, data, version)

    def delete(self, key: str) -> None:
        self._count()
        self.inner.delete(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._count()
        return self.inner.list(prefix)

    def close(self) -> None:
        self.inner.close()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0 and self._action is not None:
            action, self._action = self._action, None
            action()


@dataclass(slots=True)
class Line:
    """What the history of a branch is known to have been: the states by txid, and when they were committed."""

    images: dict[int, bytes] = field(default_factory=dict)
    at: dict[int, int] = field(default_factory=dict)

    @property
    def head(self) -> int:
        return max(self.images, default=0)

    def until(self, txid: int) -> Line:
        return Line(
            {number: image for number, image in self.images.items() if number <= txid},
            {number: at for number, at in self.at.items() if number <= txid},
        )


@dataclass(frozen=True, slots=True)
class Put:
    """An object that is in the store, not yet in the manifest."""

    branch: str
    lineage: str
    entry: Snapshot | Segment
    line: Line
    at_ms: int


class Histories:
    """A database's branches in an object store, and what they must be."""

    def __init__(self, seed: int = 0) -> None:
        self.ambient = ManualAmbient(seed=seed)
        self.random = Random(seed)
        self.store = Interrupted(MemoryStore(self.ambient))
        self.manifests = Manifests(self.store, self.ambient, grace_ms=GRACE_MS)
        self.restorer = Restorer(self.store)
        self.compactor = Compactor(self.store, self.manifests, self.restorer, self.ambient, self.manifests.update)
        self.lines: dict[str, Line] = {}

    def manifest(self, branch: str = "main") -> Manifest:
        return self.manifests.require(BranchRef(UUID, branch)).manifest

    # --- what an owner does ----------------------------------------------------------------------

    def create(self, branch: str = "main") -> None:
        self.manifests.create(manifest(branch=branch, lineage=self.name(), created_at=self.ambient.now_ms()))
        self.lines[branch] = Line()

    def put(self, branch: str = "main", transactions: int = 1) -> Put:
        """Put the next object of a branch: a snapshot where nothing is, else a segment."""
        current = self.manifest(branch)
        line = self.lines[branch].until(current.head_txid)
        first = current.head_txid + 1
        files = [self._commit(line, txid) for txid in range(first, first + (1 if current.empty else transactions))]
        last = files[-1]
        entry: Snapshot | Segment
        if current.empty:
            state = encode(
                snapshot_file(line.images[first], PAGE_SIZE, Position(first, line.at[first], last.post_apply))
            )
            key = snapshot_key(UUID, first, current.epoch, self.name())
            entry = Snapshot(first, key, len(state), line.at[first], last.post_apply)
            self.store.put(key, state)
        else:
            data = b"".join(encode(file) for file in files)
            key = segment_key(UUID, 0, first, last.max_txid, current.epoch, self.name())
            entry = Segment(first - 1, last.max_txid, key, len(data), 0, last.timestamp_ms, last.post_apply)
            self.store.put(key, data)
        return Put(branch, current.lineage, entry, line, self.ambient.now_ms())

    def link(self, put: Put) -> bool:
        """Have the manifest name it, if it is still what comes next and was put a short time ago."""
        current = self.manifest(put.branch)
        first = put.entry.txid if isinstance(put.entry, Snapshot) else put.entry.min + 1
        late = self.ambient.now_ms() - put.at_ms > GRACE_MS / 2
        if late or (current.lineage, current.head_txid + 1) != (put.lineage, first):
            return False

        def link(current: Manifest) -> Manifest:
            if isinstance(put.entry, Snapshot):
                return current.rebased(put.entry, epoch=current.epoch, lineage=current.lineage)
            return current.appended(put.entry, epoch=current.epoch, lineage=current.lineage)

        self.manifests.update(BranchRef(UUID, put.branch), link)
        self.lines[put.branch] = put.line
        return True

    def ship(self, branch: str = "main", objects: int = 1, transactions: int = 1) -> None:
        for _ in range(objects):
            self.ambient.advance(seconds=1)
            self.link(self.put(branch, transactions))

    def rewind(self, branch: str, txid: int) -> None:
        end = self.restorer.position(self.manifest(branch), txid)
        lineage = self.name()
        self.manifests.update(
            BranchRef(UUID, branch), lambda current: replace(current.cut(end), lineage=lineage, epoch=current.epoch + 1)
        )
        self.lines[branch] = self.lines[branch].until(txid)

    def checkpoint(self, branch: str, name: str, txid: int) -> None:
        self.manifests.update(BranchRef(UUID, branch), lambda current: current.with_checkpoint(name, txid))

    def fork(self, parent: Manifest, line: Line, name: str, txid: int) -> None:
        """Create a branch from a manifest that was read a while ago, with what its history was then."""
        cut = parent.cut(self.restorer.position(parent, txid))
        child = replace(cut, branch=name, lineage=self.name(), parent=Parent(parent.branch, txid), checkpoints={})
        self.manifests.create(child)
        Garbage(self.store).unmark(UUID, child.keys())
        self.lines[name] = line.until(txid)

    def delete(self, branch: str) -> None:
        now_ms = self.ambient.now_ms()
        self.manifests.update(BranchRef(UUID, branch), lambda current: replace(current, deleted_at=now_ms))
        del self.lines[branch]

    # --- asking ----------------------------------------------------------------------------------

    def assert_restores(self, branch: str = "main", txids: Any = None) -> None:
        """The states after these transactions are what they were, byte for byte; all of them by default."""
        line, current = self.lines[branch], self.manifest(branch)
        for txid in line.images if txids is None else txids:
            assert self.restorer.image(current, txid) == line.images[txid], (branch, txid)

    def objects(self) -> set[str]:
        return {info.key for info in self.store.inner.list(f"v1/{UUID}/") if not info.key.endswith("manifest.json")}

    def name(self) -> str:
        return self.random.randbytes(6).hex()

    def _commit(self, line: Line, txid: int) -> LtxFile:
        before = line.images.get(txid - 1, b"")
        commit = max(1, len(before) // PAGE_SIZE + self.random.choice([-1, 0, 0, 0, 1]))
        numbers = sorted({self.random.randint(1, commit) for _ in range(2)} | ({1} if not before else set()))
        pages = {number: self.random.randbytes(4).ljust(PAGE_SIZE, b"\0") for number in numbers}
        return self.commit(line, txid, pages, commit)

    def commit(self, line: Line, txid: int, pages: Mapping[int, bytes], commit: int) -> LtxFile:
        """One more transaction of a line, at the time that it is."""
        before = line.images.get(txid - 1, b"")
        checksums = PageChecksums.of_image(before, PAGE_SIZE)
        pre_apply = checksums.rolling
        checksums.apply(pages, commit)
        now_ms = self.ambient.now_ms()
        file = LtxFile(PAGE_SIZE, commit, txid, txid, now_ms, pre_apply if txid > 1 else 0, checksums.rolling, pages)
        image = bytearray(before)
        apply_to_image(image, file)
        line.images[txid], line.at[txid] = bytes(image), now_ms
        return file


def manifest(**changes: Any) -> Manifest:
    """The manifest of a new branch, with these changes."""
    fields: dict[str, Any] = {
        "db_uuid": UUID,
        "branch": "main",
        "epoch": 1,
        "head_txid": 0,
        "lineage": "first",
        "write_id": "",
        "created_at": 1,
        "checkpoints": {},
    }
    return Manifest(**(fields | changes))
