"""What an ended episode is worth, and what is said of it: reward, reflection, salience, summary, quality."""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memoturn_core.episodes import salience
from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.quality import quality
from memoturn_core.episodes.reflection import reflect
from memoturn_core.episodes.reward import Typical, reward
from memoturn_core.episodes.salience import salient
from memoturn_core.episodes.summary import summarise
from memoturn_schemas.episodes import Outcome, Reward, Step

many = settings(max_examples=40, deadline=None)

GOOD: dict[str, Any] = {"type": "success", "output": ""}
TIMEOUT: dict[str, Any] = {"type": "timeout"}
SUCCESS: dict[str, Any] = {"type": "success", "verdict": "Done", "artifacts": []}


def bad(message: str) -> dict[str, Any]:
    return {"type": "error", "message": message}


def step(number: int, tool: str = "grep", result: Any = None, **more: Any) -> Step:
    plain = {"timestamp": 0, "action": "", "parameters": {}, "latency_ms": None, "tokens_used": None, "metadata": {}}
    return cast("Step", {"step_number": number, "tool": tool, "result": result, **plain, **more})


def episode(*steps: Step, outcome: Any = SUCCESS, seconds: float = 60, **more: Any) -> Experience:
    context = {"domain": "general", "language": None, "framework": None, "complexity": "simple", "tags": []}
    given = {"task_type": "debugging", "description": "Find the fault", "context": context, "metadata": {}} | more
    return Experience(
        steps=steps, outcome=cast("Outcome", outcome), started_at=0, ended_at=round(1_000 * seconds), **given
    )


texts = st.text(max_size=30) | st.sampled_from(
    ["", "chose a over b", "no such file /a/b/c", "word " * 500, "x" * 9_000, "日本語" * 80, "a\u0000\nb"]
)
results = st.none() | st.just(GOOD) | st.just(TIMEOUT) | texts.map(bad)
names = st.sampled_from(["grep", "sed", "pytest", "git", "curl", "make"]) | st.text(min_size=1, max_size=20).filter(
    str.strip
)
metadata = st.dictionaries(
    st.sampled_from(["decision", "test_coverage", "other"]),
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.lists(st.integers()),
)
outcomes = st.one_of(
    st.builds(lambda said, made: {"type": "success", "verdict": said, "artifacts": made}, texts, st.lists(texts)),
    st.builds(
        lambda said, done, missed: {"type": "partial_success", "verdict": said, "completed": done, "failed": missed},
        *(texts, st.lists(texts), st.lists(texts)),
    ),
    st.builds(lambda said, more: {"type": "failure", "reason": said, "error_details": more}, texts, st.none() | texts),
    st.builds(
        lambda said, at, signs: {
            **{"type": "abstained", "reason": said},
            **{"stopped_at_step": at, "infeasibility_signals": signs},
        },
        *(texts, st.integers(0, 20) | st.just(10**400), st.lists(texts)),
    ),
)


@st.composite
def episodes(draw: st.DrawFn, **fixed: Any) -> Experience:
    numbers = sorted(draw(st.sets(st.integers(1, 60), max_size=25)))
    steps = [
        step(
            number,
            draw(names),
            draw(results),
            action=draw(texts),
            latency_ms=draw(st.none() | st.integers(0, 10_000) | st.just(10**400)),
            metadata=draw(metadata),
        )
        for number in numbers
    ]
    context = {
        "domain": draw(names),
        "language": draw(st.none() | names),
        "framework": draw(st.none() | names),
        "complexity": draw(st.sampled_from(["simple", "moderate", "complex"])),
        "tags": draw(st.lists(names, max_size=3)),
    }
    fixed = {"outcome": draw(outcomes), "seconds": draw(st.integers(0, 3_000)), "metadata": draw(metadata)} | fixed
    return episode(*steps, context=context, description=draw(texts), **fixed)


typicals = st.none() | st.builds(Typical, st.floats(0, 10_000), st.floats(0, 1_000))


def value(of: Reward, component: str, term: str) -> float:
    return next((found["value"] for found in of["terms"][component] if found["name"] == term), 0.0)


# --- reward --------------------------------------------------------------------------------------

