"""Whatever clients, the node and changes of its model do: each memory and each episode ends with its one vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from contract.embedding_server import DIMENSIONS, vector
from examples import examples
from memoturn_core.episodes import embedding
from memoturn_core.memory import ingest, reembedding, rows
from memoturn_core.memory.rows import Row
from memoturn_core.memory.vectors import (
    EMBEDDED,
    Embeddings,
    EpisodeVectors,
    MemoryVectors,
    behind,
    comparable,
    superseded,
)
from memoturn_core.tables import SCHEMA
from memoturn_core.vectors.vector import as_vector
from memoturn_schemas.memory import MemoryItem
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Snapshot, Transaction

MODELS = sorted(DIMENSIONS)


@dataclass
class Kept:
    """A memory, or an episode: its `type` is that."""

    type: str
    own: list[float] | None
    """What the client sent, if it was taken."""
    refused: bool
    """Whether it came with a vector that was not."""


class Spaces(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.small = mock.patch.multiple(reembedding, _LOOKED_AT=3, _EMBEDDED=2)
        self.small.start()
        self.connection = SCHEMA.empty()
        self.ambient = ManualAmbient()
        self.model = "ant"
        self.kept: dict[str, Kept] = {}
        self.count = 0

    def _ingest(self, own: list[float] | None, *, type_: str = "event", answers: bool = True) -> str | None:
        self.count += 1
        summary = f"memory {self.count}"
        item = MemoryItem(type=type_, summary=summary, content={"n": self.count}, embedding=own)  # type: ignore[arg-type]
        made = vector(self.model, summary) if own is None and type_ != "task" and answers else None
        prepared = [ingest._prepare(item, made)]
        [result], _ = ingest._ingest(self._transaction(), prepared, self.model)
        skipped = "embedding" in result
        self.kept[summary] = Kept(type_, None if skipped else own, skipped)
        return None if skipped else summary

    @rule(like=st.none() | st.sampled_from(MODELS), answers=st.booleans())
    def an_episode_begins(self, like: str | None, answers: bool) -> None:
        self.count += 1
        description = f"episode {self.count}"
        own = None if like is None else vector(like, f"client {self.count}")
        made = vector(self.model, description) if answers else None
        self.connection.execute(
            "INSERT INTO __memoturn_episodes (id, task_type, domain, description, words, started_at, body)"
            " VALUES (randomblob(16), 'other', 'general', ?, '', 0, '{}')",
            (description,),
        )
        rowid = self.connection.last_insert_rowid()
        values = own or made
        taken = None if values is None else as_vector(values)
        kept = embedding.keep(self._transaction(), rowid, taken, self.model, own is not None)
        self.kept[description] = Kept("episode", own if kept else None, not kept)

    @rule(like=st.sampled_from(MODELS), type_=st.sampled_from(["event", "task"]))
    def a_client_sends_a_vector(self, like: str, type_: str) -> None:
        before = Embeddings.of(self.connection).dimension
        taken = self._ingest(vector(like, f"client {self.count}"), type_=type_)
        assert (taken is not None) == (before in (None, DIMENSIONS[like]))

    @rule(answers=st.booleans(), type_=st.sampled_from(["event", "event", "task"]))
    def a_client_sends_none(self, answers: bool, type_: str) -> None:
        self._ingest(None, answers=answers, type_=type_)

    @rule(model=st.sampled_from(MODELS))
    def the_node_gets_another_model(self, model: str) -> None:
        self.model = model

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def one_is_forgotten(self, data: st.DataObject) -> None:
        self._forget(data.draw(st.sampled_from(sorted(self.kept))))

    def _forget(self, text: str) -> None:
        row = Row.one(self.connection, "summary = ?", (text,))
        if self.kept.pop(text).type == "episode":
            rowid = self._rowid("__memoturn_episodes", "description", text)
            self.connection.execute("DELETE FROM __memoturn_episodes WHERE rowid = ?", (rowid,))
            embedding.delete(self._transaction(), rowid)
        else:
            assert row is not None
            rows.delete(self._transaction(), row)

    def _rowid(self, table: str, column: str, text: str) -> int:
        rowid = self.connection.execute(f"SELECT rowid FROM {table} WHERE {column} = ?", (text,)).get
        assert isinstance(rowid, int)
        return rowid

    @rule(data=st.data())
    def a_portion_is_embedded(self, data: st.DataObject) -> None:
        portion = reembedding._portion(self.connection, self.model)
        if portion is None:
            return
        for _ in range(min(len(self.kept), data.draw(st.integers(0, 4), "are forgotten meanwhile"))):
            self.one_is_forgotten(data)
        for _ in range(data.draw(st.integers(0, 3), "come meanwhile")):
            self._ingest(None, answers=data.draw(st.booleans()))
            self.an_episode_begins(None, data.draw(st.booleans()))
        self._keep(portion)

    @rule()
    def all_is_embedded(self) -> None:
        for _ in range(2 * len(self.kept) + 2):
            portion = reembedding._portion(self.connection, self.model)
            if portion is None:
                break
            self._keep(portion)
        assert not behind(self.connection, self.model)
        known = Embeddings.of(self.connection)
        found = self._vectors(comparable(self.connection, known.dimension or 0, known.model))
        for summary, kept in self.kept.items():
            if kept.own is not None and len(kept.own) == known.dimension:
                assert found.pop(summary) == kept.own, "a client's vector always wins"
            elif kept.type == "task":
                assert summary not in found
            elif known.dimension == DIMENSIONS[self.model]:
                made = found.pop(summary, None)
                assert made == vector(self.model, summary) or (made is None and kept.refused)
            else:
                assert known.dimension is None or not found.pop(summary, None)
        assert found == {}
        left = self._vectors(superseded(self.connection, self.model))
        assert all(self.kept[summary].own for summary in left), "of other models nothing is left"
        self._assert_nearest(known)

    def _keep(self, portion: reembedding._Portion) -> None:
        vectors = [as_vector(vector(self.model, lacking.text)) for lacking in portion.lacking]
        reembedding._keep(self._transaction(), portion, vectors, self.model)

    def _vectors(self, spaces: Any) -> dict[str, list[float]]:
        """By summary or description; none has two of one dimension and model."""
        found: dict[str, list[float]] = {}
        for space in spaces:
            for kind, column in ((MemoryVectors, "summary"), (EpisodeVectors, "description")):
                rows: Any = self.connection.execute(
                    f"SELECT {column}, embedding FROM {kind.table} AS v JOIN {kind.rows} AS r ON r.rowid = v.rowid - ?"
                    " WHERE v.rowid >= ? AND v.rowid < ?",
                    (space.start, space.start, space.stop),
                ).fetchall()
                for text, blob in rows:
                    assert text not in found
                    found[text] = np.frombuffer(blob, "<f4").tolist()
        return found

    def _assert_nearest(self, known: Embeddings) -> None:
        if known.dimension is None:
            return
        query = as_vector([1.0] * known.dimension)
        spaces = comparable(self.connection, known.dimension, known.model)
        for kind in EMBEDDED:
            hits = kind.nearest(self._snapshot(), query, spaces, 1_000, set)
            cosines = [
                float(query @ np.array(values) / np.linalg.norm(query) / np.linalg.norm(values))
                for text, values in self._vectors(spaces).items()
                if (self.kept[text].type == "episode") == (kind is EpisodeVectors)
            ]
            np.testing.assert_allclose([cosine for _, cosine in hits], sorted(cosines, reverse=True), atol=1e-5)

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.connection, 1, self.ambient, {})

    def _transaction(self) -> Transaction:
        return Transaction(self.connection, self.ambient)

    @invariant()
    def each_vector_is_of_a_row_and_of_the_dimension_of_its_space(self) -> None:
        for kind in EMBEDDED:
            strays: Any = self.connection.execute(
                f"SELECT v.rowid FROM {kind.table} AS v LEFT JOIN __memoturn_spaces AS s ON s.id = v.rowid >> 40"
                f" LEFT JOIN {kind.rows} AS r ON r.rowid = v.rowid & ((1 << 40) - 1)"
                " WHERE r.rowid IS NULL OR length(v.embedding) IS NOT 4 * s.dimension"
            ).fetchall()
            assert strays == []

    def teardown(self) -> None:
        self.all_is_embedded()
        self.connection.close()
        self.small.stop()


def test_a_profile_goes_over_to_a_model_of_another_dimension_also_where_what_was_to_be_embedded_is_gone() -> None:
    spaces = Spaces()
    for _ in range(4):
        spaces.a_client_sends_none(answers=True, type_="event")
    spaces.the_node_gets_another_model("cow")
    portion = reembedding._portion(spaces.connection, "cow")
    assert portion is not None
    for lacking in portion.lacking:
        spaces._forget(lacking.text)
    spaces._keep(portion)
    spaces.all_is_embedded()
    assert Embeddings.of(spaces.connection).dimension == DIMENSIONS["cow"]
    spaces.teardown()


TestSpaces = Spaces.TestCase
TestSpaces.settings = settings(max_examples=examples(60), stateful_step_count=25, deadline=None)
