"""What must be true: the states that were committed, where they were seen, and which history is the true one.

Every commit of a process is a `State`, with its content and the checksum of its file. A `Line` is what a
disk has of a branch, shipped or not; a `Truth` is what one version of a manifest says, state by state. The
`Model` is told of each commit, each waking and each manifest at the moment it lands in the store, so that
every breach shows where it happens: a write that is linked though others have carried on, a history that
loses a state though nobody asked for it, a file that wakes as what it should not be. Called by
`simulation.processes`, `simulation.reach` and the operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from memoturn_storage.branch import Branch
from memoturn_storage.connection import PAGE_SIZE
from memoturn_storage.formats.checksums import PageChecksums
from memoturn_storage.manifest import BranchRef, Manifest, segments_prefix, snapshots_prefix

Content = Mapping[int, str]
Event = object
"""The last time that somebody moved a branch's head; None before the first."""


class Violation(AssertionError):
    """The product broke a promise."""


def require(condition: object, promise: str) -> None:
    if not condition:
        raise Violation(promise)


@dataclass(slots=True, eq=False)
class State:
    """A branch after one transaction; `checksum` is that of the file, `at` when it was committed (Unix ms)."""

    txid: int
    content: Content
    checksum: int | None
    at: int = 0


NOTHING = State(0, {}, None)
"""A branch that nobody has written to."""


