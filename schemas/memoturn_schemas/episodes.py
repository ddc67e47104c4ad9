"""Episodes on the wire: what an agent tried, step by step, how it ended, and what was made of it.

Requests are pydantic models; answers are typed dictionaries, built by the core and sent as they are. Times are
integer Unix milliseconds. What reward, reflection and summary mean is in docs/episodes.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import from_json
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, Embedding, RequestModel, Shaped, UnixMs, check_json
from memoturn_schemas.moment import Moment
from memoturn_schemas.names import SessionId

TaskType = Literal["code_generation", "debugging", "refactoring", "testing", "analysis", "documentation", "other"]
Complexity = Literal["simple", "moderate", "complex"]
OutcomeType = Literal["success", "partial_success", "failure", "abstained"]
OutcomeOrOpen = Literal["success", "partial_success", "failure", "abstained", "open"]
Applied = Literal["helped", "no_effect", "hindered", "pending"]

DESCRIPTION_BYTES = 10_000
OBSERVATION_BYTES = 10_000
VALUE_BYTES = 1_000_000
EPISODE_BYTES = 10_000_000
STEPS = 1_000
STEP_NUMBER = 1_000_000
BULK = 100
TAGS = 50


def _at_most(count: int) -> AfterValidator:
    def check(value: str) -> str:
        if len(value.encode()) > count:
            raise ValueError(f"must be at most {count} bytes of UTF-8, not {len(value.encode())}")
        return value

    return AfterValidator(check)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _listed(value: Any) -> Any:
    """A query string's list: a JSON array, or what commas part."""
    if not isinstance(value, str):
        return value
    return from_json(value) if value.startswith("[") else value.split(",")


Line = Annotated[str, AfterValidator(_not_blank), _at_most(1_000)]
"""Some words, not blank, at most 1 000 bytes."""
Text = Annotated[str, _at_most(OBSERVATION_BYTES)]
"""At most 10 000 bytes."""
Task = Annotated[str, AfterValidator(_not_blank), _at_most(DESCRIPTION_BYTES)]
"""What is to be done: not blank, at most 10 000 bytes."""
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_not_blank)]
Tag = Annotated[str, Field(min_length=2, max_length=100), AfterValidator(_not_blank)]
Measure = Annotated[int, Field(ge=0, le=2**63 - 1)]
EpisodeUuid = Annotated[
    str, Shaped("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", "an episode's id, as create_episode gave it")
]
"""As `create_episode` gave it."""
Object = Annotated[dict[str, Any], AfterValidator(check_json)]

# --- what is stored ------------------------------------------------------------------------------


class Context(TypedDict):
    """`language` and `framework` are null where nobody said."""

    domain: str
    language: str | None
    framework: str | None
    complexity: Complexity
    tags: list[str]


class StepResult(TypedDict):
    """`output` of a success, `message` of an error; a timeout has neither."""

    type: Literal["success", "error", "timeout"]
    output: NotRequired[str]
    message: NotRequired[str]


class Step(TypedDict):
    """`result` is null while a step is pending; what is not known of it is null."""

    step_number: int
    timestamp: int
    tool: str
    action: str
    parameters: dict[str, Any]
    result: StepResult | None
    latency_ms: int | None
    tokens_used: int | None
    metadata: dict[str, Any]


class Outcome(TypedDict):
    """Of a success `verdict` and `artifacts`; of a partial one `verdict`, `completed` and `failed`; of a failure
    `reason` and `error_details`; of an abstention `reason`, `stopped_at_step` and `infeasibility_signals`.
    """

    type: OutcomeType
    verdict: NotRequired[str]
    artifacts: NotRequired[list[str]]
    completed: NotRequired[list[str]]
    failed: NotRequired[list[str]]
    reason: NotRequired[str]
    error_details: NotRequired[str]
    stopped_at_step: NotRequired[int]
    infeasibility_signals: NotRequired[list[str]]


class Term(TypedDict):
    """One addend of a component of a reward, and what it was measured from."""

    name: str
    value: float
    because: str


class Reward(TypedDict):
    """`total = base * efficiency * complexity * quality + learning`.

    Each of these is the sum of its `terms`, held within its bounds: base 0...1, efficiency and quality 0.5...1.5,
    learning 0...0.5.
    """

    total: float
    base: float
    efficiency: float
    complexity: float
    quality: float
    learning: float
    terms: dict[str, list[Term]]


class Reflection(TypedDict):
    """At most five of each, the most specific first."""

    successes: list[str]
    improvements: list[str]
    insights: list[str]


