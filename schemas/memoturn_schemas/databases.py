"""Databases on the wire: created, listed, deleted, and what they use.

Times are integer Unix milliseconds, `ttl` is seconds. Source: contract items 92 to 94 and 145.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from memoturn_schemas.branches import TTL_LIMIT_S
from memoturn_schemas.common import Count, RequestModel
from memoturn_schemas.names import NAME_RULE, check_name

PlainName = Annotated[str, AfterValidator(check_name), Field(description=f"{NAME_RULE}.")]

Durability = Literal["standard", "durable"]


class DatabaseCreateRequest(RequestModel):
    """A new database."""

    name: PlainName
    """What to call it."""
    ttl: Annotated[int, Field(ge=1, le=TTL_LIMIT_S)] | None = None
    """Seconds after which it is deleted; it stays if left out."""
    durability: Durability = "standard"
    """`durable`: each write is acknowledged only once object storage has it."""


class DatabaseEntry(TypedDict):
    name: str
    uuid: str
    created_at: int
    ttl_at: NotRequired[int]
    """When it is deleted; absent where it stays."""
    durability: Durability


class DatabaseListRequest(RequestModel):
    cursor: str | None = None
    """`next_cursor` of the page before; left out for the first page."""
    limit: Count = 100
    """How many at most; clamped to 1...1 000."""


class DatabaseList(TypedDict):
    """By name, profiles among them."""

    databases: list[DatabaseEntry]
    next_cursor: NotRequired[str]
    """For the next page; absent on the last."""


class DatabaseRequest(RequestModel):
    """Nothing."""


class DatabaseDeleted(TypedDict):
    deleted: bool


class PerSurface(TypedDict):
    """A number for each kind of what a database holds; `tables` are those made with SQL."""

    memories: int
    turns: int
    documents: int
    kv: int
    vectors: int
    episodes: int
    tables: int


class DatabaseUsage(DatabaseEntry):
    """What a branch of a database holds and what it has been used for.

    A number that is not known is null, and `unknown` says why.
    """

    branch: str
    txid: int
    rows: PerSurface
    bytes: PerSurface
    """With their indexes."""
    size: int
    """Of the database file, in bytes."""
    reads: int | None
    """Since `counted_since`, in the process that has the database open; cached values are not counted."""
    writes: int
    """Transactions since then; of all time there were `txid`."""
    counted_since: int | None
    branches: int | None
    """Main and the others."""
    segments: int | None
    """Of this branch, in object storage."""
    snapshots: int | None
    shipped_txid: int | None
    """The last transaction of this branch that object storage has."""
    bytes_shipped: int | None
    """Of the objects in which the branches' histories were shipped, as far as they are still needed."""
    bytes_stored: int | None
    """Of everything in object storage, what is about to be removed too."""
    unknown: dict[str, str]
    """Why, by the name of the number."""
