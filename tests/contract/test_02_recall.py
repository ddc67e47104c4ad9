"""Items 27 to 41: what recall takes, finds, ranks and leaves out."""

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


# --- keywords ------------------------------------------------------------------------------------


def test_item_31_a_question_finds_what_shares_any_word_with_it(memory):
    ann, bob, _ = memory.keep(
        event("Ann likes green tea"), event("Bob drinks coffee", keywords="espresso beans"), event("It rained")
    )
    assert ids(memory.found(query="What kind of tea does she like best?")) == [ann["id"]]
    assert ids(memory.found(query="Where are the beans, please?")) == [bob["id"]]
    assert set(ids(memory.found(query="tea or coffee?"))) == {ann["id"], bob["id"]}
    assert ids(memory.found(query="TEA")) == [ann["id"]]


@pytest.mark.parametrize(
    "query",
    [
        "Straßencafés?",
        "ŁÓDŹ",
        "zoë",
        "Zoe\u0308",
        "Кофе!",
        "¿dónde está Zoë?",
        "İstanbul",
        "İSTANBUL",
        "naïve",
        "nai\u0308ve",
    ],
)
def test_item_31_words_of_any_script_and_either_unicode_form_are_found(memory, query):
    kept, _ = memory.keep(
        event("Zoë mag Straßencafés in Łódź", keywords="кофе İstanbul naïve"), event("Nobody was anywhere")
    )
    assert [hit["id"] for hit in memory.found(query=query)] == [kept["id"]]


def test_item_31_content_is_not_searched(memory):
    memory.keep(event("Met Ann", content={"text": "zebra"}))
    assert memory.found(query="zebra") == []


@pytest.mark.parametrize(
    "query",
    [
        'zebra"',
        '"zebra',
        "'zebra'",
        "zebra AND unicorn",
        "NOT zebra",
        "zebra NOT zebra",
        "zebra OR",
        "AND zebra",
        "NEAR(zebra unicorn, 2)",
        "unicorn:zebra",
        "keywords:zebra",
        "-zebra",
        "+zebra",
        "^zebra",
        "zebra*",
        "(zebra",
        "zebra)",
        "{zebra}: x",
        "zebra; DROP TABLE memories; --",
        "zebra\u0000",
        "¿zebra?",
        "%zebra_",
        "zebra\\",
    ],
)
def test_item_31_punctuation_and_search_operators_are_inert(memory, query):
    kept, _ = memory.keep(event("A zebra crossed"), event("A horse stood"))
    assert ids(memory.found(query=query)) == [kept["id"]]


@pytest.mark.parametrize("query", ["OR NOT", "NOT", "to AND be", "AND OR NOT"])
def test_item_31_a_query_of_nothing_but_operators_and_small_words_is_words_too(memory, query):
    kept, _ = memory.keep(event("To be or not to be"), event("A horse stood"))
    assert ids(memory.found(query=query)) == [kept["id"]]


def test_item_31_a_star_is_no_prefix_search_and_quotes_make_no_phrase(memory):
    memory.keep(event("A zebrafish swam"), event("Green eyes, blue sea"))
    assert memory.found(query="zebra*") == []
    assert summaries(memory.found(query='"sea green"')) == ["Green eyes, blue sea"]


@pytest.mark.parametrize("query", ["xyzzy plugh", "", "   ", "?!*\"'()", "…", "🦓"])
def test_item_32_nonsense_finds_nothing_and_is_never_padded(memory, query):
    memory.keep(event("A zebra crossed"), fact("user.city", "Lives in Oslo"))
    assert memory.found(query=query, k=50) == []


def test_item_32_an_unknown_topic_finds_nothing(memory):
    memory.keep(fact("user.city", "Lives in Oslo"))
    assert memory.found(topic_key="user.cit") == []
    assert memory.found(topic_key="USER.CITY") == []


# --- fusion --------------------------------------------------------------------------------------


def test_item_33_rrf_is_the_sum_of_weight_by_60_plus_rank_over_the_channels(memory):
    memory.keep(
        fact("animal", "Zebra zebra in the zoo", embedding=[0.2, 1.0, 0.0]),
        fact("animal", "Treat every zebra well", type="instruction", embedding=[0.9, 0.1, 0.0]),
        event("A zebra, a horse and a cow were seen in the field", embedding=[1.0, 0.0, 0.1]),
        event("Only a horse", embedding=[0.5, 0.5, 0.0]),
        event("Zebra"),
    )
    request: dict[str, dict[str, Any]] = {
        "topic": {"topic_key": "animal"},
        "keyword": {"query": "zebra"},
        "vector": {"embedding": [1.0, 0.2, 0.0]},
    }
    weights = {"topic": 2.0, "keyword": 1.0, "vector": 1.0}
    expected: dict[str, float] = {}
    for channel, alone in request.items():
        for rank, hit in enumerate(memory.found(**alone, fusion="rrf"), start=1):
            assert hit["channels"] == [channel]
            assert hit["score"] == pytest.approx(weights[channel] / (60 + rank), rel=1e-12)
            expected[hit["id"]] = expected.get(hit["id"], 0.0) + weights[channel] / (60 + rank)
    fused = memory.found(**request["topic"], **request["keyword"], **request["vector"], fusion="rrf")
    assert len(fused) == len(expected) == 5
    assert {hit["id"]: hit["score"] for hit in fused} == pytest.approx(expected, rel=1e-12)
    scores = [hit["score"] for hit in fused]
    assert scores == sorted(scores, reverse=True)


