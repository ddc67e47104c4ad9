"""Items 27 to 30 and 35 to 41: what recall takes, answers and leaves out, of memories and of turns."""

from __future__ import annotations

from typing import Any

import pytest

from contract.live_node import Memory, event, fact, ids, serve, task
from contract.provider_server import Reply, provider
from contract.replies import endpoint, vectors
from memoturn_core.providers.embedding import OpenAIEmbedder
from memoturn_storage.ambient import ManualAmbient


def summaries(memories: list[dict[str, Any]]) -> list[str]:
    return [memory["summary"] for memory in memories]


def append(memory: Memory, session: str, content: str, embedding: list[float] | None = None) -> None:
    more = {} if embedding is None else {"embedding": embedding}
    response = memory.append(session, "user", content, **more)
    assert response.status_code == 201, response.text


# --- shapes --------------------------------------------------------------------------------------


def test_item_27_recall_takes_all_its_fields_at_once(memory):
    [wanted, *_] = memory.keep(
        fact("user.city", "Lives in Oslo", session_id="s", source="agent", embedding=[1.0, 0.0]),
        event("Flew to Oslo", session_id="s", source="agent", embedding=[1.0, 0.0]),
        fact("user.food", "Eats in Oslo", session_id="t", source="agent", embedding=[1.0, 0.0]),
        fact("user.work", "Works in Oslo", session_id="s", source="other", embedding=[1.0, 0.0]),
    )
    response = memory.recall(
        query="Oslo",
        embedding=[1, 0.0],
        topic_key="user.city",
        types=["fact", "instruction"],
        session_id="s",
        source="agent",
        k=5,
        include_superseded=True,
        include_turns=True,
    )
    assert response.status_code == 200
    answer = response.json()
    assert ids(answer["memories"]) == [wanted["id"]]
    assert (answer["turns"], answer["txid"]) == ([], 1)


def test_item_28_a_hit_has_the_fields_of_the_contract_and_no_expires_at(memory, live):
    [kept] = memory.keep(
        task("Call Ann", keywords="phone", session_id="s", source="agent", content={"who": "Ann"}, ttl=60)
    )
    [hit] = memory.found(query="phone")
    assert {name: value for name, value in hit.items() if name != "score"} == {
        "id": kept["id"],
        "type": "task",
        "topic_key": None,
        "summary": "Call Ann",
        "content": {"who": "Ann"},
        "keywords": "phone",
        "session_id": "s",
        "source": "agent",
        "created_at": live.ambient.now_ms(),
        "superseded_by": None,
        "channels": ["keyword"],
    }
    assert isinstance(hit["score"], float)


def test_item_28_channels_name_what_found_the_hit(memory):
    memory.keep(
        fact("user.city", "Lives in Oslo", embedding=[1.0, 0.0]),
        event("Flew to Oslo"),
        event("Something else", embedding=[0.0, 1.0]),
    )
    found = memory.found(query="Oslo", topic_key="user.city", embedding=[1.0, 0.0])
    assert {hit["summary"]: set(hit["channels"]) for hit in found} == {
        "Lives in Oslo": {"topic", "keyword", "vector"},
        "Flew to Oslo": {"keyword"},
        "Something else": {"vector"},
    }


def test_item_29_recall_by_nothing_is_400(memory):
    memory.keep(event("Met Ann"))
    for request in ({}, {"k": 3}, {"types": ["event"], "session_id": "s", "source": "a"}, {"query": None}):
        response = memory.recall(**request)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
        for field in ("query", "embedding", "topic_key"):
            assert field in response.json()["error"]


def test_item_29_an_unknown_type_is_400(memory):
    memory.keep(event("Met Ann"))
    response = memory.recall(query="Ann", types=["event", "opinion"])
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["error"].startswith("types[1]: ")


def test_item_29_an_empty_list_of_types_matches_nothing(memory):
    memory.keep(fact("user.city", "Lives in Oslo", embedding=[1.0, 0.0]))
    assert memory.found(query="Oslo", topic_key="user.city", embedding=[1.0, 0.0], types=[]) == []
    assert len(memory.found(query="Oslo", types=None)) == 1


def test_item_30_k_is_8_by_default(memory):
    memory.keep(*(event(f"Zebra {n}") for n in range(12)))
    assert len(memory.found(query="zebra")) == 8
    assert len(memory.found(query="zebra", k=12)) == 12
    assert len(memory.found(query="zebra", k=3)) == 3


@pytest.mark.parametrize("k", [0, 1, -5, -(10**30)])
def test_item_30_k_0_and_less_act_as_1(memory, k):
    memory.keep(*(event(f"Zebra {n}") for n in range(3)))
    assert len(memory.found(query="zebra", k=k)) == 1


