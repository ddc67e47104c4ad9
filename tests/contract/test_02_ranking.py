"""Items 31 to 34: what recall finds by its words, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from contract.live_node import event, fact, ids
from contract.test_02_recall import summaries

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
