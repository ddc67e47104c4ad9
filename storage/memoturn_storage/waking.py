"""Waking and putting to sleep: how a branch gets from the object store to an open file, and back.

To wake a branch is to take its database's lease, read its manifest, and have its file: the local one where
it continues the manifest (with the commits in its log that nobody has shipped yet), a restored one
otherwise. To put it to sleep is to close the file and, with the last branch of a database, to give the
lease back. Called by `memoturn_storage.worker`, with no job of the branch running.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import apsw
import structlog

from memoturn_schemas.errors import BranchNotFound, Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.branch import Branch
from memoturn_storage.connection import PAGE_SIZE
from memoturn_storage.formats.ltx import apply_pages
from memoturn_storage.formats.wal import HEADER, WalCommit, WalCorrupt, commits, read_header
from memoturn_storage.handle import Handle
from memoturn_storage.leases.lease import Leases
from memoturn_storage.local import Base, LocalFiles, Origin
from memoturn_storage.manifest import MAIN, BranchRef
from memoturn_storage.manifests import Held, Manifests
from memoturn_storage.restore import Damaged, Restorer
from memoturn_storage.schema import Schema
from memoturn_storage.tail import Tail

log = structlog.get_logger("memoturn")


class Waker:
    """Wakes the branches of one node.

    Args:
        directory: where their files lie.
        backlog_bytes: as of `Handle`.
    """

    def __init__(
        self,
        schema: Schema,
        ambient: Ambient,
        directory: Path,
        manifests: Manifests,
        restorer: Restorer,
        leases: Leases,
        *,
        backlog_bytes: int,
    ) -> None:
        self._schema = schema
        self._ambient = ambient
        self._directory = directory
        self._manifests = manifests
        self._restorer = restorer
        self._leases = leases
        self._backlog_bytes = backlog_bytes
        self._awake: Counter[str] = Counter()
        self._lock = threading.Lock()

    # --- waking ----------------------------------------------------------------------------------

    def wake(self, ref: BranchRef) -> Branch:
        """The branch, open.

        Raises:
            OwnedElsewhere: another owner has the database.
            BranchNotFound, Damaged, StoreUnavailable.
        """
        self._hold(ref)
        try:
            return self._open(ref)
        except BaseException:
            self._let_go(ref)
            raise

    def _open(self, ref: BranchRef) -> Branch:
        files = LocalFiles(self._directory, ref)
        held = self._manifests.read(ref)
        if ref.branch != MAIN if held is None else held.manifest.deleted_at is not None:
            files.discard()
            raise BranchNotFound(f"there is no branch {ref.branch}")
        if held is not None and held.manifest.expired(self._ambient.now_ms()):
            raise BranchNotFound(f"there is no branch {ref.branch} any more; its time has run out")
        branch = self._open_local(ref, files, held)
        if branch is None and held is not None and not held.manifest.empty:
            branch = self._open_restored(ref, files, held)
        if branch is None and held is None and self._begun_meanwhile(ref):
            return self._open(ref)
        return branch or self._unwritten(ref, files, held)

    def _begun_meanwhile(self, ref: BranchRef) -> bool:
        """Whether a branch without a manifest has one now; raises `Damaged` where it must have had one."""
        trace = self._manifests.trace_of_loss(ref.uuid)
        if trace is None:
            return False
        if self._manifests.read(ref) is None:
            raise Damaged(f"{ref.manifest_key}: the manifest is missing, although {trace} is there")
        return True

    def _open_local(self, ref: BranchRef, files: LocalFiles, held: Held | None) -> Branch | None:
        """The branch over its local file; None where that is no continuation of the manifest, and discarded."""
        origin = files.origin() if files.exist() else None
        if held is not None and (origin is None or not origin.continues(held.manifest)):
            files.discard()
            return None
        if not files.exist():
            files.discard()
            return None
        if origin is None:  # a file from before there were manifests
            origin = self._new_origin(held)
            files.set_origin(origin, self._ambient)
        unseen = origin.boot != self._ambient.boot()
        restorable = held is not None and not held.manifest.empty
        try:
            branch = self._over_local(ref, files, held, origin, unseen=unseen and restorable)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            # What the log may hold beside is given up only where the machine was started anew, as by a power cut.
            if not unseen and (files.has_log() or not restorable):
                raise
            log.warning("a damaged file is replaced", database=ref.uuid, branch=ref.branch, error=str(error))
            branch = None
        if branch is None:
            files.discard()
        elif unseen:
            files.set_origin(replace(origin, boot=self._ambient.boot()), self._ambient)
        return branch

    def _over_local(
        self, ref: BranchRef, files: LocalFiles, held: Held | None, origin: Origin, *, unseen: bool
    ) -> Branch | None:
        """The branch over its local file, with what its log holds unshipped; None where the file is worthless.

        An `unseen` file is compared with the manifest first.
        """
        spooled = _Spooled.of(files)
        branch = self._over_file(ref, files, held, origin)
        assert branch.handle is not None  # noqa: S101 - `_over_file` makes one
        try:
            unshipped = branch.handle.txid - branch.tail.shipped
            sound = unshipped >= 0  # else a power cut took what was shipped already
            if sound:
                spooled.hand_over(unshipped, branch)
                if unseen and not branch.tail.begun:
                    branch.tail.begin(branch.handle.image())
                sound = not (unseen and branch.tail.broken)
        except BaseException:
            branch.handle.close(discard=True)
            raise
        if not sound:
            log.warning("a file that a power cut left behind is replaced", database=ref.uuid, branch=ref.branch)
            branch.handle.close(discard=True)
            return None
        return branch

    def _open_restored(self, ref: BranchRef, files: LocalFiles, held: Held) -> Branch:
        origin = self._new_origin(held)
        files.install(self._restorer.image(held.manifest), origin, self._ambient)
        return self._over_file(ref, files, held, origin)

    def _unwritten(self, ref: BranchRef, files: LocalFiles, held: Held | None) -> Branch:
        return Branch(ref, files, self._new_origin(held), _epoch(held), Tail(files.wal, PAGE_SIZE, None), None, held)

    def _over_file(self, ref: BranchRef, files: LocalFiles, held: Held | None, origin: Origin) -> Branch:
        shipped = None if held is None or held.manifest.empty else held.manifest.head
        tail = Tail(files.wal, PAGE_SIZE, shipped)
        return Branch(ref, files, origin, _epoch(held), tail, self._handle(files, tail), held)

    def make_file(self, branch: Branch) -> Handle:
        """The handle of a branch that gets its first write."""
        if branch.handle is None:
            branch.files.set_origin(branch.origin, self._ambient)
            self._schema.create(branch.files.database, self._ambient)
            branch.handle = self._handle(branch.files, branch.tail)
        return branch.handle

    def _handle(self, files: LocalFiles, tail: Tail) -> Handle:
        return Handle(self._schema, self._ambient, files.database, tail, backlog_bytes=self._backlog_bytes)

    def _new_origin(self, held: Held | None) -> Origin:
        base = None if held is None else Base.of(held.manifest)
        return Origin(self._ambient.token(16).hex(), base, self._ambient.boot())

    # --- sleeping --------------------------------------------------------------------------------

    def sleep(self, branch: Branch, *, discard: bool = False) -> None:
        """Close the branch; with `discard`, its local files go too, with everything that is not shipped."""
        branch.asleep = True
        branch.tail.fail_waiting(Unavailable("the object store has not confirmed the write; asking again is safe"))
        try:
            if branch.handle is not None:
                branch.handle.close(discard=discard)
                branch.handle = None
            if discard:
                branch.files.discard()
        finally:
            self._let_go(branch.ref)

    def cool(self, ref: BranchRef) -> bool:
        """Remove the local files of a sleeping branch, unless they hold what the object store has not."""
        self._hold(ref)
        try:
            files = LocalFiles(self._directory, ref)
            origin = files.origin()
            if origin is None or files.has_log() or not files.exist():
                return False
            held = self._manifests.read(ref)
            if held is None or held.manifest.empty:
                return False
            files.discard()
            return True
        finally:
            self._let_go(ref)

    def _hold(self, ref: BranchRef) -> None:
        with self._lock:
            self._leases.acquire(ref.uuid)
            self._awake[ref.uuid] += 1

    def _let_go(self, ref: BranchRef) -> None:
        with self._lock:
            self._awake[ref.uuid] -= 1
            if self._awake[ref.uuid] <= 0:
                del self._awake[ref.uuid]
                self._leases.release(ref.uuid)


def _epoch(held: Held | None) -> int:
    return 1 if held is None else held.manifest.epoch + 1


class _Spooled:
    """What a local file's log holds, read before SQLite opens the file.

    The order matters: to close a descriptor of the database file releases the locks that SQLite holds on
    it in the same process.
    """

    def __init__(self, database: bytes, found: list[WalCommit], written_ms: int) -> None:
        self._database = database
        self._commits = found
        self._written_ms = written_ms

    @classmethod
    def of(cls, files: LocalFiles) -> _Spooled:
        try:
            log_bytes = files.wal.read_bytes()
            header = read_header(log_bytes)
        except (FileNotFoundError, WalCorrupt):
            return cls(b"", [], 0)
        found = commits(memoryview(log_bytes)[HEADER:], header)
        return cls(files.database.read_bytes(), found, files.wal.stat().st_mtime_ns // 1_000_000)

    def hand_over(self, unshipped: int, branch: Branch) -> None:
        """Have the branch's tail begin with the last `unshipped` transactions of the log."""
        assert branch.handle is not None  # noqa: S101 - the caller has opened it
        if unshipped == 0:
            if self._commits:
                self._fold(branch)
            return
        foreign = branch.tail.shipped == 0 and len(self._commits) > unshipped  # else the checksum of `begin` tells
        if unshipped > len(self._commits) or foreign:
            branch.tail.broken = True
            return
        log.info("found unshipped commits", database=branch.ref.uuid, branch=branch.ref.branch, commits=unshipped)
        shipped, ours = self._commits[:-unshipped], self._commits[-unshipped:]
        branch.tail.begin(self._after(shipped), ours[0].first_frame)
        for txid, commit in enumerate(ours, branch.tail.shipped + 1):
            branch.tail.note(txid, commit.end_frame, self._written_ms)

    def _fold(self, branch: Branch) -> None:
        assert branch.handle is not None  # noqa: S101 - the caller has opened it
        try:
            branch.handle.fold()
        except apsw.BusyError:
            # A read that began before the branch slept is still under way: the log goes on where it ends.
            branch.tail.begin(self._after(self._commits), self._commits[-1].end_frame)

    def _after(self, applied: list[WalCommit]) -> bytes:
        """The file as it stands after these commits."""
        image = bytearray(self._database)
        for commit in applied:
            apply_pages(image, PAGE_SIZE, commit.pages, commit.commit)
        return bytes(image)