BOUNDS = {
    "base": (0, 1), "efficiency": (0.5, 1.5), "complexity": (1, 1.2), "quality": (0.5, 1.5), "learning": (0, 0.5)
}  # fmt: skip


@many
@given(episodes(), st.integers(0, 50), typicals)
def test_a_person_can_check_the_sum(experience, patterns, typical):
    found = reward(experience, patterns, typical)
    assert found["terms"].keys() == BOUNDS.keys()
    for component, (least, most) in BOUNDS.items():
        terms = found["terms"][component]
        assert found[component] == min(max(math.fsum(term["value"] for term in terms), least), most)
        assert all(term["because"].strip() and math.isfinite(term["value"]) for term in terms)
        assert len({term["name"] for term in terms}) == len(terms)
    product = found["base"] * found["efficiency"] * found["complexity"] * found["quality"]
    assert found["total"] == product + found["learning"]
    assert json.loads(json.dumps(found)) == found


@many
@given(episodes(), st.integers(0, 50), typicals)
def test_the_reward_is_what_its_definition_says(experience, patterns, typical):
    """Against the definition, written down once more without terms."""
    outcome, steps = experience.outcome, experience.steps
    base = {"success": 1.0, "failure": 0.0}.get(outcome["type"])
    if outcome["type"] == "partial_success":
        done, missed = len(outcome["completed"]), len(outcome["failed"])
        base = done / (done + missed) if done + missed else 0.5
    if outcome["type"] == "abstained":
        at = min(max(outcome["stopped_at_step"], 3), 10)
        base = max(0.0, 0.3 + 0.5 - (at - 3) * 0.8 / 7)
    time_scale = 2 * typical.seconds if typical and typical.seconds else 120
    step_scale = 2 * typical.steps if typical and typical.steps else 20
    duration, length = 0.5 + math.exp(-experience.seconds / time_scale), 0.5 + math.exp(-len(steps) / step_scale)
    efficiency = min(max(duration / 2 + length / 2, 0.5), 1.5)

    good = sum(each["result"] == GOOD for each in steps)
    failed = sum(each["result"] not in (None, GOOD) for each in steps)
    raised = 0.0
    if good + failed:
        rate = failed / (good + failed)
        raised += -0.2 if rate > 0.3 else -0.1 if rate > 0.1 else 0.1 if rate == 0 else 0
    if outcome["type"] == "success":
        raised += 0.05 if len(outcome["artifacts"]) >= 3 else 0
        covered = experience.metadata.get("test_coverage")
        if type(covered) in (int, float) and math.isfinite(covered):
            raised += 0.15 if covered > 80 else 0.1 if covered > 60 else 0
    tools = len({each["tool"] for each in steps})
    learning = min(0.1 * patterns, 0.3) + (0.15 if tools >= 5 else 0.1 if tools >= 3 else 0)
    learning += 0.2 if good + failed >= 5 and good / (good + failed) > 0.9 else 0
    learning += 0.15 if experience.recoveries else 0
    learning += 0.1 if experience.seconds < 30 and 1 <= len(steps) <= 9 else 0

    found = reward(experience, patterns, typical)
    assert found["base"] == pytest.approx(base)
    assert found["efficiency"] == pytest.approx(efficiency)
    assert found["complexity"] == {"simple": 1.0, "moderate": 1.1, "complex": 1.2}[experience.context["complexity"]]
    assert found["quality"] == pytest.approx(min(max(1 + raised, 0.5), 1.5))
    assert found["learning"] == pytest.approx(min(learning, 0.5))


def test_a_zero_step_episode_of_no_duration_has_no_error_rate_and_full_efficiency():
    found = reward(episode(seconds=0), 0, None)
    assert {name: found[name] for name in BOUNDS} == {
        **{"base": 1.0, "efficiency": 1.5, "complexity": 1.0, "quality": 1.0, "learning": 0.0}
    }
    assert reward(episode(seconds=0, outcome={"type": "failure", "reason": ""}), 0, None)["total"] == 0


def test_an_episode_that_ends_before_it_began_took_no_time():
    assert reward(episode(seconds=-5), 0, None)["efficiency"] == 1.5


