"""Heuristics: when a condition holds, then do this. Each is computed from one promoted pattern and stored nowhere.

Recoveries say what to do about an error, tool sequences how to go about a task of the type that they were seen in
most, anti-patterns what to avoid. Decisions and contexts give none: they say what was so, not what to do. Pure; called
by `evidence` and by whoever shows patterns.
"""

from __future__ import annotations

from memoturn_core.episodes.patterns.pattern import Pattern
from memoturn_schemas.episodes import OutcomeType
from memoturn_schemas.patterns import Heuristic, PatternKind

_PREFIX = "heu_"


def heuristic_id(id_: bytes) -> str:
    """Of the heuristic that a pattern gives."""
    return f"{_PREFIX}{id_.hex()}"


def instructs(kind: PatternKind, outcome: OutcomeType) -> bool:
    """Whether a pattern of this kind, in an episode that ended so, says what to do."""
    if kind == "anti_pattern":
        return outcome == "failure"
    return kind in ("error_recovery", "tool_sequence") and outcome in ("success", "partial_success")


def heuristic(pattern: Pattern) -> Heuristic | None:
    """What a promoted pattern says; None where more speaks against it than for it, and of kinds that give none."""
    _, successes, failures, *_ = pattern.standing
    holds = failures > successes if pattern.goes_with == "failure" else successes > failures
    if not (pattern.promoted and holds and (spoken := _spoken(pattern))):
        return None
    condition, action = spoken
    return Heuristic(
        heuristic_id=heuristic_id(pattern.id),
        pattern_id=pattern.pattern_id,
        condition=condition,
        action=action,
        confidence=pattern.strength,
        occurrences=pattern.occurrences,
    )


def _spoken(pattern: Pattern) -> tuple[str, str] | None:
    course = ", then ".join(pattern.tools)
    error = pattern.error or "no message"
    match pattern.kind:
        case "error_recovery":
            return f"when {pattern.failed_tool} in {pattern.domain} fails with: {error}", f"use {course}"
        case "tool_sequence":
            task_type, _ = min(pattern.standing.task_types.items(), key=lambda each: (-each[1], each[0]))
            return f"for {task_type} in {pattern.domain}", f"use {course}"
        case "anti_pattern" if pattern.error is not None:
            return f"with {pattern.failed_tool} in {pattern.domain}", f"avoid what ends in: {error}"
        case "anti_pattern":
            return f"in {pattern.domain}", f"avoid {course}: the last of them did not succeed, and tasks failed"
        case _:
            return None
