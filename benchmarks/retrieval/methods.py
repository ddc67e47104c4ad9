"""Ways to rank a corpus for a question: recall through its public operation, and what it is compared with."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import apsw
import numpy as np
from rank_bm25 import BM25Okapi  # type: ignore[import-untyped]

from benchmarks.retrieval.corpora import Corpus
from benchmarks.retrieval.metrics import DEPTH
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.memory import ranking
from memoturn_core.memory.ranking import Weights
from memoturn_core.memory.text import words
from memoturn_core.node import Node
from memoturn_core.providers.embedding import Purpose
from memoturn_core.providers.minilm import MODEL, MiniLM
from memoturn_core.registry import OPERATIONS
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.objects.memory import MemoryStore

Rank = Callable[[str], Awaitable[list[str]]]
"""Takes a question and answers with ids, best first."""

_BATCH = 32


@dataclass
class Embedder:
    """The local model, each text once; kept in a file where there is one."""

    path: Path | None
    model: str = MODEL
    known: dict[str, list[float]] = field(default_factory=dict)
    _model: MiniLM | None = None

    @classmethod
    def open(cls, path: Path | None) -> Self:
        embedder = cls(path)
        if path is not None and path.exists():
            kept = np.load(path)
            embedder.known = dict(zip(kept["texts"].tolist(), kept["vectors"].tolist(), strict=True))
        return embedder

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:  # noqa: ARG002
        self.learn(texts)
        return [self.known[text] for text in texts]

    def learn(self, texts: Sequence[str]) -> None:
        new = sorted({text for text in texts if text not in self.known}, key=len)
        if new and self._model is None:
            self._model = MiniLM()
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            assert self._model is not None
            self.known.update(zip(batch, self._model.vectors(self._model.tokens(batch)), strict=True))

    def save(self) -> None:
        if self.path is not None:
            vectors = np.array(list(self.known.values()), np.float32)
            np.savez(self.path, texts=np.array(list(self.known)), vectors=vectors)

    @property
    def failing(self) -> bool:
        return False

    async def aclose(self) -> None:
        self.save()


class Profiles:
    """A node that has each corpus in a profile of its own."""

    def __init__(self, directory: Path, embedder: Embedder | None) -> None:
        store = MemoryStore(SystemAmbient())
        self._node = Node.open(directory, store=store, limits=Limits(threads=0), embedder=embedder)
        self._embedder = embedder

    async def fill(self, corpus: Corpus, profile: str, *, turns: bool = False) -> None:
        if self._embedder is not None:
            self._embedder.learn([f"{text.summary} {text.keywords}".strip() for text in corpus.texts])
            self._embedder.learn([question.text for question in corpus.questions])
        for start in range(0, len(corpus.texts), 100):
            memories = [text.memory() for text in corpus.texts[start : start + 100]]
            await self._call("memory_ingest", profile, {"memories": memories})
        for text in corpus.texts if turns else ():
            role, _, said = text.summary.partition(": ")
            await self._call("memory_append", profile, {"session": text.session, "role": role, "content": said})

    def recall(self, profile: str, **arguments: Any) -> Rank:
        async def rank(question: str) -> list[str]:
            answer = await self._call("memory_recall", profile, {"query": question, "k": DEPTH, **arguments})
            return [memory["content"]["id"] for memory in answer["memories"]]

        return rank

    def by_vector(self, profile: str) -> Rank:
        async def rank(question: str) -> list[str]:
            assert self._embedder is not None
            arguments = {"embedding": self._embedder.known[question], "k": DEPTH}
            answer = await self._call("memory_recall", profile, arguments)
            return [memory["content"]["id"] for memory in answer["memories"]]

        return rank

    def turns(self, corpus: Corpus, profile: str) -> Rank:
        """By the transcript, of which `fill` kept the same texts."""
        ids: dict[tuple[str, int], str] = {}
        count: dict[str, int] = {}
        for text in corpus.texts:
            count[text.session] = count.get(text.session, 0) + 1
            ids[text.session, count[text.session]] = text.id

        async def rank(question: str) -> list[str]:
            arguments = {"query": question, "k": DEPTH, "include_turns": True}
            answer = await self._call("memory_recall", profile, arguments)
            return [ids[turn["session_id"], turn["seq"]] for turn in answer["turns"]]

        return rank

    async def close(self) -> None:
        await self._node.close()

    async def _call(self, operation: str, profile: str, arguments: dict[str, Any]) -> Any:
        address = Address.of_profile("bench", profile)
        return (await invoke(self._node, OPERATIONS[operation], address, arguments, LOCAL)).value


@contextmanager
def weighing(**changes: Any) -> Iterator[None]:
    """Rank by other weights than the product's."""
    before = ranking.WEIGHTS
    ranking.WEIGHTS = replace(Weights(), **changes)
    try:
        yield
    finally:
        ranking.WEIGHTS = before


def okapi(corpus: Corpus) -> Rank:
    """The package rank-bm25 as its documentation uses it, on lower-case words."""
    model = BM25Okapi([_plain_words(f"{text.summary} {text.keywords}") for text in corpus.texts])

    async def rank(question: str) -> list[str]:
        scores = model.get_scores(_plain_words(question))
        return [corpus.texts[place].id for place in np.argsort(-scores, kind="stable")[:DEPTH] if scores[place] > 0]

    return rank


def fts5(corpus: Corpus) -> Rank:
    """SQLite's full-text search alone: Porter's stems, any word, common words dropped, its own BM25."""
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE VIRTUAL TABLE f USING fts5(summary, keywords, tokenize='porter unicode61')")
    connection.executemany("INSERT INTO f VALUES (?, ?)", [(text.summary, text.keywords) for text in corpus.texts])

    async def rank(question: str) -> list[str]:
        match = " OR ".join(f'"{word}"' for word in words(question))
        found: list[Any] = connection.execute(
            "SELECT rowid FROM f WHERE f MATCH ? ORDER BY rank LIMIT ?", (match, DEPTH)
        ).fetchall()
        return [corpus.texts[rowid - 1].id for (rowid,) in found]

    return rank


def _plain_words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