@pytest.mark.parametrize(("stopped_at", "base"), [(0, 0.8), (3, 0.8), (10, 0.0), (11, 0.0), (1_000, 0.0), (6.5, 0.4)])
def test_who_gives_up_early_has_more(stopped_at, base):
    outcome = {"type": "abstained", "reason": "", "stopped_at_step": stopped_at, "infeasibility_signals": []}
    assert reward(episode(outcome=outcome), 0, None)["base"] == pytest.approx(base)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        *((80.1, 0.15), (80, 0.1), (60.5, 0.1), (60, 0), (10**400, 0.15), (-(10**400), 0)),
        *((math.inf, 0), (math.nan, 0), (True, 0), ("95", 0), ([95], 0), ({"lines": 95}, 0), (None, 0)),
    ],
)
def test_test_coverage_counts_where_it_is_a_finite_number(metadata, expected):
    found = reward(episode(metadata={"test_coverage": metadata}), 0, None)
    assert value(found, "quality", "coverage") == expected


@pytest.mark.parametrize(
    "name", ["tests/a.py", "test_login.py", "login_test.go", "LoginTest.java", "COVERAGE", "a-test"]
)
def test_an_artifact_named_for_tests_raises_the_quality(name):
    assert value(reward(episode(outcome=SUCCESS | {"artifacts": [name]}), 0, None), "quality", "tests") == 0.1


@pytest.mark.parametrize("name", ["latest.log", "contest.py", "attestation", "protester", "main.py", ""])
def test_other_artifacts_do_not(name):
    assert value(reward(episode(outcome=SUCCESS | {"artifacts": [name]}), 0, None), "quality", "tests") == 0


def test_artifacts_and_coverage_count_on_success_alone():
    outcome = {"type": "partial_success", "verdict": "", "completed": ["tests", "b", "c"], "failed": []}
    assert reward(episode(outcome=outcome, metadata={"test_coverage": 99}), 0, None)["quality"] == 1.0


@pytest.mark.parametrize(("failed", "of", "expected"), [(0, 1, 0.1), (1, 10, 0), (2, 10, -0.1), (3, 10, -0.1)])
def test_the_error_rate_is_of_steps_whose_result_is_known(failed, of, expected):
    steps = [step(n, result=bad("no") if n <= failed else GOOD) for n in range(1, of + 1)]
    pending = [step(of + n) for n in range(1, 30)]
    assert value(reward(episode(*steps, *pending), 0, None), "quality", "errors") == expected


@many
@given(episodes(), typicals, st.integers(0, 3_000), st.integers(0, 10))
def test_more_time_and_more_steps_never_raise_the_efficiency_and_more_patterns_never_lower_learning(
    experience, typical, longer, more
):
    plain = reward(experience, more, typical)
    last = experience.steps[-1]["step_number"] if experience.steps else 0
    slower = episode(*experience.steps, seconds=experience.seconds + longer)
    wider = episode(*experience.steps, *(step(last + n) for n in range(1, more + 1)), seconds=experience.seconds)
    for other in (slower, wider):
        assert reward(other, 0, typical)["efficiency"] <= plain["efficiency"]
    assert reward(experience, more + 1, typical)["learning"] >= plain["learning"]


def test_the_scale_says_where_it_is_from():
    def because(typical: Typical | None) -> list[str]:
        return [term["because"] for term in reward(episode(step(1)), 0, typical)["terms"]["efficiency"]]

    assert [text.rpartition("; ")[2] for text in because(None)] == ["120 s is the default", "20 is the default"]
    assert "300 s is twice the domain's median" in because(Typical(150, 4))[0]
    assert "8 is twice the domain's median" in because(Typical(150, 4))[1]
    assert "for the domain's median is 0" in because(Typical(0, 0))[0]
    assert value(reward(episode(seconds=300), 0, Typical(150, 4)), "efficiency", "duration") == pytest.approx(
        0.25 + math.exp(-1) / 2
    )


# --- reflection, salience, summary, quality ------------------------------------------------------


def told_of(experience: Experience) -> list[str]:
    found = reflect(experience)
    return [*found["successes"], *found["improvements"], *found["insights"]]


