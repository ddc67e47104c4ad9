"""What an episode earned: `total = base * efficiency * complexity * quality + learning`.

Each component is the sum of its terms, held within its bounds, and is answered with them, so that a person can
check it. What is not known (the error rate of steps whose results nobody told) makes no term.

Pure. Called by the modules that complete an episode.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.wording import count, quoted
from memoturn_schemas.episodes import Complexity, Outcome, Reward, Term

DEFAULT_SECONDS, DEFAULT_STEPS = 120.0, 20.0
_COMPLEXITY: dict[Complexity, float] = {"simple": 1.0, "moderate": 1.1, "complex": 1.2}

_ABSTAINED = 0.3
_EARLY_STEPS, _LATE_STEPS = 3, 10
_EARLY, _LATE = 0.5, -0.3

_TESTS = re.compile(r"(?:(?<![A-Za-z])(?i:tests?|testing|coverage)|Tests?|Testing|Coverage)(?![a-z])")
"""A word of an artifact's name: of `test_login.py` and `LoginTest.java`, not of `latest.log`."""


@dataclass(frozen=True, slots=True)
class Typical:
    """The medians of a domain's completed episodes."""

    seconds: float
    steps: float


def reward(experience: Experience, pattern_count: int, typical: Typical | None) -> Reward:
    """What the episode earned.

    Args:
        pattern_count: how many patterns were extracted from it.
        typical: of its domain; None where too few episodes are completed there.
    """
    terms = {
        "base": _base(experience.outcome),
        "efficiency": _efficiency(experience, typical),
        "complexity": _complexity(experience.context["complexity"]),
        "quality": _quality(experience),
        "learning": _learning(experience, pattern_count),
    }
    base = _sum(terms["base"], 0.0, 1.0)
    efficiency = _sum(terms["efficiency"], 0.5, 1.5)
    complexity = _sum(terms["complexity"], 1.0, 1.2)
    quality = _sum(terms["quality"], 0.5, 1.5)
    learning = _sum(terms["learning"], 0.0, 0.5)
    return Reward(
        total=base * efficiency * complexity * quality + learning,
        base=base,
        efficiency=efficiency,
        complexity=complexity,
        quality=quality,
        learning=learning,
        terms=terms,
    )


def _sum(terms: Sequence[Term], least: float, most: float) -> float:
    return min(max(math.fsum(term["value"] for term in terms), least), most)


def _base(outcome: Outcome) -> list[Term]:
    if outcome["type"] == "success":
        return [Term(name="outcome", value=1.0, because="it succeeded")]
    if outcome["type"] == "failure":
        return [Term(name="outcome", value=0.0, because="it failed")]
    if outcome["type"] == "abstained":
        return [Term(name="outcome", value=_ABSTAINED, because="it was given up"), _early(outcome["stopped_at_step"])]
    done, missed = len(outcome["completed"]), len(outcome["failed"])
    if done + missed == 0:
        return [Term(name="outcome", value=0.5, because="a part of it succeeded, and nobody said which")]
    return [Term(name="outcome", value=done / (done + missed), because=f"{done} of {done + missed} parts are done")]


def _early(stopped_at: int) -> Term:
    late = (min(max(stopped_at, _EARLY_STEPS), _LATE_STEPS) - _EARLY_STEPS) / (_LATE_STEPS - _EARLY_STEPS)
    value = max(_EARLY + (_LATE - _EARLY) * late, _LATE)
    rule = f"{_EARLY:+} up to {_EARLY_STEPS}, {_LATE:+} from {_LATE_STEPS} on"
    return Term(name="early_stop", value=value, because=f"it stopped after {count(stopped_at, 'step')}: {rule}")


