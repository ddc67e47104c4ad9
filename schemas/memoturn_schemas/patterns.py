"""What is learnt from episodes, on the wire: patterns, heuristics made of them, and what they rest on.

Requests are pydantic models; answers are typed dictionaries. Times are integer Unix milliseconds. A strength is
0...1: how sure one may be that a pattern goes with what it is said to go with (docs/episodes.md).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, RequestModel, Shaped
from memoturn_schemas.episodes import Name, OutcomeType, TaskType, Text
from memoturn_schemas.moment import Moment

PatternKind = Literal["tool_sequence", "decision_point", "error_recovery", "context_pattern", "anti_pattern"]
Facet = Literal["task_type", "language", "framework", "tag"]

PatternId = Annotated[str, Shaped("pat_[0-9a-f]{32}", "a pattern's id, `pat_` and 32 hex digits")]
"""As answers give it: `pat_` and 32 hex digits."""
Share = Annotated[float, Field(ge=0, le=1)]

# --- requests ------------------------------------------------------------------------------------


class AnalyzePatternsRequest(RequestModel):
    domain: Name | None = None
    """Only what was learnt in this domain."""
    task_type: TaskType | None = None
    """Only what was seen in tasks of this type."""
    kind: PatternKind | None = None
    """Only patterns of this kind."""
    min_strength: Share = 0.0
    """Only patterns that are as strong as this."""
    limit: Count = 10
    """How many at most in each list; clamped to 1...1 000."""
    as_of: Moment | None = None
    """What was known at this moment."""


class SearchPatternsRequest(RequestModel):
    query: Text = ""
    """Words: tools, errors, actions; left out, the strongest patterns come first."""
    kind: PatternKind | None = None
    """Only patterns of this kind."""
    domain: Name | None = None
    """Only what was learnt in this domain."""
    task_type: TaskType | None = None
    """Only what was seen in tasks of this type."""
    min_strength: Share = 0.0
    """Only patterns that are as strong as this."""
    limit: Count = 10
    """How many at most; clamped to 1...1 000."""
    as_of: Moment | None = None
    """What was known at this moment."""


class GetPatternRequest(RequestModel):
    pattern_id: PatternId
    """The pattern."""
    limit: Count = 20
    """How many of the episodes that it rests on; clamped to 1...1 000."""
    as_of: Moment | None = None
    """The pattern as it stood at this moment."""


class DecayPatternsRequest(RequestModel):
    below: Share
    """Patterns that are weaker than this are meant."""
    domain: Name | None = None
    """Only those of this domain."""
    kind: PatternKind | None = None
    """Only those of this kind."""
    dry_run: bool = True
    """Whether they are only listed; false deletes them."""
    limit: Count = 100
    """How many are listed at most; clamped to 1...1 000. All of them are deleted."""


# --- answers -------------------------------------------------------------------------------------


class Feedback(TypedDict):
    """How often it was said of the pattern that applying it did what."""

    helped: int
    no_effect: int
    hindered: int


class PatternEntry(TypedDict):
    """One pattern; `strength` is that of its going with `goes_with`.

    `tools` are the sequence, the tool of a decision or of an error, or what remedied one; `failed_tool` and
    `error` are what was remedied, or what goes wrong; `action` is a decision's; `facet` and `value` are a
    context's. What a kind does not have is empty or null. `promoted` is false of what one episode has only.
    """

    pattern_id: str
    kind: PatternKind
    domain: str
    text: str
    tools: list[str]
    failed_tool: str | None
    error: str | None
    action: str | None
    facet: Facet | None
    value: str | None
    goes_with: Literal["success", "failure"]
    strength: float
    promoted: bool
    occurrences: int
    successes: int
    failures: int
    feedback: Feedback
    task_types: list[TaskType]
    first_seen: int
    last_seen: int


class Heuristic(TypedDict):
    """When `condition`, then `action`; computed from one pattern, whose strength is its confidence."""

    heuristic_id: str
    pattern_id: str
    condition: str
    action: str
    confidence: float
    occurrences: int


class GroupCount(TypedDict):
    """Promoted patterns of one kind or of one domain, and the strength of the strongest."""

    name: str
    patterns: int
    strongest: float


class DecayingPattern(PatternEntry):
    """`undecayed` is what its strength would be were all that it rests on of today."""

    undecayed: float


class AnalyzePatternsResponse(TypedDict):
    """Counts and lists of promoted patterns.

    Sequences that are a part of a longer one which has been seen as often are counted, and not listed.
    `newest` were promoted last; `decaying` were not seen for a half-life (30 days), the strongest first.
    `episodes` were learnt from, and `candidates` were seen in one of them only; neither takes a filter.
    """

    episodes: int
    patterns: int
    candidates: int
    by_kind: list[GroupCount]
    by_domain: list[GroupCount]
    strongest: list[PatternEntry]
    newest: list[PatternEntry]
    decaying: list[DecayingPattern]
    heuristics: list[Heuristic]
    explanation: str | None


class PatternHit(PatternEntry):
    """`score` is `relevance`, 0...1 (1 without a query), times 1 to 1.25 by strength."""

    score: float
    relevance: float


class SearchPatternsResponse(TypedDict):
    """Best first; `explanation` says why there is nothing, where there is nothing."""

    patterns: list[PatternHit]
    explanation: str | None


class PatternEvidence(TypedDict):
    """An episode that has the pattern; `seen_at` is when it ended."""

    episode_id: str
    outcome: OutcomeType
    seen_at: int


class GetPatternResponse(TypedDict):
    """`evidence` is newest first, and only as much as was asked for; `heuristic` is null where it gives none."""

    pattern: PatternEntry
    heuristic: Heuristic | None
    evidence: list[PatternEvidence]


class DecayPatternsResponse(TypedDict):
    """`count` patterns are below, weakest first; `patterns` lists the first of them. `deleted` says they are gone."""

    count: int
    deleted: bool
    patterns: list[PatternEntry]
    txid: int