class Salient(TypedDict):
    """`tool_runs` are the longest runs of steps that succeeded, a tool that repeats at once named once;
    `recoveries` name an error and what then worked.
    """

    decisions: list[str]
    tool_runs: list[list[str]]
    recoveries: list[str]


class Summary(TypedDict):
    """`text` has at most 200 words; `key_steps` are numbers of steps."""

    text: str
    key_steps: list[int]


class AppliedPattern(TypedDict):
    """What feedback said of a pattern in this episode."""

    pattern_id: str
    applied_at_step: int | None
    outcome: Applied


class EpisodeCheckpoint(TypedDict):
    """The episode as it stood after `step_number` (0: before any step); `note` says why it was marked."""

    checkpoint_id: str
    created_at: int
    step_number: int
    note: str | None


class Episode(TypedDict):
    """An episode without its steps. What completion writes is null, or empty, until it is completed."""

    episode_id: str
    task_type: TaskType
    task_description: str
    context: Context
    session_id: str | None
    source: str | None
    start_time: int
    end_time: int | None
    step_count: int
    outcome: Outcome | None
    reward: Reward | None
    quality: float | None
    reflection: Reflection | None
    salient: Salient | None
    summary: Summary | None
    pattern_ids: list[str]
    heuristic_ids: list[str]
    applied_patterns: list[AppliedPattern]
    checkpoints: list[EpisodeCheckpoint]
    metadata: dict[str, Any]


# --- requests ------------------------------------------------------------------------------------


class NewEpisode(RequestModel):
    """What is known of an episode at its start."""

    task_description: Task
    """What is to be done, in the words of who asked; it is what later tasks are compared with."""
    task_type: TaskType = "other"
    """What kind of work it is."""
    domain: Name = "general"
    """The field of the work, e.g. `web-api`; patterns are learnt by domain."""
    language: Name | None = None
    """The programming language, if any."""
    framework: Name | None = None
    """The framework, if any."""
    complexity: Complexity = "moderate"
    """How hard it looks."""
    tags: Annotated[list[Tag], Field(max_length=TAGS)] = Field(default_factory=list)
    """Labels to filter by, 2 to 100 characters each."""
    session_id: SessionId | None = None
    """The conversation it belongs to."""
    source: Line | None = None
    """Which agent or program does it."""
    start_time: UnixMs | None = None
    """When it began; now, if left out. An import has a past."""
    metadata: Object = Field(default_factory=dict)
    """Any JSON object; `test_coverage` (percent) counts for the reward."""
    embedding: Embedding | None = None
    """A vector of the description, if the client has one."""


class CreateEpisodeRequest(NewEpisode):
    pass


class SuccessResult(RequestModel):
    type: Literal["success"]
    """The step did what it should."""
    output: Text = ""
    """What it gave, at most 10 000 bytes."""


class ErrorResult(RequestModel):
    type: Literal["error"]
    """The step failed."""
    message: Text
    """The error, at most 10 000 bytes."""


class TimeoutResult(RequestModel):
    type: Literal["timeout"]
    """The step did not end in time."""


class NewStep(RequestModel):
    """One step that was taken."""

    step_number: Annotated[int, Field(ge=1, le=STEP_NUMBER)] | None = None
    """Its place, from 1; the next one, if left out. The same number with the same body changes nothing."""
    tool: Name
    """The tool that was used, e.g. `grep`."""
    action: Text
    """What was done with it."""
    parameters: Object = Field(default_factory=dict)
    """Its arguments, a JSON object."""
    result: Annotated[SuccessResult | ErrorResult | TimeoutResult, Field(discriminator="type")] | None = None
    """How it went; leave out for a step whose result is not known."""
    latency_ms: Measure | None = None
    """How long it took, in milliseconds."""
    tokens_used: Measure | None = None
    """Tokens of a language model that it took."""
    timestamp: UnixMs | None = None
    """When it was taken; now, if left out."""
    metadata: Object = Field(default_factory=dict)
    """Any JSON object."""


class AddStepRequest(NewStep):
    episode_id: EpisodeUuid
    """The episode."""


class Success(RequestModel):
    type: Literal["success"]
    """The task is done."""
    verdict: Text
    """What was achieved."""
    artifacts: Annotated[list[Line], Field(max_length=100)] = Field(default_factory=list)
    """What was made, e.g. names of files."""


class PartialSuccess(RequestModel):
    type: Literal["partial_success"]
    """Some of it is done."""
    verdict: Text
    """What was achieved."""
    completed: Annotated[list[Line], Field(max_length=100)] = Field(default_factory=list)
    """What is done."""
    failed: Annotated[list[Line], Field(max_length=100)] = Field(default_factory=list)
    """What is not."""


