"""Where two branches part: the newest transaction that the histories of both have in common.

It is found in the histories themselves, so that forks of forks, rewinds, promotions and deleted parents need no
rules of their own: up to where they part, each transaction was committed at the same time and left the same state.
Only where retention has taken that stretch of a history do the recorded forks say which transaction it was.
Called by `memoturn_core.memory.merging`, on a thread that may wait for the object store.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from memoturn_schemas.errors import Conflict
from memoturn_storage.manifest import BranchRef, Manifest
from memoturn_storage.manifests import Manifests
from memoturn_storage.restore import Restorer


@dataclass(frozen=True, slots=True)
class Fork:
    """The last common transaction of two branches, 0 where they have nothing in common but that they began empty."""

    txid: int
    kept_by: BranchRef
    """The branch whose history still has the state after it."""


def fork_of(manifests: Manifests, restorer: Restorer, one: Manifest, other: Manifest) -> Fork:
    """Where two branches of a database part.

    Raises:
        Conflict: what is left of their histories does not reach back to it, or does not tell.
        Damaged, StoreUnavailable.
    """
    txid = _last_common(manifests, restorer, one, other)
    for manifest in (one, other):
        if txid == 0 or any(txid in kept for kept in _kept(manifest)):
            return Fork(txid, manifest.ref)
    raise _out_of_reach(one, other)


def _last_common(manifests: Manifests, restorer: Restorer, one: Manifest, other: Manifest) -> int:
    common, apart = 0, min(one.head_txid, other.head_txid) + 1
    for both in _kept_by_both(one, other):

        def differ(txid: int) -> bool:
            return restorer.position(one, txid) != restorer.position(other, txid)

        same = bisect_left(both, True, key=differ)
        if same > 0:
            common = both[same - 1]
        if same < len(both):
            apart = both[same]
            break
    if apart == common + 1:
        return common
    recorded = _recorded(manifests, one, other)
    if recorded is not None and common <= recorded < apart:
        return recorded
    raise _out_of_reach(one, other)


def _kept(manifest: Manifest) -> list[range]:
    """The transactions that can be restored, in stretches without gaps, ascending."""
    stretches: list[range] = []
    for snapshot in manifest.snapshots:
        if stretches and snapshot.txid in stretches[-1]:
            continue
        reached = snapshot.txid
        for segment in manifest.segments:
            if segment.min <= reached < segment.max:
                reached = segment.max
        stretches.append(range(snapshot.txid, reached + 1))
    return stretches


def _kept_by_both(one: Manifest, other: Manifest) -> list[range]:
    """Likewise, of two histories."""
    shared = [
        range(max(ours.start, theirs.start), min(ours.stop, theirs.stop))
        for ours in _kept(one)
        for theirs in _kept(other)
    ]
    return sorted((stretch for stretch in shared if stretch), key=lambda stretch: stretch.start)


def _recorded(manifests: Manifests, one: Manifest, other: Manifest) -> int | None:
    """The fork by what the branches say of their parents."""
    reaches = _reaches(manifests, other)
    for branch, txid in _reaches(manifests, one).items():
        if branch in reaches:
            return min(txid, reaches[branch])
    return None


def _reaches(manifests: Manifests, manifest: Manifest) -> dict[str, int]:
    """Up to which transaction a branch has the history of itself, its parent, the parent's parent and so on."""
    reaches = {manifest.branch: manifest.head_txid}
    parent, txid = manifest.parent, manifest.head_txid
    while parent is not None and parent.branch not in reaches:  # a name that was used again may close a circle
        txid = reaches[parent.branch] = min(txid, parent.fork_txid)
        held = manifests.read(BranchRef(manifest.db_uuid, parent.branch))
        parent = None if held is None else held.manifest.parent
    return reaches


def _out_of_reach(one: Manifest, other: Manifest) -> Conflict:
    return Conflict(f"the histories of {one.branch} and {other.branch} no longer reach back to where they part")