def _efficiency(experience: Experience, typical: Typical | None) -> list[Term]:
    taken = experience.seconds
    scale, source = _scale(DEFAULT_SECONDS, None if typical is None else typical.seconds)
    steps = len(experience.steps)
    step_scale, step_source = _scale(DEFAULT_STEPS, None if typical is None else typical.steps)
    return [
        Term(
            name="duration",
            value=(0.5 + math.exp(-taken / scale)) / 2,
            because=f"half of 0.5 + e^(-{taken:g} s / {scale:g} s); {scale:g} s is {source}",
        ),
        Term(
            name="steps",
            value=(0.5 + math.exp(-steps / step_scale)) / 2,
            because=f"half of 0.5 + e^(-{count(steps, 'step')} / {step_scale:g}); {step_scale:g} is {step_source}",
        ),
    ]


def _scale(default: float, median: float | None) -> tuple[float, str]:
    """What a measure is divided by, and where that is from; a median of zero measures nothing."""
    if median is None:
        return default, "the default"
    if median <= 0:
        return default, "the default, for the domain's median is 0"
    return 2 * median, "twice the domain's median"


def _complexity(complexity: Complexity) -> list[Term]:
    return [Term(name="complexity", value=_COMPLEXITY[complexity], because=f"the task is {complexity}")]


def _quality(experience: Experience) -> list[Term]:
    terms = [Term(name="start", value=1.0, because="before what raises or lowers it")]
    if experience.outcome["type"] == "success":
        artifacts = experience.outcome["artifacts"]
        if any(_TESTS.search(name) for name in artifacts):
            terms.append(Term(name="tests", value=0.1, because="an artifact is named for tests or coverage"))
        if len(artifacts) >= 3:
            terms.append(Term(name="artifacts", value=0.05, because=f"{len(artifacts)} artifacts, 3 or more"))
        covered = _coverage(experience.metadata.get("test_coverage"))
        if covered > 80:
            terms.append(Term(name="coverage", value=0.15, because="metadata.test_coverage is over 80"))
        elif covered > 60:
            terms.append(Term(name="coverage", value=0.1, because="metadata.test_coverage is over 60"))
    failed, settled = len(experience.failures), len(experience.settled)
    because = f"{failed} of {count(settled, 'step')} with a known result failed"
    if settled and failed == 0:
        terms.append(Term(name="errors", value=0.1, because=because))
    elif 10 * failed > 3 * settled:
        terms.append(Term(name="errors", value=-0.2, because=f"{because}, over 0.3"))
    elif 10 * failed > settled:
        terms.append(Term(name="errors", value=-0.1, because=f"{because}, over 0.1"))
    return terms


def _coverage(value: object) -> float:
    """Any JSON; what is not a finite number counts as 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0
    return min(value, 100.0)


def _learning(experience: Experience, pattern_count: int) -> list[Term]:
    terms = []
    if pattern_count > 0:
        value = min(0.1 * pattern_count, 0.3)
        because = f"0.1 for each of {count(pattern_count, 'pattern')} extracted, at most 0.3"
        terms.append(Term(name="patterns", value=value, because=because))
    tools = len({step["tool"] for step in experience.steps})
    if tools >= 3:
        value = 0.15 if tools >= 5 else 0.1
        because = f"{tools} different tools: 0.1 from 3, 0.15 from 5 on"
        terms.append(Term(name="tools", value=value, because=because))
    settled = len(experience.settled)
    good = settled - len(experience.failures)
    if settled >= 5 and 10 * good > 9 * settled:
        because = f"{good} of {settled} steps succeeded, over 0.9 of 5 or more"
        terms.append(Term(name="step_success", value=0.2, because=because))
    if experience.recoveries:
        first = experience.recoveries[0].failed
        because = f"{quoted(first['tool'])} failed at step {first['step_number']} and was recovered from"
        terms.append(Term(name="recovery", value=0.15, because=because))
    if experience.seconds < 30 and 1 <= len(experience.steps) <= 9:
        because = f"{count(len(experience.steps), 'step')} in {experience.seconds:g} s, under 30 s and 10 steps"
        terms.append(Term(name="speed", value=0.1, because=because))
    return terms
