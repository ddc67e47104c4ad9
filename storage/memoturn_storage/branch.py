"""An open branch: what a node holds in memory of one branch of one database while it is hot.

Its file is used by one thread at a time: the engine's thread that it belongs to, or an effect that was
given it alone (`Worker.exclusive`). Its manifest is written under `lock`, by whoever ships, compacts or
branches. Made by `memoturn_storage.waking`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from memoturn_schemas.errors import Unavailable
from memoturn_storage.handle import Handle
from memoturn_storage.local import LocalFiles, Origin
from memoturn_storage.manifest import BranchRef, Manifest, Segment, Snapshot
from memoturn_storage.manifests import Held
from memoturn_storage.tail import Sealed, Tail


class Fenced(Unavailable):
    """Another owner, or a rewind, has carried the history on from elsewhere: what is only here is lost."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """A sealed piece of the tail under the names that it has in the object store, also when it is put again."""

    sealed: Sealed
    snapshot: Snapshot | None
    segment: Segment | None
    put_at: int
    """When it was put first, Unix milliseconds: from then on it is an orphan until it is linked."""


@dataclass(slots=True, eq=False)
class Branch:
    ref: BranchRef
    files: LocalFiles
    origin: Origin
    epoch: int
    """With which this owner writes: one above the manifest's when it woke the branch."""
    tail: Tail
    handle: Handle | None
    """None while nothing was ever written to the branch: there is no file yet."""
    held: Held | None
    """The manifest as this node read or wrote it last; None where there is none or the outcome is unknown."""
    shipment: Shipment | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    fenced: bool = False
    asleep: bool = False
    """Closed: its lease may be another's, and its log with it."""
    aside: set[Handle] = field(default_factory=set)
    """Further connections that read the file now; the log is not folded under them."""
    failures: int = 0
    """Attempts to ship in a row that failed."""

    def wrote(self, manifest: Manifest) -> bool:
        """Whether this owner was the last to move the manifest's head."""
        return (manifest.lineage, manifest.epoch) == (self.origin.lineage, self.epoch)

    def require_ours(self, manifest: Manifest) -> None:
        """Raise `Fenced` unless what is in the tail continues this manifest."""
        continues = self.origin.continues(manifest) and manifest.head_txid == self.tail.shipped
        if manifest.deleted_at is not None or manifest.epoch > self.epoch or not continues:
            raise Fenced(f"another owner has carried on {self.ref.branch}; try again")
