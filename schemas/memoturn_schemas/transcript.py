"""Sessions and the verbatim transcript on the wire. Source: contract section 3."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, Embedding, RequestModel
from memoturn_schemas.memory import TurnHit
from memoturn_schemas.moment import Moment
from memoturn_schemas.names import SessionId


class AppendRequest(RequestModel):
    session: SessionId
    """The conversation."""
    role: Annotated[str, Field(min_length=1, max_length=256)]
    """Who speaks, e.g. `user` or `assistant`."""
    content: str
    """What was said, verbatim."""
    embedding: Embedding | None = None
    """A vector of the content, if the client has one."""


class AppendResponse(TypedDict):
    """`seq` counts from 1 in each session, without gaps."""

    seq: int
    embedding: NotRequired[Literal["skipped_dimension"]]
    txid: int


class WindowRequest(RequestModel):
    session: SessionId
    """The conversation."""
    last: Count = 20
    """How many of its last turns; clamped to 1...1 000."""
    as_of: Moment | None = None
    """The conversation as it stood at this moment."""


class StoredTurn(TypedDict):
    session_id: str
    seq: int
    role: str
    content: str
    created_at: int


class WindowResponse(TypedDict):
    """The last turns, oldest first."""

    turns: list[StoredTurn]


class SearchRequest(RequestModel):
    session: SessionId
    """The conversation."""
    vector: Embedding
    """A vector to look near to."""
    k: Count = 5
    """How many turns at most."""


class SearchResponse(TypedDict):
    """Nearest first; turns without an embedding never match."""

    turns: list[TurnHit]


class SessionsRequest(RequestModel):
    limit: Count = 100
    """How many sessions at most; clamped to 1...1 000."""
    as_of: Moment | None = None
    """The sessions as they stood at this moment."""


class SessionEntry(TypedDict):
    id: str
    created_at: int
    last_active_at: int
    turns: int
    tasks: int


class SessionsResponse(TypedDict):
    """Most recently active first."""

    sessions: list[SessionEntry]
    txid: int


class SessionEndRequest(RequestModel):
    session: SessionId
    """The conversation that is over."""
    turns: bool = False
    """Also drop its transcript. Facts, events and instructions stay in any case."""


class SessionEndResponse(TypedDict):
    ended: bool
