"""The embedder in this process: the vectors it gives, and that it is never in anybody's way."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import anyio
import numpy as np
import pytest

from contract.live_node import event, serve
from memoturn_core.providers import minilm
from memoturn_core.providers.local import LocalEmbedder
from memoturn_core.providers.minilm import MiniLM
from memoturn_core.providers.settings import ProviderSettings, make_embedder
from memoturn_schemas.errors import InvalidRequest, UpstreamFailure
from memoturn_storage.ambient import ManualAmbient

pytestmark = pytest.mark.skipif(bool(minilm.missing()), reason=f"needs {' and '.join(minilm.missing())}")

R = TypeVar("R")

REFERENCE = {
    "The weather is lovely today.": (0.019196, 0.120085, 0.159598, 0.067066),
    "Lives in Oslo": (0.034202, 0.050378, 0.022323, -0.001273),
    "Zoë Ærø naïve": (-0.054307, 0.001225, 0.065349, -0.082001),
    "東京タワー 🎉 שלום": (0.040732, 0.111043, 0.016653, -0.054582),
    "e\u0301 vs \u00e9": (0.008441, 0.117330, 0.058164, 0.012333),
    "İstanbul ǅ": (0.054141, 0.009184, 0.047206, 0.073767),
    "a\u0000b\u200dc": (-0.007829, 0.007353, -0.030943, 0.041504),
    "[CLS] [MASK] hello [SEP]": (-0.079089, -0.016868, 0.081910, 0.005096),
    "q" * 300: (-0.041596, -0.024682, 0.077893, -0.006149),
    "word " * 400: (-0.008124, -0.095586, -0.038673, 0.049662),
    "!?" * 200: (-0.026613, -0.071320, 0.075862, -0.052346),
    "": (-0.118838, 0.048299, -0.002548, -0.011011),
    " \t\n ": (-0.118838, 0.048299, -0.002548, -0.011011),
}
"""The first numbers of the vectors that the model's authors' own library gives."""

SENTENCES = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
)
SIMILARITIES = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
"""As published with that library."""


@pytest.fixture(scope="module")
def loaded() -> MiniLM:
    return MiniLM()


@pytest.fixture
def quick(loaded: MiniLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads the model gets the one that is loaded."""
    monkeypatch.setattr(MiniLM, "__init__", lambda self: self.__dict__.update(loaded.__dict__))


def using(embedder: LocalEmbedder, call: Callable[[LocalEmbedder], Awaitable[R]]) -> R:
    async def main() -> R:
        try:
            return await call(embedder)
        finally:
            await embedder.aclose()

    return anyio.run(main)


def embed(*texts: str) -> np.ndarray:
    return np.array(using(LocalEmbedder(60.0), lambda it: it.embed(texts, purpose="document")))


