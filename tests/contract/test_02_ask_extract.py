"""Items 42 to 49: ask, extract, and how the providers are spoken to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.live_node import Live, Memory, event, fact, serve
from contract.provider_server import Provider, Reply, provider, reply
from contract.replies import anthropic_says, endpoint, indexed_vectors, openai_says, proposed, vectors
from memoturn_core.providers.embedding import OpenAIEmbedder, VoyageEmbedder
from memoturn_core.providers.language import AnthropicModel, OpenAIModel
from memoturn_storage.ambient import ManualAmbient

TURNS = [{"role": "user", "content": "I moved to Oslo."}, {"role": "assistant", "content": "Noted."}]


@contextlib.contextmanager
def answering(directory: Path, *script: Reply, model: Any = OpenAIModel) -> Iterator[tuple[Live, Provider]]:
    """A node whose language model answers by script."""
    with provider(*script) as it, serve(directory, language_model=model(endpoint(it.url), ManualAmbient())) as live:
        yield live, it


def ask(memory: Memory, question: str, **more: Any) -> httpx.Response:
    return memory.http.post(f"{memory.path}/ask", json={"question": question, **more})


def extract(memory: Memory, **more: Any) -> httpx.Response:
    return memory.http.post(f"{memory.path}/extract", json={"turns": TURNS, **more})


def documents(it: Provider) -> list[dict[str, Any]]:
    """What the model was shown beside its instructions, call by call."""
    return [json.loads(seen.json["messages"][-1]["content"]) for seen in it.seen]


BOTH = pytest.mark.parametrize(
    ("model", "says"), [(OpenAIModel, openai_says), (AnthropicModel, anthropic_says)], ids=["openai", "anthropic"]
)

# --- ask -----------------------------------------------------------------------------------------


def test_item_42_ask_answers_with_its_sources_the_memories_and_the_txid(tmp_path):
    with answering(tmp_path, Reply()) as (live, it):
        memory = live.memory()
        oslo, _ = memory.keep(fact("user.city", "Lives in Oslo"), event("It rained"))
        it.script[:] = [openai_says({"answer": "In Oslo.", "cited_ids": [oslo["id"]]})]
        response = ask(memory, "Who lives where?")
        assert response.status_code == 200
        answer = response.json()
        assert set(answer) == {"answer", "sources", "memories", "txid"}
        assert (answer["answer"], answer["sources"], answer["txid"]) == ("In Oslo.", [oslo["id"]], 1)
        assert answer["memories"] == memory.found(query="Who lives where?")
        assert response.headers["Memoturn-Txid"] == "1"


def test_item_42_the_model_sees_only_recalled_memories(tmp_path):
    with answering(tmp_path, openai_says({"answer": "In Oslo.", "cited_ids": []})) as (live, it):
        memory, other = live.memory(), live.memory()
        [oslo] = memory.keep(fact("user.city", "Lives in Oslo", source="a", session_id="s"))
        memory.keep(
            event("Lives on a hill", source="b", session_id="s"),
            event("Lives by a lake", source="a", session_id="t"),
            {"type": "instruction", "summary": "Lives are to be saved", "source": "a", "session_id": "s"},
            event("Unrelated secret", source="a", session_id="s"),
        )
        other.keep(fact("user.city", "Lives in Rome", source="a", session_id="s"))
        ask(memory, "Who lives where?", source="a", session_id="s", types=["fact", "event"], k=5)
        [document] = documents(it)
        assert document["question"] == "Who lives where?"
        assert [(each["id"], each["summary"]) for each in document["memories"]] == [(oslo["id"], "Lives in Oslo")]


def test_item_42_a_cited_id_that_was_not_recalled_is_no_source(tmp_path):
    with answering(tmp_path, Reply()) as (live, it):
        memory = live.memory()
        oslo, rain = memory.keep(fact("user.city", "Lives in Oslo"), event("It rained"))
        cited = [rain["id"], "mem_" + "0" * 32, oslo["id"], oslo["id"]]
        it.script[:] = [openai_says({"answer": "In Oslo.", "cited_ids": cited})]
        assert ask(memory, "Who lives where?").json()["sources"] == [oslo["id"]]


def test_item_43_nothing_recalled_is_a_null_answer_without_a_model_call(tmp_path):
    with answering(tmp_path, openai_says({"answer": "Guess", "cited_ids": []})) as (live, it):
        memory = live.memory()
        memory.keep(event("It rained"))
        response = ask(memory, "Who lives where?")
        assert response.status_code == 200
        assert response.json() == {"answer": None, "sources": [], "memories": [], "txid": 1}
        assert it.seen == []


def test_item_43_an_unknown_profile_is_a_null_answer_and_is_not_made(tmp_path):
    with answering(tmp_path, openai_says({"answer": "Guess", "cited_ids": []})) as (live, it):
        memory = live.memory()
        response = ask(memory, "Who lives where?")
        assert response.status_code == 200
        assert response.json() == {"answer": None, "sources": [], "memories": [], "txid": 0}
        assert it.seen == []
        assert not memory.exists


def test_item_44_without_an_answerer_ask_is_503_unconfigured(memory):
    memory.keep(fact("user.city", "Lives in Oslo"))
    response = ask(memory, "Who lives where?")
    assert (response.status_code, response.json()["code"]) == (503, "unconfigured")


@pytest.mark.parametrize("question", ["", " ", "\t\n"])
def test_item_44_a_blank_question_is_400(tmp_path, question):
    with answering(tmp_path, openai_says({"answer": "Guess", "cited_ids": []})) as (live, it):
        memory = live.memory()
        memory.keep(event("It rained"))
        response = ask(memory, question)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
        assert response.json()["error"].startswith("question: ")
        assert it.seen == []


FAILURES = [
    pytest.param(Reply(status=400), id="400"),
    pytest.param(Reply(status=500), id="500"),
    pytest.param(Reply(b"<html>"), id="no JSON"),
    pytest.param(openai_says({"nothing": "asked for"}), id="another shape"),
    pytest.param(openai_says({}, refusal="I will not"), id="refusal"),
    pytest.param(openai_says({"answer": "In", "cited_ids": [], "memories": []}, finish_reason="length"), id="cut off"),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_item_44_a_provider_failure_is_502(tmp_path, failure):
    with answering(tmp_path, failure) as (live, it):
        memory = live.memory()
        memory.keep(fact("user.city", "Lives in Oslo"))
        response = ask(memory, "Who lives where?")
        assert (response.status_code, response.json()["code"]) == (502, "internal")
        assert it.seen != []
        assert memory.txid == 1


# --- extract -------------------------------------------------------------------------------------


@BOTH
def test_item_45_extract_keeps_what_the_model_proposes_and_answers_like_ingest(tmp_path, model, says):
    proposals = [proposed(keywords="norway"), proposed(type="event", topic_key=None, summary="Moved", details="By car")]
    with answering(tmp_path, says({"memories": proposals}), model=model) as (live, it):
        memory = live.memory()
        response = extract(memory, session_id="s", source="agent")
        assert response.status_code == 201
        assert set(response.json()) == {"results", "txid"}
        assert response.json()["txid"] == 1
        city, moved = response.json()["results"]
        assert [(each["status"], each["superseded"]) for each in (city, moved)] == [("created", [])] * 2
        assert documents(it) == [{"turns": TURNS}]
        record = memory.get(city["id"]).json()
        assert (record["type"], record["topic_key"], record["summary"]) == ("fact", "user.city", "Lives in Oslo")
        assert (record["keywords"], record["content"]) == ("norway", {"text": "Moved."})


def test_item_45_session_and_source_are_stamped_on_the_memories(tmp_path):
    with answering(tmp_path, openai_says({"memories": [proposed(), proposed(type="task")]})) as (live, _):
        memory = live.memory()
        for result in extract(memory, session_id="s", source="agent").json()["results"]:
            record = memory.get(result["id"]).json()
            assert (record["session_id"], record["source"]) == ("s", "agent")
        assert [session["id"] for session in memory.sessions().json()["sessions"]] == ["s"]


def test_item_45_the_same_transcript_again_yields_duplicates(tmp_path):
    with answering(tmp_path, openai_says({"memories": [proposed()]})) as (live, _):
        memory = live.memory()
        [first] = extract(memory, session_id="s").json()["results"]
        again = extract(memory, session_id="s")
        assert again.status_code == 201
        assert again.json() == {"results": [{**first, "status": "duplicate"}], "txid": 1}


def test_item_45_what_is_extracted_supersedes_by_topic(tmp_path):
    with answering(tmp_path, openai_says({"memories": [proposed(summary="Lives in Rome", details="R")]})) as (live, _):
        memory = live.memory()
        [oslo] = memory.keep(fact("user.city", "Lives in Oslo"))
        [result] = extract(memory).json()["results"]
        assert (result["status"], result["superseded"]) == ("created", [oslo["id"]])


def test_item_46_a_dry_run_proposes_and_writes_nothing(tmp_path):
    with answering(tmp_path, openai_says({"memories": [proposed(keywords="norway")]})) as (live, _):
        memory = live.memory()
        response = extract(memory, dry_run=True, session_id="s", source="agent")
        assert response.status_code == 200
        assert set(response.json()) == {"proposed"}
        [proposal] = response.json()["proposed"]
        assert proposal["content"] == {"text": "Moved."}
        assert {name: proposal[name] for name in ("type", "topic_key", "summary", "keywords")} == {
            "type": "fact",
            "topic_key": "user.city",
            "summary": "Lives in Oslo",
            "keywords": "norway",
        }
        assert not memory.exists
        memory.keep(event("Something"))
        assert extract(memory, dry_run=True).status_code == 200
        assert memory.txid == 1


def test_item_47_nothing_extracted_is_201_with_no_results_and_makes_no_profile(tmp_path):
    with answering(tmp_path, openai_says({"memories": []})) as (live, it):
        memory = live.memory()
        response = extract(memory)
        assert (response.status_code, response.json()) == (201, {"results": [], "txid": None})
        assert len(it.seen) == 1
        assert not memory.exists


def test_item_47_empty_turns_are_400(tmp_path):
    with answering(tmp_path, openai_says({"memories": []})) as (live, it):
        memory = live.memory()
        response = memory.http.post(f"{memory.path}/extract", json={"turns": []})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
        assert response.json()["error"].startswith("turns: ")
        assert it.seen == []


def test_item_47_without_an_extractor_it_is_503_unconfigured(memory):
    for dry_run in (False, True):
        response = extract(memory, dry_run=dry_run)
        assert (response.status_code, response.json()["code"]) == (503, "unconfigured")
    assert not memory.exists


@pytest.mark.parametrize("failure", FAILURES)
def test_item_47_a_provider_failure_is_502_and_nothing_is_written(tmp_path, failure):
    with answering(tmp_path, failure) as (live, it):
        memory = live.memory()
        response = extract(memory)
        assert (response.status_code, response.json()["code"]) == (502, "internal")
        assert it.seen != []
        assert not memory.exists


@BOTH
def test_item_48_topic_keys_on_events_and_tasks_are_dropped(tmp_path, model, says):
    proposals = [proposed(type=type_, details=type_) for type_ in ("event", "task", "fact", "instruction")]
    with answering(tmp_path, says({"memories": proposals}), model=model) as (live, _):
        memory = live.memory()
        proposed_ = extract(memory, dry_run=True).json()["proposed"]
        assert [each["topic_key"] for each in proposed_] == [None, None, "user.city", "user.city"]
        results = extract(memory).json()["results"]
        assert [each["status"] for each in results] == ["created"] * 4
        kept = [memory.get(each["id"]).json()["topic_key"] for each in results]
        assert kept == [None, None, "user.city", "user.city"]


def test_item_48_the_model_is_held_to_a_strict_json_schema(tmp_path):
    with answering(tmp_path, openai_says({"memories": []})) as (live, it):
        extract(live.memory())
        asked = it.seen[0].json["response_format"]
        assert asked["type"] == "json_schema"
        assert asked["json_schema"]["strict"] is True
        assert_closed(asked["json_schema"]["schema"])


def test_item_48_a_model_with_tools_is_made_to_call_the_one_that_has_the_schema(tmp_path):
    with answering(tmp_path, anthropic_says({"memories": []}), model=AnthropicModel) as (live, it):
        extract(live.memory())
        [tool] = it.seen[0].json["tools"]
        assert it.seen[0].json["tool_choice"]["name"] == tool["name"]
        assert it.seen[0].json["tool_choice"]["type"] == "tool"
        assert_closed(tool["input_schema"])


@pytest.mark.parametrize("stop_reason", ["refusal", "max_tokens", "end_turn"])
def test_item_48_a_refusal_or_truncation_is_an_error_even_with_a_usable_reply(tmp_path, stop_reason):
    reply_ = anthropic_says({"memories": [proposed()]}, stop_reason=stop_reason)
    with answering(tmp_path, reply_, model=AnthropicModel) as (live, _):
        memory = live.memory()
        assert extract(memory).status_code == 502
        assert not memory.exists


# --- the embedding client ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("embedder", "document", "query"),
    [(OpenAIEmbedder, {}, {}), (VoyageEmbedder, {"input_type": "document"}, {"input_type": "query"})],
    ids=["openai", "voyage"],
)
def test_item_49_embeddings_are_posted_and_only_voyage_is_told_the_input_type(tmp_path, embedder, document, query):
    with (
        provider(vectors([1.0, 0.0])) as it,
        serve(tmp_path, embedder=embedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        memory.keep(event("Dawn"))
        memory.found(query="sunrise")
        kept, asked = it.seen
        assert (kept.path, asked.path) == ("/v1/embeddings", "/v1/embeddings")
        assert kept.json == {"model": "m-1", "input": ["Dawn"], **document}
        assert asked.json == {"model": "m-1", "input": ["sunrise"], **query}


def test_item_49_embeddings_are_put_in_order_by_their_index(tmp_path):
    with (
        provider(indexed_vectors((2, [0.0, 1.0]), (0, [1.0, 0.0]), (1, [-1.0, 0.0]))) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        memory.keep(event("East"), event("West"), event("North"))
        for summary, vector in (("East", [1.0, 0.0]), ("West", [-1.0, 0.0]), ("North", [0.0, 1.0])):
            assert memory.found(embedding=vector, k=1)[0]["summary"] == summary


def test_item_49_an_answer_without_one_embedding_for_each_text_is_used_for_none(tmp_path):
    with (
        provider(indexed_vectors((0, [1.0, 0.0]), (0, [0.0, 1.0])), reply({"data": []})) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        memory.keep(event("East"), event("West"))
        assert memory.found(embedding=[1.0, 0.0]) == []


def assert_closed(schema: dict[str, Any]) -> None:
    for node in (schema, *schema.get("$defs", {}).values()):
        assert node["additionalProperties"] is False
        assert sorted(node["required"]) == sorted(node["properties"])
