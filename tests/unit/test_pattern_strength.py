"""Strength: Wilson's bound as textbooks have it, and what fading, more evidence and feedback do to it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturn_core.episodes.patterns.strength import (
    HALF_LIFE_MS,
    Trial,
    lower_bound,
    of_episode,
    of_feedback,
    strength,
)

NOW = 1_700_000_000_000
DAY = 24 * 3_600_000

counts = st.integers(0, 5_000)
ages = st.integers(0, 3 * 365 * DAY)
trials = st.lists(st.builds(of_episode, ages.map(lambda age: NOW - age), st.booleans()), max_size=30)
feedback = st.builds(
    of_feedback, st.sampled_from(["helped", "no_effect", "hindered", "pending"]), ages.map(lambda age: NOW - age)
)


def textbook(won: int, n: int) -> float:
    z, p = 1.96, won / n
    centre = p + z**2 / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (centre - spread) / (1 + z**2 / n)


@given(counts, counts)
def test_fresh_evidence_gives_the_textbook_bound(won: int, lost: int) -> None:
    if won + lost:
        assert lower_bound(won, won + lost) == pytest.approx(textbook(won, won + lost), abs=1e-12)


@pytest.mark.parametrize(
    ("won", "n", "bound"), [(1, 1, 0.2065), (2, 2, 0.3424), (9, 10, 0.5958), (50, 100, 0.4038), (0, 7, 0.0)]
)
def test_bounds_that_tables_have(won: int, n: int, bound: float) -> None:
    assert strength([of_episode(NOW, i < won) for i in range(n)], NOW) == pytest.approx(bound, abs=5e-5)


def test_no_evidence_has_no_strength() -> None:
    assert strength([], NOW) == 0
    assert strength([of_feedback("pending", NOW)], NOW) == 0


@given(trials, st.lists(feedback, max_size=10))
def test_it_is_a_share_and_never_above_the_share_of_successes(some: list[Trial], said: list[Trial]) -> None:
    found = strength(some + said, NOW)
    assert 0 <= found <= 1
    fading = [(0.5 ** ((NOW - each.at) / HALF_LIFE_MS), each) for each in some + said]
    whole = sum(weight * each.weight for weight, each in fading)
    if whole > 1e-9:
        assert found <= sum(weight * each.won for weight, each in fading) / whole + 1e-12


@given(trials, ages)
def test_a_success_raises_it_and_a_failure_lowers_it(some: list[Trial], age: int) -> None:
    before = strength(some, NOW)
    assert strength([*some, of_episode(NOW - age, True)], NOW) >= before - 1e-12
    assert strength([*some, of_episode(NOW - age, False)], NOW) <= before + 1e-12


@given(trials, ages)
def test_feedback_is_ordered_and_only_help_raises(some: list[Trial], age: int) -> None:
    helped, pending, no_effect, hindered = (
        strength([*some, of_feedback(outcome, NOW - age)], NOW)
        for outcome in ("helped", "pending", "no_effect", "hindered")
    )
    assert pending == strength(some, NOW)
    assert helped >= pending - 1e-12
    assert pending >= no_effect - 1e-12
    assert no_effect >= hindered - 1e-12


@given(trials, st.lists(ages, min_size=2, max_size=5))
def test_without_new_evidence_it_only_fades(some: list[Trial], later: list[int]) -> None:
    found = [strength(some, NOW + each) for each in sorted(later)]
    assert all(before >= after - 1e-12 for before, after in pairwise(found))


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 6))
def test_after_n_half_lives_evidence_weighs_as_much_as_a_2_to_the_nth_of_it(won: list[bool], halves: int) -> None:
    old = [of_episode(NOW - halves * HALF_LIFE_MS, each) for each in won]
    assert strength(old, NOW) == pytest.approx(float(lower_bound(sum(won) / 2**halves, len(won) / 2**halves)))


def test_what_lies_in_the_future_counts_as_of_now() -> None:
    assert strength([of_episode(NOW + 90 * DAY, True)], NOW) == strength([of_episode(NOW, True)], NOW)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), min_size=1))
def test_arrays_give_what_their_numbers_give(pairs: list[tuple[float, float]]) -> None:
    won = np.array([pair[0] for pair in pairs])
    whole = won + np.array([pair[1] for pair in pairs])
    assert lower_bound(won, whole).tolist() == [float(lower_bound(*each)) for each in zip(won, whole, strict=True)]
