"""Reading and replacing manifests in the object store.

A manifest is replaced only on the condition that it is still the one that was read. **A retried
conditional write can lose to itself**: the first try landed, its answer was lost, the second finds a
version that it does not know. So a writer that loses reads again, and recognises its own `write_id`; a
change that is asked of a manifest which has it already must hand the manifest back as it is, for
another writer may have put its own write on top of ours. Where the store does not answer, the outcome
is unknown and stays so until somebody reads: nothing here guesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from memoturn_schemas.errors import AlreadyExists, BranchNotFound, Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.manifest import (
    MAIN,
    BranchRef,
    Manifest,
    branches_prefix,
    segments_prefix,
    snapshots_prefix,
)
from memoturn_storage.objects.store import ObjectMissing, ObjectStore, PreconditionFailed

_RACES_AT_MOST = 32
"""Lost in a row, after which something is wrong that trying again does not mend."""


@dataclass(frozen=True, slots=True)
class Held:
    """A manifest as it was read or written, with the store's version of it."""

    manifest: Manifest
    version: str


class Manifests:
    """The manifests of an object store.

    Args:
        grace_ms: how long the collector leaves alone what nothing names; whoever links an object that it has
            put, or found in another manifest, does so within half of that.
    """

    def __init__(self, store: ObjectStore, ambient: Ambient, *, grace_ms: int = 600_000) -> None:
        self._store = store
        self._ambient = ambient
        self.grace_ms = grace_ms

    def too_late(self, since_ms: int) -> bool:
        """Whether what was put, or read, at `since_ms` (Unix milliseconds) may no longer be linked or relied on."""
        return self._ambient.now_ms() - since_ms > self.grace_ms / 2

    def read(self, ref: BranchRef) -> Held | None:
        """The branch's manifest, of a deleted branch too; None where there never was one.

        Raises:
            StoreUnavailable; Internal where the manifest is damaged.
        """
        try:
            stored = self._store.get(ref.manifest_key)
        except ObjectMissing:
            return None
        return Held(Manifest.decode(stored.data, ref.manifest_key), stored.version)

    def require(self, ref: BranchRef) -> Held:
        """The manifest of a branch that exists.

        Raises:
            BranchNotFound; and as `read`.
        """
        return _existing(self.read(ref), ref)

    def create(self, manifest: Manifest) -> Held:
        """Write the first manifest of a branch, or that of a new branch in place of a deleted one.

        Its lineage must be new: by it the branch is recognised as the one made here.

        Raises:
            AlreadyExists: the branch exists.
            StoreUnavailable: the outcome is unknown.
        """
        for _ in range(_RACES_AT_MOST):
            wanted = replace(manifest, write_id=self._new_write_id())
            held = self.read(manifest.ref)
            try:
                if held is None:
                    return Held(wanted, self._store.put_if_absent(manifest.ref.manifest_key, wanted.encode()))
                if held.manifest.lineage == manifest.lineage:
                    return held  # ours; an answer was lost
                if held.manifest.deleted_at is None:
                    raise AlreadyExists(f"the branch {manifest.branch} exists")
                if held.manifest.collected_at is None:
                    version = self._store.put_if_match(manifest.ref.manifest_key, wanted.encode(), held.version)
                    return Held(wanted, version)
            except PreconditionFailed:
                continue
        raise Unavailable(f"the branch {manifest.branch} is being removed; try again")

    def update(self, at: BranchRef | Held, change: Callable[[Manifest], Manifest]) -> Held:
        """Replace a manifest by what `change` makes of it, as often as it takes.

        `change` gets the manifest as it is now; it hands it back as it is if it has been made already,
        and raises if it must not be made.

        Raises:
            BranchNotFound; whatever `change` raises.
            StoreUnavailable: the outcome is unknown.
        """
        held = at if isinstance(at, Held) else self.require(at)
        key = held.manifest.ref.manifest_key
        for _ in range(_RACES_AT_MOST):
            changed = change(held.manifest)
            if changed is held.manifest:
                return held
            wanted = replace(changed, write_id=self._new_write_id())
            try:
                return Held(wanted, self._store.put_if_match(key, wanted.encode(), held.version))
            except PreconditionFailed:
                found = self.read(wanted.ref)
                if found is not None and found.manifest.write_id == wanted.write_id:
                    return found  # ours, perhaps a deletion; an answer was lost
                held = _existing(found, wanted.ref)
        raise Unavailable(f"the branch {held.manifest.branch} is written by too many at once; try again")

    def branches(self, uuid: str) -> list[Held]:
        """The manifests of every branch of a database, deleted ones too, by name."""
        found = (self.read(ref) for ref in self.refs(uuid))
        return [held for held in found if held is not None]

    def refs(self, uuid: str) -> list[BranchRef]:
        """The branches of a database that have a manifest, deleted ones too, by name; none of them is read."""
        prefix = branches_prefix(uuid)
        return [BranchRef(uuid, info.key.removeprefix(prefix).partition("/")[0]) for info in self._store.list(prefix)]

    def trace_of_loss(self, uuid: str) -> str | None:
        """An object that cannot be there unless main once had a manifest; for when it has none.

        A first shipment that was put and never linked leaves a snapshot and a segment from transaction 2 on,
        of epoch 1 and level 0, and nothing else.
        """
        for ref in self.refs(uuid):
            if ref.branch != MAIN:
                return ref.manifest_key
        for info in self._store.list(snapshots_prefix(uuid)):
            if _name_of(info.key)[1] > 1:
                return info.key
        for info in self._store.list(segments_prefix(uuid)):
            first, _, epoch = _name_of(info.key)[:3]
            if first > _FIRST_AFTER_SNAPSHOT or epoch > 1 or not info.key.startswith(f"{segments_prefix(uuid)}0/"):
                return info.key
        return None

    def _new_write_id(self) -> str:
        return self._ambient.token(16).hex()


def _existing(held: Held | None, ref: BranchRef) -> Held:
    if held is None or held.manifest.deleted_at is not None:
        raise BranchNotFound(f"there is no branch {ref.branch}")
    return held


_FIRST_AFTER_SNAPSHOT = 2


def _name_of(key: str) -> list[int]:
    """The numbers in an object's name: `txid, epoch` of a snapshot, `first, last, epoch` of a segment."""
    *numbers, _nonce = key.rpartition("/")[2].split("-")
    return [int(number, 16) for number in numbers]
