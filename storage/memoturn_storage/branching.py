"""Branching: fork, checkpoint, rewind, promote and delete, each of which is one write of a manifest.

No operation moves data, so none depends on the size of the branch. A rewind (and a promotion, which is a
rewind to another branch's history) gives the branch a new lineage: what was only on this machine is
discarded, and a log that still holds it is never taken for a continuation. All of these block; they are
called by `memoturn_core.branches`, on a thread that may wait, by the owner of the database.

A moment in a history is a transaction's number, the name of a checkpoint, or a time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from memoturn_schemas.errors import AlreadyExists, BranchNotFound, Conflict, InvalidRequest, Unavailable
from memoturn_schemas.moment import parse_time
from memoturn_storage.ambient import Ambient
from memoturn_storage.branch import Branch, Fenced
from memoturn_storage.engine import Engine
from memoturn_storage.manifest import MAIN, BranchRef, Manifest, Parent
from memoturn_storage.manifests import Held

FIRST_TIME_MS = 100_000_000_000
"""An integer from here on (the year 1973) is a time in Unix milliseconds, below it a transaction."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in a branch's history. Digits given as text are a checkpoint of that name or else a transaction."""

    txid: int | None = None
    checkpoint: str | None = None
    at_ms: int | None = None

    @classmethod
    def of(cls, value: int | str) -> Moment:
        """What a caller means: a transaction, a time (Unix ms or RFC 3339 with an offset), or a checkpoint's name."""
        if isinstance(value, int) or (value.isascii() and value.isdigit()):
            number = int(value)
            if number >= FIRST_TIME_MS:
                return cls(at_ms=number)
            return cls(txid=number, checkpoint=None if isinstance(value, int) else value)
        if ":" not in value:
            return cls(checkpoint=value)
        try:
            return cls(at_ms=parse_time(value))
        except ValueError as error:
            raise InvalidRequest(f"the moment {value!r} {error}") from None


@dataclass(frozen=True, slots=True)
class Forked:
    branch: str
    parent: str
    fork_txid: int
    ttl_at: int | None


@dataclass(frozen=True, slots=True)
class Rewound:
    txid: int
    epoch: int


