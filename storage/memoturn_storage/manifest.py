"""The manifest: what one branch of one database consists of, as a value.

One JSON object a branch. It names every object that the branch needs (a child repeats its parent's, so
nothing walks a chain of parents) and is replaced only by compare-and-swap (`memoturn_storage.manifests`).
Everything here is a pure function of its arguments; the fields are described in `storage/README.md`.

A history is a line of transactions. `snapshots` are whole states; `segments` hold every transaction
between them, contiguously: an entry covers the transactions above `min` up to and with `max`, which may
be fewer than its object holds, because a rewind or a fork cuts a history in the middle of an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from memoturn_schemas.errors import Conflict, Internal, Unavailable

FORMAT = 1
MAIN = "main"


@dataclass(frozen=True, slots=True, order=True)
class BranchRef:
    """One branch of one database."""

    uuid: str
    branch: str = MAIN

    @property
    def manifest_key(self) -> str:
        return f"{branches_prefix(self.uuid)}{self.branch}/manifest.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An object that holds the whole state after transaction `txid`."""

    txid: int
    key: str
    bytes: int
    at: int
    """When that transaction was committed, Unix milliseconds."""
    checksum: int
    """Of the state: the rolling page checksum of LTX."""


@dataclass(frozen=True, slots=True)
class Segment:
    """An object that holds the transactions above `min` up to and with `max`, and perhaps others around them."""

    min: int
    max: int
    key: str
    bytes: int
    level: int
    """0 as the owner shipped it; each compaction that joins objects raises it."""
    at: int
    """When transaction `max` was committed, Unix milliseconds."""
    checksum: int
    """Of the state after `max`."""


@dataclass(frozen=True, slots=True)
class Parent:
    branch: str
    fork_txid: int


@dataclass(frozen=True, slots=True)
class Position:
    """A transaction in a history: when it was committed, and what the state after it sums to."""

    txid: int
    at: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be read to have the state after a transaction: a snapshot, then these segments in order."""

    txid: int
    snapshot: Snapshot
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    db_uuid: str
    branch: str
    epoch: int
    """Raised by each new owner; what carries a lower one is refused."""
    head_txid: int
    lineage: str
    """Names the local file whose commits this history continues; changes when it continues from elsewhere."""
    write_id: str
    """Unique to each write of the manifest, so that a writer whose answer was lost knows its own."""
    created_at: int
    parent: Parent | None = None
    snapshots: tuple[Snapshot, ...] = ()
    segments: tuple[Segment, ...] = ()
    checkpoints: Mapping[str, int]
    ttl_at: int | None = None
    deleted_at: int | None = None
    """Set on a deleted branch, which names nothing any more."""
    collected_at: int | None = None
    """When a collector set out to remove this deleted branch's manifest; nobody may create over it."""

    @property
    def ref(self) -> BranchRef:
        return BranchRef(self.db_uuid, self.branch)

    # --- asking ----------------------------------------------------------------------------------

    def expired(self, now_ms: int) -> bool:
        return self.ttl_at is not None and self.ttl_at < now_ms

    @property
    def empty(self) -> bool:
        """Whether nothing was ever written to the branch."""
        return not self.snapshots

    @property
    def head(self) -> Position:
        """The position of the newest transaction, of a branch that is not empty."""
        newest = self.position(self.head_txid)
        if newest is None:
            raise Internal(f"no object of the manifest of {self.branch} ends at its head, {self.head_txid}")
        return newest

    @property
    def chain(self) -> tuple[Segment, ...]:
        """The segments above the newest snapshot: what a wake reads beside it."""
        newest = self.snapshots[-1].txid if self.snapshots else 0
        return tuple(segment for segment in self.segments if segment.max > newest)

    def keys(self) -> set[str]:
        """The objects that the branch needs now."""
        return {snapshot.key for snapshot in self.snapshots} | {segment.key for segment in self.segments}

    def plan(self, txid: int) -> Plan:
        """How to have the state after `txid`.

        Raises:
            Conflict: it is above the head or no longer (or never was) in the history.
        """
        if txid > self.head_txid:
            raise Conflict(f"transaction {txid} is above the head of {self.branch}, {self.head_txid}")
        for snapshot in reversed(self.snapshots):
            if snapshot.txid > txid:
                continue
            needed = []
            position = snapshot.txid
            for segment in self.segments:
                if segment.max > position and segment.min <= position and position < txid:
                    needed.append(segment)
                    position = segment.max
            if position < txid:
                break
            return Plan(txid, snapshot, tuple(needed))
        raise Conflict(f"transaction {txid} is outside the history window of {self.branch}")

    def position(self, txid: int) -> Position | None:
        """The position of `txid` where an object ends at it; None where only the object that holds it knows."""
        for snapshot in self.snapshots:
            if snapshot.txid == txid:
                return Position(txid, snapshot.at, snapshot.checksum)
        for segment in self.segments:
            if segment.max == txid:
                return Position(txid, segment.at, segment.checksum)
        return None

    # --- changing --------------------------------------------------------------------------------

    def appended(self, segment: Segment, *, epoch: int, lineage: str) -> Manifest:
        """With one more segment at the head."""
        if segment.min != self.head_txid:
            raise Internal(f"segment {segment.key} does not continue {self.branch} at {self.head_txid}")
        return replace(self, segments=(*self.segments, segment), head_txid=segment.max, epoch=epoch, lineage=lineage)

    def rebased(self, snapshot: Snapshot, *, epoch: int, lineage: str) -> Manifest:
        """With a snapshot at a new head that no segment leads to: history has a gap below it."""
        if snapshot.txid <= self.head_txid:
            raise Internal(f"snapshot {snapshot.key} does not lie above the head of {self.branch}, {self.head_txid}")
        return replace(
            self, snapshots=(*self.snapshots, snapshot), head_txid=snapshot.txid, epoch=epoch, lineage=lineage
        )

    def cut(self, end: Position) -> Manifest:
        """The history up to and with `end`, which may lie in the middle of an object."""
        segments = [segment for segment in self.segments if segment.max <= end.txid]
        segments += [
            replace(segment, max=end.txid, at=end.at, checksum=end.checksum)
            for segment in self.segments
            if segment.min < end.txid < segment.max
        ]
        return replace(
            self,
            head_txid=end.txid,
            snapshots=tuple(snapshot for snapshot in self.snapshots if snapshot.txid <= end.txid),
            segments=tuple(segments),
            checkpoints={name: txid for name, txid in self.checkpoints.items() if txid <= end.txid},
        )

    def with_checkpoint(self, name: str, txid: int) -> Manifest:
        return replace(self, checkpoints={**self.checkpoints, name: txid})

    # --- bytes -----------------------------------------------------------------------------------

    def encode(self) -> bytes:
        body: dict[str, Any] = {
            "format": FORMAT,
            "db_uuid": self.db_uuid,
            "branch": self.branch,
            "parent": None
            if self.parent is None
            else {"branch": self.parent.branch, "fork_txid": self.parent.fork_txid},
            "epoch": self.epoch,
            "head_txid": self.head_txid,
            "lineage": self.lineage,
            "write_id": self.write_id,
            "snapshots": [_entry(snapshot, ("txid", "key", "bytes", "at")) for snapshot in self.snapshots],
            "segments": [_entry(segment, ("min", "max", "key", "bytes", "level", "at")) for segment in self.segments],
            "checkpoints": dict(self.checkpoints),
            "ttl_at": self.ttl_at,
            "created_at": self.created_at,
            "deleted_at": self.deleted_at,
            "collected_at": self.collected_at,
        }
        return orjson.dumps(body, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes, key: str) -> Manifest:
        """The manifest that `encode` wrote; `key` names the object in errors.

        Raises:
            Unavailable: a newer program wrote it.
            Internal: it is damaged.
        """
        try:
            body = orjson.loads(data)
            if body["format"] != FORMAT:
                raise Unavailable(f"{key} has format {body['format']}, this program knows {FORMAT}; upgrade Memoturn")
            parent = body["parent"]
            manifest = cls(
                db_uuid=body["db_uuid"],
                branch=body["branch"],
                parent=None if parent is None else Parent(**parent),
                epoch=body["epoch"],
                head_txid=body["head_txid"],
                lineage=body["lineage"],
                write_id=body["write_id"],
                snapshots=tuple(Snapshot(**_with_checksum(entry)) for entry in body["snapshots"]),
                segments=tuple(Segment(**_with_checksum(entry)) for entry in body["segments"]),
                checkpoints=body["checkpoints"],
                ttl_at=body["ttl_at"],
                created_at=body["created_at"],
                deleted_at=body["deleted_at"],
                collected_at=body["collected_at"],
            )
            fault = _fault(manifest, key)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Internal(f"the manifest {key} is damaged: {error!r}") from error
        if fault is not None:
            raise Internal(f"the manifest {key} is damaged: {fault}")
        return manifest


