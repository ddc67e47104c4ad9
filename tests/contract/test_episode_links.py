"""What goes with episodes: timelines, tags, relationships, checkpoints and handoffs."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from contract.bad_input import refused
from contract.live_node import Live, Memory, RawMcp

TOOLSETS = "episodes"

NOWHERE = "00000000-0000-4000-8000-000000000000"
SUCCESS = {"type": "success", "verdict": "Done", "artifacts": ["fix.patch"]}
GOOD = {"type": "success", "output": "fine"}


def bad(message: str) -> dict[str, str]:
    return {"type": "error", "message": message}


def begin(memory: Memory, description: str = "Find the fault", **more: Any) -> str:
    response = memory.http.post(f"{memory.path}/episodes", json={"task_description": description, **more})
    assert response.status_code == 201, response.text
    episode_id: str = response.json()["episode_id"]
    return episode_id


def step(memory: Memory, episode: str, tool: str = "grep", **more: Any) -> None:
    body = {"tool": tool, "action": f"Use {tool}", "result": GOOD, **more}
    response = memory.http.post(f"{memory.path}/episodes/{episode}/steps", json=body)
    assert response.status_code == 201, response.text


def complete(memory: Memory, episode: str, outcome: dict[str, Any] = SUCCESS) -> None:
    response = memory.http.post(f"{memory.path}/episodes/{episode}/complete", json={"outcome": outcome})
    assert response.status_code == 200, response.text


def get(memory: Memory, episode: str, of: str = "", **query: Any) -> dict[str, Any]:
    response = memory.http.get(f"{memory.path}/episodes/{episode}{of}", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def post(memory: Memory, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    response = memory.http.post(f"{memory.path}/episodes/{path}", json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def error(memory: Memory, path: str, **body: Any) -> tuple[int, str]:
    response = memory.http.post(f"{memory.path}/episodes/{path}", json=body)
    return response.status_code, response.json()["error"]


def events(memory: Memory, episode: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(memory, episode, "/timeline", **query)["events"]
    return found


def pack_of(memory: Memory, episode: str, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = get(memory, episode, "/handoff", **query)["pack"]
    return found


def story(memory: Memory, live: Live) -> tuple[str, str]:
    """An open episode, a second between all that happens, and its checkpoint."""
    episode = begin(memory, domain="ci", tags=["nightly"], metadata={"ticket": 7}, source="agent-a")

    def then(tool: str, result: Any, **more: Any) -> None:
        live.ambient.advance(seconds=1)
        step(memory, episode, tool, result=result, **more)

    then("grep", GOOD)
    then("pytest", bad("no module named yaml"), latency_ms=90)
    live.ambient.advance(seconds=1)
    marked = post(memory, f"{episode}/checkpoints", 201, note="Before the installation")["checkpoint"]
    then("pip", GOOD, action="Chose pip over conda", step_number=5)
    then("pytest", GOOD)
    then("deploy", None)
    return episode, marked["checkpoint_id"]


# --- timeline ------------------------------------------------------------------------------------


def test_a_timeline_has_the_start_steps_checkpoints_and_the_end_in_order_of_time(memory, live):
    episode, _ = story(memory, live)
    live.ambient.advance(seconds=1)
    complete(memory, episode)
    found = events(memory, episode)
    assert [(event["type"], event["offset_ms"]) for event in found] == [
        *(("start", 0), ("step", 1_000), ("step", 2_000), ("checkpoint", 3_000)),
        *(("step", 4_000), ("step", 5_000), ("step", 6_000), ("end", 7_000)),
    ]
    steps = [event["step"] for event in found if event["type"] == "step"]
    assert [(each["step_number"], each["result"], each["marks"], each["recovers"]) for each in steps] == [
        (1, "success", [], []),
        (2, "error", ["failure"], []),
        (5, "success", ["decision"], []),
        (6, "success", ["recovery"], [2]),
        (7, "pending", [], []),
    ]
    assert (steps[1]["error"], steps[1]["latency_ms"], steps[0]["error"]) == ("no module named yaml", 90, None)
    assert found[3]["checkpoint"]["note"] == "Before the installation"
    assert found[-1]["outcome"] == "success"
    assert all(event["at"] - event["offset_ms"] == found[0]["at"] for event in found)


def test_pages_of_a_timeline_put_together_are_the_timeline(memory, live):
    episode, _ = story(memory, live)
    for _ in range(3):
        post(memory, f"{episode}/checkpoints", 201)  # all in one millisecond
    whole = events(memory, episode)
    for limit in (1, 2, 3, 100):
        paged, cursor = [], None
        while True:
            page = get(memory, episode, "/timeline", limit=limit, **({"cursor": cursor} if cursor else {}))
            assert len(page["events"]) <= limit
            paged += page["events"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert paged == whole


def test_events_of_one_moment_come_in_the_order_in_which_they_happened(memory):
    episode = begin(memory)
    complete(memory, begin(memory))
    for _ in range(2):
        step(memory, episode)
        post(memory, f"{episode}/checkpoints", 201)
    complete(memory, episode)
    kinds = [event["type"] for event in events(memory, episode)]
    assert kinds == ["start", "step", "checkpoint", "step", "checkpoint", "end"]


def test_a_timeline_bears_times_far_apart(memory):
    episode = begin(memory, start_time=2**63 - 1)
    step(memory, episode, timestamp=-(2**63))
    assert [event["offset_ms"] for event in events(memory, episode)] == [-(2**64) + 1, 0]
    assert pack_of(memory, episode)["state"]["elapsed_ms"] == 0


def test_failures_in_a_row_are_made_good_together(memory):
    episode = begin(memory)
    for result in (bad("busy"), bad("locked"), GOOD, bad("gone")):
        step(memory, episode, "sqlite", result=result)
    steps = [event["step"] for event in events(memory, episode)[1:]]
    assert [each["recovers"] for each in steps] == [[], [], [1, 2], []]
    assert [each["recovered_by"] for each in pack_of(memory, episode)["failures"]] == [[3], [3], None]


def test_a_long_action_is_cut_to_a_line(memory):
    episode = begin(memory)
    step(memory, episode, action="Line\n" * 1_900)
    [told] = [event["step"]["action"] for event in events(memory, episode) if event["type"] == "step"]
    assert len(told) <= 200
    assert told.startswith("Line Line ")
    assert told.endswith("…")


@pytest.mark.parametrize("cursor", ["", "x", "MSwy", "LTEsLTEsLTEsLTE", "é", "MSwyLGE"])
def test_a_cursor_that_is_none_is_refused(memory, cursor):
    episode = begin(memory)
    refused(memory.http.get(f"{memory.path}/episodes/{episode}/timeline", params={"cursor": cursor}), "cursor")


READS = ("timeline", "relationships", "handoff")
WRITES = {
    "tags": {"add": ["one"]},
    "relationships": {"remove": [{"target": NOWHERE, "type": "follows"}]},
    "checkpoints": {},
}


def test_what_is_not_there_is_404_and_creates_nothing(live):
    used, unused = live.memory(), live.memory()
    begin(used)
    for memory, code in ((used, "not_found"), (unused, "database_not_found")):
        responses = [memory.http.get(f"{memory.path}/episodes/{NOWHERE}/{read}") for read in READS]
        responses += [
            memory.http.post(f"{memory.path}/episodes/{NOWHERE}/{name}", json=body) for name, body in WRITES.items()
        ]
        for response in responses:
            assert (response.status_code, response.json()["code"]) == (404, code), response.request.url
    assert not unused.exists


def test_reads_as_of_a_moment_show_what_was_then(memory, live):
    episode, _ = story(memory, live)
    other = begin(memory)
    before = memory.txid
    pack = pack_of(memory, episode)
    step(memory, episode)
    post(memory, f"{episode}/relationships", add=[{"target": other, "type": "follows"}])
    assert len(events(memory, episode, as_of=before)) == len(events(memory, episode)) - 1
    assert get(memory, episode, "/relationships", as_of=before)["relationships"] == []
    assert pack_of(memory, episode, as_of=before) == pack != pack_of(memory, episode)


# --- tags ----------------------------------------------------------------------------------------


def tagged(memory: Memory, *tags: str) -> set[str]:
    found = memory.http.get(f"{memory.path}/episodes", params={"tags": ",".join(tags)}).json()["episodes"]
    return {each["episode_id"] for each in found}


@pytest.mark.parametrize("completed", [False, True])
def test_tags_are_added_and_removed_and_filter_at_once(memory, completed):
    episode, other = begin(memory, tags=["one", "two"]), begin(memory, tags=["two"])
    if completed:
        complete(memory, episode)
    before = get(memory, episode)["episode"]
    answer = post(memory, f"{episode}/tags", add=["three", "one", "three"], remove=["two", "never there"])
    assert answer == {"episode_id": episode, "tags": ["one", "three"], "txid": memory.txid}
    assert get(memory, episode)["episode"] == before | {"context": before["context"] | {"tags": ["one", "three"]}}
    assert tagged(memory, "three") == tagged(memory, "one", "three") == {episode}
    assert tagged(memory, "two") == {other}
    assert post(memory, f"{episode}/tags", remove=["one", "three"])["tags"] == []
    assert tagged(memory, "three") == set()


def test_tags_that_change_nothing_write_nothing(memory):
    episode = begin(memory, tags=["one"])
    before = memory.txid
    assert post(memory, f"{episode}/tags", add=["one"], remove=["two"])["txid"] == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "add or remove"),
        ({"add": ["one"], "remove": ["one"]}, "remove"),
        ({"add": ["x"]}, "add[0]"),
        ({"add": ["y" * 101]}, "add[0]"),
        ({"add": ["  "]}, "add[0]"),
        ({"add": "one"}, "add"),
        ({"add": ["one"], "tag": "x"}, "tag"),
        ({"add": [f"tag {n}" for n in range(50)]}, "add"),
    ],
)
def test_wrong_tags_are_refused_and_nothing_changes(memory, body, field):
    episode = begin(memory, tags=["kept"])
    before = memory.txid
    refused(memory.http.post(f"{memory.path}/episodes/{episode}/tags", json=body), field)
    assert memory.txid == before


# --- relationships -------------------------------------------------------------------------------


def related(memory: Memory, episode: str) -> set[tuple[str, str, str]]:
    found = get(memory, episode, "/relationships")["relationships"]
    return {(each["direction"], each["type"], each["episode_id"]) for each in found}


def link(target: str, type_: str, **more: Any) -> dict[str, Any]:
    return {"target": target, "type": type_, **more}


def test_a_relationship_is_seen_from_both_ends(memory, live):
    one, two = begin(memory, "Build it"), begin(memory, "Ship it")
    complete(memory, one)
    answer = post(memory, f"{two}/relationships", add=[link(one, "depends_on", reason="It ships what is built")])
    common = {"type": "depends_on", "reason": "It ships what is built", "created_at": live.ambient.now_ms()}
    assert answer == {
        "episode_id": two,
        "relationships": [
            common | {"direction": "outgoing", "episode_id": one, "task_description": "Build it", "outcome": "success"}
        ],
        "txid": memory.txid,
    }
    assert get(memory, one, "/relationships")["relationships"] == [
        common | {"direction": "incoming", "episode_id": two, "task_description": "Ship it", "outcome": None}
    ]


def test_adding_again_changes_the_reason_alone_and_without_one_nothing(memory, live):
    one, two = begin(memory), begin(memory)
    [first] = post(memory, f"{one}/relationships", add=[link(two, "follows", reason="So")])["relationships"]
    before = memory.txid
    live.ambient.advance(seconds=1)
    [again] = post(memory, f"{one}/relationships", add=[link(two, "follows")])["relationships"]
    assert (again, memory.txid) == (first, before)
    [changed] = post(memory, f"{one}/relationships", add=[link(two, "follows", reason="Or so")])["relationships"]
    assert changed == first | {"reason": "Or so"}


def test_removals_come_before_additions_so_that_one_request_turns_a_link_round(memory):
    one, two = begin(memory), begin(memory)
    post(memory, f"{one}/relationships", add=[link(two, "follows")])
    assert error(memory, f"{two}/relationships", add=[link(one, "follows")])[0] == 409
    post(memory, f"{one}/relationships", add=[link(two, "references")], remove=[link(two, "follows")])
    post(memory, f"{two}/relationships", add=[link(one, "follows")], remove=[link(NOWHERE, "follows")])
    assert related(memory, one) == {("outgoing", "references", two), ("incoming", "follows", two)}


@pytest.mark.parametrize("type_", ["parent_child", "depends_on", "blocks", "follows"])
def test_a_circle_is_a_conflict_that_names_the_way(memory, type_):
    one, two, three = (begin(memory) for _ in range(3))
    post(memory, f"{one}/relationships", add=[link(two, type_)])
    post(memory, f"{two}/relationships", add=[link(three, type_)])
    before = memory.txid
    status, said = error(memory, f"{three}/relationships", add=[link(two, "references"), link(one, type_)])
    assert status == 409
    assert said == f"add[1].target: {type_} would go in a circle: {three} -> {one} -> {two} -> {three}"
    assert memory.txid == before
    assert related(memory, three) == {("incoming", type_, two)}


def test_a_long_circle_is_named_in_short(memory):
    chain = [begin(memory) for _ in range(40)]
    for one, two in itertools.pairwise(chain):
        post(memory, f"{one}/relationships", add=[link(two, "follows")])
    status, said = error(memory, f"{chain[-1]}/relationships", add=[link(chain[0], "follows")])
    names = said.partition("circle: ")[2].split(" -> ")
    assert status == 409
    assert names == [chain[-1], *chain[:18], "(21 more)", chain[-1]]


def test_other_types_may_go_round(memory):
    one, two = begin(memory), begin(memory)
    for type_ in ("related_to", "duplicates", "references", "continues"):
        post(memory, f"{one}/relationships", add=[link(two, type_)])
        post(memory, f"{two}/relationships", add=[link(one, type_)])
    assert len(related(memory, one)) == 8


@pytest.mark.parametrize("seed", range(3))
def test_relationships_are_those_of_a_simple_model(live, seed):
    """At random, against a set of links and a walk over it."""
    memory, chance = live.memory(), random.Random(seed)
    episodes = [begin(memory) for _ in range(6)]
    links: set[tuple[str, str, str]] = set()

    def reaches(start: str, goal: str, type_: str) -> bool:
        seen, edge = {start}, [start]
        while edge:
            edge = [to for each in edge for of, t, to in links if (of, t) == (each, type_) and to not in seen]
            seen.update(edge)
        return goal in seen

    for _ in range(60):
        one, two = chance.sample(episodes, 2)
        type_ = chance.choice(["follows", "blocks", "related_to"])
        if chance.random() < 0.25:
            post(memory, f"{one}/relationships", remove=[link(two, type_)])
            links.discard((one, type_, two))
        elif type_ != "related_to" and reaches(two, one, type_):
            assert error(memory, f"{one}/relationships", add=[link(two, type_)])[0] == 409
        else:
            post(memory, f"{one}/relationships", add=[link(two, type_)])
            links.add((one, type_, two))
    gone = episodes.pop()
    assert memory.http.delete(f"{memory.path}/episodes/{gone}").status_code in (200, 204)
    links = {each for each in links if gone not in each}
    for episode in episodes:
        expected = {("outgoing", type_, to) for of, type_, to in links if of == episode}
        expected |= {("incoming", type_, of) for of, type_, to in links if to == episode}
        assert related(memory, episode) == expected


def test_an_unknown_target_is_404_that_names_the_field_and_nothing_is_linked(memory):
    one, two = begin(memory), begin(memory)
    status, said = error(memory, f"{one}/relationships", add=[link(two, "follows"), link(NOWHERE, "follows")])
    assert (status, said) == (404, f"add[1].target: there is no episode {NOWHERE}")
    assert related(memory, one) == set()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (lambda one, _: {"add": [link(one, "follows")]}, "add[0].target"),
        (lambda _, two: {"add": [link(two, "likes")]}, "add[0].type"),
        (lambda _, two: {"add": [link(two, "follows", reason=" ")]}, "add[0].reason"),
        (lambda _, two: {"add": [link(two, "follows", why="")]}, "add[0].why"),
        (lambda *_: {"add": [link("x", "follows")]}, "add[0].target"),
        (lambda *_: {"remove": [{"type": "follows"}]}, "remove[0].target"),
        (lambda _, two: {"add": [link(two, "follows")] * 101}, "add"),
        (lambda *_: {}, "add or remove"),
    ],
)
def test_wrong_relationships_are_refused(memory, body, field):
    one, two = begin(memory), begin(memory)
    refused(memory.http.post(f"{memory.path}/episodes/{one}/relationships", json=body(one, two)), field)
    assert related(memory, one) == set()


def test_an_episode_has_at_most_1_000_relationships_in_both_directions(memory):
    hub, extra = begin(memory), begin(memory)
    others = []
    for _ in range(10):
        new = [{"task_description": "One of many"}] * 100
        others += post(memory, "bulk", 201, episodes=new)["episode_ids"]
    for place in range(0, 1_000, 100):
        post(memory, f"{hub}/relationships", add=[link(other, "blocks") for other in others[place : place + 100]])
    before = memory.txid
    path = f"{memory.path}/episodes/{{}}/relationships"
    refused(memory.http.post(path.format(hub), json={"add": [link(extra, "blocks")]}), "episode_id")
    refused(memory.http.post(path.format(extra), json={"add": [link(hub, "follows")]}), "add[0].target")
    assert memory.txid == before
    assert len(related(memory, hub)) == 1_000
    post(memory, f"{hub}/relationships", add=[link(extra, "blocks")], remove=[link(others[0], "blocks")])


# --- checkpoints ---------------------------------------------------------------------------------


def test_a_checkpoint_marks_the_last_step(memory, live):
    episode = begin(memory)
    first = post(memory, f"{episode}/checkpoints", 201)
    assert first["checkpoint"] | {"checkpoint_id": ""} == {
        **{"checkpoint_id": "", "created_at": live.ambient.now_ms(), "step_number": 0, "note": None}
    }
    step(memory, episode, step_number=7)
    second = post(memory, f"{episode}/checkpoints", 201, note="Half-way")["checkpoint"]
    assert (second["step_number"], second["note"]) == (7, "Half-way")
    assert get(memory, episode)["episode"]["checkpoints"] == [first["checkpoint"], second]


def test_a_completed_episode_takes_no_checkpoint(memory):
    episode = begin(memory)
    complete(memory, episode)
    assert error(memory, f"{episode}/checkpoints") == (
        409,
        f"episode {episode} is completed; only an open one is checkpointed",
    )


def test_an_episode_has_at_most_100_checkpoints_and_notes_say_something(memory):
    episode = begin(memory)
    for note in ("", "  ", "x" * 1_001, 7):
        refused(memory.http.post(f"{memory.path}/episodes/{episode}/checkpoints", json={"note": note}), "note")
    for _ in range(100):
        post(memory, f"{episode}/checkpoints", 201)
    refused(memory.http.post(f"{memory.path}/episodes/{episode}/checkpoints", json={}), "episode_id")


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
