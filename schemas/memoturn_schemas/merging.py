"""Diff and merge of branches, memory by memory, on the wire. Times are integer Unix milliseconds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, RequestModel
from memoturn_schemas.memory import BATCH_LIMIT, IngestResult, MemoryType
from memoturn_schemas.names import BranchName

MERGE_LIMIT = 10_000
"""Memories that one merge replays."""

OnConflict = Literal["ours", "theirs", "newest", "fail"]


class DiffRequest(RequestModel):
    """Two branches to compare."""

    branch: BranchName
    """Which branch."""
    against: BranchName = "main"
    """The branch to compare it with."""
    limit: Count = 100
    """How many entries of each list at most; clamped to 1...1 000. The counts are of all."""


class Change(TypedDict):
    """A memory that a branch has created, revived or superseded."""

    id: str
    type: MemoryType
    topic_key: str | None
    summary: str
    created_at: int
    superseded_by: str | None


class Forgotten(TypedDict):
    """A memory that a branch has no longer."""

    id: str
    type: MemoryType
    topic_key: str | None


class ChangeCounts(TypedDict):
    created: int
    revived: int
    superseded: int
    forgotten: int


class BranchChanges(TypedDict):
    """What a branch did since the fork, oldest memories first."""

    branch: str
    txid: int
    created: list[Change]
    """Also those that it has superseded since."""
    revived: list[Change]
    """Active again; at the fork something else had replaced them."""
    superseded: list[Change]
    """There at the fork, and replaced since."""
    forgotten: list[Forgotten]
    """Deleted, or of a session that has ended. Tasks that expired are on no list."""
    counts: ChangeCounts


class ConflictSide(TypedDict):
    id: str
    summary: str
    active_since: int


class TopicConflict(TypedDict):
    """A topic on which both branches have come to different memories since the fork."""

    type: MemoryType
    topic_key: str
    branch: ConflictSide
    against: ConflictSide


class DiffResponse(TypedDict):
    fork_txid: int
    """The last transaction that both have in common."""
    branch: BranchChanges
    against: BranchChanges
    conflicts: list[TopicConflict]
    conflict_count: int


class MergeRequest(RequestModel):
    """What to take over from a branch into another."""

    branch: BranchName
    """Which branch to take from."""
    into: BranchName = "main"
    """The branch that takes; nothing changes on the other."""
    topics: Annotated[list[str], Field(max_length=BATCH_LIMIT)] | None = None
    """Only what the branch has come to on these topics. With ids: both. Everything if neither is given."""
    ids: Annotated[list[str], Field(max_length=BATCH_LIMIT)] | None = None
    """Only these memories."""
    on_conflict: OnConflict = "fail"
    """Where both changed a topic: keep `ours` (of into), take `theirs`, take the `newest`, or `fail` with 409."""
    forget: bool = False
    """Also forget what the branch has forgotten since the fork."""


class ResolvedConflict(TypedDict):
    type: MemoryType
    topic_key: str
    ours: str
    theirs: str
    """Ids of the memories; `theirs` is of the branch that was taken from."""
    taken: Literal["ours", "theirs"]


class MergeResponse(TypedDict):
    branch: str
    into: str
    fork_txid: int
    results: list[IngestResult]
    """What was written, as ingest says it."""
    unchanged: int
    """Memories that into had already, or has replaced since."""
    conflicts: list[ResolvedConflict]
    forgotten: list[str]
    txid: int
    """Of into."""