def _fault(manifest: Manifest, key: str) -> str | None:
    """What a manifest that was read cannot be like, if it is; the collector would take its word for what is needed."""
    if manifest.ref.manifest_key != key:
        return f"it is that of {manifest.ref.manifest_key}"
    numbers = [manifest.epoch, manifest.head_txid, manifest.created_at, *manifest.checkpoints.values()]
    numbers += [at for at in (manifest.ttl_at, manifest.deleted_at, manifest.collected_at) if at is not None]
    ends = [0]
    for snapshot in manifest.snapshots:
        numbers += [snapshot.txid, snapshot.bytes, snapshot.at]
        ends.append(snapshot.txid)
    for segment in manifest.segments:
        numbers += [segment.min, segment.max, segment.bytes, segment.level, segment.at]
        ends.append(segment.max)
    if any(type(number) is not int or number < 0 for number in numbers):
        return "a number in it is none"
    keys = manifest.keys()
    prefixes = (segments_prefix(manifest.db_uuid), snapshots_prefix(manifest.db_uuid))
    foreign = [str(key) for key in keys if not str(key).startswith(prefixes)]
    if foreign:
        return f"{min(foreign)} is no object of its database"
    if manifest.head_txid != max(ends):
        return f"its head is {manifest.head_txid} and its objects end at {max(ends)}"
    return None


def _entry(entry: Snapshot | Segment, fields: Iterable[str]) -> dict[str, Any]:
    # 64 bits are more than every reader of JSON keeps exactly, so the checksum is hex.
    return {field: getattr(entry, field) for field in fields} | {"checksum": f"{entry.checksum:016x}"}


def _with_checksum(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "checksum": int(entry["checksum"], 16)}


# --- keys ----------------------------------------------------------------------------------------


def branches_prefix(uuid: str) -> str:
    return f"v1/{uuid}/branches/"


def segments_prefix(uuid: str) -> str:
    return f"v1/{uuid}/ltx/"


def snapshots_prefix(uuid: str) -> str:
    return f"v1/{uuid}/snapshots/"


def segment_key(uuid: str, level: int, first: int, last: int, epoch: int, nonce: str) -> str:
    """The name of a new segment. `nonce` makes it unlike every other, of another branch or after a rewind."""
    return f"{segments_prefix(uuid)}{level}/{first:016x}-{last:016x}-{epoch:08x}-{nonce}.ltx"


def snapshot_key(uuid: str, txid: int, epoch: int, nonce: str) -> str:
    return f"{snapshots_prefix(uuid)}{txid:016x}-{epoch:08x}-{nonce}.ltx"