class Branching:
    """The branches of the databases that this node owns."""

    def __init__(self, engine: Engine, ambient: Ambient) -> None:
        self._engine = engine
        self._manifests = engine.manifests
        self._ambient = ambient
        self._ttls: dict[BranchRef, int] = {}

    # --- expiry ----------------------------------------------------------------------------------

    def remember_expiry(self, manifest: Manifest) -> None:
        if manifest.ttl_at is not None:
            self._ttls[manifest.ref] = manifest.ttl_at

    def expired(self) -> list[BranchRef]:
        """The branches that this node knows of whose time has run out."""
        now_ms = self._ambient.now_ms()
        return [ref for ref, ttl_at in list(self._ttls.items()) if ttl_at <= now_ms]

    # --- reading ---------------------------------------------------------------------------------

    def list(self, uuid: str) -> list[Manifest]:
        """The branches of a database beside main, by name."""
        found = [held.manifest for held in self._manifests.branches(uuid)]
        now_ms = self._ambient.now_ms()
        return [
            manifest
            for manifest in found
            if manifest.deleted_at is None and manifest.branch != MAIN and not manifest.expired(now_ms)
        ]

    def resolve(self, manifest: Manifest, moment: Moment) -> int:
        """The transaction that a moment means.

        Raises:
            BranchNotFound: there is no checkpoint of this name.
            Conflict: the time is not in the history.
        """
        if moment.checkpoint is not None and moment.checkpoint in manifest.checkpoints:
            return manifest.checkpoints[moment.checkpoint]
        if moment.txid is not None:
            return moment.txid
        if moment.at_ms is None:
            raise BranchNotFound(f"{manifest.branch} has no checkpoint {moment.checkpoint}")
        if moment.at_ms > self._ambient.now_ms():
            raise Conflict("the time lies in the future")
        return self._engine.restorer.txid_at(manifest, moment.at_ms)

    def shipped_manifest(self, ref: BranchRef) -> Manifest:
        """The branch's manifest once everything committed so far is in it; a first, empty one is made if need be."""
        self._engine.read(ref, lambda _snapshot: None, durable=True).result()
        held = self._manifests.read(ref)
        if held is None and ref.branch == MAIN:
            held = self._engine.exclusive(ref, self._create_empty).result()
        if held is None or held.manifest.deleted_at is not None:
            raise BranchNotFound(f"there is no branch {ref.branch}")
        return held.manifest

    def _create_empty(self, branch: Branch) -> Held:
        """The first manifest of a branch that nobody has written to; what is written here next continues it."""
        first = Manifest(
            db_uuid=branch.ref.uuid,
            branch=branch.ref.branch,
            epoch=0,
            head_txid=0,
            lineage=branch.origin.lineage,
            write_id="",
            created_at=self._ambient.now_ms(),
            checkpoints={},
        )
        with branch.lock:
            try:
                branch.held = self._manifests.create(first)
            except AlreadyExists as error:
                raise Fenced(f"another owner has begun {branch.ref.branch}; try again") from error
            return branch.held

    # --- writing ---------------------------------------------------------------------------------

    def fork(self, parent: BranchRef, name: str, at: Moment | None = None, ttl_ms: int | None = None) -> Forked:
        """A new branch `name` with the parent's history up to its head, or up to `at`.

        Raises:
            AlreadyExists: the name is taken.
            BranchNotFound: there is no such parent or checkpoint.
            Conflict: `at` is not in the history.
        """
        began = self._ambient.now_ms()
        source = self.shipped_manifest(parent)
        txid = source.head_txid if at is None else self.resolve(source, at)
        history = source if source.empty and txid == 0 else source.cut(self._engine.restorer.position(source, txid))
        self._require_soon_after(began)
        now = self._ambient.now_ms()
        ttl_at = None if ttl_ms is None else now + ttl_ms
        child = replace(
            history,
            branch=name,
            epoch=0,
            lineage=self._new_lineage(),
            write_id="",
            created_at=now,
            parent=Parent(parent.branch, txid),
            checkpoints={},
            ttl_at=ttl_at,
        )
        self._create(child)
        self._engine.garbage.unmark(parent.uuid, child.keys())
        self.remember_expiry(child)
        return Forked(name, parent.branch, txid, ttl_at)

    def _create(self, manifest: Manifest) -> None:
        """Write a new branch's manifest, in place of one of its name whose time has run out if need be."""
        try:
            self._manifests.create(manifest)
        except AlreadyExists:
            held = self._manifests.read(manifest.ref)
            if held is None or not held.manifest.expired(self._ambient.now_ms()):
                raise
            self.delete(manifest.ref)
            self._manifests.create(manifest)

    def checkpoint(self, ref: BranchRef, name: str) -> int:
        """Give the newest transaction a name, which keeps it restorable at any age; returns it.

        Raises:
            BranchNotFound; Conflict: nothing was ever written.
        """
        shipped = self.shipped_manifest(ref)
        txid = shipped.head_txid
        if txid == 0:
            raise Conflict(f"nothing was written to {ref.branch} that a checkpoint could name")

        def named(manifest: Manifest) -> Manifest:
            if manifest.checkpoints.get(name) == txid:
                return manifest
            if manifest.head_txid < txid or manifest.position(txid) not in (shipped.head, None):
                raise Unavailable(f"the history of {ref.branch} was replaced meanwhile; try again")
            return manifest.with_checkpoint(name, txid)

        self._engine.update_manifest(ref, named)
        return txid

    def rewind(self, ref: BranchRef, to: Moment) -> Rewound:
        """Make the state at `to` the branch's head again; what came after it is discarded.

        Raises:
            BranchNotFound: there is no such branch or checkpoint.
            Conflict: `to` is above the head or outside the history.
        """

        def effect(branch: Branch) -> Rewound:
            held = branch.held or self._manifests.read(ref)
            reached = 0 if held is None else held.manifest.head_txid
            wanted = to.txid if to.checkpoint is None else None
            if branch.tail.awaited or (not branch.tail.clean and (wanted is None or wanted > reached)):
                self._engine.publisher.ship_alone(branch)
            held = self._manifests.read(ref)
            if held is None:
                raise Conflict(f"nothing was ever written to {ref.branch}")
            manifest = held.manifest
            end = self._engine.restorer.position(manifest, self.resolve(manifest, to))

            def cut(current: Manifest) -> Manifest:
                if current.lineage not in (manifest.lineage, branch.origin.lineage):
                    raise Unavailable(f"the history of {ref.branch} was replaced meanwhile; try again")
                current.plan(end.txid)  # retention may have taken it meanwhile
                return current.cut(end)

            return self._replace_history(branch, cut)

        return self._engine.exclusive(ref, effect).result()

    def promote(self, ref: BranchRef) -> Rewound:
        """Make the branch's history that of main; both go on from there, each on its own.

        Raises:
            BranchNotFound.
        """
        began = self._ambient.now_ms()
        source = self.shipped_manifest(ref)

        def effect(main: Branch) -> Rewound:
            self._engine.publisher.ship_alone(main)
            self._require_soon_after(began)
            return self._replace_history(
                main,
                lambda current: replace(
                    current,
                    head_txid=source.head_txid,
                    snapshots=source.snapshots,
                    segments=source.segments,
                    checkpoints=source.checkpoints,
                ),
            )

        promoted = self._engine.exclusive(BranchRef(ref.uuid, MAIN), effect).result()
        self._engine.garbage.unmark(ref.uuid, source.keys())
        return promoted

    def _replace_history(self, branch: Branch, change: Callable[[Manifest], Manifest]) -> Rewound:
        """Write the changed history under a new lineage, then discard what is on this machine."""
        lineage = self._new_lineage()

        def replaced(manifest: Manifest) -> Manifest:
            if manifest.lineage == lineage:
                return manifest
            epoch = max(branch.epoch, manifest.epoch + 1)
            return replace(change(manifest), epoch=epoch, lineage=lineage)

        manifest = self._decide(branch, replaced)
        return Rewound(manifest.head_txid, manifest.epoch)

    def _decide(self, branch: Branch, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Write a change that ends the local files' history, and discard them.

        Where the store does not answer, the files stay and the branch is closed: when it wakes it reads
        whether the change has landed, and until then takes no write that could be lost by it.
        """
        landed = False
        try:
            with branch.lock:
                manifest = self._manifests.update(branch.ref, change).manifest
            landed = True
        finally:
            self._engine.sleep(branch, discard=landed)
        return manifest

    def _require_soon_after(self, began_ms: int) -> None:
        """Raise unless what was read at `began_ms` may still be linked (`memoturn_storage.collector`)."""
        if self._manifests.too_late(began_ms):
            raise Unavailable("this took so long that the objects may be gone; try again")

    def delete(self, ref: BranchRef) -> bool:
        """Delete a branch beside main; False where there is none."""

        def effect(branch: Branch) -> None:
            self._decide(branch, self._deleted)

        try:
            self._engine.exclusive(ref, effect).result()
        except BranchNotFound:
            # It does not wake: it is gone, or its time has run out.
            held = self._manifests.read(ref)
            if held is None or held.manifest.deleted_at is not None:
                self._ttls.pop(ref, None)
                return False
            self._manifests.update(held, self._deleted)
        self._ttls.pop(ref, None)
        return True

    # --- the end of a database -------------------------------------------------------------------

    def fence(self, uuid: str, began_ms: int) -> None:
        """Delete main, for good: nobody opens it any more or ships to it, whoever has it open or knows its uuid.

        Raises:
            OwnedElsewhere: nothing has happened; the owner must do it.
            Unavailable: it is too late for a deletion that began then (Unix ms).
            StoreUnavailable: the outcome is unknown.
        """
        ref = BranchRef(uuid, MAIN)
        self._require_owned(ref)
        self._require_soon_after(began_ms)
        self._entomb(ref)
        self._leave(ref)

    def bury(self, uuid: str) -> bool:
        """Delete the other branches too, and the local files; whether there were any to delete."""
        changed = False
        for ref in self._manifests.refs(uuid):
            self._require_owned(ref)
            changed |= self._entomb(ref)
            self._leave(ref)
        return changed

    def entomb(self, uuid: str) -> None:
        """Make tombstones of all its manifests, of a deleted database that no process of this machine has open."""
        for ref in {BranchRef(uuid, MAIN), *self._manifests.refs(uuid)}:
            self._entomb(ref)

    def _entomb(self, ref: BranchRef) -> bool:
        """Put a tombstone in place of a branch's manifest, or where there is none; whether that was needed.

        It says that it is being removed, so nobody creates over it.
        """
        now_ms = self._ambient.now_ms()
        held = self._manifests.read(ref)
        if held is None:
            # Of this lineage, so that of several who do this each takes it for its own.
            tombstone = Manifest(
                db_uuid=ref.uuid,
                branch=ref.branch,
                epoch=0,
                head_txid=0,
                lineage=ref.uuid,
                write_id="",
                created_at=now_ms,
                checkpoints={},
                deleted_at=now_ms,
                collected_at=now_ms,
            )
            try:
                self._manifests.create(tombstone)
            except AlreadyExists:
                return self._entomb(ref)  # its owner has shipped for the first time
        elif held.manifest.deleted_at is not None:
            return False
        else:
            try:
                self._manifests.update(held, lambda found: replace(found, deleted_at=now_ms, collected_at=now_ms))
            except BranchNotFound:
                return False  # somebody else was first
        self._ttls.pop(ref, None)
        return True

    def _require_owned(self, ref: BranchRef) -> None:
        """Raise `OwnedElsewhere` where another process has the database open; wakes nothing."""
        self._engine.cool(ref).result()

    def _leave(self, ref: BranchRef) -> None:
        """Close a branch that is deleted, without its local files."""
        with suppress(BranchNotFound):  # it slept, and to try and wake it has removed them
            self._engine.exclusive(ref, lambda branch: self._engine.sleep(branch, discard=True)).result()

    def _deleted(self, manifest: Manifest) -> Manifest:
        if manifest.deleted_at is not None:
            return manifest
        return replace(manifest, deleted_at=self._ambient.now_ms())

    def _new_lineage(self) -> str:
        return self._ambient.token(16).hex()
