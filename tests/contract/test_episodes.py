"""Episodes through REST: created, filled with steps, completed and read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from contract.bad_input import refused, where
from contract.episodes import (
    FAILURE,
    NOBODY,
    SUCCESS,
    did,
    episodes_of_memory,  # noqa: F401 - a fixture
    right,
    whole,
)

TOOLSETS = "all"


# --- the life of an episode ----------------------------------------------------------------------


def test_an_open_episode_is_read_as_it_was_created(episodes, live):
    now = live.ambient.now_ms()
    created = right(episodes.create(), 201)
    assert created == {"episode_id": created["episode_id"], "start_time": now, "txid": 1}
    assert right(episodes.get(created["episode_id"])) == {
        "episode": {
            "episode_id": created["episode_id"],
            "task_type": "other",
            "task_description": "Repair the login",
            "context": {
                "domain": "general",
                "language": None,
                "framework": None,
                "complexity": "moderate",
                "tags": [],
            },
            "session_id": None,
            "source": None,
            "start_time": now,
            "end_time": None,
            "step_count": 0,
            **dict.fromkeys(("outcome", "reward", "quality", "reflection", "salient", "summary")),
            **{name: [] for name in ("pattern_ids", "heuristic_ids", "applied_patterns", "checkpoints")},
            "metadata": {},
        },
        "steps": [],
    }


def test_everything_that_is_said_of_an_episode_is_kept(episodes):
    given = {
        "task_description": "Füge eine Suche hinzu \u2028 \x00",
        "task_type": "code_generation",
        "domain": "web-api",
        "language": "python",
        "framework": "starlette",
        "complexity": "complex",
        "tags": ["search", "api", "search"],
        "session_id": "s",
        "source": "an agent",
        "start_time": -5,
        "metadata": {"big": 10**30, "small": 5e-324, "deep": [{"\x00": None}]},
    }
    steps = [
        {
            "step_number": 7,
            "timestamp": -4,
            "tool": "edit",
            "action": "decide",
            "parameters": {"path": "a/b", "count": 2**70},
            "result": {"type": "error", "message": "no such file"},
            "latency_ms": 12,
            "tokens_used": 2**63 - 1,
            "metadata": {"decision": True},
        },
        {"step_number": 3, "timestamp": -3, "tool": "wait", "action": "", "result": {"type": "timeout"}},
    ]
    episode = episodes.begun(**given)
    for step in steps:
        right(episodes.step(episode, **step), 201)
    found = right(episodes.get(episode))
    context = {name: given.pop(name) for name in ("domain", "language", "framework", "complexity")}
    assert found["episode"]["context"] == {**context, "tags": ["search", "api"]}
    del given["tags"]
    assert {name: found["episode"][name] for name in given} == given
    left_out = {"parameters": {}, "latency_ms": None, "tokens_used": None, "metadata": {}}
    assert found["steps"] == [{**left_out, **step} for step in reversed(steps)]
    assert right(episodes.get(episode, steps="false"))["steps"] is None


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize(
    "outcome",
    [
        SUCCESS,
        {"type": "partial_success", "verdict": "Half of it", "completed": ["this"], "failed": ["that"]},
        {"type": "partial_success", "verdict": "", "completed": [], "failed": []},
        FAILURE,
        {"type": "abstained", "reason": "No access", "stopped_at_step": 0, "infeasibility_signals": ["403"]},
    ],
    ids=lambda outcome: outcome["type"],
)
def test_an_episode_of_any_length_and_outcome_is_completed_with_everything_that_follows(episodes, live, steps, outcome):
    episode = episodes.begun()
    for _ in range(steps):
        right(episodes.step(episode), 201)
    live.ambient.advance(seconds=2)
    answer = right(episodes.complete(episode, outcome))
    assert (answer.pop("status"), answer.pop("txid")) == ("completed", steps + 2)
    found = episodes.known(episode)
    assert {name: found[name] for name in answer} == answer
    assert found["outcome"] == outcome
    assert (found["step_count"], found["end_time"]) == (steps, live.ambient.now_ms())
    assert 0 <= found["quality"] <= 1
    reward = found["reward"]
    product = reward["base"] * reward["efficiency"] * reward["complexity"] * reward["quality"]
    assert reward["total"] == product + reward["learning"]
    assert found["summary"]["key_steps"] == list(range(1, steps + 1))
    assert 0 < len(found["summary"]["text"].split()) <= 200


def test_completing_again_answers_the_same_and_changes_nothing(episodes, memory, live):
    episode = episodes.completed(did("grep"))
    first = right(episodes.complete(episode))
    live.ambient.advance(seconds=5)
    again = right(episodes.complete(episode, dict(reversed(SUCCESS.items())), end_time=first["end_time"]))
    assert (first["status"], again) == ("duplicate", first)
    assert memory.txid == first["txid"] == 3


@pytest.mark.parametrize(
    ("outcome", "end_time", "field"),
    [
        (FAILURE, None, "outcome"),
        ({**SUCCESS, "verdict": "It works"}, None, "outcome"),
        ({**SUCCESS, "artifacts": []}, None, "outcome"),
        (SUCCESS, 2**60, "end_time"),
    ],
)
def test_a_completed_episode_has_no_other_end(episodes, outcome, end_time, field):
    episode = episodes.completed()
    before = episodes.known(episode)
    response = episodes.complete(episode, outcome, **({} if end_time is None else {"end_time": end_time}))
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert response.json()["error"].startswith(f"{field}: ")
    assert episodes.known(episode) == before


def test_an_episode_has_a_past_and_no_end_before_its_start(episodes, live):
    began = live.ambient.now_ms() - 365 * 86_400_000
    episode = episodes.begun(start_time=began)
    refused(episodes.complete(episode, end_time=began - 1), "end_time")
    assert episodes.known(episode)["end_time"] is None
    assert right(episodes.complete(episode, end_time=began))["end_time"] == began


def test_an_episode_that_begins_ahead_of_the_clock_ends_then(episodes, live):
    ahead = live.ambient.now_ms() + 60_000
    assert right(episodes.complete(episodes.begun(start_time=ahead)))["end_time"] == ahead


def test_an_agent_is_told_what_is_not_there_instead_of_an_error(mcp, memory, episodes):
    there = episodes.begun()
    for name, flag in (("get_episode", "found"), ("delete_episode", "deleted")):
        absent = mcp.call(name, **where(memory), episode_id=NOBODY)
        assert absent["structuredContent"] == {"txid": None, "result": {flag: False}}
        present = mcp.call(name, **where(memory), episode_id=there)
        assert present["structuredContent"]["result"][flag] is True


def test_the_source_that_an_agent_leaves_out_comes_from_its_environment(mcp, memory, episodes, monkeypatch):
    monkeypatch.setenv("MEMOTURN_SOURCE", "the environment")
    mcp.call("create_episode", **where(memory), task_description="one")
    mcp.call("create_episode", **where(memory), task_description="two", source="itself")
    mcp.call("bulk_episodes", **where(memory), episodes=[whole(), whole(source="itself")])
    sources = [episodes.known(episode)["source"] for episode in reversed(episodes.listed())]
    assert sources == ["the environment", "itself"] * 2


# --- steps ---------------------------------------------------------------------------------------


def test_steps_are_numbered_from_the_highest_and_read_in_order(episodes):
    episode = episodes.begun()
    numbers = []
    for given in (None, 5, None, 2, None):
        more = {} if given is None else {"step_number": given}
        answer = right(episodes.step(episode, action=f"number {given}", **more), 201)
        numbers.append(answer["step_number"])
        assert (answer["step_count"], answer["status"], answer["txid"]) == (len(numbers), "created", len(numbers) + 1)
    assert numbers == [1, 5, 6, 2, 7]
    found = right(episodes.get(episode))
    assert [step["step_number"] for step in found["steps"]] == sorted(numbers)
    assert found["episode"]["step_count"] == 5
    assert right(episodes.list())["episodes"][0]["step_count"] == 5


@pytest.mark.parametrize("completed", [False, True])
def test_the_same_step_again_changes_nothing_and_another_one_is_a_conflict(episodes, memory, live, completed):
    episode = episodes.begun()
    step = did("grep", step_number=3, parameters={"a": 1, "b": [1.0]})
    right(episodes.step(episode, **step), 201)
    if completed:
        right(episodes.complete(episode))
    before, txid = right(episodes.get(episode)), memory.txid
    live.ambient.advance(seconds=9)
    again = right(episodes.step(episode, **{**step, "parameters": {"b": [1.0], "a": 1}}), 200)
    assert again == {"episode_id": episode, "step_number": 3, "step_count": 1, "status": "duplicate", "txid": txid}
    for other in (
        {"tool": "sed"},
        {"action": "Use grep"},
        {"parameters": {"a": 1, "b": [1]}},
        {"parameters": {"a": True, "b": [1.0]}},
        {"result": None},
        {"result": {"type": "success", "output": ""}},
        {"latency_ms": 0},
        {"tokens_used": 0},
        {"metadata": {"decision": None}},
        {"timestamp": live.ambient.now_ms()},
    ):
        response = episodes.step(episode, **{**step, **other})
        assert (response.status_code, response.json()["code"]) == (409, "conflict"), other
        assert response.json()["error"].startswith("step_number: ")
    assert (right(episodes.get(episode)), memory.txid) == (before, txid)


def test_a_step_that_was_given_a_time_is_the_same_without_it(episodes):
    episode = episodes.begun()
    right(episodes.step(episode, step_number=1, timestamp=5), 201)
    for given, status in (({}, 200), ({"timestamp": 5}, 200), ({"timestamp": 6}, 409)):
        assert episodes.step(episode, step_number=1, **given).status_code == status
    assert right(episodes.get(episode))["steps"][0]["timestamp"] == 5


def test_a_completed_episode_takes_no_step(episodes, memory):
    episode = episodes.completed(did("grep"))
    txid = memory.txid
    for number in ({}, {"step_number": 2}):
        response = episodes.step(episode, **number)
        assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert (len(right(episodes.get(episode))["steps"]), memory.txid) == (1, txid)


def test_what_is_sent_at_once_is_taken_one_after_the_other(episodes):
    episode = episodes.begun()
    with ThreadPoolExecutor(8) as pool:
        steps = list(pool.map(lambda n: episodes.step(episode, action=f"action {n}"), range(24)))
        again = list(pool.map(lambda _: episodes.step(episode, action="the same", step_number=99), range(8)))
        ends = list(pool.map(lambda _: episodes.complete(episode), range(8)))
    assert sorted(right(step, 201)["step_number"] for step in steps) == list(range(1, 25))
    assert sorted(step.status_code for step in again) == [200] * 7 + [201]
    assert sorted(right(end)["status"] for end in ends) == ["completed"] + ["duplicate"] * 7
    assert episodes.known(episode)["step_count"] == 25
