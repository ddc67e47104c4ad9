"""Timelines and checkpoints of episodes, and what all that is read with an episode has in common."""

from __future__ import annotations

import pytest

from contract.bad_input import refused
from contract.episode_story import (
    GOOD,
    NOWHERE,
    bad,
    begin,
    complete,
    error,
    events,
    get,
    pack_of,
    post,
    step,
    story,
)

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
