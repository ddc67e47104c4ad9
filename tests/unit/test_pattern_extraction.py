"""What is found in an episode, by hand-made episodes, and that ids are of what is seen and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.patterns.extraction import Candidate, candidates, longest, normal_form
from memoturn_schemas.episodes import Outcome, Step, StepResult

OK: StepResult = {"type": "success", "output": "fine"}
TIMEOUT: StepResult = {"type": "timeout"}
SUCCESS: Outcome = {"type": "success", "verdict": "done", "artifacts": []}
FAILURE: Outcome = {"type": "failure", "reason": "no"}


def error(message: str) -> StepResult:
    return {"type": "error", "message": message}


def step(tool: str, result: StepResult | None = OK, action: str = "do it", **metadata: Any) -> Step:
    return Step(
        step_number=0,
        timestamp=0,
        tool=tool,
        action=action,
        parameters={},
        result=result,
        latency_ms=None,
        tokens_used=None,
        metadata=metadata,
    )


def experience(*steps: Step, outcome: Outcome = SUCCESS, domain: str = "general", **context: Any) -> Experience:
    return Experience(
        task_type="debugging",
        description="find it",
        context={
            "domain": domain, "language": None, "framework": None, "complexity": "moderate", "tags": [], **context
        },  # type: ignore[typeddict-item]
        metadata={},
        steps=[Step(**{**each, "step_number": number}) for number, each in enumerate(steps, start=1)],  # type: ignore[typeddict-item]
        outcome=outcome,
        started_at=0,
        ended_at=1_500,
    )  # fmt: skip


def bodies(told: Experience, kind: str) -> list[dict[str, Any]]:
    return [each.body for each in candidates(told).values() if each.kind == kind]


def sequences(told: Experience) -> list[str]:
    return ["".join(body["tools"]) for body in bodies(told, "tool_sequence")]


# --- sequences -----------------------------------------------------------------------------------


def test_sequences_are_all_runs_of_two_to_five_tools_once_each() -> None:
    told = experience(*map(step, "abcabc"))
    assert sorted(sequences(told)) == sorted(
        {text[i : i + n] for text in ["abcabc"] for n in range(2, 6) for i in range(len(text) - n + 1)}
    )
    assert len(sequences(experience(*map(step, "abcdefghijklmnopqrst")))) == 70


def test_a_pending_step_is_no_part_of_a_sequence() -> None:
    assert sequences(experience(step("a"), step("b", None), step("c", TIMEOUT))) == ["ac"]


@pytest.mark.parametrize("count", [0, 1])
def test_an_episode_of_a_step_or_none_still_has_its_context(count: int) -> None:
    told = experience(*map(step, "a" * count), language="python")
    assert sequences(told) == []
    assert bodies(told, "context_pattern") == [
        {"facet": "task_type", "value": "debugging"},
        {"facet": "language", "value": "python"},
    ]


def test_the_longest_sequences_stand_for_what_they_begin_and_end_with() -> None:
    assert longest(["abc", "ab", "bc", "cd", "c"]) == {tuple("abc"), tuple("cd")}
    assert longest([]) == set()


# --- errors --------------------------------------------------------------------------------------


def test_a_recovery_is_known_by_tool_error_class_and_remedy() -> None:
    told = experience(step("pytest", error("No module named x1 in /a/b/1")), step("pip"), step("pytest"))
    again = experience(step("pytest", error("No module named x2 in /c/d/77")), step("pip"), step("pytest"))
    [body] = bodies(told, "error_recovery")
    assert (body["failed_tool"], body["tools"]) == ("pytest", ["pip", "pytest"])
    assert [*_ids(told, "error_recovery")] == [*_ids(again, "error_recovery")]
    other = experience(step("pytest", error("No module named x1 in /a/b/1")), step("conda"), step("pytest"))
    assert _ids(told, "error_recovery") != _ids(other, "error_recovery")


def test_a_failed_episode_tells_against_the_errors_that_were_not_remedied() -> None:
    steps = (step("a", error("one")), step("a"), step("b", error("two")), step("b", TIMEOUT))
    failed = bodies(experience(*steps, outcome=FAILURE), "anti_pattern")
    assert [(body["failed_tool"], body["error"]) for body in failed if "error" in body] == [
        ("b", "two"),
        ("b", "timeout"),
    ]


def test_an_episode_that_succeeded_tells_for_every_error_it_had() -> None:
    steps = (step("a", error("one")), step("a"), step("b", error("two")))
    found = bodies(experience(*steps), "anti_pattern")
    assert [body["error"] for body in found if "error" in body] == ["one", "two"]


def test_sequences_that_end_in_a_failure_are_anti_patterns() -> None:
    told = experience(step("a"), step("b"), step("c", TIMEOUT), step("d"))
    assert [body["tools"] for body in bodies(told, "anti_pattern") if "error" not in body] == [
        ["b", "c"],
        ["a", "b", "c"],
    ]


def test_an_error_without_a_message_has_a_class() -> None:
    [body] = [each for each in bodies(experience(step("a", error(""))), "anti_pattern") if "error" in each]
    assert body["error"] == ""


# --- decisions and context -----------------------------------------------------------------------


def test_a_decision_is_known_by_tool_and_by_its_action_without_particulars() -> None:
    one = experience(step("edit", action="Decided to use src/a.py   line 12"))
    two = experience(step("edit", action="decided to use lib/b.py line 7"))
    assert bodies(one, "decision_point") == [{"tools": ["edit"], "action": "decided to use … line …"}]
    assert _ids(one, "decision_point") == _ids(two, "decision_point")
    assert _ids(one, "decision_point") != _ids(
        experience(step("write", action="decided to use lib/b.py line 7")), "decision_point"
    )


@given(st.text(max_size=3_000))
def test_normal_forms_are_bounded_and_stay_as_they_are(action: str) -> None:
    form = normal_form(action)
    assert len(form) <= 200
    assert normal_form(form) == form


def test_contexts_are_what_was_said_of_the_task() -> None:
    told = experience(language="go", framework="gin", tags=["slow", "ci"])
    assert [(body["facet"], body["value"]) for body in bodies(told, "context_pattern")] == [
        ("task_type", "debugging"),
        ("language", "go"),
        ("framework", "gin"),
        ("tag", "slow"),
        ("tag", "ci"),
    ]


# --- ids -----------------------------------------------------------------------------------------

_awkward = st.text(st.sampled_from("ab:1 \0é"), min_size=1, max_size=4)
_results = st.sampled_from([OK, TIMEOUT, error("x"), error("y 1"), None])
_experiences = st.builds(
    lambda tools, domain, language: experience(*(step(*each) for each in tools), domain=domain, language=language),
    st.lists(st.tuples(_awkward, _results), max_size=8),
    _awkward,
    st.none() | _awkward,
)


@given(_experiences, _experiences)
def test_two_candidates_have_one_id_exactly_if_they_say_the_same(one: Experience, two: Experience) -> None:
    said = {_said(each, told) for told in (one, two) for each in candidates(told).values()}
    ids = candidates(one).keys() | candidates(two).keys()
    assert len(ids) == len(said)
    for told in (one, two):
        assert all(len(id_) == 16 and id_ == each.id for id_, each in candidates(told).items())


def _said(each: Candidate, told: Experience) -> str:
    return repr((each.kind, told.context["domain"], sorted(each.body.items())))


def _ids(told: Experience, kind: str) -> list[bytes]:
    return [each.id for each in candidates(told).values() if each.kind == kind]


def test_ids_stay_what_they_are() -> None:
    """They are in files: another way to make them would make twins."""
    told = experience(step("grep"), step("edit", error("no such file /a/b")), step("edit", action="opted for it"))
    assert {each.kind: id_.hex() for id_, each in reversed(candidates(told).items())} == {
        "tool_sequence": "89387a18d458bee81d5fd228a376a882",
        "decision_point": "a75def9b10f92743170973220140c805",
        "error_recovery": "5ddef0dd961010c28d0013487569893f",
        "context_pattern": "30689a7abea27b84b0420cfb2d39d2d5",
        "anti_pattern": "9f2bd254b842517867fe434ae5e73953",
    }
