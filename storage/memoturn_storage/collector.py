"""The collector: removes from the object store what no branch needs, on any node, beside everybody else.

A pass over a database lists its objects, then reads the manifests of all its branches, and then removes
the objects that are older than the grace period and named by none. Named is what a manifest needs, what it
has needed within the grace period (`dropped`), and everything of a branch that was deleted within it. A
deleted branch's manifest is removed a grace period after the branch.

Why nothing that is needed is removed, whatever happens meanwhile: an object becomes needed in two ways.

- Its writer links it, within half the grace period of the last put. An object that is older than the
  grace period when it is listed was linked before the manifests were read, or never will be.
- A fork finds it in the parent's manifest and creates the child within half the grace period of that
  read. If the parent does not name the object when the collector reads it, not even as dropped, it was
  dropped a grace period before the pass began; whoever forked while it was needed has created a child
  that the pass, which lists the branches after that, has read.

So an object that is found without need stays so for ever, and it does not matter when it is removed, or how
often. The other half of the grace period is for clocks that differ, and for what takes time between
looking at the clock and taking effect.

A manifest is different, for its key is used again by a new branch of the name. So a collector first marks
it by compare-and-swap (`collected_at`), after which nobody creates over it and no other collector removes
it until a grace period has passed, when the one that marked it must have died; and it removes what it
marked only within half of that. Called by the upkeep of a node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog

from memoturn_schemas.errors import BranchNotFound
from memoturn_storage.ambient import Ambient
from memoturn_storage.manifest import Manifest, segments_prefix, snapshots_prefix
from memoturn_storage.manifests import Held, Manifests
from memoturn_storage.objects.store import ObjectStore

log = structlog.get_logger("memoturn")


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a pass did to one database."""

    objects: int
    """Removed, manifests not counted."""
    bytes: int
    """Of these."""
    kept: int
    """Objects that stay, because they are needed or too young."""
    manifests: int
    """Of deleted branches, removed."""


class Collector:
    """Collects the garbage of an object store; the grace period is that of `manifests`."""

    def __init__(self, store: ObjectStore, manifests: Manifests, ambient: Ambient) -> None:
        self._store = store
        self._manifests = manifests
        self._ambient = ambient
        self._grace_ms = manifests.grace_ms

    def collect(self, uuid: str) -> CollectReport:
        """One pass over a database, by its uuid; of a deleted one too.

        Raises:
            Internal, Unavailable: a manifest cannot be read, and nothing was removed.
            StoreUnavailable: the next pass goes on.
        """
        began_at = self._ambient.now_ms()
        listed = [*self._store.list(segments_prefix(uuid)), *self._store.list(snapshots_prefix(uuid))]
        branches = self._manifests.branches(uuid)
        needed: set[str] = set()
        for held in branches:
            needed |= needed_objects(held.manifest, began_at, self._grace_ms)
        gone = [info for info in listed if info.key not in needed and info.modified_ms + self._grace_ms <= began_at]
        for info in gone:
            self._store.delete(info.key)
        over = [held for held in branches if _is_over(held.manifest, began_at, self._grace_ms)]
        report = CollectReport(
            objects=len(gone),
            bytes=sum(info.size for info in gone),
            kept=len(listed) - len(gone),
            manifests=sum(self._remove(held) for held in over),
        )
        if gone or report.manifests:
            log.info("collected", database=uuid, objects=report.objects, bytes=report.bytes, manifests=report.manifests)
        return report

    def _remove(self, held: Held) -> bool:
        """Remove a deleted branch's manifest; whether it was this collector that did."""
        now_ms = self._ambient.now_ms()
        marked_before = held.manifest.collected_at
        if marked_before is not None and marked_before + self._grace_ms > now_ms:
            return False

        def mark(manifest: Manifest) -> Manifest:
            return manifest if manifest.deleted_at is None else replace(manifest, collected_at=now_ms)

        try:
            marked = self._manifests.update(held, mark).manifest
        except BranchNotFound:
            return False  # another collector was first
        too_late = self._ambient.now_ms() - now_ms > self._grace_ms / 2
        if marked.deleted_at is None or too_late:
            return False
        self._store.delete(marked.ref.manifest_key)
        return True


def needed_objects(manifest: Manifest, now_ms: int, grace_ms: int) -> set[str]:
    """The keys that must stay because of this branch: what it needs, or has needed a grace period ago."""
    lingering = {entry.key for entry in manifest.dropped if entry.at + grace_ms > now_ms}
    return lingering if _is_over(manifest, now_ms, grace_ms) else lingering | manifest.keys()


def _is_over(manifest: Manifest, now_ms: int, grace_ms: int) -> bool:
    return manifest.deleted_at is not None and manifest.deleted_at + grace_ms <= now_ms
