"""The words of episodes: what is kept in step as they change is what the file says, and what is read anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memoturn_core.memory.ranking import best_first, relevance
from memoturn_core.memory.text import stems, terms
from memoturn_core.memory.words import EpisodeWords
from memoturn_core.tables import SCHEMA
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Snapshot, Transaction

QUERY = "Did zebras go home?"
texts = st.lists(
    st.sampled_from(["zebra", "zebras", "went", "gone", "home", "homes", "horse", "and", "?", "Ω", "\0"]), max_size=7
).map(" ".join)
sessions = st.sampled_from([None, "s", "t"])

Words = tuple[str, str]


class Episodes(RuleBasedStateMachine):
    """A table of episodes whose words come, change and go, with a mirror in memory from some moment on."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = SCHEMA.empty()
        self.ambient = ManualAmbient()
        self.caches: dict[Any, Any] = {}
        self.txid = 1
        self.kept: dict[int, Words] = {}

    @initialize(rows=st.lists(st.tuples(sessions, texts, texts), max_size=4))
    def some_are_there(self, rows: list[tuple[str | None, str, str]]) -> None:
        for row in rows:
            self.it_comes(row)

    @rule(row=st.tuples(sessions, texts, texts))
    def it_comes(self, row: tuple[str | None, str, str]) -> None:
        session, *words = row

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(
                "INSERT INTO __memoturn_episodes (id, task_type, domain, description, words, session_id, started_at,"
                " body) VALUES (randomblob(16), 'other', 'general', ?, ?, ?, 0, '{}')",
                (*words, session),
            )
            rowid = transaction.connection.last_insert_rowid()
            EpisodeWords.insert(transaction, rowid, session, words)
            self.kept[rowid] = (words[0], words[1])

        self._write(work)

    @precondition(lambda self: self.kept)
    @rule(number=st.integers(0, 30), words=st.tuples(texts, texts))
    def it_says_something_else(self, number: int, words: Words) -> None:
        rowid = sorted(self.kept)[number % len(self.kept)]

        def work(transaction: Transaction) -> None:
            EpisodeWords.replace(transaction, rowid, self.kept[rowid], words)
            transaction.connection.execute(
                "UPDATE __memoturn_episodes SET description = ?, words = ? WHERE rowid = ?", (*words, rowid)
            )

        self._write(work)
        self.kept[rowid] = words

    @precondition(lambda self: self.kept)
    @rule(number=st.integers(0, 30))
    def it_goes(self, number: int) -> None:
        rowid = sorted(self.kept)[number % len(self.kept)]

        def work(transaction: Transaction) -> None:
            EpisodeWords.delete(transaction, rowid, self.kept.pop(rowid))
            transaction.connection.execute("DELETE FROM __memoturn_episodes WHERE rowid = ?", (rowid,))

        self._write(work)

    @rule()
    def it_is_looked_for(self) -> None:
        assert self._ranked(self.caches) == self._ranked({})

    @rule()
    def the_mirror_is_the_same_one_all_the_time(self) -> None:
        """Otherwise there would be nothing to prove."""
        lexicon = EpisodeWords.of(self._snapshot(self.caches), terms(QUERY))
        assert EpisodeWords.of(self._snapshot(self.caches), terms(QUERY)) is lexicon
        if self.kept:
            rowid = min(self.kept)
            self.it_says_something_else(0, ("horse horse", "zebra"))
            assert EpisodeWords.of(self._snapshot(self.caches), terms(QUERY)) is lexicon
            [place] = lexicon.places([rowid])
            assert place in lexicon.posting(*stems("zebra")).places

    @invariant()
    def the_mirror_has_what_is_read_anew(self) -> None:
        if not self.caches:
            return
        kept, read = (EpisodeWords.of(self._snapshot(caches), terms(QUERY)) for caches in (self.caches, {}))
        assert kept.alive_count == read.alive_count
        np.testing.assert_array_equal(kept.rowids[kept.alive], read.rowids)
        np.testing.assert_allclose(kept.relative_lengths[kept.alive], read.relative_lengths)
        for stem in [stem for term in terms(QUERY) for stem in term]:
            places, counts = kept.posting(stem).places, kept.posting(stem).counts
            assert np.all(np.diff(places) > 0)
            living = kept.alive[places]
            assert kept.rowids[places[living]].tolist() == read.rowids[read.posting(stem).places].tolist()
            assert counts[living].tolist() == read.posting(stem).counts.tolist()
        assert not kept.asking.any(), "a task is one, also where it is put as a question"

    @invariant()
    def the_index_in_the_file_is_sound(self) -> None:
        self.connection.execute(
            f"INSERT INTO {EpisodeWords.index} ({EpisodeWords.index}, rank) VALUES ('integrity-check', 1)"
        )

    def teardown(self) -> None:
        self.connection.close()

    def _ranked(self, caches: dict[Any, Any]) -> list[tuple[int, float]]:
        lexicon = EpisodeWords.of(self._snapshot(caches), terms(QUERY))
        ranking = relevance(lexicon, terms(QUERY), [])
        return [
            (int(lexicon.rowids[place]), round(float(ranking.scores[place]), 9))
            for places in best_first(ranking, 3)
            for place in places
        ]

    def _snapshot(self, caches: dict[Any, Any]) -> Snapshot:
        return Snapshot(self.connection, self.txid, self.ambient, caches)

    def _write(self, work: Any) -> None:
        transaction = Transaction(self.connection, self.ambient)
        work(transaction)
        self.txid += 1
        for key, change in transaction.maintenance:
            if key in self.caches:
                change(self.caches[key].value)
        for entry in self.caches.values():
            entry.txid = self.txid


TestEpisodes = Episodes.TestCase
TestEpisodes.settings = settings(max_examples=80, stateful_step_count=20, deadline=None)


def test_a_word_that_only_the_words_after_completion_have_is_found_without_reading_the_rows_again() -> None:
    connection = SCHEMA.empty()
    caches: dict[Any, Any] = {}
    ambient = ManualAmbient()
    connection.execute(
        "INSERT INTO __memoturn_episodes (rowid, id, task_type, domain, description, words, started_at, body)"
        " VALUES (7, x'00', 'other', 'general', 'tidy up', '', 0, '{}')"
    )
    EpisodeWords.insert(Transaction(connection, ambient), 7, None, ("tidy up", ""))
    assert len(EpisodeWords.of(Snapshot(connection, 1, ambient, caches), terms("broom")).posting("broom").places) == 0
    transaction = Transaction(connection, ambient)
    EpisodeWords.replace(transaction, 7, ("tidy up", ""), ("tidy up", "broom and a broom"))
    for key, change in transaction.maintenance:
        change(caches[key].value)
    caches[EpisodeWords, None].txid = 2
    with without_statements(connection):
        posting = EpisodeWords.of(Snapshot(connection, 2, ambient, caches), terms("broom")).posting("broom")
    assert (posting.places.tolist(), posting.counts.tolist()) == ([0], [2])
    connection.close()


@contextmanager
def without_statements(connection: apsw.Connection) -> Iterator[None]:
    connection.exec_trace = lambda *_: False
    yield
    connection.exec_trace = None
