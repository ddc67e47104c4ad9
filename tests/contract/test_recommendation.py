"""The loop that feedback closes, through REST: what is recommended, what is said of it, and what that changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.bad_input import refused
from contract.branches import fork, on
from contract.live_node import Live, Memory, RawMcp, serve
from memoturn_storage.ambient import ManualAmbient

TOOLSETS = "all"
LOGIN, DEPLOY = "Fix the failing login test", "Deploy the billing service to staging"
NOBODY = "00000000-0000-0000-0000-000000000000"
DAY = 86_400_000


class Learning:
    """A profile's recommendations by their routes."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.http = memory.http
        self.path = memory.path

    def ask(self, description: str = LOGIN, **more: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/patterns/recommend", json={"task_description": description, **more})

    def judge(self, recommendation: str, *said: tuple[str, str], **more: Any) -> httpx.Response:
        feedback = [{"pattern_id": id_, "outcome": outcome} for id_, outcome in said]
        body = {"recommendation_id": recommendation, "feedback": feedback, **more}
        return self.http.post(f"{self.path}/patterns/feedback", json=body)

    def plan(self, description: str = LOGIN, **more: Any) -> dict[str, Any]:
        return right(self.http.post(f"{self.path}/patterns/playbook", json={"task_description": description, **more}))

    def effects(self, **query: Any) -> dict[str, Any]:
        return right(self.http.get(f"{self.path}/patterns/effectiveness", params=query))

    def evaluation(self, **query: Any) -> dict[str, Any]:
        return right(self.http.get(f"{self.path}/evaluation", params=query))

    def episode(self, episode: str) -> dict[str, Any]:
        found: dict[str, Any] = right(self.http.get(f"{self.path}/episodes/{episode}"))["episode"]
        return found

    def lived(self, *episodes: dict[str, Any]) -> list[str]:
        body = {"episodes": list(episodes)}
        ids: list[str] = right(self.http.post(f"{self.path}/episodes/bulk", json=body), 201)["episode_ids"]
        return ids

    def recommended(self, *args: Any, **more: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = right(self.ask(*args, **more))["recommended"]
        return found


def right(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.text[:500]
    body: dict[str, Any] = response.json()
    return body


def steps(tools: str) -> list[dict[str, Any]]:
    """Tools in their order; one with a `!` failed."""
    return [
        {
            "tool": tool.rstrip("!"),
            "action": f"use {tool.rstrip('!')} on it",
            "latency_ms": 2_000,
            "result": {"type": "error", "message": f"{tool.rstrip('!')}: connection refused"}
            if tool.endswith("!")
            else {"type": "success", "output": "fine"},
        }
        for tool in tools.split()
    ]


def won(description: str, tools: str, **more: Any) -> dict[str, Any]:
    outcome = {"type": "success", "verdict": "It works"}
    return {"task_description": description, "steps": steps(tools), "outcome": outcome, **more}


def lost(description: str, tools: str, **more: Any) -> dict[str, Any]:
    return won(description, tools, **{"outcome": {"type": "failure", "reason": "It does not work"}, **more})


def family(count: int, description: str, tools: str, **more: Any) -> list[dict[str, Any]]:
    return [won(f"{description} of module {number}", tools, **more) for number in range(count)]


def place(recommended: list[dict[str, Any]], pattern_id: str) -> int:
    return [each["pattern_id"] for each in recommended].index(pattern_id)


@pytest.fixture
def learning(memory: Memory) -> Learning:
    return Learning(memory)


@pytest.fixture
def known(learning: Learning) -> Learning:
    """Login tests that were repaired in one way or another, and services that could not be deployed."""
    learning.lived(
        *family(4, LOGIN, "grep read edit pytest", domain="web", task_type="debugging", language="python"),
        *family(4, LOGIN, "bisect revert", domain="web", task_type="debugging", language="python"),
        *(lost(f"{DEPLOY} {number}", "build push!", domain="ops") for number in range(3)),
        won(f"{DEPLOY} again", "build push! login push", domain="ops"),
    )
    return learning


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


# --- feedback ------------------------------------------------------------------------------------


def test_bad_feedback_lowers_a_rank_and_good_feedback_raises_one_also_after_a_restart(tmp_path: Path):
    ambient = ManualAmbient()
    with serve(tmp_path, ambient=ambient) as live:
        memory = live.memory()
        learning = Learning(memory)
        learning.lived(*family(4, LOGIN, "grep read"), *family(4, LOGIN, "bisect revert"))
        answer = right(learning.ask())
        best, second, *_ = (each for each in answer["recommended"] if each["kind"] == "tool_sequence")
        assert best["strength"] == second["strength"]
        said = right(
            learning.judge(
                answer["recommendation_id"], (best["pattern_id"], "hindered"), (second["pattern_id"], "helped")
            )
        )["feedback"]
        assert said[0]["strength"] < best["strength"] < said[1]["strength"]
        before = learning.recommended()
    with serve(tmp_path, ambient=ambient) as live:
        learning = Learning(Memory(live.http, memory.namespace, memory.profile))
        after = learning.recommended()
    assert after == before
    assert place(after, second["pattern_id"]) < place(after, best["pattern_id"])
    assert [after[place(after, each["pattern_id"])]["strength"] for each in (best, second)] == [
        each["strength"] for each in said
    ]
    assert "feedback: 1 hindered" in after[place(after, best["pattern_id"])]["reasons"]


def test_the_last_word_counts_and_the_same_word_again_changes_nothing(known, live):
    answer = right(known.ask())
    recommendation, pattern = answer["recommendation_id"], answer["recommended"][0]["pattern_id"]
    first = right(known.judge(recommendation, (pattern, "hindered")))
    live.ambient.advance(seconds=60)
    assert right(known.judge(recommendation, (pattern, "hindered")))["txid"] == first["txid"]
    last = right(known.judge(recommendation, (pattern, "no_effect"), (pattern, "helped")))
    assert last["feedback"][0]["outcome"] == "helped"
    [counts] = [each["feedback"] for each in known.recommended() if each["pattern_id"] == pattern]
    assert counts == {"helped": 1, "no_effect": 0, "hindered": 0}
    pending = right(known.judge(recommendation, (pattern, "pending")))
    assert pending["feedback"][0]["strength"] == pytest.approx(answer["recommended"][0]["strength"], rel=1e-3)


def test_a_heuristic_is_judged_as_its_pattern(known):
    answer = right(known.ask())
    best = answer["recommended"][0]
    said = right(known.judge(answer["recommendation_id"], (best["heuristic"]["heuristic_id"], "helped")))["feedback"]
    assert [each["pattern_id"] for each in said] == [best["pattern_id"]]


def test_only_what_was_offered_can_be_judged(known):
    answer = right(known.ask(limit=1))
    recommendation, offered = answer["recommendation_id"], answer["recommended"][0]["pattern_id"]
    other = next(each["pattern_id"] for each in known.recommended(limit=9) if each["pattern_id"] != offered)
    before = known.recommended(limit=9)
    refused(known.judge(recommendation, (offered, "helped"), (other, "helped")), "feedback[1].pattern_id")
    unknown = known.judge("rec_" + "0" * 32, (offered, "helped"))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert unknown.json()["error"].startswith("recommendation_id: ")
    nobody = known.judge(recommendation, (offered, "helped"), episode_id=NOBODY)
    assert nobody.status_code == 404
    assert nobody.json()["error"].startswith("episode_id: ")
    assert known.recommended(limit=9) == before
    right(known.http.post(f"{known.path}/patterns/decay", json={"below": 1.0, "dry_run": False}))
    gone = known.judge(recommendation, (offered, "helped"))
    assert gone.status_code == 404
    assert gone.json()["error"].startswith("feedback[0].pattern_id: ")


def test_an_episode_says_what_was_applied_in_it(known):
    one, other = known.lived({"task_description": LOGIN}, {"task_description": LOGIN})
    answer = right(known.ask(episode_id=one))
    recommendation = answer["recommendation_id"]
    first, second, *_ = (each["pattern_id"] for each in answer["recommended"])
    right(known.judge(recommendation, (first, "pending"), (second, "no_effect")))
    said = {"pattern_id": first, "applied_at_step": 3, "outcome": "helped"}
    body = {"recommendation_id": recommendation, "feedback": [said]}
    told = right(known.http.post(f"{known.path}/patterns/feedback", json=body))["feedback"]
    assert [(each["episode_id"], each["applied_at_step"]) for each in told] == [(one, 3)]
    assert known.episode(one)["applied_patterns"] == [
        said,
        {"pattern_id": second, "applied_at_step": None, "outcome": "no_effect"},
    ]
    right(known.judge(recommendation, (second, "helped"), episode_id=other))
    assert known.episode(one)["applied_patterns"] == [said]
    assert [each["pattern_id"] for each in known.episode(other)["applied_patterns"]] == [second]


def test_feedback_goes_with_its_episode(known):
    before = known.recommended()
    offered = known.effects()["recommendations"]
    [episode] = known.lived({"task_description": "Something else"})
    answer = right(known.ask(episode_id=episode))
    pattern = answer["recommended"][0]["pattern_id"]
    right(known.judge(answer["recommendation_id"], (pattern, "hindered")))
    assert known.recommended() != before
    right(known.http.delete(f"{known.path}/episodes/{episode}"))
    assert known.recommended() == before
    assert known.effects()["recommendations"] == offered + 2, "only what was asked for no episode is left"
    assert known.judge(answer["recommendation_id"], (pattern, "helped")).status_code == 404


def test_what_was_said_on_a_branch_stays_there(known):
    answer = right(known.ask())
    fork(known.memory, "dev")
    there = Learning(on(known.memory, "dev"))
    pattern = answer["recommended"][0]["pattern_id"]
    right(there.judge(answer["recommendation_id"], (pattern, "hindered")))
    assert there.recommended() != answer["recommended"]
    assert known.recommended() == answer["recommended"]


# --- playbooks -----------------------------------------------------------------------------------


@pytest.fixture
def migrated(learning: Learning, live: Live) -> Learning:
    """Tables that were migrated: mostly in one way, once with a detour, once in vain; and something else."""
    course = "inspect backup alter verify"
    start = live.ambient.now_ms() - 7 * DAY

    def migration(table: str, tools: str, day: int, seconds: int, made: Any = won) -> dict[str, Any]:
        began = start + day * DAY
        description = f"Migrate the {table} table to the new schema"
        whole: dict[str, Any] = made(description, tools, domain="db")
        return whole | {"start_time": began, "end_time": began + seconds * 1_000}

    learning.lived(
        migration("users", course, 0, 100),
        migration("orders", course, 1, 200),
        migration("items", "inspect think backup alter verify", 2, 400),
        migration("events", "inspect backup alter! unlock alter verify", 3, 300),
        migration("logs", "inspect alter!", 4, 50, lost),
        *family(3, "Write the release notes", "read write", domain="docs"),
    )
    return learning


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


# --- what the learning is worth ------------------------------------------------------------------


def test_effectiveness_compares_episodes_that_applied_a_pattern_with_the_others(learning):
    learning.lived(*family(2, LOGIN, "grep read", domain="web"), *(lost(LOGIN, "", domain="web") for _ in range(6)))
    assert learning.effects() == {
        "patterns": [],
        "recommendations": 0,
        "explanation": "no pattern was ever recommended here",
    }
    episodes = learning.lived(
        *(won(LOGIN, "", domain="web") for _ in range(4)),
        lost(LOGIN, "", domain="web"),
    )
    for episode, outcome in zip(episodes, ["helped", "helped", "no_effect", "pending", "hindered"], strict=True):
        answer = right(learning.ask(limit=1, domain="web"))
        [offered] = answer["recommended"]
        right(learning.judge(answer["recommendation_id"], (offered["pattern_id"], outcome), episode_id=episode))
    found = learning.effects(domain="web")
    assert found["recommendations"] == 5
    best = found["patterns"][0]
    assert (best["text"], best["offered"], best["applied"]) == ("grep → read", 5, 5)
    assert [best[each] for each in ("helped", "no_effect", "hindered", "pending")] == [2, 1, 1, 1]
    assert best["success_applied"] == {"value": 0.8, "cases": 5, "reason": None}
    assert best["success_otherwise"] == {"value": 0.25, "cases": 8, "reason": None}
    assert best["difference"] == {"value": 0.55, "cases": 13, "reason": None}
    assert learning.effects(domain="ops")["explanation"] == "no pattern of domain ops was recommended"
    assert learning.effects(kind="anti_pattern")["patterns"] == []


def test_calibration_sets_the_strength_that_was_offered_against_what_feedback_said(known):
    cases: list[tuple[float, bool]] = []
    for number in range(6):
        answer = right(known.ask(limit=2))
        said = [(each["pattern_id"], "helped" if number % 2 else "hindered") for each in answer["recommended"]]
        right(known.judge(answer["recommendation_id"], *said))
        cases += [(each["strength"], bool(number % 2)) for each in answer["recommended"]]
        if number == 3:
            early = known.evaluation()["calibration"]
            assert (early["cases"], early["brier"], early["bins"]) == (8, None, None)
            assert "10 cases" in early["reason"]
    found = known.evaluation()["calibration"]
    assert found["cases"] == 12
    assert found["brier"] == pytest.approx(sum((p - y) ** 2 for p, y in cases) / 12, abs=1e-6)
    assert (found["base_rate"], found["brier_of_base_rate"]) == (0.5, 0.25)
    assert sum(each["cases"] for each in found["bins"]) == 12
    assert known.evaluation(domain="ops")["calibration"]["cases"] == 0


def test_the_evaluation_follows_episodes_over_time(migrated):
    found = migrated.evaluation(domain="db")["stats"]
    assert found["episodes"] == {
        "total": 5, "open": 0, "success": 4, "partial_success": 0, "failure": 1, "abstained": 0
    }  # fmt: skip
    first, second = found["over_time"]["first_half"], found["over_time"]["second_half"]
    assert (first["episodes"], first["success_rate"]["value"], first["steps_to_success"]["value"]) == (3, 1.0, 4.0)
    assert (second["episodes"], second["success_rate"]["value"], second["steps_to_success"]["value"]) == (2, 0.5, 6.0)
    assert [each["domain"] for each in migrated.evaluation()["stats"]["reward_by_domain"]] == ["db", "docs"]
    empty = migrated.evaluation(domain="lisp")["stats"]
    assert empty["reward"] == {"value": None, "cases": 0, "reason": "no episode is completed"}


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