@pytest.mark.parametrize("k", [1_000, 1_001, 2**31, 2**64, 10**30])
def test_item_30_k_is_clamped_to_1000(memory, k):
    for batch in range(2):
        memory.keep(*(event(f"Zebra {batch}.{n}") for n in range(501)))
    assert len(memory.found(query="zebra", k=k)) == 1_000


# --- filters -------------------------------------------------------------------------------------


def test_item_35_one_task_behind_many_better_ranked_events_is_still_found(memory):
    [wanted] = memory.keep(
        task("Somewhere in a long sentence about many other things stands zebra", embedding=[0.1, 1.0])
    )
    memory.keep(*(event(f"Zebra zebra zebra {n}", embedding=[1.0, n / 1_000]) for n in range(300)))
    for request in ({"query": "zebra"}, {"embedding": [1.0, 0.0]}, {"query": "zebra", "embedding": [1.0, 0.0]}):
        assert ids(memory.found(types=["task"], **request)) == [wanted["id"]]
        assert wanted["id"] not in ids(memory.found(**request))


@pytest.mark.parametrize("filter_", ["source", "session_id"])
def test_item_35_one_of_a_source_or_session_behind_many_others_is_still_found(memory, filter_):
    [wanted] = memory.keep(
        event("Somewhere in a long sentence stands zebra", embedding=[0.1, 1.0], **{filter_: "wanted"})
    )
    memory.keep(*(event(f"Zebra zebra {n}", embedding=[1.0, n / 1_000], **{filter_: "other"}) for n in range(300)))
    for request in ({"query": "zebra"}, {"embedding": [1.0, 0.0]}, {"query": "zebra", "embedding": [1.0, 0.0]}):
        assert ids(memory.found(**{filter_: "wanted"}, **request)) == [wanted["id"]]
    assert memory.found(query="zebra", **{filter_: "unknown"}) == []


def test_item_35_filters_apply_to_topics_too(memory):
    memory.keep(fact("animal", "Zebra", source="a", session_id="s"))
    assert memory.found(topic_key="animal", types=["instruction"]) == []
    assert memory.found(topic_key="animal", source="b") == []
    assert memory.found(topic_key="animal", session_id="t") == []
    assert len(memory.found(topic_key="animal", types=["fact"], source="a", session_id="s")) == 1


def test_item_36_superseded_memories_are_hidden_unless_asked_for(memory):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo", embedding=[1.0, 0.0]))
    [rome] = memory.keep(fact("user.city", "Lives in Rome", embedding=[0.0, 1.0]))
    for request in ({"query": "lives"}, {"topic_key": "user.city"}, {"embedding": [1.0, 0.0]}):
        assert ids(memory.found(**request)) == [rome["id"]]
        assert set(ids(memory.found(include_superseded=True, **request))) == {oslo["id"], rome["id"]}
    by_topic = memory.found(topic_key="user.city", include_superseded=True)
    assert [(hit["id"], hit["superseded_by"]) for hit in by_topic] == [(rome["id"], None), (oslo["id"], rome["id"])]


def test_item_36_expired_tasks_are_always_hidden(memory, live):
    memory.keep(task("Call Ann", ttl=60, session_id="s", embedding=[1.0, 0.0]))
    live.ambient.advance(seconds=60)
    for request in ({"query": "Ann"}, {"embedding": [1.0, 0.0]}, {"query": "Ann", "session_id": "s"}):
        assert memory.found(include_superseded=True, types=["task"], **request) == []
        assert memory.found(**request) == []


def test_item_37_a_query_embedding_of_another_dimension_degrades_to_keyword_and_topic(memory):
    memory.keep(fact("user.city", "Lives in Oslo", embedding=[1.0, 0.0]), event("Flew to Oslo", embedding=[0.0, 1.0]))
    response = memory.recall(query="Oslo", topic_key="user.city", embedding=[1.0, 0.0, 0.0])
    assert response.status_code == 200
    assert response.json()["degraded"] == ["vector"]
    assert [set(hit["channels"]) for hit in response.json()["memories"]] == [{"topic", "keyword"}, {"keyword"}]
    alone = memory.recall(embedding=[1.0, 0.0, 0.0])
    assert (alone.status_code, alone.json()["memories"]) == (200, [])


def test_item_38_recall_on_an_unknown_profile_is_empty_at_txid_0_and_makes_none(memory):
    for request in ({"query": "Ann"}, {"topic_key": "t"}, {"embedding": [1.0]}, {"query": "Ann", "types": ["fact"]}):
        response = memory.recall(**request)
        assert (response.status_code, response.json()) == (200, {"memories": [], "txid": 0})
    assert not memory.exists


def test_item_38_recall_on_an_unknown_profile_with_min_txid_is_404(memory):
    response = memory.http.post(f"{memory.path}/recall", json={"query": "Ann"}, headers={"Memoturn-Min-Txid": "1"})
    assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    calm = memory.http.post(f"{memory.path}/recall", json={"query": "Ann"}, headers={"Memoturn-Min-Txid": "0"})
    assert (calm.status_code, calm.json()) == (200, {"memories": [], "txid": 0})
    assert not memory.exists


