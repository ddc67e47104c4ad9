"""What was learnt is offered for a task, through REST: recommendations and playbooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contract.bad_input import refused
from contract.episodes import NOBODY, right
from contract.learning import (
    DEPLOY,
    LOGIN,
    Learning,
    family,
    known_tasks,  # noqa: F401 - a fixture
    learning_of_memory,  # noqa: F401 - a fixture
    lost,
    migrated_tables,  # noqa: F401 - a fixture
    won,
)
from contract.live_node import Live, RawMcp

TOOLSETS = "all"


# --- what is recommended -------------------------------------------------------------------------


def test_what_worked_on_similar_tasks_is_recommended_with_its_reasons(known):
    answer = right(known.ask(f"{LOGIN} of module 9", domain="web", task_type="debugging", language="Python"))
    assert answer["recommendation_id"].startswith("rec_")
    assert answer["explanation"] is None
    assert {tuple(each["tools"]) for each in answer["recommended"][:2]} == {
        ("grep", "read", "edit", "pytest"),
        ("bisect", "revert"),
    }, "what says what to do comes first, each way once"
    best = answer["recommended"][0]
    assert best["heuristic"]["action"] == f"use {', then '.join(best['tools'])}"
    assert set(best["parts"]) == {"strength", "similarity", "domain", "task_type", "language"}
    for each in [*answer["recommended"], *answer["avoid"]]:
        assert sum(each["parts"].values()) == pytest.approx(each["score"], abs=1e-6)
        assert 0 < each["score"] <= each["strength"] <= 1
        assert each["reasons"]
    scores = [each["score"] for each in answer["recommended"]]
    assert scores == sorted(scores, reverse=True)
    for shown in best["evidence"]:
        assert shown["succeeded"] is True
        assert 0 < shown["similarity"] <= 1
        assert known.episode(shown["episode_id"])["task_description"] == shown["task_description"]
    assert "4 of 4 episodes that had it succeeded" in best["reasons"]


def test_what_failed_is_warned_of(known):
    avoid = right(known.ask(DEPLOY, domain="ops"))["avoid"]
    assert {(each["kind"], each["goes_with"]) for each in avoid} >= {("anti_pattern", "failure")}
    [error] = [each for each in avoid if each["error"]]
    assert (error["failed_tool"], error["error"]) == ("push", "push: connection refused")
    assert "3 of 4 episodes that had it failed" in error["reasons"]


def test_only_episodes_that_speak_for_a_pattern_bring_it_near(learning):
    """Reverting worked elsewhere and failed on this very task."""
    learning.lived(
        *(won(f"Translate chapter {number}", "bisect revert") for number in range(4)),
        *(won(f"Paint wall {number}", "grep read") for number in range(4)),
        lost(LOGIN, "bisect revert"),
        lost(LOGIN, "revert sleep"),
    )
    [near] = [each for each in learning.recommended() if each["text"] == "bisect → revert"]
    assert "similarity" not in near["parts"]
    assert learning.recommended()[0]["text"] == "grep → read"


def test_a_vector_brings_tasks_near_that_have_no_word_in_common(learning):
    learning.lived(
        *(won(f"Repariere die Anmeldung {n}", "bisect revert", embedding=[1.0, 0.1 * n]) for n in range(2)),
        *(won(f"Paint wall {n}", "grep read", embedding=[-1.0, 0.1 * n]) for n in range(2)),
    )
    near = learning.recommended(LOGIN, embedding=[1.0, 0.0])[0]
    assert (near["text"], near["parts"]["similarity"] > 0) == ("bisect → revert", True)
    assert [step["tool"] for step in learning.plan(LOGIN, embedding=[1.0, 0.0])["steps"]] == ["bisect", "revert"]
    assert all("similarity" not in each["parts"] for each in learning.recommended(LOGIN, embedding=[1.0, 0.0, 0.0]))


def test_the_domain_favours_and_only_where_it_is_asked_for_restricts(known):
    assert {each["domain"] for each in known.recommended(LOGIN, domain="ops", limit=50)} == {"ops", "web"}
    assert {each["domain"] for each in known.recommended(LOGIN, domain="ops", only=["domain"], limit=50)} == {"ops"}
    assert known.recommended(LOGIN, domain="ops", only=["domain"])[0]["score"] > 0
    nothing = right(known.ask(LOGIN, domain="lisp", only=["domain"]))
    assert (nothing["recommended"], nothing["avoid"], nothing["recommendation_id"]) == ([], [], None)
    assert "domain" in nothing["explanation"]
    assert {tuple(each["task_types"]) for each in known.recommended(task_type="debugging", only=["task_type"])} == {
        ("debugging",)
    }


def test_an_episode_says_what_the_request_leaves_out(known):
    episode = right(
        known.http.post(
            f"{known.path}/episodes",
            json={"task_description": DEPLOY, "domain": "ops", "language": "python", "task_type": "testing"},
        ),
        201,
    )["episode_id"]
    given = known.recommended(DEPLOY, domain="ops", language="python", task_type="testing")
    assert known.recommended(DEPLOY, episode_id=episode) == given


def test_an_empty_answer_explains_itself_and_changes_nothing(learning):
    nothing = right(learning.ask())
    assert nothing == {
        "recommendation_id": None,
        "recommended": [],
        "avoid": [],
        "explanation": "nothing was learnt yet: no episode is completed",
        "txid": 0,
    }
    assert not learning.memory.exists
    learning.lived(won(LOGIN, "grep edit"))
    alone = right(learning.ask())
    assert alone["recommendation_id"] is None
    assert "second" in alone["explanation"]
    assert alone["txid"] == 1


def test_agents_get_the_short_answer(known, live):
    result = RawMcp(live.http).call(
        "recommend_patterns",
        task_description=LOGIN,
        namespace=known.memory.namespace,
        profile=known.memory.profile,
    )
    short = result["structuredContent"]["result"]
    assert set(short) == {"recommendation_id", "recommended", "avoid", "explanation"}
    assert set(short["recommended"][0]) == {"pattern_id", "text", "score", "reasons"}
    texts = [each["text"] for each in short["recommended"]]
    assert "for debugging in web: use grep, then read, then edit, then pytest" in texts


# --- playbooks -----------------------------------------------------------------------------------


def test_a_playbook_is_what_a_family_of_tasks_has_in_common(migrated):
    plan = migrated.plan("Migrate the invoices table to the new schema", domain="db")
    assert [step["tool"] for step in plan["steps"]] == ["inspect", "backup", "alter", "verify"]
    assert [step["order"] for step in plan["steps"]] == [1, 2, 3, 4]
    assert plan["steps"][0]["action"] == "use inspect on it"
    assert plan["steps"][0]["seconds"] == {"value": 2.0, "cases": 4, "reason": None}
    assert {len(step["episode_ids"]) for step in plan["steps"]} == {4}
    assert all(0.5 <= step["support"] <= 1 for step in plan["steps"])
    assert plan["pattern_ids"]
    assert plan["expected_steps"] == {"value": 4.5, "cases": 4, "reason": None}
    assert plan["expected_seconds"] == {"value": 250.0, "cases": 4, "reason": None}
    assert 0 < plan["confidence"]["value"] < 1
    assert plan["confidence"]["cases"] == 5, "the one that failed counts too"
    assert {each["outcome"] for each in plan["evidence"]} == {"success"}
    assert all("Migrate" in each["task_description"] for each in plan["evidence"])
    assert plan["explanation"] is None
    [pitfall] = [each for each in plan["pitfalls"] if each["text"] == "alter failed: alter: connection refused"]
    assert pitfall["remedy"] == "unlock → alter"
    assert migrated.plan("Migrate the invoices table to the new schema", domain="db") == plan


def test_too_little_is_null_with_a_reason(learning):
    nothing = learning.plan()
    assert (nothing["steps"], nothing["evidence"], nothing["txid"]) == ([], [], 0)
    assert nothing["explanation"] == "nothing was learnt yet: no episode is completed"
    learning.lived(won(LOGIN, "grep edit"))
    plan = learning.plan()
    assert [step["tool"] for step in plan["steps"]] == ["grep", "edit"]
    assert plan["expected_steps"] == {"value": None, "cases": 1, "reason": "fewer than 3 cases"}
    assert plan["steps"][0]["seconds"]["value"] is None
    assert plan["confidence"]["value"] < 0.21, "one success is not much"
    assert learning.plan("xyzzy")["explanation"].startswith("none of 1 completed episodes is similar")


def test_there_are_no_steps_from_tasks_that_failed_or_are_far_from_this_one(known):
    plan = known.plan("Deploy the login service to staging", domain="data")
    assert plan["evidence"], "one that succeeded is near enough"
    assert {each["task_description"][:6] for each in plan["evidence"]} == {"Deploy"}


def test_where_nothing_similar_succeeded_the_best_sequence_of_the_domain_is_given(known):
    plan = known.plan("Paint the office", domain="web")
    assert [step["tool"] for step in plan["steps"]] == ["grep", "read", "edit", "pytest"]
    assert {step["action"] for step in plan["steps"]} == {None}
    assert "sequence of tools" in plan["explanation"]
    assert plan["confidence"]["value"] is None
    assert plan["confidence"]["reason"]


# --- bad input -----------------------------------------------------------------------------------


def bad() -> Iterator[tuple[str, dict[str, Any], str]]:
    task = {"task_description": LOGIN}
    for route in ("recommend", "playbook"):
        yield route, {}, "task_description"
        yield route, {"task_description": " \n"}, "task_description"
        yield route, {"task_description": "x" * 10_001}, "task_description"
        yield route, {**task, "task_type": "gardening"}, "task_type"
        yield route, {**task, "tags": ["x"]}, "tags[0]"
        yield route, {**task, "only": ["language"]}, "only[0]"
        yield route, {**task, "domain": "web", "only": ["domain", "task_type"]}, "only[1]"
        yield route, {**task, "embedding": []}, "embedding"
        yield route, {**task, "domian": "web"}, "domian"
    yield "recommend", {**task, "episode_id": "1"}, "episode_id"
    yield "recommend", {**task, "limit": 0}, "limit"
    yield "recommend", {**task, "limit": 51}, "limit"
    said = {"pattern_id": "pat_" + "0" * 32, "outcome": "helped"}
    feedback = {"recommendation_id": "rec_" + "0" * 32, "feedback": [said]}
    yield "feedback", {**feedback, "recommendation_id": "rec_1"}, "recommendation_id"
    yield "feedback", {**feedback, "feedback": []}, "feedback"
    yield "feedback", {**feedback, "feedback": [said] * 101}, "feedback"
    yield "feedback", {**feedback, "feedback": [{**said, "outcome": "great"}]}, "feedback[0].outcome"
    yield "feedback", {**feedback, "feedback": [{**said, "pattern_id": "1"}]}, "feedback[0].pattern_id"
    yield "feedback", {**feedback, "feedback": [{**said, "applied_at_step": 0}]}, "feedback[0].applied_at_step"
    yield "feedback", {**feedback, "episode_id": "nobody"}, "episode_id"


@pytest.fixture(scope="module")
def untouched(live: Live) -> Learning:
    learning = Learning(live.memory())
    learning.lived(*family(2, LOGIN, "grep read"))
    return learning


@pytest.mark.parametrize(("route", "body", "field"), list(bad()))
def test_bad_input_is_refused_by_its_field(untouched, route, body, field):
    refused(untouched.http.post(f"{untouched.path}/patterns/{route}", json=body), field)
    assert untouched.memory.txid == 1


def test_what_does_not_exist_is_not_made(learning):
    said = {"pattern_id": "pat_" + "0" * 32, "outcome": "helped"}
    body = {"recommendation_id": "rec_" + "0" * 32, "feedback": [said]}
    missing = learning.http.post(f"{learning.path}/patterns/feedback", json=body)
    assert (missing.status_code, missing.json()["code"]) == (404, "database_not_found")
    assert learning.ask(episode_id=NOBODY).status_code == 404
    assert learning.http.get(f"{learning.path}/evaluation").status_code == 404
    assert not learning.memory.exists