def test_item_33_equal_scores_keep_the_order_topic_keyword_vector(memory):
    by_vector, by_keyword = memory.keep(event("Nothing said", embedding=[1.0, 0.0]), event("Zebra"))
    tied = memory.found(query="zebra", embedding=[1.0, 0.0], fusion="rrf")
    assert ids(tied) == [by_keyword["id"], by_vector["id"]]
    assert tied[0]["score"] == tied[1]["score"]


def test_item_33_a_topic_hit_keeps_its_place_before_one_of_both_other_channels_with_the_same_score(memory):
    both, topic = memory.keep(event("Zebra", embedding=[1.0, 0.0]), fact("animal", "Says nothing"))
    tied = memory.found(query="zebra", topic_key="animal", embedding=[1.0, 0.0], fusion="rrf")
    assert ids(tied) == [topic["id"], both["id"]]
    assert tied[0]["score"] == pytest.approx(2 / 61)
    assert tied[1]["score"] == pytest.approx(2 / 61)


@pytest.mark.parametrize("fusion", ["relevance", "rrf"])
def test_item_33_a_topic_hit_outranks_keyword_hits(memory, fusion):
    topic, *_ = memory.keep(fact("user.city", "Home is Oslo"), *(event(f"Zebra zebra zebra {n}") for n in range(20)))
    found = memory.found(query="zebra", topic_key="user.city", k=20, fusion=fusion)
    assert found[0]["id"] == topic["id"]
    assert all(found[0]["score"] > hit["score"] for hit in found[1:])


@pytest.mark.parametrize("fusion", ["relevance", "rrf"])
def test_item_33_scores_fall_and_all_that_was_found_is_there_under_any_fusion(memory, fusion):
    memory.keep(
        fact("animal", "Zebra zebra in the zoo", embedding=[0.2, 1.0, 0.0], session_id="s"),
        fact("animal", "Treat every zebra well", type="instruction", embedding=[0.9, 0.1, 0.0]),
        event("A zebra, a horse and a cow were seen in the field", embedding=[-1.0, 0.0, 0.1], session_id="s"),
        event("Only a horse?", embedding=[-0.5, -0.5, 0.0], session_id="s"),
        event("Zebra"),
    )
    found = memory.found(query="zebra", topic_key="animal", embedding=[1.0, 0.2, 0.0], fusion=fusion)
    assert len(found) == 5
    assert {hit["summary"] for hit in found[:2]} == {"Zebra zebra in the zoo", "Treat every zebra well"}
    scores = [hit["score"] for hit in found]
    assert scores == sorted(scores, reverse=True)


def test_item_33_relevance_is_the_default(memory):
    memory.keep(fact("user.city", "Lives in Oslo"), event("Flew to Oslo"))
    assert memory.found(query="Oslo") == memory.found(query="Oslo", fusion="relevance")
    assert memory.found(query="Oslo") != memory.found(query="Oslo", fusion="rrf")


def test_relevance_counts_what_is_said_around_a_memory_but_finds_only_what_has_a_word_itself(memory):
    talk = ("Which animals did you see in Kenya?", "Zebras, and one of them was asleep", "Let us eat", "One more beer")
    memory.keep(event("Zebras can be asleep standing"), *(event(text, session_id="talk") for text in talk))
    found = memory.found(query="What was asleep in Kenya?", k=20)
    assert summaries(found) == [talk[1], talk[0], "Zebras can be asleep standing"]


def test_relevance_takes_irregular_forms_of_a_word_for_the_word(memory):
    memory.keep(event("She went to Oslo"), event("The children were happy"))
    assert summaries(memory.found(query="When did she go?")) == ["She went to Oslo"]
    assert summaries(memory.found(query="a child")) == ["The children were happy"]


def test_of_two_memories_that_answer_alike_the_newer_comes_first(memory):
    memory.keep(*(event("A zebra crossed", content=n) for n in range(100)))
    for fusion in ("relevance", "rrf"):
        assert [hit["content"] for hit in memory.found(query="zebra", k=100, fusion=fusion)] == list(range(99, -1, -1))


def test_item_34_by_embedding_alone_the_nearest_by_cosine_come_first(memory):
    memory.keep(
        event("Far", embedding=[0.0, 50.0]),
        event("Near but short", embedding=[0.01, 0.0001]),
        event("Between and long", embedding=[300.0, 200.0]),
        event("Opposite", embedding=[-1.0, 0.0]),
        event("Without"),
    )
    found = memory.found(embedding=[7.0, 0.0])
    assert summaries(found) == ["Near but short", "Between and long", "Far", "Opposite"]
    assert all(hit["channels"] == ["vector"] for hit in found)


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
