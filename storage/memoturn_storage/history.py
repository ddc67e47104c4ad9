"""Keeping histories short to read, and no longer than was promised: compaction and retention.

A branch's owner only appends, so that every commit becomes a small object. `Compactor.compact` makes few
of many, on any node and beside everybody else: a long chain ends in a new snapshot or, where the state is
large, in fewer segments; behind the newest snapshot segments are joined as the levels of a log-structured
tree are, and the snapshots inside what was joined go, so that a manifest grows with the logarithm of its
commits. Joined objects hold every transaction apart: nothing that was restorable ceases to be. Only
retention forgets, which is a pure function (`retained`).

What is to be done is planned on a manifest and linked by compare-and-swap only where the entries that it
replaces are all there as planned: whatever an append, a rewind, a checkpoint or another compactor did
meanwhile stands, and at worst the new object is an orphan for the collector. As every writer, the compactor
links an object within half the grace period of its put. Called by the upkeep of a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import structlog

from memoturn_schemas.errors import Conflict, Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.connection import PAGE_SIZE
from memoturn_storage.formats.ltx import LtxFile, encode
from memoturn_storage.manifest import BranchRef, Manifest, Plan, Position, Segment, Snapshot, segment_key, snapshot_key
from memoturn_storage.manifests import Held, Manifests
from memoturn_storage.objects.store import ObjectStore
from memoturn_storage.restore import Damaged, Restorer
from memoturn_storage.tail import snapshot_file

log = structlog.get_logger("memoturn")

LONG = 16
"""Entries: of a chain that is shortened, and of adjacent objects of one level that become one of the next."""

SMALL_SNAPSHOT_BYTES = 1 << 20
"""Up to which a state is written anew however little has changed."""

OBJECT_BYTES = 16 << 20
"""Of a joined object at most. What is over half of it is joined no further."""

Update = Callable[[BranchRef, Callable[[Manifest], Manifest]], Held]


@dataclass(frozen=True, slots=True)
class Rebase:
    """To be done: a snapshot at `end`, to which `segments` lead from `base`, the newest one."""

    base: Snapshot
    segments: tuple[Segment, ...]
    end: Position


@dataclass(frozen=True, slots=True)
class Join:
    """To be done: one object of `level` instead of adjacent `segments`; the `snapshots` that lie inside go."""

    segments: tuple[Segment, ...]
    snapshots: tuple[Snapshot, ...]
    level: int


class Compactor:
    """Compacts and trims the histories of an object store.

    Args:
        update: replaces a manifest; `Engine.update_manifest`, so that an open branch knows its new manifest.
    """

    def __init__(
        self, store: ObjectStore, manifests: Manifests, restorer: Restorer, ambient: Ambient, update: Update
    ) -> None:
        self._store = store
        self._manifests = manifests
        self._restorer = restorer
        self._ambient = ambient
        self._update = update

    def compact(self, ref: BranchRef) -> bool:
        """Do what there is to do; whether anything was.

        Raises:
            BranchNotFound.
            Damaged: an object that would be read is not what the manifest says; nothing is built on it.
            StoreUnavailable and others of `Manifests.update`: what was linked before stays.
        """
        done = False
        while True:
            manifest = self._manifests.require(ref).manifest
            step = next_step(manifest)
            if step is None or not self._do(manifest, step):
                return done  # where the history has changed under it, the next pass sees what is left
            done = True

    def retain(self, ref: BranchRef, *, fine_ms: int, snapshots_ms: int) -> bool:
        """Forget what `retained` forgets; whether that was anything.

        Raises:
            BranchNotFound; and as `Manifests.update`.
        """
        now_ms = self._ambient.now_ms()
        before = self._manifests.require(ref).manifest
        if retained(before, now_ms, fine_ms, snapshots_ms) is before:
            return False
        self._update(ref, lambda manifest: retained(manifest, now_ms, fine_ms, snapshots_ms))
        return True

    def _do(self, manifest: Manifest, step: Rebase | Join) -> bool:
        """Put the object that the step asks for and link it; whether that was still asked for."""
        if isinstance(step, Rebase):
            data = encode(snapshot_file(self._restorer.image(manifest, step.end.txid), PAGE_SIZE, step.end))
            key = snapshot_key(manifest.db_uuid, step.end.txid, manifest.epoch, self._nonce())
            snapshot = Snapshot(step.end.txid, key, len(data), step.end.at, step.end.checksum)
            return self._link(manifest.ref, key, data, lambda current: rebased(current, step, snapshot))
        data = b"".join(encode(file) for file in self._transactions(step.segments))
        first, last = step.segments[0], step.segments[-1]
        key = segment_key(manifest.db_uuid, step.level, first.min + 1, last.max, manifest.epoch, self._nonce())
        segment = Segment(first.min, last.max, key, len(data), step.level, last.at, last.checksum)
        return self._link(manifest.ref, key, data, lambda current: joined(current, step, segment))

    def _transactions(self, segments: Sequence[Segment]) -> Iterator[LtxFile]:
        """What the entries cover, one after the other without a gap."""
        checksum: int | None = None
        for segment in segments:
            files = self._restorer.transactions(segment)
            if not files or (files[0].min_txid, files[-1].max_txid) != (segment.min + 1, segment.max):
                raise Damaged(f"{segment.key}: does not hold the transactions {segment.min + 1} to {segment.max}")
            if checksum not in (None, files[0].pre_apply) or files[-1].post_apply != segment.checksum:
                raise Damaged(f"{segment.key}: its transactions lead from or to another state than the manifest says")
            checksum = files[-1].post_apply
            yield from files

    def _link(self, ref: BranchRef, key: str, data: bytes, change: Callable[[Manifest], Manifest]) -> bool:
        put_at = self._ambient.now_ms()
        self._store.put(key, data)

        def link(manifest: Manifest) -> Manifest:
            if self._manifests.too_late(put_at):
                raise Unavailable(f"{key} was put too long ago to be linked; compaction is tried again")
            return change(manifest)

        needed = self._update(ref, link).manifest.keys()
        linked = key in needed
        log.debug("compacted", database=ref.uuid, branch=ref.branch, object=key, bytes=len(data), linked=linked)
        return linked

    def _nonce(self) -> str:
        return self._ambient.token(4).hex()


# --- compaction, planned and applied -------------------------------------------------------------


def next_step(manifest: Manifest) -> Rebase | Join | None:
    """What to do next, if anything; doing it and asking again comes to an end."""
    if manifest.empty:
        return None
    return _shorter_chain(manifest) or _shorter_interval(manifest) or _fewer_of_a_level(manifest)


def rebased(manifest: Manifest, step: Rebase, snapshot: Snapshot) -> Manifest:
    """With the snapshot that `step` asked for; unchanged where the history is not as planned any more."""
    if not _holds(manifest, step):
        return manifest
    return replace(manifest, snapshots=(*manifest.snapshots, snapshot))


def joined(manifest: Manifest, step: Join, segment: Segment) -> Manifest:
    """With `segment` for those that `step` joins; unchanged where the history is not as planned any more."""
    there = set(step.segments) <= set(manifest.segments)
    if not there or _snapshots_inside(manifest, step.segments) != step.snapshots:
        return manifest
    segments = [entry for entry in manifest.segments if entry not in step.segments]
    return replace(
        manifest,
        segments=tuple(sorted([*segments, segment], key=lambda entry: entry.min)),
        snapshots=tuple(entry for entry in manifest.snapshots if entry not in step.snapshots),
    )


def _holds(manifest: Manifest, step: Rebase) -> bool:
    newest = manifest.snapshots[-1:] == (step.base,)
    return newest and set(step.segments) <= set(manifest.segments)


def _shorter_chain(manifest: Manifest) -> Rebase | Join | None:
    chain = manifest.chain
    if len(chain) < LONG:
        return None
    newest = manifest.snapshots[-1]
    if newest.bytes <= SMALL_SNAPSHOT_BYTES or 2 * sum(segment.bytes for segment in chain) >= newest.bytes:
        return Rebase(newest, chain, manifest.head)
    for level in sorted({segment.level for segment in chain}):
        for run in _runs(chain, level):
            if len(run) >= LONG // 2:
                return _joining(manifest, run)
    return None


def _shorter_interval(manifest: Manifest) -> Join | None:
    """Segments that lie between the same two snapshots become one."""
    for low, high in pairwise(manifest.snapshots):
        between = [segment for segment in manifest.segments if low.txid <= segment.min and segment.max <= high.txid]
        for run in _runs(between, max((segment.level for segment in between), default=0)):
            if len(run) > 1:
                return _joining(manifest, run)
    return None


def _fewer_of_a_level(manifest: Manifest) -> Join | None:
    behind = [segment for segment in manifest.segments if segment.max <= manifest.snapshots[-1].txid]
    for level in sorted({segment.level for segment in behind}):
        for run in _runs(behind, level):
            of_level = [number for number, segment in enumerate(run) if segment.level == level]
            if len(of_level) >= LONG:
                return _joining(manifest, run[of_level[0] : of_level[-1] + 1])
    return None


def _runs(segments: Sequence[Segment], level: int) -> list[list[Segment]]:
    """Adjacent segments that may be joined and are of no higher level."""
    runs: list[list[Segment]] = []
    for segment in segments:
        if segment.level > level or segment.bytes > OBJECT_BYTES // 2:
            runs.append([])
        elif runs and runs[-1] and runs[-1][-1].max == segment.min:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def _joining(manifest: Manifest, run: Sequence[Segment]) -> Join:
    """The join of as many of the run, from its beginning, as fit into an object."""
    taken = [run[0]]
    size = run[0].bytes
    for segment in run[1:]:
        size += segment.bytes
        if size > OBJECT_BYTES:
            break
        taken.append(segment)
    level = 1 + max(segment.level for segment in taken)
    return Join(tuple(taken), _snapshots_inside(manifest, taken), level)


def _snapshots_inside(manifest: Manifest, segments: Sequence[Segment]) -> tuple[Snapshot, ...]:
    first, last = segments[0].min, segments[-1].max
    return tuple(snapshot for snapshot in manifest.snapshots if first < snapshot.txid < last)


# --- retention -----------------------------------------------------------------------------------


def retained(manifest: Manifest, now_ms: int, fine_ms: int, snapshots_ms: int) -> Manifest:
    """What is left of a history at `now_ms`: every transaction of the last `fine_ms`, then snapshots.

    The floor is the newest snapshot from before the fine window: it stays, with everything above it. Below
    it the segments go, and the snapshots that are older than `snapshots_ms`. A named checkpoint keeps what
    its state is restored from at any age. `fine_ms` 0 forgets nothing. Handed back as it is where nothing
    is to be forgotten.
    """
    old = [snapshot for snapshot in manifest.snapshots if snapshot.at < now_ms - fine_ms]
    if not old or fine_ms == 0:
        return manifest
    floor = old[-1].txid
    plans = [plan for txid in set(manifest.checkpoints.values()) if (plan := _plan_below(manifest, txid, floor))]
    pinned = {plan.snapshot for plan in plans}
    snapshots = tuple(
        snapshot
        for snapshot in manifest.snapshots
        if snapshot.txid >= floor or snapshot.at >= now_ms - snapshots_ms or snapshot in pinned
    )
    segments = []
    for segment in manifest.segments:
        needed_from = [plan.snapshot.txid for plan in plans if segment in plan.segments]
        needed_from += [floor] if segment.max > floor else []
        if needed_from:
            start = max(segment.min, min(needed_from))
            segments.append(segment if start == segment.min else replace(segment, min=start))
    if len(snapshots) == len(manifest.snapshots) and segments == list(manifest.segments):
        return manifest
    return replace(manifest, snapshots=snapshots, segments=tuple(segments))


def _plan_below(manifest: Manifest, txid: int, floor: int) -> Plan | None:
    if txid >= floor:
        return None
    try:
        return manifest.plan(txid)
    except Conflict:
        return None  # a gap in the history: there is nothing to pin
