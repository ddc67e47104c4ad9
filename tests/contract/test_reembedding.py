"""Memories are brought to the node's model in the background, and vectors of two models are never compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.embedding_server import Embeddings, embedding_server, vector
from contract.live_node import Live, Memory, event, serve, task
from memoturn_core.providers.embedding import VoyageEmbedder
from memoturn_core.providers.http import Endpoint
from memoturn_storage.ambient import ManualAmbient

SUMMARIES = [f"Number {n}" for n in range(70)]
"""More than are embedded at a time."""


@pytest.fixture
def provider() -> Iterator[Embeddings]:
    with embedding_server() as running:
        yield running


@contextlib.contextmanager
def node(directory: Path, provider: Embeddings, model: str | None) -> Iterator[Live]:
    embedder = None
    if model is not None:
        embedder = VoyageEmbedder(Endpoint("acme", provider.url, model, budget_s=10.0), ManualAmbient())
    with serve(directory, embedder=embedder) as live:
        yield live


def of(live: Live) -> Memory:
    """The same profile on every node."""
    return Memory(live.http, "acme", "alice")


def nearest(memory: Memory, model: str, text: str) -> list[str]:
    """By the vector alone that the model gives the text."""
    return [hit["summary"] for hit in memory.found(embedding=vector(model, text), k=100)]


def by_query(memory: Memory, query: str) -> dict[str, Any]:
    """A recall whose query no memory has a word of."""
    response = memory.recall(query=query, k=100)
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


def until_found(memory: Memory, count: int) -> dict[str, Any]:
    """Ask until so many are found by the vector. It is the asking that has them embedded."""
    for _ in range(2_000):
        answer = by_query(memory, "unsaid")
        if len(answer["memories"]) >= count:
            return answer
    pytest.fail(f"{len(answer['memories'])} of {count} were found, {answer.get('degraded')}")


@pytest.mark.parametrize("model", ["bee", "cow"], ids=["of the same dimension", "of another dimension"])
def test_a_profile_goes_over_to_the_nodes_new_model(tmp_path, provider, model):
    with node(tmp_path, provider, "ant") as live:
        of(live).keep(*map(event, SUMMARIES), task("Water the plants"))
        assert nearest(of(live), "ant", SUMMARIES[7])[0] == SUMMARIES[7]
    with node(tmp_path, provider, model) as live:
        memory = of(live)
        first = by_query(memory, "unsaid")
        assert (first["memories"], first["degraded"]) == ([], ["vector"])
        found = until_found(memory, len(SUMMARIES))
        assert "degraded" not in found
        assert {hit["summary"] for hit in found["memories"]} == set(SUMMARIES)
        assert all(hit["channels"] == ["vector"] for hit in found["memories"])
        for summary in SUMMARIES[::9]:
            assert nearest(memory, model, summary)[0] == summary
    documents = [text for batch in provider.batches[1:] for text in batch]
    assert sorted(documents) == sorted(SUMMARIES), "each once, and the task never"


@pytest.mark.parametrize("model", ["bee", "cow"])
def test_until_then_vectors_of_two_models_are_not_compared(tmp_path, provider, model):
    with node(tmp_path, provider, "ant") as live:
        of(live).keep(event("Red"), event("Green"))
    provider.failing = {"document"}
    with node(tmp_path, provider, model) as live:
        for _ in range(3):
            answer = by_query(of(live), "red unsaid")
            assert [(hit["summary"], hit["channels"]) for hit in answer["memories"]] == [("Red", ["keyword"])]
            assert answer["degraded"] == ["vector"]
    with node(tmp_path, provider, "ant") as live:
        assert {hit["summary"] for hit in by_query(of(live), "unsaid")["memories"]} == {"Red", "Green"}


def test_what_was_kept_while_the_provider_failed_gets_its_vectors_once_it_answers(tmp_path, provider):
    with node(tmp_path, provider, "ant") as live:
        memory = of(live)
        memory.keep(event("Red"))
        provider.failing = {"document", "query"}
        memory.keep(event("Green"), event("Blue", embedding=vector("ant", "its own")))
        assert by_query(memory, "unsaid")["degraded"] == ["vector"]
        provider.failing = set()
        until_found(memory, 3)
        assert nearest(memory, "ant", "Green")[0] == "Green"
        assert nearest(memory, "ant", "its own")[0] == "Blue", "a client's vector always wins"
    assert provider.batches == [["Red"], ["Green"]]


def test_what_was_kept_without_an_embedder_is_embedded_by_the_first_one(tmp_path, provider):
    with node(tmp_path, provider, None) as live:
        of(live).keep(*map(event, SUMMARIES), event("Own", embedding=vector("ant", "its own")))
    with node(tmp_path, provider, "ant") as live:
        until_found(of(live), len(SUMMARIES) + 1)
        assert nearest(of(live), "ant", "its own")[0] == "Own"
        assert nearest(of(live), "ant", SUMMARIES[-1])[0] == SUMMARIES[-1]


def test_a_dimension_that_a_client_has_fixed_stays(tmp_path, provider):
    with node(tmp_path, provider, None) as live:
        of(live).keep(event("Own", embedding=vector("ant", "its own")), event("Red"))
    with node(tmp_path, provider, "cow") as live:
        memory = of(live)
        assert by_query(memory, "unsaid")["degraded"] == ["vector"]
        [green] = memory.keep(event("Green"))
        assert green["embedding"] == "skipped_dimension"
        assert nearest(memory, "ant", "its own") == ["Own"]


def test_a_model_that_comes_back_has_its_memories_again(tmp_path, provider):
    for model in ("ant", "cow", "ant", "bee"):
        with node(tmp_path, provider, model) as live:
            memory = of(live)
            memory.keep(*map(event, SUMMARIES))
            until_found(memory, len(SUMMARIES))
            assert nearest(memory, model, SUMMARIES[5])[0] == SUMMARIES[5]
