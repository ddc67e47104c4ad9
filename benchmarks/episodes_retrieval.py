"""Whether query_memory finds what was tried on a task that is put in other words, long ago and without success.

    python -m benchmarks.episodes_retrieval DIRECTORY [--no-embedder] [--vectors FILE] [--ablate]

DIRECTORY holds LoCoMo's conversations as `{number}.json`. What is to be found was begun a year ago and failed, and what
it is among, of the same domains, is of today and succeeded, so that recency and reward speak for the wrong ones.

`tasks`       64 tasks of software work and the same in other words (`data/tasks.jsonl`, written for this), each among
              another task that is put in those words; the steps of all are words of tasks of their domain
`events`      the data set's observations; asked are its events that a reader says are the same (`similarity.SAME`)
`sessions`    the data set's summaries of conversations; asked are its questions about them
`docstrings`  what Python's library says of its functions; asked by the first lines

recall@k is the share of what is to be found that is among the first k, averaged over the questions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import numpy as np
from rank_bm25 import BM25Okapi  # type: ignore[import-untyped]

from benchmarks import similarity
from benchmarks.retrieval import corpora
from benchmarks.retrieval.methods import Embedder, _plain_words
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.episodes import boosts, candidates, choice, diversity
from memoturn_core.invoke import invoke
from memoturn_core.memory.text import words
from memoturn_core.memory.words import EpisodeWords
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.logs import configure_logging
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import turn_lookaside_off
from memoturn_storage.engine import Limits
from memoturn_storage.objects.memory import MemoryStore

YEAR_MS, HOUR_MS = 365 * 86_400_000, 3_600_000
DEPTH = 10
BOOSTS = ("RECENCY", "REWARD", "DOMAIN", "TASK_TYPE")
TOOLS = ("grep", "read_file", "edit_file", "shell", "pytest", "git")

Rank = Callable[[str], Awaitable[list[int]]]
"""Takes a question and answers with places of episodes, best first."""


@dataclass(frozen=True, slots=True)
class Tried:
    """An episode; `old` where it is to be found."""

    task: str
    domain: str
    old: bool
    task_type: str = "other"
    session: str | None = None
    actions: Sequence[str] = ()

    def request(self, now: int, place: int) -> dict[str, Any]:
        start = now - (YEAR_MS if self.old else HOUR_MS) - place
        return {
            "task_description": self.task,
            "task_type": self.task_type,
            "domain": self.domain,
            "session_id": self.session,
            "start_time": start,
            "end_time": start + 60_000,
            "metadata": {"place": place},
            "steps": [
                {"tool": TOOLS[n % len(TOOLS)], "action": action, "result": {"type": "success"}}
                for n, action in enumerate(self.actions)
            ],
            "outcome": {"type": "failure", "reason": "gave up"} if self.old else {"type": "success", "verdict": "done"},
        }

    @property
    def text(self) -> str:
        return " ".join((self.task, *self.actions))


@dataclass(slots=True)
class Corpus:
    name: str
    episodes: list[Tried] = field(default_factory=list)
    questions: list[tuple[str, set[int]]] = field(default_factory=list)


# --- what is tried and asked ---------------------------------------------------------------------


def tasks() -> Corpus:
    """Targets and distractors in an order by chance."""
    lines = (Path(__file__).parent / "data" / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    chance = random.Random(1)
    listed = [(row, old) for row in rows for old in (True, False)]
    chance.shuffle(listed)
    corpus = Corpus("tasks")
    for row, old in listed:
        said = [each for other in rows if other["domain"] == row["domain"] for each in words(other["task"])]
        actions = [" ".join(chance.sample(said, 4)) for _ in TOOLS]
        task = row["task"] if old else row["distractor"]
        if old:
            corpus.questions.append((row["paraphrase"], {len(corpus.episodes)}))
        corpus.episodes.append(Tried(task, row["domain"], old, row["task_type"], actions=actions))
    return corpus


def events(conversations: dict[str, Any]) -> Corpus:
    corpus = Corpus("events")
    for name, data in conversations.items():
        observed = [(session, text) for session, text, _ in corpora._stated(data)]
        said = list(similarity.statements(data))
        same: dict[int, set[int]] = {}
        for first, second in similarity.pairs_of(similarity.SAME[name]):
            if first < len(observed) <= second:
                same.setdefault(second, set()).add(len(corpus.episodes) + first)
        corpus.questions += [(said[event], places) for event, places in sorted(same.items())]
        wanted = {place for places in same.values() for place in places}
        for session, text in observed:
            old = len(corpus.episodes) in wanted
            corpus.episodes.append(Tried(text, name, old, session=f"{name}-{session}"))
    return corpus


def sessions(conversations: dict[str, Any]) -> Corpus:
    """Every second conversation is to be found."""
    corpus = Corpus("sessions")
    for name, data in conversations.items():
        places: dict[int, int] = {}
        for number in range(1, 1 + sum(key.endswith("_summary") for key in data)):
            if f"session_{number}_summary" in data:
                places[number] = len(corpus.episodes)
                corpus.episodes.append(Tried(data[f"session_{number}_summary"], name, number % 2 == 0))
        for asked in data["qa"]:
            numbers = {int(number) for number, _ in corpora.TURN.findall(str(asked.get("evidence")))}
            if numbers and all(number in places and number % 2 == 0 for number in numbers):
                corpus.questions.append((asked["question"], {places[number] for number in numbers}))
    return corpus


def docstrings() -> Corpus:
    """Every second one is to be found."""
    [python] = corpora.load("docstrings", Path())
    corpus = Corpus("docstrings")
    for place, (text, question) in enumerate(zip(python.texts, python.questions, strict=True)):
        old = place % 2 == 0
        if old:
            corpus.questions.append((question.text, {place}))
        corpus.episodes.append(Tried(text.summary, text.session, old, "documentation"))
    return corpus


# --- ways to rank --------------------------------------------------------------------------------


class Profile:
    """A node with a corpus in a profile of its own."""

    def __init__(self, directory: Path, embedder: Embedder | None) -> None:
        store = MemoryStore(SystemAmbient())
        self._node = Node.open(directory, store=store, limits=Limits(threads=0), embedder=embedder)
        self._embedder = embedder
        self._vectors: Any = None

    async def fill(self, corpus: Corpus) -> None:
        now = self._node.ambient.now_ms()
        if self._embedder is not None:
            self._embedder.learn([each.task for each in corpus.episodes] + [text for text, _ in corpus.questions])
            vectors = np.array([self._embedder.known[each.task] for each in corpus.episodes])
            self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        requests = [each.request(now, place) for place, each in enumerate(corpus.episodes)]
        for start in range(0, len(requests), 50):
            await self._call("bulk_episodes", {"episodes": requests[start : start + 50]})

    async def query_memory(self, question: str) -> list[int]:
        asked = {"query": question, "limit": DEPTH, "fields": ["metadata.place"], "include": ["episodes"]}
        answer = await self._call("query_memory", asked)
        return [hit["metadata"]["place"] for hit in answer["episodes"]]

    async def vectors(self, question: str) -> list[int]:
        assert self._embedder is not None
        return _best(self._vectors @ np.array(self._embedder.known[question]))

    async def close(self) -> None:
        await self._node.close()

    async def _call(self, operation: str, arguments: dict[str, Any]) -> Any:
        address = Address.of_profile("bench", "episodes")
        return (await invoke(self._node, OPERATIONS[operation], address, arguments, LOCAL)).value


def okapi(corpus: Corpus) -> Rank:
    model = BM25Okapi([_plain_words(each.text) for each in corpus.episodes])

    async def rank(question: str) -> list[int]:
        return _best(model.get_scores(_plain_words(question)))

    return rank


def fts5(corpus: Corpus) -> Rank:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE VIRTUAL TABLE f USING fts5(task, actions, tokenize='porter unicode61')")
    connection.executemany(
        "INSERT INTO f VALUES (?, ?)", [(each.task, " ".join(each.actions)) for each in corpus.episodes]
    )

    async def rank(question: str) -> list[int]:
        match = " OR ".join(f'"{word}"' for word in words(question))
        found: list[Any] = connection.execute(
            "SELECT rowid - 1 FROM f WHERE f MATCH ? ORDER BY rank LIMIT ?", (match, DEPTH)
        ).fetchall()
        return [place for (place,) in found]

    return rank


def recency(corpus: Corpus) -> Rank:
    newest = sorted(range(len(corpus.episodes)), key=lambda place: (corpus.episodes[place].old, place))

    async def rank(_question: str) -> list[int]:
        return newest[:DEPTH]

    return rank


def _best(scores: Any) -> list[int]:
    return [int(place) for place in np.argsort(-scores, kind="stable")[:DEPTH]]


# --- measuring -----------------------------------------------------------------------------------


async def line(name: str, corpus: Corpus, rank: Rank) -> str:
    totals = [0.0] * 4
    for question, wanted in corpus.questions:
        found = [place in wanted for place in await rank(question)]
        first = next((number for number, right in enumerate(found, start=1) if right), None)
        of_one = [sum(found[:depth]) / len(wanted) for depth in (1, 5, 10)] + [0.0 if first is None else 1 / first]
        totals = [total + each for total, each in zip(totals, of_one, strict=True)]
    return f"| {name} | " + " | ".join(f"{total / len(corpus.questions):.3f}" for total in totals) + " |"


def ablations(*, embedded: bool) -> Iterator[tuple[str, list[Any]]]:
    yield "without boosts", [mock.patch.object(boosts, name, 0.0) for name in BOOSTS]
    yield "without diversity", [mock.patch.object(diversity, "LAMBDA", 1.0)]
    yield (
        "with boosts three times as strong",
        [
            *(mock.patch.object(boosts, name, 3 * getattr(boosts, name)) for name in BOOSTS),
            mock.patch.object(choice, "WHOLE", 3 * boosts.WHOLE),
        ],
    )
    for weight in (0.3, 0.4, 0.6, 0.7) if embedded else ():
        yield f"vectors weighing {weight}", [mock.patch.object(candidates, "VECTOR", weight)]


async def main(corpus: Corpus, embedder: Embedder | None, *, ablate: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        profile = Profile(Path(directory), embedder)
        await profile.fill(corpus)
        asked, model = len(corpus.questions), "MiniLM" if embedder else "no embedder"
        print(f"\n### {corpus.name}, {asked} questions, {len(corpus.episodes)} episodes, {model}\n")
        print("| method | recall@1 | recall@5 | recall@10 | MRR |\n| --- | --- | --- | --- | --- |")
        if embedder is None:
            print(await line("the newest", corpus, recency(corpus)))
            print(await line("rank-bm25", corpus, okapi(corpus)))
            print(await line("FTS5 alone", corpus, fts5(corpus)))
        else:
            print(await line("vectors alone", corpus, profile.vectors))
        print(await line("**query_memory**", corpus, profile.query_memory), flush=True)
        for name, patches in ablations(embedded=embedder is not None) if ablate else ():
            with ExitStack() as stack:
                for patch in patches:
                    stack.enter_context(patch)
                print(await line(name, corpus, profile.query_memory), flush=True)
        await profile.close()
        if ablate:
            for weight in (1, 2, 8):
                with mock.patch.object(EpisodeWords, "weights", (weight, 1)):
                    profile = Profile(Path(directory) / str(weight), embedder)
                    await profile.fill(corpus)
                    print(await line(f"descriptions weighing {weight}", corpus, profile.query_memory), flush=True)
                    await profile.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--no-embedder", action="store_true", help="leave out what needs vectors")
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="keep vectors here for the next run (.npz)")
    parser.add_argument("--ablate", action="store_true")
    options = parser.parse_args()
    turn_lookaside_off()
    configure_logging("warning", json=False)
    files = sorted(options.directory.glob("*.json"))
    loaded = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    embedders = [None] if options.no_embedder else [None, Embedder.open(options.vectors)]
    for made in (tasks(), events(loaded), sessions(loaded), docstrings()):
        for each in embedders:
            asyncio.run(main(made, each, ablate=options.ablate))
            if each is not None:
                each.save()
