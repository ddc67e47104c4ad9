"""The collector: removes from the object store what no branch needs, on any node, beside everybody else.

A pass over a database lists its objects and reads the manifests of all its branches. What none of them
names, and what was put longer ago than the grace period, is marked with the time at which it was first
found so, in an object of the collector's own (`garbage.json`); what is marked since a grace period is
removed. A deleted branch names nothing; its manifest is removed a grace period after the branch.

Why nothing that is needed is removed, whatever happens meanwhile: an object becomes needed in two ways.

- Its writer links it, within half the grace period of the last put. An object that is older than the
  grace period when it is listed was linked before the manifests were read, or never will be.
- A fork (or a promotion) finds it in another branch's manifest, links it within half the grace period of
  that read, and then takes away its mark if it has one. The object is marked only after that branch has
  ceased to name it, so the link is there long before the mark is a grace period old, and the pass that
  would remove the object sees it.

So a mark says that the object was unneeded ever since; a pass that finds it needed takes the mark away
too. (A fork that dies between linking and that leaves the mark to the next pass.) Of passes that race, one
replaces the marks, by compare-and-swap, and the others remove nothing.
The other half of the grace period is for clocks that differ, and for what takes time between looking at
the clock and taking effect; in it, who has read an older manifest can still read what it names.

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
from memoturn_storage.garbage import Garbage
from memoturn_storage.manifest import MAIN, Manifest, segments_prefix, snapshots_prefix
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
        self._garbage = Garbage(store)
        self._grace_ms = manifests.grace_ms

    def collect(self, uuid: str) -> CollectReport:
        """One pass over a database, by its uuid; of a deleted one too.

        Raises:
            Internal, Unavailable: a manifest cannot be read, and nothing was removed.
            StoreUnavailable: the next pass goes on.
        """
        began_at = self._ambient.now_ms()
        marks = self._garbage.read(uuid)
        listed = [*self._store.list(segments_prefix(uuid)), *self._store.list(snapshots_prefix(uuid))]
        branches = self._manifests.branches(uuid)
        if not any(held.manifest.branch == MAIN for held in branches):
            # Never shipped, or main's manifest was lost, and then what is left may be all that there is.
            return CollectReport(objects=0, bytes=0, kept=len(listed), manifests=0)
        needed: set[str] = set()
        for held in branches:
            if held.manifest.deleted_at is None:
                needed |= held.manifest.keys()
        marked_at = self._ambient.now_ms()
        unneeded = [info for info in listed if info.key not in needed and info.modified_ms + self._grace_ms <= began_at]
        since = {info.key: marks.since.get(info.key, marked_at) for info in unneeded}
        gone = [info for info in unneeded if since[info.key] + self._grace_ms <= began_at]
        if not self._garbage.replace(marks, since):
            gone = []
        for info in gone:
            self._store.delete(info.key)
        over = [held for held in branches if _is_over(held.manifest, began_at, self._grace_ms)]
        if listed or len(branches) > 1:
            over = [held for held in over if held.manifest.branch != MAIN]  # main's goes last
        report = CollectReport(
            objects=len(gone),
            bytes=sum(info.size for info in gone),
            kept=len(listed) - len(gone),
            manifests=sum(self._remove(held) for held in over),
        )
        if gone or report.manifests:
            log.info("collected", database=uuid, objects=report.objects, bytes=report.bytes, manifests=report.manifests)
        return report

    def nothing_left(self, uuid: str) -> bool:
        """Whether the object store has no object of a database any more."""
        return next(iter(self._store.list(f"v1/{uuid}/")), None) is None

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
        if marked.deleted_at is None or self._manifests.too_late(now_ms):
            return False
        self._store.delete(marked.ref.manifest_key)
        return True


def _is_over(manifest: Manifest, now_ms: int, grace_ms: int) -> bool:
    return manifest.deleted_at is not None and manifest.deleted_at + grace_ms <= now_ms