# --- vectors -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_vectors_are_those_of_the_reference():
    vectors = embed(*REFERENCE)
    assert vectors.shape == (len(REFERENCE), 384)
    np.testing.assert_allclose(vectors[:, :4], list(REFERENCE.values()), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@pytest.mark.usefixtures("quick")
def test_similarities_are_as_published():
    vectors = embed(*SENTENCES)
    np.testing.assert_allclose(vectors @ vectors.T, SIMILARITIES, atol=6e-5)


@pytest.mark.usefixtures("quick")
def test_each_text_of_a_batch_gets_the_vector_that_it_gets_alone():
    """Whatever else is in the batch, of whatever length: padding, sorting and portions leave no trace."""
    lengths = [250, 0, *(n * 7 % 23 for n in range(66)), 400]
    texts = [" ".join(f"word{place + n}" for n in range(length)) for place, length in enumerate(lengths)]
    together = embed(*texts)
    for place in (*range(0, len(texts), 9), len(texts) - 1):
        np.testing.assert_allclose(together[place], embed(texts[place])[0], atol=1e-6)


@pytest.mark.usefixtures("quick")
def test_what_goes_beyond_256_tokens_makes_no_difference():
    kept, dropped, within = embed("word " * 254, "word " * 254 + "elephants", "word " * 253 + "elephants")
    np.testing.assert_allclose(kept, dropped, atol=1e-6)
    assert not np.allclose(kept, within, atol=1e-3)
    assert embed("x " * 10_000_000).shape == (1, 384)


@pytest.mark.usefixtures("quick")
def test_no_texts_have_no_vectors():
    assert len(embed()) == 0


@pytest.mark.usefixtures("quick")
def test_text_that_is_not_unicode_is_the_callers_fault():
    with pytest.raises(InvalidRequest, match="not valid Unicode"):
        embed("fine", "\ud800")


# --- in nobody's way -----------------------------------------------------------------------------


@pytest.fixture
def gate(quick: None, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Holds up each execution until it is let through, and knows what was executed and where."""
    return Gate(monkeypatch)


class Gate:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.executed: list[int] = []
        self.threads: set[int] = set()
        self.reached = threading.Semaphore(0)
        self._passes = threading.Semaphore(0)
        execute = MiniLM.vectors

        def vectors(minilm: MiniLM, tokens: list[list[int]]) -> list[list[float]]:
            self.reached.release()
            assert self._passes.acquire(timeout=30)
            self.executed.append(len(tokens))
            self.threads.add(threading.get_ident())
            return execute(minilm, tokens)

        monkeypatch.setattr(MiniLM, "vectors", vectors)

    def let_through(self, executions: int = 1_000) -> None:
        self._passes.release(executions)

    async def wait(self) -> None:
        """Until an execution is held up; meanwhile the event loop runs."""
        assert await anyio.to_thread.run_sync(lambda: self.reached.acquire(timeout=30))


def test_a_query_waits_for_one_portion_of_a_large_batch_and_the_event_loop_for_none(gate):
    async def story(embedder: LocalEmbedder) -> None:
        answered: list[str] = []

        async def ask(name: str, texts: list[str]) -> None:
            assert len(await embedder.embed(texts, purpose="query")) == len(texts)
            answered.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "batch", ["word " * 200] * 12)
            await gate.wait()
            group.start_soon(ask, "query", ["word"])
            await anyio.wait_all_tasks_blocked()
            gate.let_through()
        assert answered == ["query", "batch"]
        assert 1 in gate.executed[:3]
        assert len(gate.executed) == 7
        assert len(gate.threads) == 1

    using(LocalEmbedder(60.0), story)


def test_whoever_waits_longer_than_the_budget_goes_without_and_leaves_no_work_behind(gate):
    async def story(embedder: LocalEmbedder) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(fail, embedder)
        gate.let_through()
        assert await embedder.embed([], purpose="query") == []

    async def fail(embedder: LocalEmbedder) -> None:
        with pytest.raises(UpstreamFailure, match=r"local did not embed 100 texts within 0\.2 s"):
            await embedder.embed(["word " * 200] * 100, purpose="document")

    using(LocalEmbedder(0.2), story)
    assert len(gate.executed) <= 1


# --- a damaged installation ----------------------------------------------------------------------


def test_a_model_that_is_not_the_published_one_is_not_used_and_costs_no_memory(tmp_path, monkeypatch):
    monkeypatch.setitem(minilm._PUBLISHED, "tokenizer.json", "0" * 64)
    with pytest.raises(UpstreamFailure, match=r"local cannot be loaded \(ValueError\); install its packages anew"):
        embed("anything")
    with serve(tmp_path, embedder=LocalEmbedder(60.0)) as live:
        memory = live.memory()
        memory.keep(event("Red"))
        recalled = memory.recall(query="red").json()
        assert [hit["channels"] for hit in recalled["memories"]] == [["keyword"]]
        assert recalled["degraded"] == ["vector"]


def test_an_execution_that_fails_is_a_provider_failure(quick, monkeypatch):
    monkeypatch.setattr(MiniLM, "vectors", lambda *_: (_ for _ in ()).throw(MemoryError("of the library")))
    with pytest.raises(UpstreamFailure, match=r"local failed \(MemoryError\)\.$"):
        embed("anything")


# --- a node with it ------------------------------------------------------------------------------

SAID = (
    "Peanuts make her throat swell",
    "Moved to Berlin in March",
    "Plays the cello in an orchestra",
    "Her sister works as a surgeon",
    "Prefers to be called in the evening",
)
ASKED = {
    "food allergies": SAID[0],
    "which city is home": SAID[1],
    "musical instruments": SAID[2],
    "doctors among relatives": SAID[3],
    "when should I phone": SAID[4],
}


def test_item_41_what_shares_no_word_with_the_query_is_found_by_meaning(tmp_path):
    settings = ProviderSettings.from_environment({"MEMOTURN_EMBED_PROVIDER": "local"})
    assert settings.embedding is not None
    assert settings.embedding.model == "all-MiniLM-L6-v2"
    patient = ProviderSettings(replace(settings.embedding, budget_s=60.0))
    with serve(tmp_path, embedder=make_embedder(patient, ManualAmbient())) as live:
        assert live.http.get("/v1/health").json()["embedder"] == "all-MiniLM-L6-v2"
        memory = live.memory()
        memory.keep(*map(event, SAID))
        for asked, said in ASKED.items():
            [best] = memory.found(query=asked, k=1)
            assert (best["summary"], best["channels"]) == (said, ["vector"])
