"""What experience recommends, what feedback says of it, and what that tells of the learning: on the wire.

Requests are pydantic models; answers are typed dictionaries, built by the core and sent as they are. Times are
integer Unix milliseconds. A number that is not known is null and comes with the reason (`Measured`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, Embedding, RequestModel, Shaped
from memoturn_schemas.episodes import (
    STEP_NUMBER,
    TAGS,
    Applied,
    AppliedPattern,
    EpisodeUuid,
    Name,
    OutcomeType,
    Tag,
    Task,
    TaskType,
)
from memoturn_schemas.moment import Moment
from memoturn_schemas.patterns import Heuristic, PatternEntry, PatternKind

Feature = Literal["domain", "task_type"]
Part = Literal["strength", "similarity", "domain", "task_type", "language", "framework", "tags"]

OFFERED = 50
FEEDBACK_AT_ONCE = 2 * OFFERED

RecommendationId = Annotated[str, Shaped("rec_[0-9a-f]{32}", "a recommendation's id, `rec_` and 32 hex digits")]
"""As `recommend_patterns` gave it."""


class Measured(TypedDict):
    """A number, from how many cases it was measured, and, where it is null, why."""

    value: float | None
    cases: int
    reason: str | None


# --- what to do ----------------------------------------------------------------------------------


class TaskRequest(RequestModel):
    """What is known of a task that is still to be done."""

    task_description: Task
    """What is to be done, in words; at most 10 000 bytes."""
    task_type: TaskType | None = None
    """What kind of work it is; favours what was learnt from such work."""
    domain: Name | None = None
    """The field of the work; favours what was learnt in it."""
    language: Name | None = None
    """The programming language; favours what was learnt with it."""
    framework: Name | None = None
    """The framework; favours what was learnt with it."""
    tags: Annotated[list[Tag], Field(max_length=TAGS)] = Field(default_factory=list)
    """Labels; favour what was learnt under them."""
    only: Annotated[list[Feature], Field(max_length=2)] = Field(default_factory=list)
    """Which of domain and task_type leave out what was not learnt from such work, instead of favouring what was."""
    embedding: Embedding | None = None
    """A vector of the description, if the client has one."""


class RecommendPatternsRequest(TaskRequest):
    limit: Annotated[int, Field(ge=1, le=OFFERED)] = 5
    """How many to recommend, and how many to warn of, at most."""
    episode_id: EpisodeUuid | None = None
    """The episode it is for; gives the fields above that are left out, and is what feedback is about by default."""


class EvidenceEpisode(TypedDict):
    """`similarity` of its task to this one, 0...1; null where it is not among the most similar."""

    episode_id: str
    task_description: str
    succeeded: bool
    similarity: float | None


class Recommended(PatternEntry):
    """A pattern that was offered; `score` is 0...1 and the sum of `parts`. `heuristic` is null where it gives none."""

    heuristic: Heuristic | None
    score: float
    parts: dict[Part, float]
    reasons: list[str]
    evidence: list[EvidenceEpisode]


class RecommendPatternsResponse(TypedDict):
    """Best first. `recommendation_id` is null where nothing was offered, and `explanation` then says why."""

    recommendation_id: str | None
    recommended: list[Recommended]
    avoid: list[Recommended]
    explanation: str | None
    txid: int


class ConciseRecommended(TypedDict):
    pattern_id: str
    text: str
    score: float
    reasons: list[str]


class ConciseRecommendPatternsResponse(TypedDict):
    """As `RecommendPatternsResponse`, without parts and evidence."""

    recommendation_id: str | None
    recommended: list[ConciseRecommended]
    avoid: list[ConciseRecommended]
    explanation: str | None


# --- how it went ---------------------------------------------------------------------------------


class PatternFeedback(RequestModel):
    """What came of one pattern that was offered."""

    pattern_id: Annotated[str, Shaped("(pat|heu)_[0-9a-f]{32}", "the id of a pattern or a heuristic")]
    """One that the recommendation offered."""
    outcome: Applied
    """`pending` where it was applied and is not known yet. Of what to avoid: whether the warning helped."""
    applied_at_step: Annotated[int, Field(ge=1, le=STEP_NUMBER)] | None = None
    """The number of the step at which it was applied."""


class RecordFeedbackRequest(RequestModel):
    recommendation_id: RecommendationId
    """What `recommend_patterns` answered."""
    feedback: Annotated[list[PatternFeedback], Field(min_length=1, max_length=FEEDBACK_AT_ONCE)]
    """What came of each pattern; the last word on one counts."""
    episode_id: EpisodeUuid | None = None
    """The episode in which they were applied; that of the recommendation, if left out."""


class RecordedFeedback(AppliedPattern):
    """`strength` is what the pattern has now, with the feedback; null where it was deleted meanwhile."""

    episode_id: str | None
    strength: float | None


class RecordFeedbackResponse(TypedDict):
    recommendation_id: str
    feedback: list[RecordedFeedback]
    txid: int


# --- a plan --------------------------------------------------------------------------------------


class RecommendPlaybookRequest(TaskRequest):
    as_of: Moment | None = None
    """What was known at this moment."""


class PlaybookStep(TypedDict):
    """`support` is the share of the evidence, by similarity, that took the step; `seconds` the median it took."""

    order: int
    tool: str
    action: str | None
    support: float
    seconds: Measured
    episode_ids: list[str]
    pattern_ids: list[str]


class Pitfall(TypedDict):
    """`remedy` is what worked against it, where that is known."""

    text: str
    remedy: str | None
    pattern_ids: list[str]
    episode_ids: list[str]


class PlaybookEvidence(TypedDict):
    episode_id: str
    task_description: str
    similarity: float
    outcome: OutcomeType
    reward: float | None
    step_count: int
    seconds: float


class RecommendPlaybookResponse(TypedDict):
    """`expected_steps` and `expected_seconds` are medians of the evidence; `confidence` is 0...1.

    `confidence` is the lower bound of the share of similar tasks that succeeded (Wilson, 95 %), weighted by how
    similar they are, times how much the evidence agrees on the steps. `explanation` says why there are no steps, not
    all, or those of a sequence of tools.
    """

    steps: list[PlaybookStep]
    pitfalls: list[Pitfall]
    expected_steps: Measured
    expected_seconds: Measured
    confidence: Measured
    evidence: list[PlaybookEvidence]
    pattern_ids: list[str]
    explanation: str | None
    txid: int


# --- what the learning is worth ------------------------------------------------------------------


class PatternEffectivenessRequest(RequestModel):
    domain: Name | None = None
    """Only patterns of this domain."""
    kind: PatternKind | None = None
    """Only patterns of this kind."""
    limit: Count = 50
    """How many at most, the most applied first; clamped to 1...1 000."""
    as_of: Moment | None = None
    """What was known at this moment."""


class PatternEffect(TypedDict):
    """`offered` counts recommendations that are kept; `applied` those that feedback was given of.

    `success_applied` is the share of completed episodes that succeeded among those that applied the pattern,
    `success_otherwise` the same of the others of its domain, `difference` the one less the other.
    """

    pattern_id: str
    kind: PatternKind
    domain: str
    text: str
    strength: float
    offered: int
    applied: int
    helped: int
    no_effect: int
    hindered: int
    pending: int
    success_applied: Measured
    success_otherwise: Measured
    difference: Measured


class PatternEffectivenessResponse(TypedDict):
    """Patterns that were offered or applied; `recommendations` is how many offers are kept and were counted."""

    patterns: list[PatternEffect]
    recommendations: int
    explanation: str | None


class EvaluateLearningRequest(RequestModel):
    domain: Name | None = None
    """Only episodes and patterns of this domain."""
    as_of: Moment | None = None
    """What was known at this moment."""


class EpisodeCounts(TypedDict):
    total: int
    open: int
    success: int
    partial_success: int
    failure: int
    abstained: int


class DomainReward(TypedDict):
    domain: str
    reward: Measured


class Half(TypedDict):
    """Of the completed episodes in the order in which they ended."""

    episodes: int
    reward: Measured
    success_rate: Measured
    steps_to_success: Measured


class OverTime(TypedDict):
    first_half: Half
    second_half: Half


class LearningStats(TypedDict):
    """`reward` is a mean, `success_rate` counts partial successes, `steps_to_success` is a median."""

    episodes: EpisodeCounts
    reward: Measured
    success_rate: Measured
    steps_to_success: Measured
    reward_by_domain: list[DomainReward]
    over_time: OverTime


class Bin(TypedDict):
    """Cases whose strength was in [`from_strength`, `to_strength`); `mean_strength` and `helped` are null of none."""

    from_strength: float
    to_strength: float
    cases: int
    mean_strength: float | None
    helped: float | None


class Calibration(TypedDict):
    """The strength at the time of the recommendation against whether feedback said that it helped.

    `brier` is the mean squared difference; `brier_of_base_rate` what always saying `base_rate` would have had.
    Below 10 cases all are null, for `reason`.
    """

    cases: int
    brier: float | None
    base_rate: float | None
    brier_of_base_rate: float | None
    bins: list[Bin] | None
    reason: str | None


class EvaluateLearningResponse(TypedDict):
    stats: LearningStats
    calibration: Calibration
