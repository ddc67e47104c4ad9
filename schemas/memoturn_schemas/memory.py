"""Typed memories on the wire: what ingest and recall take, what they and the others answer.

Requests are pydantic models; answers are typed dictionaries, built by the core and sent as they are.
Times are integer Unix milliseconds. Source: contract sections 1 and 2.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, Embedding, Json, RequestModel, UnixMs
from memoturn_schemas.moment import Moment
from memoturn_schemas.names import SessionId

MemoryType = Literal["fact", "event", "instruction", "task"]
Channel = Literal["topic", "keyword", "vector"]
Fusion = Literal["relevance", "rrf"]
Contribution = Literal["topic", "words", "vector", "asking", "neighbours", "session"]
FilterName = Literal["expired", "superseded", "types", "session_id", "source", "since", "until"]
Outcome = Literal["found", "beyond_k", "not_matching", "superseded", "expired", "filtered", "unknown"]
Extractor = Literal["model", "rules"]
Status = Literal["created", "duplicate", "revived"]

BATCH_LIMIT = 1_000
TASK_TTL_S = 86_400
TTL_LIMIT_S = 10_000_000_000


class MemoryItem(RequestModel):
    """One memory to keep."""

    type: MemoryType
    """`fact` and `instruction` may supersede by topic; `event` and `task` never do; a `task` expires."""
    topic_key: str | None = None
    """What a fact or instruction is about, e.g. `user.city`; a new one replaces the active one of its type."""
    summary: str
    """One line that says it all; it is what recall searches and shows."""
    content: Json = None
    """Any JSON: the details. Identity is type, topic_key and content; the key order does not matter."""
    keywords: str = ""
    """Further words by which it should be found, separated by spaces."""
    embedding: Embedding | None = None
    """A vector of the summary, if the client has one. The first stored fixes the profile's dimension."""
    session_id: SessionId | None = None
    """The conversation it comes from."""
    source: Annotated[str, Field(min_length=1)] | None = None
    """Which agent or program says so. The first writer's stays."""
    ttl: Annotated[int, Field(ge=0, le=TTL_LIMIT_S)] | None = None
    """Seconds that a task lives; 86 400 by default. Only on tasks."""

    @field_validator("topic_key")
    @classmethod
    def _topics_are_for_facts_and_instructions(cls, value: str | None, info: ValidationInfo) -> str | None:
        type_ = info.data.get("type")
        if value and type_ in ("event", "task"):
            raise ValueError(f"is only for facts and instructions, not for a memory of type {type_}")
        return value or None

    @field_validator("ttl")
    @classmethod
    def _ttl_is_for_tasks(cls, value: int | None, info: ValidationInfo) -> int | None:
        type_ = info.data.get("type")
        if value is not None and type_ in ("fact", "event", "instruction"):
            raise ValueError(f"is only for tasks, not for a memory of type {type_}")
        return value

    @field_validator("summary")
    @classmethod
    def _summary_is_not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value

    @field_validator("keywords", mode="before")
    @classmethod
    def _no_keywords(cls, value: Any) -> Any:
        return "" if value is None else value


class IngestRequest(RequestModel):
    memories: Annotated[list[MemoryItem], Field(max_length=BATCH_LIMIT)]
    """At most 1 000; all are kept in one transaction, or none."""


class IngestResult(TypedDict):
    """`similar` are ids of active memories that say the same in other words, the most similar first, three at most."""

    id: str
    status: Status
    superseded: list[str]
    embedding: NotRequired[Literal["skipped_dimension"]]
    similar: NotRequired[list[str]]


class IngestResponse(TypedDict):
    results: list[IngestResult]
    txid: int | None


class MemoryId(RequestModel):
    id: Annotated[str, Field(min_length=1)]
    """The memory's id, `mem_` and 32 hex digits."""


class GetRequest(MemoryId):
    as_of: Moment | None = None
    """The memory as it stood at this moment."""


class ChainLink(TypedDict):
    """One generation of a topic's history."""

    id: str
    summary: str
    created_at: int
    superseded_at: int | None


class MemoryCore(TypedDict):
    """The fields that every shape of a stored memory has."""

    id: str
    type: MemoryType
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    created_at: int
    superseded_by: str | None


class MemoryRecord(MemoryCore):
    expires_at: int | None
    superseded_at: int | None
    supersedes: list[str]
    chain: list[ChainLink]


class RecallRequest(RequestModel):
    query: str | None = None
    """What to look for, in plain words; it is data, never search syntax."""
    embedding: Embedding | None = None
    """A vector to look near to."""
    topic_key: str | None = None
    """An exact topic; its active memory comes first."""
    types: list[MemoryType] | None = None
    """Only these types. An empty list matches nothing."""
    session_id: SessionId | None = None
    """Only memories of this conversation."""
    source: str | None = None
    """Only memories from this source."""
    since: UnixMs | None = None
    """Only memories created at or after this time, in Unix milliseconds."""
    until: UnixMs | None = None
    """Only memories created before this time, in Unix milliseconds."""
    k: Count = 8
    """How many at most; clamped to 1...1 000."""
    include_superseded: bool = False
    """Also memories that later ones have replaced."""
    include_turns: bool = False
    """Also search the verbatim transcript, into a list of its own."""
    as_of: Moment | None = None
    """Recall over the memory as it stood at this moment, without rewinding anything."""
    fusion: Fusion = "relevance"
    """How what was found is ranked: by `relevance`, or by `rrf`, weighted reciprocal rank."""
    explain: bool = False
    """Also say what made each score, and what was looked up, filtered out and left out."""
    explain_id: Annotated[str, Field(min_length=1)] | None = None
    """The id of a memory: explain, and say whether it was found, and if not, why."""

    @model_validator(mode="after")
    def _something_to_look_for(self) -> Self:
        if self.query is None and self.embedding is None and self.topic_key is None:
            raise ValueError("give at least one of query, embedding, topic_key")
        if self.include_turns and self.query is None and self.embedding is None:
            raise ValueError("include_turns needs a query or an embedding to search the transcript by")
        return self

    @property
    def explained(self) -> bool:
        return self.explain or self.explain_id is not None


