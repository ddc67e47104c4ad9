"""Looking for what was tried before, on the wire: episodes, the patterns in them and the insights from them.

The request is a pydantic model; the answer is a typed dictionary, built by the core and sent as it is. How episodes are
ranked is in docs/episodes.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Final, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict, is_typeddict

from memoturn_schemas.common import Count, Embedding, RequestModel, UnixMs
from memoturn_schemas.episodes import (
    TAGS,
    Episode,
    EpisodeCheckpoint,
    Name,
    OutcomeType,
    Tag,
    Task,
    TaskType,
)
from memoturn_schemas.memory import Channel
from memoturn_schemas.moment import Moment
from memoturn_schemas.patterns import PatternKind

Sort = Literal["relevance", "recency", "reward"]
Part = Literal["episodes", "patterns", "insights"]
EpisodeFilter = Literal["domain", "task_type", "outcome", "tags", "session_id", "since", "until"]
Addend = Literal["words", "vector", "surroundings", "exact", "domain", "task_type", "recency", "reward", "diversity"]

PATTERNS_AT_MOST = 5
INSIGHTS_AT_MOST = 10


class FoundEpisode(TypedDict, total=False):
    """The fields of `Episode` that were asked for, shaped as `get_episode` gives them; of those in objects only the
    parts that were asked for. With `score`, and the `breakdown` whose parts add up to it.
    """

    episode_id: str
    task_type: TaskType
    task_description: str
    context: dict[str, Any]
    session_id: str | None
    source: str | None
    start_time: int
    end_time: int | None
    step_count: int
    outcome: dict[str, Any] | None
    reward: dict[str, Any] | None
    quality: float | None
    reflection: dict[str, Any] | None
    salient: dict[str, Any] | None
    summary: dict[str, Any] | None
    pattern_ids: list[str]
    heuristic_ids: list[str]
    applied_patterns: list[dict[str, Any]]
    checkpoints: list[EpisodeCheckpoint]
    metadata: dict[str, Any]
    score: float
    breakdown: dict[Addend, float]


FIELDS: Final = (
    *("episode_id", "task_type", "task_description", "context.domain", "start_time", "outcome.type", "reward.total"),
    *("summary", "score", "breakdown"),
)
"""What is answered of an episode unless `fields` says otherwise."""


def _paths(shape: Any, above: str = "") -> list[str]:
    """The dotted paths of a typed dictionary's fields."""
    paths: list[str] = []
    for name, hint in get_type_hints(shape).items():
        paths.append(f"{above}{name}")
        inner = [hint, *get_args(hint)] if get_origin(hint) in (Union, UnionType) else [hint]
        for each in inner:
            if is_typeddict(each):
                paths += _paths(each, f"{above}{name}.")
    return paths


PATHS: Final[Sequence[str]] = (*_paths(Episode), "score", "breakdown")
"""What `fields` may name; below `metadata` there may be anything."""


def _is_path(path: str) -> str:
    if path not in PATHS and not path.startswith("metadata."):
        raise ValueError(f"is no field of an episode: use one of {', '.join(PATHS)}, or a path below metadata")
    return path


class QueryMemoryRequest(RequestModel):
    query: Task
    """The task at hand, in plain words; at most 10 000 bytes. It is data, never search syntax."""
    domain: Name | None = None
    """Only episodes of this domain."""
    task_type: TaskType | None = None
    """Only episodes of this type."""
    tags: Annotated[list[Tag], Field(max_length=TAGS)] = Field(default_factory=list)
    """Only episodes that have all of these."""
    outcome: Literal[OutcomeType, "open"] | None = None
    """Only episodes that ended so; `open` are those that have not ended."""
    since: UnixMs | None = None
    """Only episodes that began at this time or later, in Unix milliseconds."""
    until: UnixMs | None = None
    """Only episodes that began before this time."""
    limit: Count = 10
    """How many episodes at most; clamped to 1...1 000."""
    sort: Sort = "relevance"
    """`relevance`, or the most relevant ordered by when they began (`recency`) or by their `reward`."""
    fields: Annotated[list[Annotated[str, AfterValidator(_is_path)]], Field(min_length=1, max_length=100)] | None = None
    """Which fields of the episodes to answer, as dotted paths, e.g. `summary.text`; a short choice by default."""
    embedding: Embedding | None = None
    """A vector of the query, if the client has one."""
    as_of: Moment | None = None
    """The episodes as they stood at this moment."""
    include: Annotated[list[Part], Field(min_length=1)] = Field(default_factory=lambda: list(get_args(Part)))
    """Which parts to answer; all three by default."""


class FoundPattern(TypedDict):
    """A pattern that found episodes are evidence for: `episode_ids` are those. `strength` is of `goes_with`."""

    pattern_id: str
    kind: PatternKind
    domain: str
    text: str
    goes_with: Literal["success", "failure"]
    strength: float
    occurrences: int
    episode_ids: list[str]


class FoundInsight(TypedDict):
    """What reflection on some of the found episodes came to."""

    text: str
    episode_ids: list[str]


class Emptiness(TypedDict):
    """Why nothing was found.

    `nothing_stored`: the profile has no episodes. `no_match`: none shares a `word` with the query or could be compared
    by a vector. `filters`: the `matching` ones were kept out; `left_out` says by each filter how many it keeps out.
    """

    reason: Literal["nothing_stored", "no_match", "filters"]
    text: str
    stored: int
    matching: int
    words: list[str]
    left_out: dict[EpisodeFilter, int]


class QueryMemoryResponse(TypedDict):
    """The best first. A part that was not asked for is empty; `explanation` is there where no episode was found."""

    episodes: list[FoundEpisode]
    patterns: list[FoundPattern]
    insights: list[FoundInsight]
    explanation: NotRequired[Emptiness]
    degraded: NotRequired[list[Channel]]
    txid: int
