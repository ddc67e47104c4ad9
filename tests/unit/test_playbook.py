"""The course that several episodes have in common, against a plain model and by hand-made courses."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from memoturn_core.episodes.patterns.composition import SUPPORT, Course, Taken, alignment, compose, likeness

few = st.lists(st.sampled_from("abcd"), max_size=12)


def course(episode: int, tools: str, weight: float = 1.0) -> Course:
    return Course(episode, weight, [Taken(tool, f"use {tool}", 1_000) for tool in tools])


def tools(courses: Sequence[Course]) -> str:
    return "".join(each.step.tool for each in compose(courses)[0])


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + longest_common(one[:-1], other[:-1])
    return max(longest_common(one[:-1], other), longest_common(one, other[:-1]))


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_an_alignment_is_a_longest_common_subsequence(one, other):
    pairs = alignment(one, other)
    assert all(one[place] == other[there] for place, there in pairs)
    assert pairs == sorted(pairs)
    assert len({place for place, _ in pairs}) == len({there for _, there in pairs}) == len(pairs)
    assert len(pairs) == longest_common(one, other)
    assert likeness(one, other) == (2 * len(pairs) / (len(one) + len(other)) if one and other else 0.0)


@given(st.lists(st.tuples(few.filter(bool), st.floats(0.01, 1.0)), max_size=5))
def test_what_is_common_was_really_taken_in_this_order_by_half_of_the_weight(given_courses):
    courses = [course(n, "".join(taken), weight) for n, (taken, weight) in enumerate(given_courses)]
    common, agreement = compose(courses)
    assert 0 <= agreement <= 1 + 1e-9
    whole = sum(each.weight for each in courses)
    for each in common:
        assert SUPPORT <= each.support <= 1 + 1e-9
        assert abs(each.support - sum(courses[n].weight for n in each.taken) / whole) < 1e-9
        assert {taken.tool for taken in each.taken.values()} == {each.step.tool}
    for n, one in enumerate(courses):
        mine = [each.step.tool for each in common if n in each.taken]
        assert len(alignment(mine, [step.tool for step in one.steps])) == len(mine)
    assert compose(courses) == (common, agreement)


def test_nothing_has_no_course():
    assert compose([]) == ([], 0.0)


def test_one_episode_is_followed_as_it_went():
    assert tools([course(1, "abc")]) == "abc"


def test_a_detour_of_one_is_not_in_the_plan():
    assert tools([course(1, "abxc"), course(2, "abc"), course(3, "abc")]) == "abc"


def test_the_more_similar_episode_is_followed_against_a_less_similar_one():
    assert tools([course(1, "ab", 0.9), course(2, "cd", 0.2)]) == "ab"


def test_the_first_of_equals_is_followed():
    assert tools([course(1, "ab"), course(2, "cd")]) == "ab"


def test_the_same_step_again_and_again_is_one_step_with_all_its_time():
    steps = [Taken("edit", "edit a", 10), Taken("edit", "edit a", 20), Taken("edit", "edit a"), Taken("test", "run")]
    common, _ = compose([Course(1, 1.0, steps)])
    assert [(each.step.tool, each.step.latency_ms) for each in common] == [("edit", 30), ("test", None)]


def test_steps_of_a_tool_that_does_everything_are_told_apart_by_what_was_done():
    shell = [Course(n, 1.0, [Taken("shell", action) for action in actions]) for n, actions in enumerate([
        ["grep the handler", "edit the handler", "run the tests"],
        ["grep the route", "run the tests"],
        ["grep the view", "run tests again"],
    ])]  # fmt: skip
    assert [each.step.action.split()[0] for each in compose(shell)[0]] == ["grep", "run"]