# --- turns ---------------------------------------------------------------------------------------


def test_item_39_turns_are_searched_by_embedding_into_an_array_of_their_own(memory):
    memory.keep(event("A memory", embedding=[1.0, 0.0]))
    append(memory, "s", "north", [0.0, 1.0])
    append(memory, "s", "not embedded")
    append(memory, "t", "east", [1.0, 0.0])
    append(memory, "s", "north-east", [1.0, 1.0])
    answer = memory.recall(embedding=[2.0, 0.0], include_turns=True).json()
    assert summaries(answer["memories"]) == ["A memory"]
    assert [{**turn, "distance": round(turn["distance"], 6)} for turn in answer["turns"]] == [
        {"session_id": "t", "seq": 1, "role": "user", "content": "east", "distance": 0.0},
        {"session_id": "s", "seq": 3, "role": "user", "content": "north-east", "distance": 0.292893},
        {"session_id": "s", "seq": 1, "role": "user", "content": "north", "distance": 1.0},
    ]


def test_item_39_turns_may_be_limited_to_a_session_and_to_k(memory):
    for n in range(6):
        append(memory, "s", f"east {n}", [1.0, n / 100])
        append(memory, "t", f"east {n}", [1.0, n / 100])
    answer = memory.recall(embedding=[1.0, 0.0], include_turns=True, session_id="t", k=4).json()
    assert [(turn["session_id"], turn["content"]) for turn in answer["turns"]] == [("t", f"east {n}") for n in range(4)]


def test_item_39_the_key_turns_is_absent_when_not_requested(memory):
    append(memory, "s", "east", [1.0, 0.0])
    assert "turns" not in memory.recall(embedding=[1.0, 0.0]).json()
    assert "turns" not in memory.recall(embedding=[1.0, 0.0], include_turns=False).json()
    assert memory.recall(query="xyzzy", include_turns=True).json()["turns"] == []


def test_item_40_without_an_embedding_turns_are_searched_by_keyword(memory):
    append(memory, "s", "The zebra crossed the road")
    append(memory, "t", "No animals here")
    append(memory, "t", "Another zebra", [1.0, 0.0])
    answer = memory.recall(query='A "zebra"?', include_turns=True).json()
    assert answer["memories"] == []
    found = {(turn["session_id"], turn["seq"], turn["role"], turn["content"]) for turn in answer["turns"]}
    assert found == {("s", 1, "user", "The zebra crossed the road"), ("t", 2, "user", "Another zebra")}
    scoped = memory.recall(query="zebra", include_turns=True, session_id="t").json()
    assert [turn["content"] for turn in scoped["turns"]] == ["Another zebra"]


def test_item_40_turns_by_neither_text_nor_vector_are_400(memory):
    append(memory, "s", "The zebra crossed the road")
    response = memory.recall(topic_key="user.city", include_turns=True)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert "include_turns" in response.json()["error"]


def test_item_40_with_an_embedder_a_bare_query_searches_turns_by_meaning_too(tmp_path):
    with (
        provider(vectors([1.0, 0.0])) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        append(memory, "s", "north", [0.0, 1.0])
        append(memory, "s", "east", [1.0, 0.0])
        turns = memory.recall(query="sunrise", include_turns=True).json()["turns"]
        assert it.seen[-1].json["input"] == ["sunrise"]
        assert [turn["content"] for turn in turns] == ["east", "north"]
        assert turns[0]["distance"] == pytest.approx(0.0, abs=1e-6)


def test_item_41_with_an_embedder_a_bare_query_also_lights_the_vector_channel(tmp_path):
    with (
        provider(vectors([1.0, 0.0])) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        memory.keep(event("Where the sun rises", embedding=[1.0, 0.0]), event("Dawn", embedding=[0.0, 1.0]))
        found = memory.found(query="dawn")
        assert it.seen[-1].json["input"] == ["dawn"]
        assert [(hit["summary"], set(hit["channels"])) for hit in found] == [
            ("Dawn", {"keyword", "vector"}),
            ("Where the sun rises", {"vector"}),
        ]
        asked = len(it.seen)
        [nearest, _] = memory.found(query="dawn", embedding=[0.0, 1.0], k=2)
        assert nearest["summary"] == "Dawn"
        assert len(it.seen) == asked


def test_item_41_an_embedder_that_fails_leaves_recall_to_the_keywords(tmp_path):
    with (
        provider(Reply(status=400)) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        memory.keep(event("Dawn", embedding=[0.0, 1.0]))
        response = memory.recall(query="dawn")
        assert response.status_code == 200
        assert [hit["channels"] for hit in response.json()["memories"]] == [["keyword"]]
        assert response.json()["degraded"] == ["vector"]