@many
@given(episodes())
def test_what_is_said_is_bounded_on_one_line_and_never_twice(experience):
    found = reflect(experience)
    for lines in (found["successes"], found["improvements"], found["insights"]):
        assert len(lines) <= 5
        assert len(set(lines)) == len(lines)
        assert all(0 < len(line) <= 1_000 and line.splitlines() == [line] for line in lines)
    stands_out = salient(experience)
    assert len(stands_out["decisions"]) <= 10
    assert len(stands_out["recoveries"]) <= 10
    assert len(stands_out["tool_runs"]) <= 5
    assert all(1 <= len(run) <= salience.RUN_TOOLS for run in stands_out["tool_runs"])
    summary = summarise(experience)
    assert len(summary["text"].split()) <= 200
    assert len(summary["text"]) <= 4_000
    assert 0 <= quality(experience) <= 1


@many
@given(episodes())
def test_key_steps_are_the_first_failures_decisions_and_the_last(experience):
    key = summarise(experience)["key_steps"]
    steps = experience.steps
    numbers = [each["step_number"] for each in steps]
    assert key == sorted(set(key))
    assert len(key) <= 10
    worth = {each["step_number"] for each in (*experience.failures, *experience.decisions)}
    assert set(key) <= worth | {*numbers[:1], *numbers[-1:]}
    assert {*numbers[:1], *numbers[-1:]} <= set(key)
    if len(worth | {*numbers[:1], *numbers[-1:]}) <= 10:
        assert worth <= set(key)


@many
@given(episodes())
def test_only_steps_tools_and_errors_that_are_there_are_named(experience):
    tools = {each["tool"] for each in experience.steps}
    assume("`" not in repr(experience))
    lines = [*told_of(experience), *salient(experience)["recoveries"]]
    assert {part for line in lines for part in line.split("`")[1::2]} <= {" ".join(tool.split()) for tool in tools}
    numbers = {str(each["step_number"]) for each in experience.steps}
    assert set(re.findall(r"[sS]teps? (\d+)", " ".join(lines))) <= numbers
    if not experience.failures:
        assert not any("failed" in line or "ecovered" in line for line in lines if "`" in line)


@pytest.mark.parametrize("kind", ["success", "partial_success", "failure", "abstained"])
def test_nothing_is_invented_for_an_episode_without_steps(kind):
    outcome = {
        "success": SUCCESS,
        "partial_success": {"type": kind, "verdict": "", "completed": [], "failed": []},
        "failure": {"type": kind, "reason": "", "error_details": None},
        "abstained": {"type": kind, "reason": "", "stopped_at_step": 0, "infeasibility_signals": []},
    }[kind]
    empty = episode(outcome=outcome)
    assert told_of(empty) == []
    assert salient(empty) == {"decisions": [], "tool_runs": [], "recoveries": []}
    assert summarise(empty)["key_steps"] == []
    assert "Find the fault." in summarise(empty)["text"]
    assert "step" not in summarise(empty)["text"] or kind == "abstained"


STORY = (
    step(1, "grep", GOOD, action="Search for the failing test", latency_ms=40),
    step(2, "pytest", bad("ModuleNotFoundError: no module named yaml"), action="Run it", latency_ms=900),
    step(3, "pip", GOOD, action="Install it", latency_ms=4_000),
    step(4, "pytest", GOOD, action="Run it again", latency_ms=900),
    step(6, "edit", GOOD, action="Decided to keep the old parser instead of a new one", latency_ms=60),
    step(7, "deploy", TIMEOUT, action="Ship it", latency_ms=None),
    step(9, "deploy", None, action="Ask for a review"),
)


