"""Handoffs: the pack that tells another agent how an episode stands, and the episode that goes on from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from contract.bad_input import refused
from contract.episode_story import (
    GOOD,
    bad,
    begin,
    complete,
    get,
    link,
    pack_of,
    post,
    related,
    step,
    story,
    tagged,
)
from contract.live_node import Live, Memory, RawMcp

TOOLSETS = "episodes"


# --- handoff -------------------------------------------------------------------------------------


def test_a_pack_tells_the_next_agent_all_it_needs(memory, live):
    episode, _ = story(memory, live)
    pack = pack_of(memory, episode)
    assert pack.pop("pack_id").startswith("pack_")
    assert pack == {
        "version": 1,
        "origin": {"episode_id": episode, "checkpoint_id": None, "note": None, "source": "agent-a"},
        "task": {
            "task_description": "Find the fault",
            "task_type": "other",
            **{"domain": "ci", "language": None, "framework": None, "complexity": "moderate", "tags": ["nightly"]},
            "metadata": {"ticket": 7},
        },
        "state": {
            **{"step_count": 5, "last_step": 7, "elapsed_ms": 6_000},
            **{"outcome": None, "said": None, "remaining": []},
        },
        "summary": "Task in ci: Find the fault. Not completed. 5 steps, 1 failed, 1 recovered, 1 without a result,"
        " in 6.0 s: 1 `grep` Use grep; 2 `pytest` failed: no module named yaml; 5 `pip` Chose pip over conda;"
        " 7 `deploy` Use deploy (no result).",
        "done": [
            {"step_number": 1, "tool": "grep", "action": "Use grep"},
            {"step_number": 5, "tool": "pip", "action": "Chose pip over conda"},
            {"step_number": 6, "tool": "pytest", "action": "Use pytest"},
        ],
        "failures": [
            {
                **{"step_number": 2, "tool": "pytest", "action": "Use pytest"},
                **{"error": "no module named yaml", "recovered_by": [5, 6]},
            }
        ],
        "decisions": [{"step_number": 5, "decision": "Chose pip over conda"}],
        "pending": [{"step_number": 7, "tool": "deploy", "action": "Use deploy"}],
        **{"patterns": [], "earlier": [], "truncated": []},
    }


def test_the_same_state_gives_the_same_pack_and_another_state_another(memory, live):
    episode, _ = story(memory, live)
    pack = pack_of(memory, episode)
    live.ambient.advance(seconds=100)
    assert pack_of(memory, episode) == pack
    step(memory, episode)
    assert pack_of(memory, episode)["pack_id"] != pack["pack_id"]


def test_a_pack_of_a_checkpoint_is_as_the_episode_stood_there(memory, live):
    episode, checkpoint = story(memory, live)
    early = pack_of(memory, episode, checkpoint_id=checkpoint)
    complete(memory, episode)
    assert pack_of(memory, episode, checkpoint_id=checkpoint) == early
    assert early["origin"]["checkpoint_id"] == checkpoint
    assert early["origin"]["note"] == "Before the installation"
    assert (early["state"]["last_step"], early["state"]["outcome"]) == (2, None)
    assert [failure["recovered_by"] for failure in early["failures"]] == [None]
    assert early["pending"] == early["decisions"] == []
    assert "Not completed." in early["summary"]


def test_an_unknown_checkpoint_is_404_and_one_that_is_none_400(memory):
    episode = begin(memory)
    path = f"{memory.path}/episodes/{episode}/handoff"
    response = memory.http.get(path, params={"checkpoint_id": f"cp_{'0' * 16}"})
    assert (response.status_code, response.json()["error"].partition(":")[0]) == (404, "checkpoint_id")
    refused(memory.http.get(path, params={"checkpoint_id": "latest"}), "checkpoint_id")


def test_a_pack_of_a_completed_episode_says_how_it_ended_and_what_is_left(memory):
    episode = begin(memory)
    outcome = {"type": "partial_success", "verdict": "Half of it", "completed": ["api"], "failed": ["ui", "docs"]}
    complete(memory, episode, outcome)
    pack = pack_of(memory, episode)
    assert pack["state"] | {"elapsed_ms": 0} == {
        **{"step_count": 0, "last_step": 0, "elapsed_ms": 0},
        **{"outcome": "partial_success", "said": "Half of it", "remaining": ["ui", "docs"]},
    }
    assert pack["summary"] == get(memory, episode)["episode"]["summary"]["text"]


def largest(memory: Memory) -> str:
    """An episode with as much of everything as a pack could want."""
    wide = "\u0001" * 2_000
    episode = begin(
        memory, "日" * 3_333, tags=[f"{n:03}" + "日" * 97 for n in range(50)], metadata={"note": "x" * 9_000}
    )
    for n in range(90):
        result = [GOOD, bad(f"{wide} {n}"), None][n % 3]
        step(memory, episode, "🍵" * 100, action=f"Chose {wide} {n}", result=result)
    complete(memory, episode, {"type": "partial_success", "verdict": "日" * 3_000, "failed": ["🍵" * 200] * 100})
    return episode


def test_a_pack_is_bounded_and_says_what_was_left_out(live):
    memory, other = live.memory(), live.memory()
    episode = largest(memory)
    pack = pack_of(memory, episode)
    assert len(json.dumps(pack, ensure_ascii=False).encode()) < 100_000
    cut = {note.partition(":")[0] for note in pack["truncated"]}
    assert cut == {"done", "failures", "decisions", "pending", "state.remaining", "task.metadata"}
    assert pack["task"]["metadata"] == {}
    numbers = [each["step_number"] for each in pack["done"]]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 88
    assert 0 < len(numbers) <= 30
    post(other, "resume", 201, pack=pack)


def test_a_pack_has_the_patterns_that_were_recommended_and_what_came_of_them(memory):
    for _ in range(2):
        episode = begin(memory, "Fix the build", domain="ci")
        for tool in ("grep", "sed", "make"):
            step(memory, episode, tool)
        complete(memory, episode)
    episode = begin(memory, "Fix the build again", domain="ci")
    wanted = {"task_description": "Fix the build again", "episode_id": episode}
    offered = memory.http.post(f"{memory.path}/patterns/recommend", json=wanted).json()
    [pattern] = [each for each in offered["recommended"] if each["text"] == "grep → sed → make"]
    feedback = [{"pattern_id": pattern["pattern_id"], "outcome": "helped", "applied_at_step": 1}]
    said = {"recommendation_id": offered["recommendation_id"], "feedback": feedback}
    assert memory.http.post(f"{memory.path}/patterns/feedback", json=said).status_code == 200
    packed = pack_of(memory, episode)["patterns"]
    assert {each["pattern_id"] for each in packed} == {each["pattern_id"] for each in offered["recommended"]}
    [told] = [each for each in packed if each["outcome"] is not None]
    assert told == {
        **{"pattern_id": pattern["pattern_id"], "text": "grep → sed → make"},
        **{"avoid": False, "outcome": "helped"},
    }


# --- going on ------------------------------------------------------------------------------------


def test_resuming_begins_an_open_episode_that_continues_the_origin(memory, live):
    episode, _ = story(memory, live)
    pack = pack_of(memory, episode)
    answer = post(memory, "resume", 201, pack=pack, source="agent-b", session_id="s")
    assert answer | {"episode_id": ""} == {
        **{"episode_id": "", "status": "created", "continues": episode},
        **{"start_time": live.ambient.now_ms(), "txid": memory.txid},
    }
    found = get(memory, answer["episode_id"])
    resumed = found["episode"]
    assert (resumed["task_description"], resumed["source"], resumed["session_id"]) == ("Find the fault", "agent-b", "s")
    assert resumed["context"] == get(memory, episode)["episode"]["context"]
    assert resumed["metadata"]["ticket"] == 7
    assert resumed["metadata"]["handoff"] == pack | {"task": pack["task"] | {"metadata": {}}}
    assert (resumed["outcome"], found["steps"]) == (None, [])
    assert related(memory, episode) == {("incoming", "continues", answer["episode_id"])}
    assert tagged(memory, "nightly") == {episode, answer["episode_id"]}


def test_the_same_pack_answers_its_episode_while_that_is_open_and_then_begins_another(memory, live):
    episode, _ = story(memory, live)
    pack = pack_of(memory, episode)
    first = post(memory, "resume", 201, pack=pack)
    before = memory.txid
    live.ambient.advance(seconds=5)
    again = post(memory, "resume", 200, pack=pack)
    assert again == first | {"status": "duplicate", "txid": before}
    complete(memory, first["episode_id"], {"type": "failure", "reason": "Not this way"})
    second = post(memory, "resume", 201, pack=pack)
    assert second["episode_id"] != first["episode_id"]
    assert post(memory, "resume", 200, pack=pack)["episode_id"] == second["episode_id"]


def test_a_pack_goes_on_in_another_profile_which_it_may_create(live):
    here, there = live.memory(), live.memory()
    episode, checkpoint = story(here, live)
    answer = post(there, "resume", 201, pack=pack_of(here, episode, checkpoint_id=checkpoint))
    assert (answer["continues"], answer["txid"]) == (None, 1)
    assert related(there, answer["episode_id"]) == set()
    assert get(there, answer["episode_id"])["episode"]["metadata"]["handoff"]["origin"]["episode_id"] == episode


def test_who_takes_over_from_who_took_over_hears_of_both(memory, live):
    first, _ = story(memory, live)
    pack = pack_of(memory, first)
    second = post(memory, "resume", 201, pack=pack)["episode_id"]
    step(memory, second, "kubectl")
    onward = pack_of(memory, second)
    assert onward["earlier"] == [pack["summary"]]
    assert onward["task"]["metadata"] == {"ticket": 7}
    third = post(memory, "resume", 201, pack=onward)["episode_id"]
    assert pack_of(memory, third)["earlier"] == [pack["summary"], onward["summary"]]


@pytest.mark.parametrize("handoff", [None, [], "x", {"version": 1}, {"earlier": 7}])
def test_metadata_that_only_look_like_a_pack_do_no_harm(memory, handoff):
    episode = begin(memory, metadata={"handoff": handoff})
    pack = pack_of(memory, episode)
    assert (pack["earlier"], pack["task"]["metadata"]) == ([], {})
    assert [note.partition(":")[0] for note in pack["truncated"]] == ["task.metadata.handoff"]


Change = Callable[[dict[str, Any]], Any]
WRONG: dict[str, Change] = {
    "pack": lambda pack: pack.clear() or pack.update({}),
    "pack.version": lambda pack: pack.update(version=2),
    "pack.pack_id": lambda pack: pack.update(pack_id="pack_"),
    "pack.more": lambda pack: pack.update(more=1),
    "pack.summary": lambda pack: pack.update(summary="x" * 10_001),
    "pack.done": lambda pack: pack.update(done=pack["done"] * 100),
    "pack.done[0].tool": lambda pack: pack["done"][0].update(tool=""),
    "pack.done[0].step_number": lambda pack: pack["done"][0].update(step_number="1"),
    "pack.failures[0].recovered_by": lambda pack: pack["failures"][0].pop("recovered_by"),
    "pack.patterns": lambda pack: pack.update(patterns={}),
    "pack.origin.episode_id": lambda pack: pack["origin"].update(episode_id="../x"),
    "pack.origin.checkpoint_id": lambda pack: pack["origin"].update(checkpoint_id="x"),
    "pack.task": lambda pack: pack.pop("task"),
    "pack.task.task_description": lambda pack: pack["task"].update(task_description="\x1e "),
    "pack.task.task_type": lambda pack: pack["task"].update(task_type="magic"),
    "pack.task.tags[0]": lambda pack: pack["task"].update(tags=["x"]),
    "pack.task.domain": lambda pack: pack["task"].update(domain=" "),
    "pack.task.metadata": lambda pack: pack["task"].update(metadata=json.loads("[" * 150 + "]" * 150)),
    "pack.state.elapsed_ms": lambda pack: pack["state"].update(elapsed_ms=-1),
    "pack.state.outcome": lambda pack: pack["state"].update(outcome="open"),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_pack_is_validated_in_full_and_a_wrong_one_creates_nothing(live, field):
    memory, unused = live.memory(), live.memory()
    episode, _ = story(memory, live)
    pack = pack_of(memory, episode)
    WRONG[field](pack)
    response = unused.http.post(f"{unused.path}/episodes/resume", json={"pack": pack})
    if field == "pack":
        assert response.status_code == 400
        assert response.json()["error"].startswith("pack.")
    else:
        refused(response, field)
    assert not unused.exists


def test_a_pack_with_metadata_above_the_limit_is_413(live):
    memory, unused = live.memory(), live.memory()
    pack = pack_of(memory, begin(memory))
    pack["task"]["metadata"] = {"blob": "x" * 1_000_000}
    response = unused.http.post(f"{unused.path}/episodes/resume", json={"pack": pack})
    assert response.status_code == 413
    assert response.json()["error"].startswith("pack.task.metadata: ")
    assert not unused.exists


def test_agents_hand_over_through_tools(live: Live, mcp: RawMcp):
    memory = live.memory()
    where = {"namespace": memory.namespace, "profile": memory.profile}
    episode, _ = story(memory, live)

    def call(tool: str, **arguments: Any) -> dict[str, Any]:
        result = mcp.call(tool, **where, **arguments)
        assert result.get("isError") is not True, result
        found: dict[str, Any] = result["structuredContent"]["result"]
        return found

    pack = call("get_handoff_pack", episode_id=episode)["pack"]
    resumed = call("resume_from_handoff", pack=pack)
    assert resumed["continues"] == episode
    assert call("checkpoint_episode", episode_id=resumed["episode_id"])["checkpoint"]["step_number"] == 0
    assert call("episode_tags", episode_id=episode, add=["handed-over"])["tags"] == ["nightly", "handed-over"]
    assert len(call("get_episode_timeline", episode_id=episode, limit=3)["events"]) == 3
    [found] = call("get_episode_relationships", episode_id=episode)["relationships"]
    assert (found["direction"], found["episode_id"]) == ("incoming", resumed["episode_id"])
    assert call("episode_relationships", episode_id=episode, remove=[link(episode, "follows")])["relationships"] == [
        found
    ]