@dataclass(slots=True, eq=False)
class Line:
    """What a disk has of a branch, and the event that it continues."""

    states: dict[int, State]
    head: State
    base: Event | None
    rewritten: bool = False
    """Whether somebody has changed the file, though not its content, since the last transaction."""

    def commit(self, txid: int, content: Content, image: bytes) -> None:
        require(txid == self.head.txid + 1, f"transaction {txid} was committed after {self.head.txid}")
        self.rewritten = False
        self.head = self.states[txid] = State(txid, content, checksum(image))

    def date(self, branch: Branch) -> None:
        """Take over when the unshipped transactions were committed."""
        for commit in branch.tail._commits:
            self.states[commit.txid].at = commit.at


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What a version of a manifest says: every state that it can restore."""

    manifest: Manifest
    states: Mapping[int, State]
    event: Event | None

    @property
    def alive(self) -> bool:
        return self.manifest.deleted_at is None

    @property
    def head(self) -> State:
        return self.states[self.manifest.head_txid] if self.states else NOTHING

    def txid_at(self, at_ms: int) -> int | None:
        """The last transaction by then; None before the first, and where history has a gap about that time."""
        found = max((state.txid for state in self.states.values() if state.at <= at_ms), default=None)
        if found is None or found == self.manifest.head_txid or self.states[found].at == at_ms:
            return found
        return found if any(segment.min <= found < segment.max for segment in self.manifest.segments) else None


@dataclass(frozen=True, slots=True)
class Intent:
    """What a process is asked to do, by which the manifests that it writes are judged."""

    kind: str
    ref: BranchRef | None = None
    """The branch whose history the operation may end or replace."""
    began: int = 0
    """How many manifests had been written by then."""
    since_ms: int = 0
    """For retention: from when on every transaction must stay."""


@dataclass(slots=True)
class Model:
    truths: dict[BranchRef, list[Truth | None]] = field(default_factory=dict)
    """All that a branch ever was, in order; None where its manifest was removed."""
    versions: dict[tuple[BranchRef, str], Truth] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    """By the lineage of the file."""
    writers: dict[tuple[BranchRef, str, int], object] = field(default_factory=dict)
    """From which disk was written under a lineage and an epoch."""
    numbers: dict[BranchRef, list[int]] = field(default_factory=dict)
    written: int = 0

    # --- asking ----------------------------------------------------------------------------------

    def truth(self, ref: BranchRef) -> Truth | None:
        known = self.truths.get(ref)
        return known[-1] if known else None

    def live(self) -> list[Truth]:
        return [truth for ref in self.truths if (truth := self.truth(ref)) is not None and truth.alive]

    def during(self, ref: BranchRef, began: int) -> list[Truth | None]:
        """What the branch was at any moment since `began` manifests had been written."""
        known, numbers = self.truths.get(ref, []), self.numbers.get(ref, [])
        first = sum(1 for number in numbers if number <= began)
        return [known[first - 1] if first else None, *known[first:]]

    # --- files -----------------------------------------------------------------------------------

    def woken(self, lines: dict[BranchRef, Line], branch: Branch) -> Line:
        """A disk's file was opened: it must hold what is only there exactly if nobody has carried on."""
        ref = branch.ref
        truth = None if branch.held is None else self.versions[ref, branch.held.version]
        event = None if truth is None else truth.event
        line = lines.get(ref)
        if line is None or line.base is not event:
            states = {} if truth is None else dict(truth.states)
            line = lines[ref] = Line(states, NOTHING if truth is None else truth.head, event)
        self.lines[branch.origin.lineage] = line
        if branch.handle is None:
            require(line.head.txid == 0, f"{ref.branch} woke as empty, not at transaction {line.head.txid}")
        else:
            txid, same = branch.handle.txid, line.rewritten or line.head.checksum == checksum(branch.handle.image())
            require(txid == line.head.txid, f"{ref.branch} woke at transaction {txid}, not at {line.head.txid}")
            require(same or txid == 0, f"{ref.branch} woke at transaction {txid} with another file")
            same = rows(branch.handle._connection) == line.head.content
            require(same, f"{ref.branch} woke at transaction {txid} with other rows")
            line.date(branch)
        return line

    # --- manifests -------------------------------------------------------------------------------

    def manifest_landed(
        self, manifest: Manifest, version: str, intent: Intent, writer: object, keys: Iterable[str]
    ) -> None:
        """A manifest has just replaced the one before it."""
        ref, before = manifest.ref, self.truth(manifest.ref)
        for key in sorted(manifest.keys()) if manifest.deleted_at is None else ():
            require(key in keys, f"the manifest of {ref.branch} names {key}, which is not in the store")
        self.written += 1
        if manifest.deleted_at is not None:
            truth = self._deleted(manifest, before, intent)
        elif before is None or not before.alive:
            truth = self._created(manifest, intent, writer)
        elif (manifest.lineage, manifest.head_txid) == (before.manifest.lineage, before.manifest.head_txid):
            truth = self._kept(manifest, before, intent)
        elif manifest.lineage in self.lines:
            truth = self._appended(manifest, before, writer)
        else:
            truth = self._replaced(manifest, before, intent)
        self._check(truth)
        if before is not None and before.alive and truth.alive:
            require(manifest.epoch >= before.manifest.epoch, f"the epoch of {ref.branch} went back")
        self._note(ref, truth)
        self.versions[ref, version] = truth

    def manifest_removed(self, ref: BranchRef, intent: Intent) -> None:
        before = self.truth(ref)
        require(intent.kind == "collect" and before is not None, f"the manifest of {ref.branch} was removed")
        require(before is not None and not before.alive, f"the live branch {ref.branch} was removed")
        self.written += 1
        self._note(ref, None)

    def _note(self, ref: BranchRef, truth: Truth | None) -> None:
        self.truths.setdefault(ref, []).append(truth)
        self.numbers.setdefault(ref, []).append(self.written)

    def _deleted(self, manifest: Manifest, before: Truth | None, intent: Intent) -> Truth:
        meant = intent.kind == "delete" and intent.ref == manifest.ref
        require(before is not None, f"a deleted branch {manifest.branch} came from nowhere")
        require((before and not before.alive) or meant, f"nobody asked to delete {manifest.branch}")
        return Truth(manifest, {}, object())

    def _created(self, manifest: Manifest, intent: Intent, writer: object) -> Truth:
        ref = manifest.ref
        if manifest.lineage in self.lines and manifest.head_txid > 0:
            return self._appended(manifest, None, writer)
        if manifest.parent is None:
            require(manifest.head_txid == 0, f"{ref.branch} was created with a history of nowhere")
            return Truth(manifest, {}, None)  # which says no more than that there is a database
        require(intent.kind == "fork" and intent.ref == ref, f"nobody asked to create {ref.branch}")
        parent = BranchRef(ref.uuid, manifest.parent.branch)
        for candidate in reversed(self.during(parent, intent.began)):
            if candidate is not None:
                fork_txid = manifest.parent.fork_txid
                states = {txid: state for txid, state in candidate.states.items() if txid <= fork_txid}
                if self._restores(manifest, states):
                    return Truth(manifest, states, object())
        raise Violation(f"{ref.branch} was forked with a history that {parent.branch} never had")

    def _kept(self, manifest: Manifest, before: Truth, intent: Intent) -> Truth:
        """A checkpoint, compaction or retention, which move no head."""
        states = dict(before.states)
        if intent.kind == "retain":
            restorable = _restorable(manifest)
            needed = {txid for txid, state in states.items() if state.at >= intent.since_ms}
            needed |= {txid for txid in manifest.checkpoints.values() if txid in states}
            require(needed <= restorable, f"retention took {sorted(needed - restorable)} of {manifest.branch}")
            states = {txid: state for txid, state in states.items() if txid in restorable}
        if before.manifest.checkpoints != manifest.checkpoints:
            require(intent.kind == "checkpoint", f"nobody asked for a checkpoint of {manifest.branch}")
        lost = before.manifest.checkpoints.keys() - manifest.checkpoints.keys()
        require(not lost, f"{manifest.branch} lost the checkpoints {sorted(lost)}")
        return Truth(manifest, states, before.event)

    def _appended(self, manifest: Manifest, before: Truth | None, writer: object) -> Truth:
        ref, line = manifest.ref, self.lines[manifest.lineage]
        event = None if before is None else before.event
        require(line.base is event, f"a write to {ref.branch} was linked although others had carried on")
        known = self.writers.setdefault((ref, manifest.lineage, manifest.epoch), writer)
        require(known is writer, f"{ref.branch} was written from two disks with the epoch {manifest.epoch}")
        states = dict({} if before is None else before.states)
        for txid in sorted(_restorable(manifest) - states.keys()):
            require(txid in line.states, f"{ref.branch} was given a transaction {txid} that nobody committed")
            states[txid] = line.states[txid]
        line.base = object()
        return Truth(manifest, states, line.base)

    def _replaced(self, manifest: Manifest, before: Truth, intent: Intent) -> Truth:
        ref = manifest.ref
        require(intent.kind in ("rewind", "promote") and intent.ref == ref, f"the history of {ref.branch} was replaced")
        if intent.kind == "rewind":
            states = {txid: state for txid, state in before.states.items() if txid <= manifest.head_txid}
            return Truth(manifest, states, object())
        for other in self.truths:
            for source in reversed(self.during(other, intent.began)) if other.uuid == ref.uuid else ():
                if source is not None and self._restores(manifest, source.states):
                    return Truth(manifest, source.states, object())
        raise Violation(f"{ref.branch} was given a history that no other branch had")

    def _restores(self, manifest: Manifest, states: Mapping[int, State]) -> bool:
        try:
            self._check(Truth(manifest, states, None))
        except Violation:
            return False
        return True

    def _check(self, truth: Truth) -> None:
        """Whether the manifest leads to exactly these states, as far as it tells without its objects."""
        manifest, states = truth.manifest, truth.states
        name, restorable = manifest.branch, _restorable(manifest)
        if not truth.alive:
            return
        require(restorable == states.keys(), f"{name} restores {sorted(restorable)}, not {sorted(states)}")
        require(manifest.head_txid in states or manifest.head_txid == 0, f"{name} does not restore its head")
        ends = [(entry.txid, entry.checksum) for entry in manifest.snapshots]
        for txid, expected in ends + [(entry.max, entry.checksum) for entry in manifest.segments]:
            if txid in states:
                require(states[txid].checksum == expected, f"{name} is another after transaction {txid} than the file")
        for checkpoint, txid in manifest.checkpoints.items():
            require(txid in states, f"the checkpoint {checkpoint} of {name} is not in its history, {txid}")

    # --- objects ---------------------------------------------------------------------------------

    def object_removed(self, key: str) -> None:
        for truth in self.live():
            needed = truth.manifest.keys()
            require(key not in needed, f"{key}, which {truth.manifest.branch} needs, was removed")

    def object_replaced(self, key: str, same: bool) -> None:
        require(same, f"the name {key} was used again")


def _restorable(manifest: Manifest) -> set[int]:
    """The transactions that a snapshot and the segments from there lead to."""
    found: set[int] = set()
    for snapshot in manifest.snapshots:
        position = snapshot.txid
        found.add(position)
        for segment in manifest.segments:
            if segment.min <= position < segment.max:
                found.update(range(position + 1, segment.max + 1))
                position = segment.max
    return found


def checksum(image: bytes) -> int:
    return PageChecksums.of_image(image, PAGE_SIZE).rolling


def is_history(ref: BranchRef, key: str) -> bool:
    return key.startswith((segments_prefix(ref.uuid), snapshots_prefix(ref.uuid)))


def rows(connection: Any) -> dict[int, str]:
    return dict(connection.execute("SELECT k, v FROM notes ORDER BY k").fetchall())
