"""Items 50 to 54: sessions, and the verbatim transcript."""

from __future__ import annotations

from typing import Any

import pytest

from contract.live_node import Memory, event, fact, task


def listed(memory: Memory, **query: Any) -> list[str]:
    response = memory.sessions(**query)
    assert response.status_code == 200, response.text
    return [session["id"] for session in response.json()["sessions"]]


def turns(memory: Memory, session: str, **query: Any) -> list[dict[str, Any]]:
    response = memory.http.get(f"{memory.database}/memory/{session}/turns", params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["turns"]
    return found


# --- sessions ------------------------------------------------------------------------------------


def test_item_50_sessions_are_listed_most_recent_first_with_the_txid(memory, live):
    begun = live.ambient.now_ms()
    memory.keep(event("One", session_id="a"))
    live.ambient.advance(seconds=1)
    memory.append("b", "user", "Hello")
    live.ambient.advance(seconds=1)
    memory.keep(event("Two", session_id="a"))
    response = memory.sessions()
    assert set(response.json()) >= {"sessions", "txid"}
    assert response.json()["txid"] == 3
    assert [
        {name: session[name] for name in ("id", "created_at", "last_active_at")}
        for session in response.json()["sessions"]
    ] == [
        {"id": "a", "created_at": begun, "last_active_at": begun + 2_000},
        {"id": "b", "created_at": begun + 1_000, "last_active_at": begun + 1_000},
    ]


def test_item_50_ingest_and_transcript_appends_create_sessions(memory):
    memory.keep(event("One", session_id="by ingest"), event("Two"))
    assert listed(memory) == ["by ingest"]
    posted = memory.http.post(f"{memory.database}/memory/by-append/turns", json={"role": "user", "content": "Hi"})
    assert posted.status_code == 201
    assert set(listed(memory)) == {"by ingest", "by-append"}


def test_item_50_reads_create_no_session(memory):
    memory.keep(event("One"))
    memory.found(query="One", session_id="s")
    assert turns(memory, "s") == []
    assert listed(memory) == []


def test_item_50_limit_is_100_by_default(memory):
    memory.keep(*(event(f"Number {n}", session_id=f"s{n}") for n in range(105)))
    assert len(listed(memory)) == 100
    assert len(listed(memory, limit=105)) == 105
    assert len(listed(memory, limit=2)) == 2


def test_item_51_ending_a_session_takes_its_tasks_and_its_listing_and_leaves_the_rest(memory):
    mine, elsewhere, *others = memory.keep(
        task("Call Ann", session_id="s", embedding=[1.0, 0.0]),
        task("Call Bob", session_id="t", embedding=[0.0, 1.0]),
        event("Met Ann", session_id="s"),
        fact("user.friend", "Ann is a friend", session_id="s"),
        {"type": "instruction", "summary": "Greet Ann", "session_id": "s"},
    )
    memory.append("s", "user", "Hello")
    response = memory.http.delete(f"{memory.path}/sessions/s")
    assert (response.status_code, response.content) == (204, b"")
    assert listed(memory) == ["t"]
    assert memory.get(mine["id"]).status_code == 404
    assert [hit["id"] for hit in memory.found(query="call", embedding=[1.0, 0.0])] == [elsewhere["id"]]
    assert all(memory.get(other["id"]).json()["session_id"] == "s" for other in others)
    assert len(memory.found(query="Ann")) == 3
    assert [turn["content"] for turn in turns(memory, "s")] == ["Hello"]


def test_item_51_turns_true_drops_the_transcript_too(memory):
    for session in ("s", "t"):
        memory.append(session, "user", f"Zebra in {session}", embedding=[1.0, 0.0])
    assert memory.http.delete(f"{memory.path}/sessions/s", params={"turns": "true"}).status_code == 204
    assert turns(memory, "s") == []
    assert [turn["content"] for turn in turns(memory, "t")] == ["Zebra in t"]
    for request in ({"query": "zebra"}, {"embedding": [1.0, 0.0]}):
        found = memory.recall(include_turns=True, **request).json()["turns"]
        assert [turn["session_id"] for turn in found] == ["t"]


def test_item_51_turns_false_leaves_the_transcript(memory):
    memory.append("s", "user", "Hello")
    assert memory.http.delete(f"{memory.path}/sessions/s", params={"turns": "false"}).status_code == 204
    assert [turn["content"] for turn in turns(memory, "s")] == ["Hello"]


def test_item_51_an_ended_session_may_begin_again(memory):
    memory.append("s", "user", "Hello")
    memory.http.delete(f"{memory.path}/sessions/s", params={"turns": "true"})
    assert memory.append("s", "user", "Hello again").json()["seq"] == 1
    assert listed(memory) == ["s"]


def test_item_51_ending_a_session_of_an_unknown_profile_is_404_and_makes_none(memory):
    response = memory.http.delete(f"{memory.path}/sessions/s")
    assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    assert not memory.exists


# --- transcript ----------------------------------------------------------------------------------


def test_item_52_a_turn_is_201_with_its_seq_from_1_in_each_session(memory):
    memory.keep(event("Something"))
    expected = [("s", 1, 2), ("s", 2, 3), ("t", 1, 4), ("s", 3, 5)]
    for session, seq, txid in expected:
        body = {"role": "user", "content": f"Turn {seq}", "embedding": [1.0, 0.5]}
        response = memory.http.post(f"{memory.database}/memory/{session}/turns", json=body)
        assert (response.status_code, response.json()) == (201, {"seq": seq, "txid": txid})


def test_item_52_the_database_must_exist(memory):
    body = {"role": "user", "content": "Hello"}
    for response in (
        memory.http.post(f"{memory.database}/memory/s/turns", json=body),
        memory.http.get(f"{memory.database}/memory/s/turns"),
        memory.http.post(f"{memory.database}/memory/s/search", json={"vector": [1.0]}),
        memory.http.post("/v1/db/plain/memory/s/turns", json=body),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    assert not memory.exists


def test_item_52_a_branch_in_the_database_spec_is_addressed(memory):
    memory.keep(event("Something"))
    body = {"role": "user", "content": "Hello"}
    assert memory.http.post(f"{memory.database}@main/memory/s/turns", json=body).status_code == 201
    response = memory.http.post(f"{memory.database}@nope/memory/s/turns", json=body)
    assert (response.status_code, response.json()["code"]) == (404, "branch_not_found")
    assert len(turns(memory, "s")) == 1


def test_item_53_the_last_turns_come_in_ascending_order(memory, live):
    for n in range(1, 6):
        memory.append("s", "user" if n % 2 else "assistant", f"Turn {n}")
        live.ambient.advance(seconds=1)
    now = live.ambient.now_ms()
    window = turns(memory, "s", last=2)
    assert [{name: turn[name] for name in ("seq", "role", "content", "created_at")} for turn in window] == [
        {"seq": 4, "role": "assistant", "content": "Turn 4", "created_at": now - 2_000},
        {"seq": 5, "role": "user", "content": "Turn 5", "created_at": now - 1_000},
    ]
    assert [turn["seq"] for turn in turns(memory, "s", last=50)] == [1, 2, 3, 4, 5]


def test_item_53_last_is_20_by_default(memory):
    for n in range(25):
        memory.append("s", "user", f"Turn {n}")
    assert [turn["seq"] for turn in turns(memory, "s")] == list(range(6, 26))


def test_item_53_an_unknown_session_is_empty(memory):
    memory.append("s", "user", "Hello")
    response = memory.http.get(f"{memory.database}/memory/other/turns")
    assert (response.status_code, response.json()) == (200, {"turns": []})


@pytest.mark.parametrize(
    "content", ["", "  two\n\nlines\t", "nul \u0000 inside", "日本語 🍵", '{"json": [1]}', "x" * 100_000]
)
def test_item_53_a_turn_is_kept_verbatim(memory, content):
    assert memory.append("s", "user", content).status_code == 201
    assert turns(memory, "s")[0]["content"] == content


def test_item_54_search_finds_the_nearest_turns_of_the_session(memory):
    memory.append("s", "user", "north", embedding=[0.0, 1.0])
    memory.append("s", "user", "not embedded")
    memory.append("t", "user", "east elsewhere", embedding=[1.0, 0.0])
    memory.append("s", "assistant", "north-east", embedding=[1.0, 1.0])
    response = memory.http.post(f"{memory.database}/memory/s/search", json={"vector": [1.0, 0.0], "k": 5})
    assert response.status_code == 200
    assert [{**turn, "distance": round(turn["distance"], 6)} for turn in response.json()["turns"]] == [
        {"session_id": "s", "seq": 3, "role": "assistant", "content": "north-east", "distance": 0.292893},
        {"session_id": "s", "seq": 1, "role": "user", "content": "north", "distance": 1.0},
    ]


def test_item_54_k_is_5_by_default(memory):
    for n in range(8):
        memory.append("s", "user", f"Turn {n}", embedding=[1.0, n / 10])
        memory.append("t", "user", f"Turn {n}", embedding=[1.0, 0.0])

    def found(**more: Any) -> list[int]:
        response = memory.http.post(f"{memory.database}/memory/s/search", json={"vector": [1.0, 0.0], **more})
        return [turn["seq"] for turn in response.json()["turns"]]

    assert found() == [1, 2, 3, 4, 5]
    assert found(k=2) == [1, 2]
    assert found(k=8) == list(range(1, 9))


def test_item_54_turns_without_embeddings_never_match(memory):
    memory.append("s", "user", "Hello")
    response = memory.http.post(f"{memory.database}/memory/s/search", json={"vector": [1.0, 0.0]})
    assert (response.status_code, response.json()) == (200, {"turns": []})
