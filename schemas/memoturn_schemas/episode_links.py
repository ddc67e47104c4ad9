"""What goes with episodes on the wire: timelines, tags, relationships, checkpoints and handoffs.

Requests are pydantic models; answers are typed dictionaries. Times are integer Unix milliseconds. A handoff pack is
both: it is answered as it is, and validated in full where it comes back, for it may come from anywhere.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Self

from pydantic import ConfigDict, Field, model_validator, with_config
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, RequestModel, Shaped
from memoturn_schemas.episodes import (
    STEP_NUMBER,
    STEPS,
    TAGS,
    Applied,
    Complexity,
    EpisodeCheckpoint,
    EpisodeUuid,
    Line,
    Measure,
    Name,
    Object,
    OutcomeType,
    Tag,
    Task,
    TaskType,
    Text,
)
from memoturn_schemas.moment import Moment
from memoturn_schemas.names import SessionId
from memoturn_schemas.patterns import PatternId

CHANGES = 100
"""Relationships that one request may add, and remove."""

# --- timeline ------------------------------------------------------------------------------------


class TimelineRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode."""
    limit: Count = 200
    """How many events at most; clamped to 1...1 000."""
    cursor: str | None = None
    """The `next_cursor` of the page before."""
    as_of: Moment | None = None
    """The episode as it stood at this moment."""


Mark = Literal["failure", "recovery", "decision"]


class TimelineStep(TypedDict):
    """A step in short: `action` and `error` are cut to a line; `recovers` are the failed steps that it made good."""

    step_number: int
    tool: str
    action: str
    result: Literal["success", "error", "timeout", "pending"]
    error: str | None
    latency_ms: int | None
    marks: list[Mark]
    recovers: list[int]


class TimelineEvent(TypedDict):
    """`offset_ms` is since the episode's start. A step has `step`, a checkpoint `checkpoint`, the end `outcome`."""

    type: Literal["start", "step", "checkpoint", "end"]
    at: int
    offset_ms: int
    step: NotRequired[TimelineStep]
    checkpoint: NotRequired[EpisodeCheckpoint]
    outcome: NotRequired[OutcomeType]


class TimelineResponse(TypedDict):
    """The earliest first; `next_cursor` is null on the last page."""

    episode_id: str
    events: list[TimelineEvent]
    next_cursor: str | None


# --- tags ----------------------------------------------------------------------------------------


class EpisodeTagsRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode."""
    add: Annotated[list[Tag], Field(max_length=TAGS)] = Field(default_factory=list)
    """Tags that it is to have, 2 to 100 characters each."""
    remove: Annotated[list[Tag], Field(max_length=TAGS)] = Field(default_factory=list)
    """Tags that it is not to have."""

    @model_validator(mode="after")
    def _some_change(self) -> Self:
        if not self.add and not self.remove:
            raise ValueError("add or remove: must name a tag")
        both = sorted(set(self.add) & set(self.remove))
        if both:
            raise ValueError(f"remove: must not name what add names, {both[0]!r}")
        return self


class EpisodeTagsResponse(TypedDict):
    """All its tags, in the order in which they were added."""

    episode_id: str
    tags: list[str]
    txid: int


# --- relationships -------------------------------------------------------------------------------

RelationshipType = Literal[
    "parent_child", "depends_on", "follows", "related_to", "blocks", "duplicates", "references", "continues"
]
"""Read from the episode to the target: it is the parent of, depends on, follows ... the target."""


class RemovedRelationship(RequestModel):
    target: EpisodeUuid
    """The other episode."""
    type: RelationshipType
    """What it is to that one."""


class NewRelationship(RemovedRelationship):
    reason: Line | None = None
    """Why."""


class EpisodeRelationshipsRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode that relates to others."""
    add: Annotated[list[NewRelationship], Field(max_length=CHANGES)] = Field(default_factory=list)
    """`{target, type, reason?}` each, read as "the episode depends_on the target"; at most 100."""
    remove: Annotated[list[RemovedRelationship], Field(max_length=CHANGES)] = Field(default_factory=list)
    """`{target, type}` each, removed before others are added; at most 100."""

    @model_validator(mode="after")
    def _some_change(self) -> Self:
        if not self.add and not self.remove:
            raise ValueError("add or remove: must name a relationship")
        for place, added in enumerate(self.add):
            if added.target == self.episode_id:
                raise ValueError(f"add[{place}].target: must be another episode")
        return self


class GetEpisodeRelationshipsRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode."""
    as_of: Moment | None = None
    """Its relationships as they stood at this moment."""


class Relationship(TypedDict):
    """`outgoing` is from the episode to the one named here, `incoming` from that one to the episode.

    `outcome` is null where the one named here is open.
    """

    type: RelationshipType
    direction: Literal["outgoing", "incoming"]
    episode_id: str
    task_description: str
    outcome: OutcomeType | None
    reason: str | None
    created_at: int


class EpisodeRelationshipsResponse(TypedDict):
    """All of them, in both directions, the oldest first."""

    episode_id: str
    relationships: list[Relationship]
    txid: int


# --- checkpoints ---------------------------------------------------------------------------------


class CheckpointEpisodeRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode, which is open."""
    note: Line | None = None
    """Why this point is worth coming back to."""


class CheckpointEpisodeResponse(TypedDict):
    episode_id: str
    checkpoint: EpisodeCheckpoint
    txid: int


# --- handoff -------------------------------------------------------------------------------------

CheckpointId = Annotated[str, Shaped("cp_[0-9a-f]{16}", "a checkpoint's id, `cp_` and 16 hex digits")]
PackId = Annotated[str, Shaped("pack_[0-9a-f]{32}", "a pack's id, `pack_` and 32 hex digits")]
PACKED = 100
"""Entries that a list of a pack may have; what is made has fewer."""


_Number = Annotated[int, Field(ge=1, le=STEP_NUMBER)]
_strict = with_config(ConfigDict(extra="forbid"))


@_strict
class PackedTask(TypedDict):
    """What is to be done, as `create_episode` takes it."""

    task_description: Task
    task_type: TaskType
    domain: Name
    language: Name | None
    framework: Name | None
    complexity: Complexity
    tags: Annotated[list[Tag], Field(max_length=TAGS)]
    metadata: Object


@_strict
class PackedOrigin(TypedDict):
    """Where it comes from; `checkpoint_id` is null where the pack is of all that was done."""

    episode_id: EpisodeUuid
    checkpoint_id: CheckpointId | None
    note: Line | None
    source: Line | None


@_strict
class PackedState(TypedDict):
    """How far it was: `outcome` and `said`, how it ended, are null where it had not; `remaining` is what it left."""

    step_count: Annotated[int, Field(ge=0, le=STEPS)]
    last_step: Annotated[int, Field(ge=0, le=STEP_NUMBER)]
    elapsed_ms: Measure
    outcome: OutcomeType | None
    said: Line | None
    remaining: Annotated[list[Line], Field(max_length=PACKED)]


@_strict
class PackedStep(TypedDict):
    """A step that succeeded, or (in `pending`) one whose result is not known."""

    step_number: _Number
    tool: Name
    action: Text


@_strict
class PackedFailure(TypedDict):
    """`recovered_by` are the steps that made it good (of it alone, or of all tries in a row), null where none did."""

    step_number: _Number
    tool: Name
    action: Text
    error: Text
    recovered_by: Annotated[list[_Number], Field(max_length=PACKED)] | None


@_strict
class PackedDecision(TypedDict):
    step_number: _Number
    decision: Text


@_strict
class PackedPattern(TypedDict):
    """A pattern that was recommended for the episode (`avoid`: as a warning), or that feedback says was applied."""

    pattern_id: PatternId
    text: Text
    avoid: bool
    outcome: Applied | None


@_strict
class HandoffPack(TypedDict):
    """All that another agent needs to go on; the same episode in the same state gives the same pack.

    Of steps the latest are here, in their order, of patterns the best; `truncated` names, by their paths, the parts
    from which something was left out, and how much. `earlier` are the summaries of the episodes that this continues.
    """

    version: Literal[1]
    pack_id: PackId
    origin: PackedOrigin
    task: PackedTask
    state: PackedState
    summary: Text
    done: Annotated[list[PackedStep], Field(max_length=PACKED)]
    failures: Annotated[list[PackedFailure], Field(max_length=PACKED)]
    decisions: Annotated[list[PackedDecision], Field(max_length=PACKED)]
    pending: Annotated[list[PackedStep], Field(max_length=PACKED)]
    patterns: Annotated[list[PackedPattern], Field(max_length=PACKED)]
    earlier: Annotated[list[Text], Field(max_length=PACKED)]
    truncated: Annotated[list[Line], Field(max_length=PACKED)]


class HandoffRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode to hand over."""
    checkpoint_id: CheckpointId | None = None
    """As it stood at this checkpoint; as it stands, if left out."""
    as_of: Moment | None = None
    """The episode as it was kept at this moment."""


class HandoffResponse(TypedDict):
    pack: HandoffPack


class ResumeRequest(RequestModel):
    pack: HandoffPack
    """As `get_handoff_pack` gave it, of this profile or of another."""
    session_id: SessionId | None = None
    """The conversation in which the work goes on."""
    source: Line | None = None
    """Which agent or program goes on."""


class ResumeResponse(TypedDict):
    """`status` is `duplicate` where the pack was resumed before and that episode is still open.

    `continues` is the origin where it is in this profile, else null.
    """

    episode_id: str
    status: Literal["created", "duplicate"]
    continues: str | None
    start_time: int
    txid: int
