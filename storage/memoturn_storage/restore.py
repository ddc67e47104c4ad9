"""Restoring: from the object store to the bytes of a database file.

`Restorer` reads what a plan of the manifest names, the objects side by side, verifies every checksum on
the way, and hands back the file's image. An object that is missing, truncated, damaged or not what the
manifest says is an error that names it; nothing is ever answered from a state that does not verify.
Called when a branch wakes, for reads of the past, by compaction and by the restore drill.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor

from memoturn_schemas.errors import Conflict, Internal
from memoturn_storage.formats.ltx import LtxCorrupt, LtxFile, apply_to_image, decode_sequence
from memoturn_storage.manifest import Manifest, Plan, Position, Segment, Snapshot
from memoturn_storage.objects.store import ObjectMissing, ObjectStore


class Damaged(Internal):
    """The object store does not hold what the manifest names. The message names the object."""


class Restorer:
    """Reads histories from an object store.

    Args:
        pool: where several objects of one restore are read side by side; None reads them in turn.
    """

    def __init__(self, store: ObjectStore, pool: Executor | None = None) -> None:
        self._store = store
        self._pool = pool

    def image(self, manifest: Manifest, txid: int | None = None) -> bytearray:
        """The database file after `txid`, or at the head.

        Raises:
            Conflict: `txid` is not in the history.
            Damaged: an object is missing or not what it should be.
            StoreUnavailable.
        """
        image = bytearray()
        for file in self.files(manifest.plan(manifest.head_txid if txid is None else txid)):
            apply_to_image(image, file)
        return image

    def files(self, plan: Plan) -> Iterator[LtxFile]:
        """What a plan consists of: the snapshot, and each transaction, which goes on where the last one ended.

        Raises:
            Damaged, StoreUnavailable: while iterating; what came before is sound.
        """
        keys = [plan.snapshot.key, *(segment.key for segment in plan.segments)]
        objects = map(self._read, keys) if self._pool is None or len(keys) == 1 else self._pool.map(self._read, keys)
        yield _snapshot_file(plan.snapshot, next(objects))
        position, checksum = plan.snapshot.txid, plan.snapshot.checksum
        for segment, data in zip(plan.segments, objects, strict=True):
            # What lies above `segment.max` in the object was left by a rewind or a fork.
            last = min(segment.max, plan.txid)
            for file in _transactions(segment, data):
                if file.max_txid <= position or file.max_txid > last:
                    continue
                if file.min_txid != position + 1 or file.pre_apply != checksum:
                    raise Damaged(f"{segment.key}: transaction {file.min_txid} does not continue {position}")
                yield file
                position, checksum = file.max_txid, file.post_apply
            if position != last:
                raise Damaged(f"{segment.key}: the history ends at transaction {position}, not at {last}")
            if position == segment.max and checksum != segment.checksum:
                raise Damaged(f"{segment.key}: the state after {position} has another checksum than the manifest says")

    def position(self, manifest: Manifest, txid: int) -> Position:
        """When `txid` was committed and what the state after it sums to; reads one object at most.

        Raises:
            Conflict, Damaged, StoreUnavailable: as `image`.
        """
        plan = manifest.plan(txid)
        end = manifest.position(txid)
        if end is not None:
            return end
        segment = plan.segments[-1]
        for file in _transactions(segment, self._read(segment.key)):
            if file.max_txid == txid:
                return Position(txid, file.timestamp_ms, file.post_apply)
        raise Damaged(f"{segment.key}: holds no transaction {txid}")

    def txid_at(self, manifest: Manifest, at_ms: int) -> int:
        """The last transaction that was committed at `at_ms` (Unix milliseconds) or before.

        Raises:
            Conflict: the history begins later.
            Damaged, StoreUnavailable.
        """
        ended = [entry.txid for entry in manifest.snapshots if entry.at <= at_ms]
        ended += [segment.max for segment in manifest.segments if segment.at <= at_ms]
        if not ended:
            raise Conflict(f"the history of {manifest.branch} begins after that time")
        found = max(ended)
        for segment in manifest.segments:
            if segment.min <= found < segment.max:
                for file in _transactions(segment, self._read(segment.key)):
                    if file.timestamp_ms <= at_ms and found < file.max_txid <= segment.max:
                        found = file.max_txid
        # Where the history has a gap above it, what was committed in the gap may be what is asked for.
        followed = any(segment.min <= found < segment.max for segment in manifest.segments)
        if found < manifest.head_txid and not followed and self.position(manifest, found).at < at_ms:
            raise Conflict(f"what was committed around that time is no longer in the history of {manifest.branch}")
        return found

    def transactions(self, segment: Segment) -> list[LtxFile]:
        """The transactions that the entry covers, verified."""
        covered = [file for file in _transactions(segment, self._read(segment.key)) if file.max_txid <= segment.max]
        return [file for file in covered if file.max_txid > segment.min]

    def _read(self, key: str) -> bytes:
        try:
            return self._store.get(key).data
        except ObjectMissing as error:
            raise Damaged(f"{key}: the object is missing from the object store") from error


def _transactions(segment: Segment, data: bytes) -> Iterator[LtxFile]:
    if len(data) != segment.bytes:
        raise Damaged(f"{segment.key}: has {len(data)} bytes, the manifest says {segment.bytes}")
    try:
        yield from decode_sequence(data)
    except LtxCorrupt as error:
        raise Damaged(f"{segment.key}: {error}") from error


def _snapshot_file(snapshot: Snapshot, data: bytes) -> LtxFile:
    if len(data) != snapshot.bytes:
        raise Damaged(f"{snapshot.key}: has {len(data)} bytes, the manifest says {snapshot.bytes}")
    try:
        (file,) = decode_sequence(data)
    except (LtxCorrupt, ValueError) as error:
        raise Damaged(f"{snapshot.key}: {error}") from error
    if file.max_txid != snapshot.txid or file.min_txid != 1 or file.post_apply != snapshot.checksum:
        raise Damaged(f"{snapshot.key}: is not the snapshot that the manifest names")
    return file
