"""Recall with `explain`: what each score is made of, and why a memory was not found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.embedding_server import embedding_server
from contract.live_node import Live, Memory, event, fact, serve, task
from memoturn_core.providers.embedding import VoyageEmbedder
from memoturn_core.providers.http import Endpoint
from memoturn_mcp.cli import tables
from memoturn_storage.ambient import ManualAmbient

REST = 1e-5
"""What rounding to six digits may leave."""


def told(memory: Memory, **request: Any) -> dict[str, Any]:
    response = memory.recall(**request)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def outcome(memory: Memory, memory_id: str, **request: Any) -> dict[str, Any]:
    found: dict[str, Any] = told(memory, explain_id=memory_id, **request)["explain"]["memory"]
    return found


# --- what a score is made of ---------------------------------------------------------------------

vocabulary = st.sampled_from(["zebra", "zebras", "went", "gone", "home", "horse", "and", "what"])
texts = st.lists(vocabulary, min_size=1, max_size=6).map(" ".join)
vectors = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=3, max_size=3)
items = st.fixed_dictionaries(
    {"type": st.sampled_from(["event", "fact"]), "summary": st.tuples(texts, st.sampled_from(["", "?"])).map("".join)},
    optional={
        "session_id": st.sampled_from(["s", "t"]),
        "source": st.sampled_from(["a", "b"]),
        "embedding": vectors.filter(any),
    },
)
requests = st.fixed_dictionaries(
    {"k": st.sampled_from([4, 50]), "fusion": st.sampled_from(["relevance", "rrf"])},
    optional={
        "embedding": vectors,
        "topic_key": st.sampled_from(["animal", "none"]),
        "types": st.lists(st.sampled_from(["event", "fact"]), max_size=2),
        "source": st.just("a"),
        "include_superseded": st.booleans(),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.lists(items, min_size=1, max_size=12), query=st.none() | texts, request_=requests)
def test_contributions_add_up_to_the_score_and_every_memory_has_its_outcome(
    live: Live, kept: list[dict[str, Any]], query: str | None, request_: dict[str, Any]
) -> None:
    memory = live.memory()
    for number, item in enumerate(kept):
        item["content"] = number
        if item["type"] == "fact" and number % 3:
            item["topic_key"] = "animal"
    stored = [result["id"] for result in memory.keep(*kept)]
    request = {**request_, "query": query or "zebras went"}
    plain, explained = told(memory, **request), told(memory, **request, explain=True)
    hits = [dict(hit) for hit in explained["memories"]]
    explanations = [hit.pop("explanation") for hit in hits]
    assert {**explained, "memories": hits} == {**plain, "explain": explained["explain"]}, "it changes no answer"
    written = set(explained["explain"]["words"])
    for hit, explanation in zip(hits, explanations, strict=True):
        parts = explanation["contributions"]
        assert sum(parts.values()) == pytest.approx(hit["score"], abs=REST)
        assert sum(term["score"] for term in explanation["terms"]) == pytest.approx(parts.get("words", 0.0), abs=REST)
        assert list(explanation["channels"]) == hit["channels"]
        assert {term["word"] for term in explanation["terms"]} <= written
        assert any(not term.get("nearby") for term in explanation["terms"]) == ("keyword" in hit["channels"])
        if request["fusion"] == "rrf":
            shares = [each["weight"] / (60 + each["rank"]) for each in explanation["channels"].values()]
            assert sum(shares) == pytest.approx(hit["score"], abs=REST)
    for channel in ("topic", "keyword", "vector"):
        ranks = [each["channels"][channel]["rank"] for each in explanations if channel in each["channels"]]
        assert len(set(ranks)) == len(ranks)
    # Each memory is either in the answer at its rank, behind it in the order of a longer one, or out for a reason.
    removed = explained["explain"]["removed"]
    order = [hit["id"] for hit in told(memory, **{**request, "k": 50})["memories"]]
    out = 0
    for memory_id in stored:
        said = outcome(memory, memory_id, **request)
        ids = [hit["id"] for hit in plain["memories"]]
        if memory_id in ids:
            assert said == {"outcome": "found", "rank": ids.index(memory_id) + 1}
        elif said["outcome"] == "beyond_k":
            assert (said["rank"], order[said["rank"] - 1]) == (order.index(memory_id) + 1, memory_id)
            assert sum(said["explanation"]["contributions"].values()) == pytest.approx(said["score"], abs=REST)
        else:
            assert memory_id not in order
            out += said["outcome"] in ("superseded", "filtered")
    passed = explained["explain"]["candidates"] - sum(removed.values())
    assert passed >= len(order)
    assert sum(removed.values()) <= out


def test_a_hit_says_which_words_it_has_which_it_owes_to_its_neighbours_and_where_it_stood(memory: Memory) -> None:
    memory.keep(
        event("Which animals did you see in Kenya?", session_id="talk"),
        event("Zebras, and one of them was asleep", session_id="talk"),
        *(event(f"Something else {n}") for n in range(5)),
    )
    answer = told(memory, query="What was asleep in Kenya, a zebra?", explain=True)
    [told_, asked] = [hit["explanation"] for hit in answer["memories"]]
    assert [(term["word"], term.get("nearby", False)) for term in told_["terms"]] == [
        ("asleep", False),
        ("Kenya", True),
        ("zebra", False),
    ]
    assert set(told_["contributions"]) == {"words", "neighbours", "session"}
    assert asked["contributions"]["asking"] < 0
    assert (told_["channels"], asked["channels"]) == ({"keyword": {"rank": 1}}, {"keyword": {"rank": 2}})
    assert answer["explain"] == {
        "words": ["asleep", "Kenya", "zebra"],
        "left_out": ["what", "was", "in", "a"],
        "vector": {"missing": "no_embedder"},
        "candidates": 2,
        "removed": {},
    }


def test_a_topic_hit_has_its_score_from_the_topic(memory: Memory) -> None:
    memory.keep(fact("user.city", "Lives in Oslo"), event("Flew to Oslo"))
    [topic, flew] = told(memory, query="Oslo", topic_key="user.city", explain=True)["memories"]
    assert topic["explanation"]["contributions"] == {"topic": topic["score"]}
    assert topic["explanation"]["channels"]["topic"] == {"rank": 1}
    assert topic["explanation"]["terms"] == [{"word": "Oslo", "score": 0.0}]
    assert "topic" not in flew["explanation"]["contributions"]


def test_each_candidate_is_counted_once_at_the_first_filter_that_it_fails(memory: Memory, live: Live) -> None:
    memory.keep(task("Call the zebra", ttl=5))
    live.ambient.advance(seconds=5)
    memory.keep(fact("animal", "A zebra"))
    memory.keep(fact("animal", "Two zebras", source="a"))
    memory.keep(event("The zebra left", source="a"), event("Another zebra"), event("A horse", source="a"))
    explained = told(memory, query="zebra", types=["event"], source="a", explain=True)["explain"]
    assert (explained["candidates"], explained["removed"]) == (
        5,
        {"expired": 1, "superseded": 1, "types": 1, "source": 1},
    )


# --- why was it not found ------------------------------------------------------------------------


def test_what_was_superseded_says_by_what(memory: Memory, live: Live) -> None:
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo"))
    [rome] = memory.keep(fact("user.city", "Lives in Rome"))
    said = {"outcome": "superseded", "superseded_by": rome["id"], "superseded_at": live.ambient.now_ms()}
    assert outcome(memory, oslo["id"], query="Oslo") == said
    assert outcome(memory, oslo["id"], query="Oslo", source="a") == {**said, "filters": ["source"]}
    assert outcome(memory, oslo["id"], query="Oslo", include_superseded=True) == {"outcome": "found", "rank": 1}
    assert outcome(memory, oslo["id"], query="Oslo", as_of=1) == {"outcome": "found", "rank": 1}


def test_an_expired_task_says_when(memory: Memory, live: Live) -> None:
    [kept] = memory.keep(task("Call Ann", ttl=60))
    assert outcome(memory, kept["id"], query="Ann") == {"outcome": "found", "rank": 1}
    live.ambient.advance(seconds=60)
    said = outcome(memory, kept["id"], query="Ann", include_superseded=True)
    assert said == {"outcome": "expired", "expires_at": live.ambient.now_ms()}


def test_a_filter_that_keeps_it_out_is_named_as_the_request_names_it(memory: Memory, live: Live) -> None:
    [kept] = memory.keep(event("Met Ann", session_id="s", source="a"))
    now = live.ambient.now_ms()
    wrong = {"types": [], "session_id": "t", "source": "b", "since": now + 1, "until": now}
    for name, value in wrong.items():
        assert outcome(memory, kept["id"], query="Ann", **{name: value}) == {"outcome": "filtered", "filters": [name]}
    assert outcome(memory, kept["id"], query="Ann", **wrong) == {"outcome": "filtered", "filters": list(wrong)}
    [bare] = memory.keep(event("Met Bob"))
    assert outcome(memory, bare["id"], query="Bob", source="a") == {"outcome": "filtered", "filters": ["source"]}


def test_what_matches_nothing_says_how_far_it_is(memory: Memory) -> None:
    near = memory.keep(*(event(f"Near {n}", embedding=[1.0, n / 100]) for n in range(4)))
    far, bare = memory.keep(event("Far", embedding=[0.0, 1.0]), event("Without"))
    assert outcome(memory, bare["id"], query="zebra") == {"outcome": "not_matching"}
    assert outcome(memory, bare["id"], embedding=[1.0, 0.0]) == {"outcome": "not_matching", "embedded": False}
    assert outcome(memory, far["id"], embedding=[1.0, 0.0], k=1) == {
        "outcome": "not_matching",
        "cosine": 0.0,
        "least_cosine": pytest.approx(0.99995, abs=1e-5),
    }
    second = outcome(memory, near[1]["id"], embedding=[1.0, 0.0], k=1)
    assert (second["outcome"], second["rank"]) == ("beyond_k", 2)
    assert second["explanation"]["channels"] == {"vector": {"rank": 2, "cosine": pytest.approx(0.99995, abs=1e-5)}}


def test_rrf_looks_no_further_than_its_channels_go(memory: Memory) -> None:
    stored = memory.keep(*(event("A zebra", content=n) for n in range(103)))
    assert outcome(memory, stored[0]["id"], query="zebra", fusion="rrf", k=1) == {"outcome": "beyond_k"}
    last = outcome(memory, stored[0]["id"], query="zebra", k=1)
    assert (last["outcome"], last["rank"]) == ("beyond_k", 103)


def test_the_whole_of_a_long_topic_is_looked_through(memory: Memory) -> None:
    [oldest, *_] = [memory.keep(fact("animal", f"Number {n}"))[0] for n in range(7)]
    request = {"topic_key": "animal", "include_superseded": True, "k": 1}
    said = outcome(memory, oldest["id"], **request)
    assert (said["outcome"], said["rank"], said["explanation"]["channels"]) == ("beyond_k", 7, {"topic": {"rank": 7}})
    assert outcome(memory, oldest["id"], **request, fusion="rrf") == {"outcome": "beyond_k"}


@pytest.mark.parametrize("memory_id", ["mem_" + "0" * 32, "mem_0", "x", "'; --", "mem_" + "F" * 32])
def test_an_id_that_nobody_has_is_unknown_also_where_there_is_no_profile(memory: Memory, memory_id: str) -> None:
    nothing = told(memory, query="the Zebra", explain_id=memory_id)
    assert nothing == {
        "memories": [],
        "txid": 0,
        "explain": {
            "words": ["Zebra"],
            "left_out": ["the"],
            "vector": {"missing": "none_stored"},
            "candidates": 0,
            "removed": {},
            "memory": {"outcome": "unknown"},
        },
    }
    assert not memory.exists
    memory.keep(event("A zebra"))
    assert outcome(memory, memory_id, query="zebra") == {"outcome": "unknown"}


@pytest.mark.parametrize("wrong", [{"explain": "yes"}, {"explain": 1.5}, {"explain_id": ""}, {"explain_id": 7}])
def test_bad_values_are_named(memory: Memory, wrong: dict[str, Any]) -> None:
    memory.keep(event("A zebra"))
    response = memory.recall(query="zebra", **wrong)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["error"].startswith(f"{next(iter(wrong))}: ")


def test_without_explain_nothing_of_it_is_in_the_answer(memory: Memory) -> None:
    memory.keep(event("A zebra"))
    answer = told(memory, query="zebra", explain=False)
    assert set(answer) == {"memories", "txid"}
    assert "explanation" not in answer["memories"][0]


# --- the vector channel --------------------------------------------------------------------------


def test_it_says_whose_vectors_were_compared_or_why_none_were(tmp_path: Any) -> None:
    def vector(memory: Memory, **request: Any) -> Any:
        return told(memory, explain=True, **request)["explain"]["vector"]

    with embedding_server() as it:
        embedder = VoyageEmbedder(Endpoint("acme", it.url, "ant", budget_s=10.0), ManualAmbient())
        with serve(tmp_path, embedder=embedder) as live:
            memory = live.memory()
            memory.keep(task("Call Ann"))
            assert vector(memory, query="Ann") == {"missing": "none_stored"}
            memory.keep(event("Dawn"))
            assert vector(memory, query="dawn") == {"by": "ant"}
            assert vector(memory, topic_key="user.city") == {"missing": "no_query"}
            assert vector(memory, query="dawn", embedding=[1.0] * 6) == {"by": "request"}
            assert vector(memory, embedding=[1.0, 2.0]) == {"missing": "other_space"}
            it.failing.add("query")
            assert vector(memory, query="night") == {"missing": "embedder_failed"}


# --- agents --------------------------------------------------------------------------------------


def test_agents_get_explanations_in_the_short_answer_too_and_only_when_they_ask(memory: Memory, mcp: Any) -> None:
    [kept] = memory.keep(event("A zebra"))
    at = {"namespace": memory.namespace, "profile": memory.profile, "query": "zebra"}
    plain = mcp.call("memory_recall", **at)["structuredContent"]["result"]
    assert plain == {"memories": [{"id": kept["id"], "summary": "A zebra"}]}
    for response_format in ("concise", "detailed"):
        result = mcp.call("memory_recall", **at, explain_id=kept["id"], response_format=response_format)
        assert not result.get("isError"), result
        answer = result["structuredContent"]["result"]
        assert answer["explain"]["memory"] == {"outcome": "found", "rank": 1}
        [hit] = answer["memories"]
        assert hit["explanation"]["channels"] == {"keyword": {"rank": 1}}
        assert ("score" in hit) == (response_format == "detailed")


# --- people --------------------------------------------------------------------------------------


def test_the_table_says_for_every_outcome_what_became_of_the_memory(memory: Memory, live: Live) -> None:
    [old] = memory.keep(fact("animal", "A zebra"))
    new, other, called = memory.keep(fact("animal", "Two zebras"), event("The horse"), task("Call the zebra", ttl=1))
    live.ambient.advance(seconds=1)
    memory.keep(event("Zebra"))
    for memory_id, request, said in (
        (new["id"], {}, "found, as #2"),
        (new["id"], {"k": 1}, "matches, but only as #2"),
        (other["id"], {}, "has no word of the query"),
        (other["id"], {"types": ["fact"]}, "kept out by types"),
        (old["id"], {}, f"by {new['id']}"),
        (old["id"], {"types": ["event"]}, "also kept out by types"),
        (called["id"], {}, "expired "),
        ("mem_0", {}, "there is no such memory"),
    ):
        shown = tables.render(
            tables.of("memory_recall", told(memory, query="the zebra", explain_id=memory_id, **request))
        )
        assert said in shown.replace("\n", " ")
        assert "looked up: zebra; left out: the" in shown
    assert "words: zebra 0." in shown