class Hit(MemoryCore):
    score: float
    channels: list[Channel]


class ChannelRank(TypedDict):
    """Where a channel found a hit, from 1; `weight` is the channel's, under `rrf`."""

    rank: int
    weight: NotRequired[float]
    cosine: NotRequired[float]


class TermScore(TypedDict):
    """A word of the query as written; `nearby` where only rows next to this one have it."""

    word: str
    score: float
    nearby: NotRequired[bool]


class Explanation(TypedDict):
    """`contributions` add up to the score, the scores of `terms` to `words` in it; both to six digits, without nulls.

    Under `relevance` a topic hit has its score from the topic alone.
    """

    channels: dict[Channel, ChannelRank]
    terms: list[TermScore]
    contributions: dict[Contribution, float]


class VectorExplanation(TypedDict, total=False):
    """`by` is the model that embedded the query, or `request`; `missing` says why there is no vector channel."""

    by: str
    missing: Literal["no_embedder", "no_query", "embedder_failed", "other_space", "none_stored"]


class MemoryOutcome(TypedDict):
    """What became of the memory that was asked about. `filters` are those that keep it out.

    `cosine` is its own, `least_cosine` that of the last which was near enough; `embedded` is false where it has no
    vector to compare. `beyond_k` is without a rank where `rrf` looks no further down its channels.
    """

    outcome: Outcome
    rank: NotRequired[int]
    score: NotRequired[float]
    explanation: NotRequired[Explanation]
    superseded_by: NotRequired[str | None]
    superseded_at: NotRequired[int]
    expires_at: NotRequired[int]
    filters: NotRequired[list[FilterName]]
    embedded: NotRequired[bool]
    cosine: NotRequired[float]
    least_cosine: NotRequired[float]


class RecallExplanation(TypedDict):
    """`candidates` are the memories of the topic, with a word or with a vector; `removed` counts each of them once,
    at the first filter that it fails.
    """

    words: list[str]
    left_out: list[str]
    vector: VectorExplanation
    candidates: int
    removed: dict[FilterName, int]
    memory: NotRequired[MemoryOutcome]


class RecallHit(Hit):
    explanation: NotRequired[Explanation]


class TurnHit(TypedDict):
    """A turn of the transcript; `distance` is cosine distance, null where it was found by keyword."""

    session_id: str
    seq: int
    role: str
    content: str
    distance: float | None


class RecallResponse(TypedDict):
    memories: list[RecallHit]
    turns: NotRequired[list[TurnHit]]
    degraded: NotRequired[list[Channel]]
    explain: NotRequired[RecallExplanation]
    txid: int


class ConciseHit(TypedDict):
    id: str
    summary: str
    explanation: NotRequired[dict[str, Any]]


class ConciseRecallResponse(TypedDict):
    """What agents get unless they ask for more; what explains is shaped as in the full answer."""

    memories: list[ConciseHit]
    turns: NotRequired[list[TurnHit]]
    degraded: NotRequired[list[Channel]]
    explain: NotRequired[dict[str, Any]]


class AskRequest(RequestModel):
    question: str
    """What to answer from the memories."""
    k: Count = 8
    """How many memories the answer may rest on."""
    types: list[MemoryType] | None = None
    """Only memories of these types."""
    session_id: SessionId | None = None
    """Only memories of this conversation."""
    source: str | None = None
    """Only memories from this source."""
    include_superseded: bool = False
    """Also memories that later ones have replaced."""

    @field_validator("question")
    @classmethod
    def _question_is_not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value


class AskResponse(TypedDict):
    """`answer` is null where nothing was recalled; `sources` are ids of `memories`."""

    answer: str | None
    sources: list[str]
    memories: list[Hit]
    txid: int


class ExtractTurn(RequestModel):
    role: Annotated[str, Field(min_length=1)]
    content: str


class ExtractRequest(RequestModel):
    turns: Annotated[list[ExtractTurn], Field(min_length=1, max_length=BATCH_LIMIT)]
    """The conversation to take memories from."""
    session_id: SessionId | None = None
    """The conversation's id, stamped on what is kept."""
    source: Annotated[str, Field(min_length=1)] | None = None
    """Which agent or program says so."""
    extractor: Extractor = "model"
    """`rules` takes only what is stated explicitly ("I live in", "from now on"), and needs no language model."""
    dry_run: bool = False
    """Only propose; write nothing."""


class ProposedMemory(TypedDict):
    type: MemoryType
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None


class ExtractResponse(TypedDict, total=False):
    """Ingest's shape, or with `dry_run` only `proposed`."""

    proposed: list[ProposedMemory]
    results: list[IngestResult]
    txid: int | None


class ForgetResponse(TypedDict):
    forgotten: bool


class ProfileEntry(TypedDict):
    profile: str
    database: str
    created_at: int


class ProfileList(TypedDict):
    namespace: str
    profiles: list[ProfileEntry]


class ProfilesRequest(RequestModel):
    """Nothing but the namespace."""
