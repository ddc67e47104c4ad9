"""The lexicon against the file whatever happens to it, and the ranking by relevance against its definition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from math import log1p
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_core.memory import rows, turns
from memoturn_core.memory.lexicon import NOBODY, Lexicon
from memoturn_core.memory.ranking import WEIGHTS, best_first, relevance
from memoturn_core.memory.rows import Row
from memoturn_core.memory.text import asks, stems, terms
from memoturn_core.memory.words import MemoryWords, TurnWords, WordIndex
from memoturn_core.tables import SCHEMA
from memoturn_core.vectors.budget import Budget
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Snapshot, Transaction

BOUNDED = settings(max_examples=60, deadline=None)

QUERY = "Did zebras go home? When?"
vocabulary = st.sampled_from(["zebra", "zebras", "went", "gone", "home", "homes", "horse", "and", "?", "Ω", "\0"])
texts = st.lists(vocabulary, min_size=1, max_size=7).map(" ".join)
sessions = st.sampled_from([None, "s", "t"])
told = st.tuples(sessions, texts, texts)
steps = st.lists(st.tuples(st.just("insert"), told) | st.tuples(st.just("delete"), st.integers(0, 30)), max_size=25)


class File:
    """A database with its caches, as a handle has them."""

    def __init__(self) -> None:
        self.connection = SCHEMA.empty()
        self.ambient = ManualAmbient()
        self.caches: dict[Any, Any] = {}
        self.txid = 1
        self.ids = count(1)

    def snapshot(self, *, fresh: bool = False) -> Snapshot:
        return Snapshot(self.connection, self.txid, self.ambient, {} if fresh else self.caches)

    def write(self, work: Any) -> None:
        transaction = Transaction(self.connection, self.ambient)
        work(transaction)
        self.txid += 1
        for key, change in transaction.maintenance:
            if key in self.caches:
                change(self.caches[key].value)
        for entry in self.caches.values():
            entry.txid = self.txid

    def insert(self, session: str | None, summary: str, keywords: str) -> None:
        row = Row(
            rowid=0, id=next(self.ids).to_bytes(16, "big"), type="event", topic_key=None, summary=summary, content="1",
            keywords=keywords, session_id=session, source=None, created_at=1, expires_at=None, superseded_at=None,
            superseded_by=None,
        )  # fmt: skip
        self.write(lambda transaction: rows.insert(transaction, row))

    def delete(self, number: int) -> None:
        found: list[Any] = self.connection.execute(f"SELECT {rows.COLUMNS} FROM __memoturn_memories").fetchall()
        if found:
            self.write(lambda transaction: rows.delete(transaction, Row(*found[number % len(found)])))

    def apply(self, step: tuple[str, Any]) -> None:
        if step[0] == "insert":
            self.insert(*step[1])
        else:
            self.delete(step[1])


def ranked(index: type[WordIndex], snapshot: Snapshot, query: str = QUERY) -> list[tuple[int, float]]:
    lexicon = index.of(snapshot, terms(query))
    ranking = relevance(lexicon, terms(query), [])
    return [
        (int(lexicon.rowids[place]), round(float(ranking.scores[place]), 9))
        for places in best_first(ranking, 3)
        for place in places
    ]


@BOUNDED
@given(steps)
def test_what_is_kept_in_step_ranks_as_what_is_read_anew(steps: list[tuple[str, Any]]) -> None:
    file = File()
    for step in steps:
        ranked(MemoryWords, file.snapshot())
        file.apply(step)
        assert ranked(MemoryWords, file.snapshot()) == ranked(MemoryWords, file.snapshot(fresh=True))
    file.connection.close()


@BOUNDED
@given(st.lists(told, max_size=12))
def test_relevance_is_what_its_definition_says(memories: list[tuple[str | None, str, str]]) -> None:
    file = File()
    for memory in memories:
        file.insert(*memory)
    expected = by_definition(memories)
    found = ranked(MemoryWords, file.snapshot())
    assert dict(found) == pytest.approx({rowid: score for rowid, score in expected.items() if score is not None})
    assert found == sorted(found, key=lambda hit: (-hit[1], -hit[0]))
    file.connection.close()


def by_definition(memories: Sequence[tuple[str | None, str, str]]) -> dict[int, float | None]:
    """Score by rowid, None where a row has no word of the query: one row and one word at a time."""
    places = range(len(memories))
    bags = [[*stems(summary), *stems(keywords)] for _, summary, keywords in memories]
    lengths = [len(f"{summary}{keywords}".encode()) for _, summary, keywords in memories]
    shares, whole = [0.0] * len(memories), 0.0
    for term in terms(QUERY):
        counts = [sum(bag.count(stem) for stem in term) for bag in bags]
        having = sum(times > 0 for times in counts)
        if not having:
            continue
        rarity = log1p((len(memories) - having + 0.5) / (having + 0.5))
        whole += rarity
        own = []
        for place in places:
            relative = lengths[place] * len(memories) / sum(lengths)
            spread = WEIGHTS.saturation * (1 - WEIGHTS.length + WEIGHTS.length * relative)
            own.append(rarity * counts[place] / (counts[place] + spread))
        for place in places:
            around = [own[place]]
            if having <= WEIGHTS.common * len(memories):
                earlier, later = neighbours(memories, place)
                around += [own[there] * worth for there, worth in zip(earlier, WEIGHTS.said_before, strict=False)]
                around += [own[there] * worth for there, worth in zip(later, WEIGHTS.said_after, strict=False)]
            shares[place] += max(around)
    asking = [WEIGHTS.asking if asks(summary.encode()) else 1 for _, summary, _ in memories]
    worth = [share / (whole or 1) * factor for share, factor in zip(shares, asking, strict=True)]
    result: dict[int, float | None] = {}
    for place in places:
        earlier, later = neighbours(memories, place)
        of_session = max(worth[there] for there in [place, *earlier, *later])
        matched = any(stem in bags[place] for term in terms(QUERY) for stem in term)
        lent = max([0.0, *(worth[there] for there in earlier[:1] + later[:1])])
        score = worth[place] + WEIGHTS.neighbour * lent + WEIGHTS.session * of_session
        result[place + 1] = score / (1 + WEIGHTS.neighbour + WEIGHTS.session) if matched else None
    return result


def neighbours(memories: Sequence[tuple[str | None, str, str]], place: int) -> tuple[list[int], list[int]]:
    """Those before and those after it in its session, the nearest first."""
    session = memories[place][0]
    together = [there for there in range(len(memories)) if session is not None and memories[there][0] == session]
    return [there for there in reversed(together) if there < place], [there for there in together if there > place]


@given(
    st.lists(st.tuples(sessions, st.booleans()), max_size=12),
    st.lists(st.integers(0, 11), unique=True, max_size=12),
)
def test_neighbours_stay_those_that_are_left(told: list[tuple[str | None, bool]], removed: list[int]) -> None:
    lexicon = Lexicon([(place + 1, session, 1, asking) for place, (session, asking) in enumerate(told)])
    for place in removed:
        lexicon.remove(place + 1)
    alive = [place for place in range(len(told)) if place not in removed]
    assert lexicon.alive_count == len(alive)
    for place in alive:
        earlier, later = neighbours([(session, "", "") if there in alive else (f"gone {there}", "", "")
                                     for there, (session, _) in enumerate(told)], place)  # fmt: skip
        assert int(lexicon.before[place]) == (earlier[0] if earlier else NOBODY)
        assert int(lexicon.after[place]) == (later[0] if later else NOBODY)


@given(st.lists(st.floats(-1, 1), max_size=50), st.integers(1, 20))
def test_slices_of_the_best_are_all_in_order(scores: list[float], probe: int) -> None:
    lexicon = Lexicon([(place + 1, None, 1, False) for place in range(len(scores))])
    ranking = relevance(lexicon, [], [(place + 1, score) for place, score in enumerate(scores)])
    order = [place for places in best_first(ranking, probe) for place in places.tolist()]
    assert order == sorted(range(len(scores)), key=lambda place: (-scores[place], -place))


def test_with_words_and_vectors_a_row_that_is_not_near_counts_as_far_as_the_last_that_is() -> None:
    file = File()
    for summary in ("zebra", "zebra", "zebra", "horse"):
        file.insert(None, summary, "")
    lexicon = MemoryWords.of(file.snapshot(), terms("zebra"))
    ranking = relevance(lexicon, terms("zebra"), [(4, 0.9), (1, 0.5)])
    assert ranking.found.tolist() == [0, 1, 2, 3]
    assert ranking.worded.tolist() == [True, True, True, False]
    assert ranking.scores[0] == ranking.scores[1] == ranking.scores[2] > ranking.scores[3]
    file.connection.close()


def test_turns_are_ranked_as_memories_are_and_stay_in_step_when_a_session_is_dropped() -> None:
    file = File()
    said = ("Which animals did you see?", "A zebra went home", "Lunch", "The zebra again")
    for text in said:
        file.write(lambda transaction, text=text: turns.append(transaction, "s", "user", text, None, None))
        file.write(lambda transaction, text=text: turns.append(transaction, "t", "user", text, None, None))
        assert ranked(TurnWords, file.snapshot()) == ranked(TurnWords, file.snapshot(fresh=True))
    file.write(lambda transaction: turns.drop(transaction, "t"))
    assert ranked(TurnWords, file.snapshot()) == ranked(TurnWords, file.snapshot(fresh=True))
    found = turns.search(file.snapshot(), QUERY, None, 5, None)
    assert [(turn["session_id"], turn["seq"], turn["distance"]) for turn in found] == [("s", 2, None), ("s", 4, None)]
    file.connection.close()


def test_an_index_that_had_to_let_go_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WordIndex, "budget", Budget(1))
    first, second = File(), File()
    for file in (first, second):
        file.insert("s", "zebra", "")
    before = ranked(MemoryWords, first.snapshot())
    assert ranked(MemoryWords, second.snapshot()) == before
    [held] = [entry.value for entry in first.caches.values()]
    assert (held.complete, held.nbytes) == (False, 0)
    first.insert("s", "zebra", "")
    assert len(ranked(MemoryWords, first.snapshot())) == 2
    for file in (first, second):
        file.connection.close()


def test_postings_beyond_their_bound_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoturn_core.memory.lexicon._POSTINGS_AT_MOST", 1_000)
    file = File()
    file.insert("s", " ".join(f"word{n}" for n in range(50)), "")
    lexicon = MemoryWords.of(file.snapshot(), terms("word0"))
    for number in range(50):
        assert len(ranked(MemoryWords, file.snapshot(), f"word{number}")) == 1
    assert lexicon.nbytes < 4_000
    assert np.count_nonzero(lexicon.alive) == 1
    file.connection.close()
