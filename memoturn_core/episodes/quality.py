"""How complete and instructive the record of an episode is, 0 to 1: for ranking and eviction, never to refuse one.

It says nothing of how well the task went (that is the reward): a failure that is well told is worth keeping.
Pure. Called by the modules that complete an episode.
"""

from __future__ import annotations

import math

from memoturn_core.episodes.experience import Experience
from memoturn_schemas.episodes import Outcome

_DESCRIPTION, _CONTEXT, _OUTCOME, _STEPS, _RESULTS, _LATENCIES, _LESSONS = 0.10, 0.05, 0.15, 0.15, 0.20, 0.10, 0.25
"""What each part weighs; they add up to 1."""

_DESCRIPTION_CHARACTERS, _ENOUGH_STEPS = 80, 5


def quality(experience: Experience) -> float:
    """The weighted sum of what is known.

    The description up to 80 characters; domain, language and tags; what the outcome says and names; up to 5 steps;
    the shares of steps with a result and with a latency; and, of the lessons, recoveries (half), decisions and
    failures that say why (a quarter each).
    """
    steps = len(experience.steps)
    timed = sum(step["latency_ms"] is not None for step in experience.steps)
    context = experience.context
    told = (context["domain"] != "general", context["language"] is not None, bool(context["tags"]))
    return min(
        1.0,
        math.fsum(
            (
                _DESCRIPTION * min(1.0, len(experience.description.strip()) / _DESCRIPTION_CHARACTERS),
                _CONTEXT * sum(told) / len(told),
                _OUTCOME * _outcome(experience.outcome),
                _STEPS * min(1.0, steps / _ENOUGH_STEPS),
                _RESULTS * (len(experience.settled) / steps if steps else 0.0),
                _LATENCIES * (timed / steps if steps else 0.0),
                _LESSONS * _lessons(experience),
            )
        ),
    )


def _outcome(outcome: Outcome) -> float:
    said = outcome.get("verdict") or outcome.get("reason") or ""
    named = (
        outcome.get("artifacts")
        or outcome.get("completed")
        or outcome.get("failed")
        or outcome.get("error_details")
        or outcome.get("infeasibility_signals")
    )
    return 0.5 * bool(said.strip()) + 0.5 * bool(named)


def _lessons(experience: Experience) -> float:
    explained = any(step["result"] and step["result"].get("message") for step in experience.failures)
    return 0.5 * bool(experience.recoveries) + 0.25 * bool(experience.decisions) + 0.25 * explained