class Failure(RequestModel):
    type: Literal["failure"]
    """It could not be done."""
    reason: Text
    """Why."""
    error_details: Text | None = None
    """The error itself."""


class Abstained(RequestModel):
    type: Literal["abstained"]
    """It was given up, for it could or should not be done."""
    reason: Text
    """Why."""
    stopped_at_step: Measure
    """After how many steps."""
    infeasibility_signals: Annotated[list[Line], Field(max_length=100)] = Field(default_factory=list)
    """What showed it."""


AnyOutcome = Annotated[Success | PartialSuccess | Failure | Abstained, Field(discriminator="type")]


class CompleteEpisodeRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode."""
    outcome: AnyOutcome
    """How it ended."""
    end_time: UnixMs | None = None
    """When it ended; now, if left out."""


class GetEpisodeRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode."""
    steps: bool = True
    """Whether its steps come with it."""
    as_of: Moment | None = None
    """The episode as it stood at this moment."""


class DeleteEpisodeRequest(RequestModel):
    episode_id: EpisodeUuid
    """The episode."""


class ListEpisodesRequest(RequestModel):
    domain: Name | None = None
    """Only of this domain."""
    task_type: TaskType | None = None
    """Only of this type."""
    outcome: OutcomeOrOpen | None = None
    """Only those that ended so; `open` are those that have not ended."""
    tags: Annotated[list[Tag], Field(max_length=TAGS), BeforeValidator(_listed)] = Field(default_factory=list)
    """Only those that have all of these; in a query string parted by commas, or a JSON array."""
    session_id: SessionId | None = None
    """Only of this conversation."""
    since: UnixMs | None = None
    """Only those that began at this time or later."""
    until: UnixMs | None = None
    """Only those that began before this time."""
    limit: Count = 20
    """How many at most; clamped to 1...1 000."""
    cursor: str | None = None
    """The `next_cursor` of the page before."""
    as_of: Moment | None = None
    """The episodes as they stood at this moment."""


class WholeEpisode(NewEpisode):
    """An episode that is over, or as far as it got."""

    steps: Annotated[list[NewStep], Field(max_length=STEPS)] = Field(default_factory=list)
    """Its steps in order."""
    outcome: AnyOutcome | None = None
    """How it ended; left out, it stays open."""
    end_time: UnixMs | None = None
    """When it ended; now, if left out."""


class BulkEpisodesRequest(RequestModel):
    episodes: Annotated[list[WholeEpisode], Field(min_length=1, max_length=BULK)]
    """At most 100; all are kept in one transaction, or none."""


# --- answers -------------------------------------------------------------------------------------


class CreateEpisodeResponse(TypedDict):
    """`embedding` is there when the vector was not kept, for the profile's dimension is another."""

    episode_id: str
    start_time: int
    embedding: NotRequired[Literal["skipped_dimension"]]
    txid: int


class AddStepResponse(TypedDict):
    """`status` is `duplicate` where the same step was there."""

    episode_id: str
    step_number: int
    step_count: int
    status: Literal["created", "duplicate"]
    txid: int


class CompleteEpisodeResponse(TypedDict):
    """What completion made of the episode; the same again for one that was completed with the same outcome."""

    episode_id: str
    status: Literal["completed", "duplicate"]
    end_time: int
    reward: Reward
    quality: float
    reflection: Reflection
    salient: Salient
    summary: Summary
    pattern_ids: list[str]
    heuristic_ids: list[str]
    txid: int


class GetEpisodeResponse(TypedDict):
    """`steps` by their numbers; null where they were not asked for."""

    episode: Episode
    steps: list[Step] | None


class DeleteEpisodeResponse(TypedDict):
    deleted: bool
    txid: int


class EpisodeEntry(TypedDict):
    """`outcome` is null of an open episode, and so is its `reward`."""

    episode_id: str
    task_type: TaskType
    task_description: str
    domain: str
    tags: list[str]
    session_id: str | None
    start_time: int
    end_time: int | None
    step_count: int
    outcome: OutcomeType | None
    reward: float | None


class ListEpisodesResponse(TypedDict):
    """The latest to begin first; `next_cursor` is null on the last page."""

    episodes: list[EpisodeEntry]
    next_cursor: str | None


class BulkEpisodesResponse(TypedDict):
    """In the order in which they came; `skipped_dimension` are those whose vector was not kept, if there are any."""

    episode_ids: list[str]
    skipped_dimension: NotRequired[list[str]]
    txid: int
