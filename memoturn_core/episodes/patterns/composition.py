"""One course of steps out of several episodes that took about the same: what most of them did, in order.

Pure and deterministic. The course that is most like the others is followed, and of it the steps that half of the
weight took; what was done otherwise is left out. Called by `playbook`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from memoturn_core.memory.text import terms

SUPPORT = 0.5
"""The share of the weight that has to have taken a step."""

_MOST = 0.5
"""From which share of all steps on a tool says little by itself, and what was done with it is compared too."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A step as it was taken, or some that were the same one after the other."""

    tool: str
    action: str
    latency_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """What one episode did. `weight` is what it counts for, more than 0; `steps` are one at least."""

    episode: int
    weight: float
    steps: Sequence[Taken]


@dataclass(frozen=True, slots=True)
class Common:
    """A step of the common course, and in which episodes it was taken how."""

    step: Taken
    support: float
    taken: dict[int, Taken]


def compose(courses: Sequence[Course]) -> tuple[list[Common], float]:
    """The common course (none of none), and how far they agree: the mean likeness to the one that is followed, 0...1.

    Args:
        courses: of equally good ones the first is followed.
    """
    courses = [Course(each.episode, each.weight, _without_repetition(each.steps)) for each in courses]
    if not courses:
        return [], 0.0
    keys = _keys(courses)
    whole = sum(each.weight for each in courses)
    agreements = [
        sum(other.weight * likeness(mine, theirs) for other, theirs in zip(courses, keys, strict=True)) / whole
        for mine in keys
    ]
    followed = agreements.index(max(agreements))
    common = [Common(step, 0.0, {}) for step in courses[followed].steps]
    for course, theirs in zip(courses, keys, strict=True):
        for place, there in alignment(keys[followed], theirs):
            common[place].taken[course.episode] = course.steps[there]
    weights = {each.episode: each.weight for each in courses}
    supported = [
        Common(each.step, sum(weights[episode] for episode in each.taken) / whole, each.taken) for each in common
    ]
    return [each for each in supported if each.support >= SUPPORT], agreements[followed]


def likeness(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """The share of both that they have in common in the same order, 0...1."""
    return 2 * _marked(one, other)[-1].bit_count() / (len(one) + len(other)) if one and other else 0.0


def alignment(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[tuple[int, int]]:
    """A longest common subsequence, as pairs of places, ascending."""
    rows = _marked(one, other)
    place, row = len(one), len(other)
    pairs = []
    while place and row:
        bit = 1 << (place - 1)
        if not rows[row] & bit:
            place -= 1
        elif rows[row - 1] & bit:
            row -= 1
        else:
            place, row = place - 1, row - 1
            pairs.append((place, row))
    return pairs[::-1]


def _marked(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[int]:
    """For each beginning of `other`, the places of `one` at which a longest common subsequence gets longer, as bits.

    All places at once, in the bits of an integer (Hyyrö 2004): 1 000 steps against 1 000 take under a millisecond.
    """
    where: dict[Hashable, int] = {}
    for place, key in enumerate(one):
        where[key] = where.get(key, 0) | 1 << place
    all_places = (1 << len(one)) - 1
    unmarked = all_places
    rows = [0]
    for key in other:
        matching = unmarked & where.get(key, 0)
        unmarked = ((unmarked + matching) | (unmarked - matching)) & all_places
        rows.append(all_places ^ unmarked)
    return rows


def _without_repetition(steps: Sequence[Taken]) -> list[Taken]:
    """What was done again and again in a row, once, with all the time that it took."""
    once: list[Taken] = []
    for step in steps:
        if once and (once[-1].tool, once[-1].action) == (step.tool, step.action):
            known = [each for each in (once[-1].latency_ms, step.latency_ms) if each is not None]
            once[-1] = Taken(step.tool, step.action, sum(known) if known else None)
        else:
            once.append(step)
    return once


def _keys(courses: Sequence[Course]) -> list[list[Hashable]]:
    """What makes two steps the same: the tool, and for one that does most of the work the first word of the action."""
    tools = Counter(step.tool for course in courses for step in course.steps)
    vague = {tool for tool, count in tools.items() if count > _MOST * tools.total()}
    return [
        [(step.tool, *terms(step.action)[:1]) if step.tool in vague else step.tool for step in course.steps]
        for course in courses
    ]
