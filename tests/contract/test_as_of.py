"""Reads of the past: recall, get, sessions and the transcript's window as of a moment, without rewinding."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from contract.bad_input import names, refusal, refused, where
from contract.branches import act, checkpoint, create, execute, fork, on, ref, remove, rewind, summaries, tool, turns
from contract.live_node import Memory, event, fact, ids, serve, task
from contract.test_08_bad_branches import BAD_MOMENTS

TOOLSETS = "all"


def listed(memory: Memory, **query) -> list[str]:
    response = memory.sessions(**query)
    assert response.status_code == 200, response.text
    return [session["id"] for session in response.json()["sessions"]]


def record(memory: Memory, memory_id: str, as_of: int | str):
    return memory.http.get(f"{memory.path}/memories/{memory_id}", params={"as_of": as_of})


def test_every_read_shows_what_was_there_at_a_transaction_and_says_which(memory, live):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo", session_id="a", embedding=[1.0, 0.0]))
    memory.append("a", "user", "Hello")
    [rome] = memory.keep(fact("user.city", "Lives in Rome", session_id="b", embedding=[0.0, 1.0]))
    memory.append("a", "user", "Goodbye")
    memory.forget(oslo["id"])

    recalled = memory.recall(topic_key="user.city", as_of=1)
    assert (recalled.headers["Memoturn-Txid"], recalled.json()["txid"]) == ("1", 1)
    assert ids(recalled.json()["memories"]) == [oslo["id"]]
    assert ids(memory.found(topic_key="user.city", as_of=3)) == [rome["id"]]
    assert ids(memory.found(query="lives", as_of=2)) == [oslo["id"]]
    assert set(ids(memory.found(query="lives", include_superseded=True, as_of=4))) == {oslo["id"], rome["id"]}
    assert ids(memory.found(embedding=[0.0, 1.0], as_of=2)) == [oslo["id"]]
    assert ids(memory.found(embedding=[1.0, 0.0], as_of=5)) == [rome["id"]]
    for txid, superseded_by in ((1, None), (2, None), (3, rome["id"]), (4, rome["id"])):
        then = record(memory, oslo["id"], txid)
        assert (then.status_code, then.headers["Memoturn-Txid"]) == (200, str(txid))
        assert then.json()["superseded_by"] == superseded_by
    assert record(memory, oslo["id"], 5).status_code == record(memory, rome["id"], 2).status_code == 404
    assert [listed(memory, as_of=txid) for txid in (1, 2, 3)] == [["a"], ["a"], ["b", "a"]]
    assert [turns(memory, "a", as_of=txid) for txid in (1, 2, 3, 4)] == [[], ["Hello"], ["Hello"], ["Hello", "Goodbye"]]
    window = memory.http.get(f"{memory.path}/sessions/a/turns", params={"as_of": "2", "last": "5"})
    assert [turn["content"] for turn in window.json()["turns"]] == ["Hello"]
    assert window.headers["Memoturn-Txid"] == "2"
    assert memory.txid == 5


def test_recall_with_turns_searches_the_transcript_of_then(memory):
    memory.append("s", "user", "The cat is called Tom")
    memory.append("s", "user", "The cat is called Tim")
    for txid, expected in ((1, 1), (2, 2)):
        found = memory.recall(query="cat", include_turns=True, as_of=txid).json()["turns"]
        assert len(found) == expected


def test_a_moment_is_a_transaction_a_checkpoint_or_a_time_however_written(memory, live):
    memory.keep(event("note 1"))
    checkpoint(memory, "before-the-trip")
    first = live.ambient.now_ms()
    live.ambient.advance(seconds=60)
    memory.keep(event("note 2"))
    checkpoint(memory, "1")
    second = live.ambient.now_ms()
    live.ambient.advance(seconds=60)
    memory.keep(event("note 3"))
    for moment, last in (
        (1, 1), (2, 2), ("2", 2), (3, 3), ("before-the-trip", 1), ("1", 2), (first, 1), (str(first), 1),
        (second - 1, 1), (second, 2), (second + 59_999, 2), (second + 60_000, 3), (rfc3339(second), 2),
        (rfc3339(second).replace("+00:00", "Z"), 2), (rfc3339(second - 1), 1),
    ):  # fmt: skip
        assert summaries(memory, as_of=moment) == {f"note {n}" for n in range(1, last + 1)}, moment


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def test_tasks_that_have_expired_since_are_there_as_of_then(memory, live):
    memory.keep(task("note to call", ttl=60, session_id="s"))
    then = live.ambient.now_ms()
    live.ambient.advance(seconds=60)
    memory.keep(event("note 2"))
    assert summaries(memory) == {"note 2"}
    assert summaries(memory, as_of=1) == {"note to call"}
    assert summaries(memory, as_of=then) == summaries(memory, as_of=then + 59_999) == {"note to call"}
    assert summaries(memory, as_of=then + 60_000) == {"note 2"}
    assert summaries(memory, as_of=2) == {"note 2"}
    [session] = memory.sessions(as_of=1).json()["sessions"]
    assert session["tasks"] == 1
    assert memory.sessions().json()["sessions"][0]["tasks"] == 0


def test_the_past_is_read_without_touching_the_present(memory, live):
    memory.keep(fact("user.city", "Lives in Oslo"))
    memory.keep(fact("user.city", "Lives in Rome"))
    before = memory.http.get(f"{memory.database}/storage").json()
    for _ in range(2):
        assert [hit["summary"] for hit in memory.found(topic_key="user.city", as_of=1)] == ["Lives in Oslo"]
    assert memory.http.get(f"{memory.database}/storage").json() == before
    assert [hit["summary"] for hit in memory.found(topic_key="user.city")] == ["Lives in Rome"]
    assert memory.keep(fact("user.city", "Lives in Bern"))[0]["status"] == "created"
    assert summaries(memory, query="lives", as_of=2) == {"Lives in Rome"}


def test_after_a_rewind_what_it_discarded_is_409_and_what_it_kept_and_what_came_since_can_be_seen(memory, live):
    for number in range(1, 5):
        memory.keep(event(f"note {number}"))
        live.ambient.advance(seconds=10)
    assert summaries(memory, as_of=4) == {f"note {n}" for n in range(1, 5)}
    rewind(memory, 2)
    for moment in (3, 4):
        assert_conflict(memory.recall(query="note", as_of=moment))
        assert_conflict(memory.sessions(as_of=moment))
    assert summaries(memory, as_of=1) == {"note 1"}
    memory.keep(event("note of another future"))
    assert summaries(memory, as_of=3) == {"note 1", "note 2", "note of another future"}
    assert_conflict(memory.recall(query="note", as_of=4))


def assert_conflict(response) -> None:
    assert (response.status_code, response.json()["code"]) == (409, "conflict"), response.text


def test_a_branch_has_its_parents_past_and_its_own(memory):
    memory.keep(event("note 1"))
    memory.keep(event("note 2"))
    there = fork(memory, "x")
    there.keep(event("note of x"))
    memory.keep(event("note of main"))
    for state, own in ((there, "note of x"), (memory, "note of main")):
        assert summaries(state, as_of=1) == {"note 1"}
        assert summaries(state, as_of=2) == {"note 1", "note 2"}
        assert summaries(state, as_of=3) == {"note 1", "note 2", own}
    remove(memory, "x")
    assert there.recall(query="note", as_of=1).json()["code"] == "branch_not_found"


def test_a_moment_that_is_not_in_the_history_is_an_error_of_every_read(memory, live):
    [kept] = memory.keep(event("note", session_id="s"))
    for moment, status, code in (
        (2, 409, "conflict"),
        (0, 409, "conflict"),
        (2**63 - 1, 409, "conflict"),
        (live.ambient.now_ms() + 1, 409, "conflict"),
        (live.ambient.now_ms() - 1, 409, "conflict"),
        ("1973-03-03T09:46:40Z", 409, "conflict"),
        ("nope", 404, "branch_not_found"),
    ):
        for response in (
            memory.recall(query="note", as_of=moment),
            memory.sessions(as_of=moment),
            record(memory, kept["id"], moment),
            memory.http.get(f"{memory.database}/memory/s/turns", params={"as_of": moment}),
        ):
            assert (response.status_code, response.json()["code"]) == (status, code), (moment, response.text)


def test_as_of_on_an_unknown_profile_behaves_like_the_plain_call(memory):
    recalled = memory.recall(query="note", as_of=1)
    assert (recalled.status_code, recalled.json()) == (200, {"memories": [], "txid": 0})
    for response in (
        memory.sessions(as_of=1),
        record(memory, "mem_" + "0" * 32, "nope"),
        memory.http.get(f"{memory.database}/memory/s/turns", params={"as_of": "1"}),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    assert on(memory, "x").recall(query="note", as_of=1).json()["code"] == "branch_not_found"
    assert not memory.exists


@pytest.mark.parametrize("bad", BAD_MOMENTS[1:], ids=lambda bad: repr(bad)[:40])
def test_a_bad_moment_is_refused_on_both_surfaces_and_names_the_field(memory, mcp, bad):
    memory.keep(event("note"))
    if bad == "2024-01-01":
        assert memory.recall(query="note", as_of=bad).status_code == 404
        return
    refused(memory.recall(query="note", as_of=bad), "as_of")
    envelope = refusal({"result": mcp.call("memory_recall", **where(memory), query="note", as_of=bad)})
    assert names(envelope["error"], "as_of"), envelope["error"]
    if isinstance(bad, str) and len(bad) < 1_000:
        refused(memory.sessions(as_of=bad), "as_of")
        refused(memory.http.get(f"{memory.database}/memory/s/turns", params={"as_of": bad}), "as_of")


def test_the_tools_read_the_past_too(memory, mcp):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo", session_id="a"))
    checkpoint(memory, "c")
    memory.append("a", "user", "Hello")
    memory.keep(fact("user.city", "Lives in Rome", session_id="b"))
    recalled = tool(mcp, memory, "memory_recall", topic_key="user.city", as_of="c")
    assert recalled["txid"] == 1
    assert ids(recalled["result"]["memories"]) == [oslo["id"]]
    got = tool(mcp, memory, "memory_get", id=oslo["id"], as_of=1)
    assert (got["txid"], got["result"]["superseded_by"]) == (1, None)
    assert tool(mcp, memory, "memory_get", id="mem_" + "0" * 32, as_of=1)["result"] == {"found": False}
    window = tool(mcp, memory, "memory_window", session="a", as_of=2)
    assert [turn["content"] for turn in window["result"]["turns"]] == ["Hello"]
    sessions = tool(mcp, memory, "memory_sessions_list", as_of="c")
    assert [session["id"] for session in sessions["result"]["sessions"]] == ["a"]


def test_a_state_from_before_a_table_of_the_users_has_none(memory, live):
    memory.keep(event("note 1"))
    execute(live, ref(live, memory), "CREATE TABLE mine (value)")
    branch = fork(memory, "x", at=1)
    assert summaries(branch, as_of=1) == {"note 1"}
    assert create(memory, "y", at=2).status_code == 201
    assert act(memory, "main", "rewind", to=1).status_code == 200
    assert summaries(memory, as_of=1) == {"note 1"}


def test_the_past_survives_a_restart_and_is_asked_of_the_process_that_owns_the_database(tmp_path, live):
    with serve(tmp_path, ambient=live.ambient) as first:
        memory = first.memory()
        for number in range(1, 6):
            memory.keep(event(f"note {number}"))
        with serve(tmp_path, ambient=live.ambient) as second:
            theirs = Memory(second.http, memory.namespace, memory.profile)
            assert summaries(theirs, as_of=3) == {"note 1", "note 2", "note 3"}
            assert_conflict(theirs.recall(query="note", as_of=6))
    with serve(tmp_path, ambient=live.ambient) as again:
        memory = Memory(again.http, memory.namespace, memory.profile)
        assert [len(summaries(memory, as_of=txid)) for txid in range(1, 6)] == [1, 2, 3, 4, 5]