def test_reflection_names_tools_steps_errors_recoveries_and_the_bottleneck():
    found = reflect(
        episode(*STORY, outcome={"type": "failure", "reason": "The deployment hangs", "error_details": None})
    )
    assert found["successes"] == [
        "Recovered from the failure of `pytest` at step 2 (“ModuleNotFoundError: no module named yaml”)"
        " with `pip`, `pytest`.",
        "Steps 3 to 6 went without a failure: `pip`, `pytest`, `edit`.",
    ]
    assert found["improvements"] == [
        "`deploy` failed with “timeout” (step 7) and was not recovered from.",
        "Step 3 (`pip`) was the bottleneck: 4.0 s of the 5.9 s that 5 steps took.",
        "It ended in failure: The deployment hangs",
        "How step 9 went is not known: 1 result missing.",
        "2 of 6 steps with a known result failed.",
    ]
    assert found["insights"] == [
        "`pytest` failed with “ModuleNotFoundError: no module named yaml”; what then worked was `pip`, `pytest`.",
        "A choice that worked, at step 6: Decided to keep the old parser instead of a new one",
        "`pytest` failed in 1 of 2 steps: check what it needs before it is used.",
    ]


def test_the_same_attempt_again_and_again_is_told_once():
    tries = [step(n, "curl", bad(f"connection to 10.0.0.{n} refused")) for n in range(1, 9)]
    found = reflect(episode(*tries, outcome={"type": "failure", "reason": "No network", "error_details": None}))
    assert found["improvements"][0] == (
        "`curl` was tried 8 times in a row with the same error (“connection to <n> refused”,"
        " steps 1, 2, 3, 4, 5, 6 and 2 more): change something after the first."
    )
    assert found["successes"] == []


def test_failures_in_a_row_are_recovered_from_together():
    tries = [step(n, "curl", bad("refused")) for n in range(1, 4)]
    found = reflect(episode(*tries, step(4, "curl", GOOD)))
    assert not any("not recovered" in line for line in found["improvements"])


def test_the_summary_tells_the_story():
    context = {"domain": "ci", "language": "python", "framework": None, "complexity": "simple", "tags": []}
    told = summarise(episode(*STORY, outcome=SUCCESS, context=context))
    assert told["key_steps"] == [1, 2, 6, 7, 9]
    assert told["text"] == (
        "Debugging in ci (python): Find the fault. Succeeded: Done. 7 steps, 2 failed, 1 recovered, 1 without a result,"
        " in 60 s: 1 `grep` Search for the failing test; 2 `pytest` failed: ModuleNotFoundError: no module named yaml;"
        " 6 `edit` Decided to keep the old parser instead of…; 7 `deploy` failed: timeout;"
        " 9 `deploy` Ask for a review (no result)."
    )


def test_salience_has_decisions_runs_and_recoveries():
    assert salient(episode(*STORY)) == {
        "decisions": ["Decided to keep the old parser instead of a new one"],
        "tool_runs": [["pip", "pytest", "edit"]],
        "recoveries": [
            "`pytest` failed with “ModuleNotFoundError: no module named yaml”; what then worked was `pip`, `pytest`"
        ],
    }


@many
@given(episodes())
def test_more_that_is_known_never_lowers_the_quality(experience):
    """A result and a latency for each step, and a longer description."""
    known = [
        each | {"latency_ms": each["latency_ms"] or 1, "result": each["result"] or GOOD} for each in experience.steps
    ]
    same = {"outcome": experience.outcome, "context": experience.context}
    before = episode(*experience.steps, description=experience.description, **same)
    after = episode(*cast("list[Step]", known), description=experience.description + " and more", **same)
    # A result that becomes known may end a recovery's window or begin one; the lessons are held apart.
    lessons = 0.125 * (bool(before.recoveries) - bool(after.recoveries))
    assert quality(after) >= quality(before) - max(0.0, lessons) - 1e-12


def test_quality_is_low_where_nothing_is_told_and_high_where_all_is():
    nothing = episode(description="", outcome=SUCCESS | {"verdict": ""})
    assert quality(nothing) == 0
    context = {"domain": "ci", "language": "python", "framework": None, "complexity": "simple", "tags": ["ci"]}
    whole = [each | {"result": each["result"] or GOOD, "latency_ms": 1} for each in STORY]
    told = episode(
        *cast("list[Step]", whole),
        description="Find out why the nightly build fails on the second machine, and see to it that it does not",
        outcome=SUCCESS | {"artifacts": ["fix.patch"]},
        context=context,
    )
    assert quality(told) == pytest.approx(1.0)
