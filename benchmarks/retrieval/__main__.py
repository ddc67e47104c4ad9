"""Retrieval quality: recall through its public operation, beside baselines, with and without each of its parts.

    python -m benchmarks.retrieval DIRECTORY [--corpora KIND ...] [--no-embedder] [--vectors FILE] [--ablate] [--tune]

DIRECTORY holds LoCoMo's conversations as `{number}.json`. Prints tables in Markdown; `metrics` says what they hold.
`--ablate` leaves out one part of the ranking after another. `--tune` chooses weights on all conversations but one, and
measures on that one, for each in turn: what a choice made on some conversations is worth on others.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.retrieval.corpora import Corpus, load
from benchmarks.retrieval.methods import Embedder, Profiles, Rank, fts5, okapi, weighing
from benchmarks.retrieval.metrics import Measures, mean, measure
from memoturn_core.memory import text
from memoturn_mcp.logs import configure_logging
from memoturn_storage.connection import turn_lookaside_off

KINDS = ("locomo", "observations", "statements", "docstrings")

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "without words of neighbours": {"said_before": (), "said_after": ()},
    "without words of later neighbours": {"said_after": ()},
    "without a neighbour's share": {"neighbour": 0.0},
    "without a session's share": {"session": 0.0},
    "with questions worth as much": {"asking": 1.0},
    "with neighbours' common words": {"common": 1.0},
    "BM25's usual k1 and b": {"saturation": 1.2, "length": 0.75},
}

GRID = {
    "vector": (0.2, 0.3, 0.4),
    "neighbour": (0.0, 0.2, 0.3),
    "session": (0.0, 0.3),
    "asking": (1.0, 0.9, 0.8),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """The measures of each question of a corpus."""

    corpus: Corpus
    measures: list[Measures]


async def ask(corpus: Corpus, rank: Rank) -> Asked:
    return Asked(corpus, [measure(await rank(each.text), each.evidence) for each in corpus.questions])


def over(asked: list[Asked], category: str | None = None) -> Measures:
    return mean(
        [
            measures
            for each in asked
            for question, measures in zip(each.corpus.questions, each.measures, strict=True)
            if category in (None, question.category)
        ]
    )


def row(name: str, measures: Measures) -> str:
    return f"| {name} | " + " | ".join(f"{getattr(measures, each):.3f}" for each in Measures.__slots__) + " |"


def head(title: str) -> str:
    names = ("recall@5", "recall@10", "recall@20", "hit@10", "MRR", "nDCG@10")
    return f"| {title} | " + " | ".join(names) + " |\n" + "| --- " * (len(names) + 1) + "|"


async def tables(kind: str, corpora: list[Corpus], embedder: Embedder | None, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        profiles = Profiles(Path(directory), embedder)
        for corpus in corpora:
            await profiles.fill(corpus, corpus.name, turns=kind == "locomo" and embedder is None)
        if embedder is not None:
            embedder.save()

        async def all_of(make: Any) -> list[Asked]:
            return [await ask(corpus, make(corpus)) for corpus in corpora]

        def relevance(corpus: Corpus) -> Rank:
            return profiles.recall(corpus.name)

        questions = sum(len(corpus.questions) for corpus in corpora)
        print(f"\n### {kind}, {questions} questions, {'MiniLM' if embedder else 'no embedder'}\n")
        print(head("method"))
        if embedder is None:
            print(row("rank-bm25", over(await all_of(okapi))))
            print(row("FTS5 alone", over(await all_of(fts5))))
        else:
            print(row("vectors alone", over(await all_of(lambda corpus: profiles.by_vector(corpus.name)))))
        print(row("`rrf`", over(await all_of(lambda corpus: profiles.recall(corpus.name, fusion="rrf")))))
        whole = await all_of(relevance)
        print(row("**`relevance`**", over(whole)), flush=True)
        if kind == "locomo" and embedder is None:
            turns = await all_of(lambda corpus: profiles.turns(corpus, corpus.name))
            print(row("`relevance`, turns of the transcript", over(turns)))
        for name, changes in ABLATIONS.items() if options.ablate else ():
            with weighing(**changes):
                print(row(name, over(await all_of(relevance))), flush=True)
        if options.ablate:
            forms = text._forms
            text._forms = dict  # type: ignore[assignment]
            print(row("without irregular forms", over(await all_of(relevance))), flush=True)
            text._forms = forms
        if kind == "locomo":
            print(f"\n{head('`relevance`')}")
            for each in whole:
                print(row(f"conversation {each.corpus.name}", over([each])))
            for category in sorted({question.category for corpus in corpora for question in corpus.questions}):
                print(row(category, over(whole, category)))
            if options.tune:
                await tune(corpora, relevance, embedder)
        await profiles.close()


async def tune(corpora: list[Corpus], relevance: Any, embedder: Embedder | None) -> None:
    """Each conversation measured by the weights that are best (recall@10 plus MRR) on the others."""
    grid = {name: values if embedder or name != "vector" else values[:1] for name, values in GRID.items()}
    tried: dict[tuple[float, ...], list[Asked]] = {}
    for values in product(*grid.values()):
        with weighing(**dict(zip(grid, values, strict=True))):
            tried[values] = [await ask(corpus, relevance(corpus)) for corpus in corpora]

    def worth(asked: list[Asked]) -> float:
        measures = over(asked)
        return measures.recall_10 + measures.mrr

    print(f"\n{head('held out, weights chosen on the others')}")
    held_out = []
    for place, corpus in enumerate(corpora):
        best = max(tried, key=lambda values: worth(tried[values][:place] + tried[values][place + 1 :]))
        held_out.append(tried[best][place])
        chosen = ", ".join(f"{name} {value}" for name, value in zip(grid, best, strict=True))
        print(row(f"conversation {corpus.name} ({chosen})", over([held_out[-1]])))
    print(row("**all**", over(held_out)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--corpora", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--no-embedder", action="store_true", help="leave out what needs vectors")
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="keep vectors here for the next run (.npz)")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    turn_lookaside_off()
    configure_logging("warning", json=False)
    loaded = {kind: load(kind, options.directory) for kind in options.corpora}
    embedders = [None] if options.no_embedder else [None, Embedder.open(options.vectors)]
    for kind, corpora in loaded.items():
        for embedder in embedders:
            asyncio.run(tables(kind, corpora, embedder, options))


if __name__ == "__main__":
    main()
