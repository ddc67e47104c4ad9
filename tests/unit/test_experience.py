"""What the steps of an episode tell, by hand-made ones: failures, runs, decisions, recoveries, classes of errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturn_core.episodes.experience import Experience, error_class
from memoturn_schemas.episodes import Step, StepResult

OK: StepResult = {"type": "success", "output": "fine"}
FAILED: StepResult = {"type": "error", "message": "no"}
TIMEOUT: StepResult = {"type": "timeout"}


def step(number: int, tool: str, result: StepResult | None = OK, action: str = "do it") -> Step:
    return Step(
        step_number=number,
        timestamp=number,
        tool=tool,
        action=action,
        parameters={},
        result=result,
        latency_ms=None,
        tokens_used=None,
        metadata={},
    )


def experience(*steps: Step) -> Experience:
    return Experience(
        task_type="debugging",
        description="find it",
        context={"domain": "general", "language": None, "framework": None, "complexity": "moderate", "tags": []},
        metadata={},
        steps=steps,
        outcome={"type": "success", "verdict": "done", "artifacts": []},
        started_at=0,
        ended_at=1_500,
    )


def test_a_pending_step_is_neither_a_success_nor_a_failure() -> None:
    told = experience(step(1, "a", None), step(2, "a"), step(3, "b", TIMEOUT))
    assert [each["step_number"] for each in told.settled] == [2, 3]
    assert [each["step_number"] for each in told.failures] == [3]
    assert told.runs == []


def test_a_run_is_broken_by_whatever_did_not_succeed() -> None:
    told = experience(*(step(n, "t", r) for n, r in enumerate([OK, OK, FAILED, OK, None, OK, OK, OK], start=1)))
    assert [[each["step_number"] for each in run] for run in told.runs] == [[1, 2], [6, 7, 8]]


def test_a_recovery_is_by_the_same_tool_before_any_other() -> None:
    told = experience(step(1, "build", FAILED), step(2, "edit"), step(3, "build"))
    (recovery,) = told.recoveries
    assert recovery.failed["step_number"] == 1
    assert [each["step_number"] for each in recovery.remedy] == [2, 3]
    told = experience(step(1, "curl", FAILED), step(2, "wget"), step(3, "less"))
    assert [[each["tool"] for each in recovery.remedy] for recovery in told.recoveries] == [["wget"]]


def test_of_failures_in_a_row_the_last_one_is_recovered_from() -> None:
    told = experience(step(1, "build", FAILED), step(2, "build", TIMEOUT), step(3, "build"))
    assert [recovery.failed["step_number"] for recovery in told.recoveries] == [2]


def test_what_succeeds_much_later_is_no_recovery() -> None:
    late = [step(number, "wait", None) for number in range(2, 7)]
    assert experience(step(1, "build", FAILED), *late, step(7, "build")).recoveries == []
    assert experience(step(1, "build", FAILED)).recoveries == []


@pytest.mark.parametrize(
    ("action", "decides"),
    [
        ("Decided to use a queue", True),
        ("choose sqlite", True),
        ("run the decider", False),
        ("grep instead of ls", True),
    ],
)
def test_a_decision_is_told_by_its_action(action: str, decides: bool) -> None:
    assert bool(experience(step(1, "think", OK, action)).decisions) is decides


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cannot open /home/ann/app.py: line 12", "cannot open /srv/b/c/d.py: line 7"),
        ("job 3f2504e0-4f89-11d3-9a0c-0305e82c3301 lost", "job 9b2504e0-4f89-11d3-9a0c-0305e82c3309 lost"),
        ("at 0x7f1e\n  in  main", "at 0xdead in main"),
        ("exit status 1", "exit status 127"),
    ],
)
def test_errors_that_differ_in_details_are_of_one_class(one: str, other: str) -> None:
    classes = {error_class(step(1, "t", {"type": "error", "message": text})) for text in (one, other)}
    assert len(classes) == 1


def test_errors_of_different_kinds_are_of_different_classes() -> None:
    texts = ("permission denied: /etc/x", "no such file: /etc/x", "syntax error near 'x'")
    assert len({error_class(step(1, "t", {"type": "error", "message": text})) for text in texts}) == 3
    assert error_class(step(1, "t", TIMEOUT)) == "timeout"


@given(st.text())
def test_the_class_of_an_error_is_its_own_class(text: str) -> None:
    once = error_class(step(1, "t", {"type": "error", "message": text}))
    assert error_class(step(1, "t", {"type": "error", "message": once})) == once
