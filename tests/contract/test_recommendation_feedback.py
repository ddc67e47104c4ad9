"""The loop that feedback closes, through REST: what is said of recommendations, and what it is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.bad_input import refused
from contract.branches import fork, on
from contract.episodes import NOBODY, right
from contract.learning import (
    LOGIN,
    Learning,
    family,
    known_tasks,  # noqa: F401 - a fixture
    learning_of_memory,  # noqa: F401 - a fixture
    lost,
    migrated_tables,  # noqa: F401 - a fixture
    place,
    won,
)
from contract.live_node import Memory, serve
from memoturn_storage.ambient import ManualAmbient

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
