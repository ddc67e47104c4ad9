"""Branches, checkpoints, rewinds and the state of a database's storage on the wire.

Times are integer Unix milliseconds, `ttl` is seconds. Source: contract sections 8 and 9.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from typing_extensions import TypedDict

from memoturn_schemas.common import RequestModel
from memoturn_schemas.moment import Moment
from memoturn_schemas.names import BranchName

TTL_LIMIT_S = 10_000_000_000


class BranchCreateRequest(RequestModel):
    """A new branch."""

    name: BranchName
    """What to call it."""
    from_: Annotated[BranchName, Field(alias="from")] = "main"
    """The branch that it starts from."""
    checkpoint: BranchName | None = None
    """Start from this checkpoint of it instead of its newest state."""
    at: Moment | None = None
    """Start from this moment of it instead of its newest state."""
    ttl: Annotated[int, Field(ge=0, le=TTL_LIMIT_S)] | None = None
    """Seconds after which the branch is removed; it stays if left out."""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.checkpoint is not None and self.at is not None:
            raise ValueError("checkpoint and at: give one of them")
        return self


class BranchCreated(TypedDict):
    branch: str
    parent: str
    fork_txid: int
    ttl_at: int | None
    spec: str
    """How to address it: `database@branch`."""


class BranchListRequest(RequestModel):
    """Nothing."""


class BranchEntry(TypedDict):
    db_name: str
    branch: str
    ttl_at: int | None
    created_at: int
    parent: str | None
    fork_txid: int | None
    head_txid: int
    """Of what is shipped."""


class BranchList(TypedDict):
    branches: list[BranchEntry]


class BranchRequest(RequestModel):
    """One branch."""

    branch: BranchName
    """Which branch."""


class BranchDeleted(TypedDict):
    deleted: bool


class CheckpointRequest(RequestModel):
    """A name for the newest state of a branch."""

    branch: BranchName = "main"
    """Which branch."""
    name: BranchName
    """What to call this moment. A name that exists moves here."""


class Checkpointed(TypedDict):
    checkpoint: str
    txid: int


class RewindRequest(RequestModel):
    """Back to an earlier state of a branch."""

    branch: BranchName = "main"
    """Which branch."""
    to: Moment
    """Where to; what came after it is discarded."""


class Rewound(TypedDict):
    rewound_to: int
    epoch: int


class PromoteRequest(RequestModel):
    """Make a branch's state that of main."""

    branch: BranchName
    """Which branch."""
    keep_as: BranchName | None = None
    """Keep what main was before under this new name."""


class Promoted(TypedDict):
    promoted: str
    txid: int
    epoch: int


class SyncRequest(RequestModel):
    """Nothing."""


class Synced(TypedDict):
    txid: int


class VacuumRequest(RequestModel):
    """Nothing."""


class Vacuumed(TypedDict):
    """What the database's file took before, and takes now."""

    bytes_before: int
    bytes_after: int
    txid: int


class StorageRequest(RequestModel):
    """Nothing."""


class StoredSnapshot(TypedDict):
    txid: int
    at: int
    bytes: int
    key: str


class StoredSegment(TypedDict):
    """The transactions above `min` up to and with `max`."""

    min: int
    max: int
    at: int
    bytes: int
    level: int
    key: str


class StorageResponse(TypedDict):
    """What the object store holds of a branch."""

    database: str
    uuid: str
    branch: str
    epoch: int
    head_txid: int
    oldest_txid: int | None
    """The first transaction that can still be restored; null where nothing was written."""
    snapshots: list[StoredSnapshot]
    segments: list[StoredSegment]
    checkpoints: dict[str, int]
    bytes: int
    """Of all objects that the branch needs; branches share objects."""
