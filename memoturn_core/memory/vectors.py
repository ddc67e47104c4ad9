"""The embeddings of memories, episodes and turns: which space each is in, and an index of each space.

A space is a model and a dimension; vectors of different spaces are not compared. Of what clients send the model is
not known: it is in a space without a name, and is compared with any model's of its dimension. The vector of the row
`r` in the space `s` has the rowid `s << 40 | r`, so that each has its model, and a space lies together in the file.

A profile has one dimension, that of its first embedding, and keeps it. But when the node embeds by another model than
it did, the profile goes over to that, whatever its dimension, and `reembedding` brings its rows there: those of
`EMBEDDED`, which the node embeds itself where no client did.

Called by `rows`, `turns`, `ingest`, `transcript`, `recall` and `reembedding`, and by `memoturn_core.episodes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import apsw
import numpy as np

from memoturn_core.vectors.index import VectorIndex
from memoturn_core.vectors.vector import Vector
from memoturn_storage.handle import Snapshot, Transaction

Spaces = Sequence[range]
"""Each the rowids of its vectors."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What a profile's settings say of its embeddings; None for what no embedding has fixed yet."""

    dimension: int | None
    model: str | None
    """Of the node that embedded last."""
    unembedded: Mapping[str, int]
    """By the `setting` of those of `EMBEDDED` of which some may have no vector although the node embeds: from which
    rowid on."""

    @classmethod
    def of(cls, connection: apsw.Connection) -> Self:
        found: Any = connection.execute("SELECT key, value FROM __memoturn_settings WHERE key GLOB 'embedding_*'")
        settings = dict(found.fetchall())
        return cls(
            dimension=settings.pop("embedding_dimension", None),
            model=settings.pop("embedding_model", None),
            unembedded=settings,
        )

    def admit(self, dimension: int, model: str | None) -> bool:
        """Whether a query may be compared with them; `model` is None where it is not known."""
        return self.dimension in (None, dimension) and (model is None or self.model in (None, model))


def accept(connection: apsw.Connection, vector: Vector, *, model: str | None) -> range | None:
    """The space that is to have a new vector, or None where the profile's dimension is another.

    `model` is the node's, or None for a vector from a client.
    """
    known = Embeddings.of(connection)
    dimension = known.dimension
    if model is not None and model != known.model:
        if dimension is None or known.model is not None:
            dimension = len(vector)
        _adopt(connection, model, dimension, behind=dimension == len(vector))
    elif dimension is None:
        dimension = len(vector)
        _set(connection, embedding_dimension=dimension)
    return _space(connection, model, dimension) if dimension == len(vector) else None


def searched(connection: apsw.Connection, query: Vector, model: str | None) -> Spaces | None:
    """The spaces of memories or episodes to look for a query in; None where its vector is of no use here.

    `model` made it; None stands for a client's, which is compared with those of the model used last. An empty vector
    stands for one that could not be had.
    """
    known = Embeddings.of(connection)
    if not len(query) or not known.admit(len(query), model):
        return None
    return comparable(connection, len(query), model or known.model)


def comparable(connection: apsw.Connection, dimension: int, model: str | None) -> Spaces:
    """The spaces of memories or episodes that a vector of this model may be compared with."""
    return _spaces(connection, "dimension = ? AND (model IS NULL OR model = ?)", (dimension, model))


def of_dimension(connection: apsw.Connection, dimension: int) -> Spaces:
    """The spaces of turns that a vector may be compared with: all those vectors are from clients."""
    return _spaces(connection, "dimension = ?", (dimension,))


def superseded(connection: apsw.Connection, model: str) -> Spaces:
    """The spaces of other models than the node's."""
    return _spaces(connection, "model <> ?", (model,))


# --- what is still to be embedded ----------------------------------------------------------------


def embedded_text(*parts: str) -> str:
    """What of a row is embedded, from its `texts`."""
    return " ".join(parts).strip()


def behind(connection: apsw.Connection, model: str) -> bool:
    """Whether any rows may lack a vector of the node's model."""
    known = Embeddings.of(connection)
    return any(rows.to_embed(connection, model, known) is not None for rows in EMBEDDED)


def _adopt(connection: apsw.Connection, model: str, dimension: int | None, *, behind: bool) -> None:
    """The profile goes over to a model; `behind` says whether its rows can follow."""
    _set(connection, embedding_model=model, embedding_dimension=dimension)
    _set(connection, **{rows.setting: rows.first(connection) if behind else None for rows in EMBEDDED})


# --- rows ----------------------------------------------------------------------------------------


class _RowVectors(VectorIndex):
    """Vectors of other rows, one at most in each space."""

    @classmethod
    def insert(cls, transaction: Transaction, rowid: int, vector: Vector, space: range) -> None:
        placed = space[rowid]
        transaction.connection.execute(f"INSERT INTO {cls.table} VALUES (?, ?)", (placed, vector.tobytes()))
        cls.put(transaction, [placed], vector[None], span=space)

    @classmethod
    def delete(cls, transaction: Transaction, rowids: Sequence[int], spaces: Spaces | None = None) -> None:
        """From the given spaces, or from all."""
        for space in _spaces(transaction.connection) if spaces is None else spaces:
            placed = [space[rowid] for rowid in rowids]
            for each in placed:
                transaction.connection.execute(f"DELETE FROM {cls.table} WHERE rowid = ?", (each,))
            cls.remove(transaction, placed, span=space)

    @classmethod
    def has(cls, connection: apsw.Connection, rowid: int, spaces: Spaces) -> bool:
        looked_up = f"SELECT 1 FROM {cls.table} WHERE rowid = ?"
        return any(connection.execute(looked_up, (space[rowid],)).fetchone() for space in spaces)

    @classmethod
    def of_rows(cls, connection: apsw.Connection, rowids: Iterable[int], spaces: Spaces) -> dict[int, Vector]:
        """The vectors of those rows that have one in a space, of the first such space."""
        found: dict[int, Vector] = {}
        for space in reversed(spaces):
            placed = apsw.carray(np.fromiter((space[rowid] for rowid in rowids), np.int64))
            rows: Any = connection.execute(
                f"SELECT rowid, embedding FROM {cls.table} WHERE rowid IN carray(?)", (placed,)
            ).fetchall()
            found |= {each - space.start: np.frombuffer(blob, "<f4") for each, blob in rows}
        return found

    @classmethod
    def nearest(
        cls, snapshot: Snapshot, query: Vector, spaces: Spaces, wanted: int, keep: Callable[[list[int]], set[int]]
    ) -> list[tuple[int, float]]:
        """As `VectorSearch.nearest`, over several spaces."""
        found: list[tuple[int, float]] = []
        for space in spaces:
            hits = cls.of(snapshot, space).nearest(query, wanted, _placed(keep, space.start))
            found += [(placed - space.start, cosine) for placed, cosine in hits]
        if len(spaces) > 1:
            found.sort(key=lambda hit: (-hit[1], -hit[0]))
        return found[:wanted]


class OwnVectors(_RowVectors):
    """Vectors of rows that the node embeds where no client did."""

    rows: ClassVar[str]
    """The table of the rows; it has their `id`."""
    texts: ClassVar[str]
    """Its columns that are embedded."""
    condition: ClassVar[str]
    """Which rows are."""
    setting: ClassVar[str]
    """The key of the setting that says from which rowid on some may lack a vector."""

    @classmethod
    def missed(cls, connection: apsw.Connection, rowid: int) -> None:
        """A new row was to be embedded and was not."""
        first = Embeddings.of(connection).unembedded.get(cls.setting)
        if first is None or first > rowid:
            _set(connection, **{cls.setting: rowid})

    @classmethod
    def to_embed(cls, connection: apsw.Connection, model: str, known: Embeddings) -> int | None:
        """The rowid from which on rows may lack a vector of the node's model; None if there are no such."""
        return known.unembedded.get(cls.setting) if known.model == model else cls.first(connection)

    @classmethod
    def embedded(cls, connection: apsw.Connection, through: int, model: str) -> None:
        """Rows up to and with `through` lack no vector of this model that they can have.

        It is not noted where the profile is still at another model: only a vector says of what dimension this one is.
        """
        known = Embeddings.of(connection)
        if known.model not in (None, model):
            return
        if known.model is None:
            _adopt(connection, model, known.dimension, behind=True)
        _set(connection, **{cls.setting: cls.first(connection, through + 1)})

    @classmethod
    def first(cls, connection: apsw.Connection, start: int = 0) -> int | None:
        """The first row from `start` on that is to have a vector."""
        rowid = connection.execute(
            f"SELECT rowid FROM {cls.rows} WHERE rowid >= ? AND {cls.condition} ORDER BY rowid LIMIT 1", (start,)
        ).get
        return rowid if isinstance(rowid, int) else None


class MemoryVectors(OwnVectors):
    table = "__memoturn_memory_vectors"
    rows = "__memoturn_memories"
    texts = "summary, keywords"
    condition = "type <> 'task'"
    setting = "embedding_unembedded"

    @classmethod
    def vector_of(cls, connection: apsw.Connection, rowid: int, model: str | None) -> tuple[Vector | None, str | None]:
        """A memory's vector and the model that made it: that of `model`, if it has several."""
        found: Any = connection.execute(
            "SELECT vector.embedding, space.model FROM __memoturn_spaces AS space"
            f" JOIN {cls.table} AS vector ON vector.rowid = (space.id << 40) + ?"
            " ORDER BY space.model IS NOT ? LIMIT 1",
            (rowid, model),
        ).fetchone()
        return (None, None) if found is None else (np.frombuffer(found[0], dtype="<f4"), found[1])


class EpisodeVectors(OwnVectors):
    table = "__memoturn_episode_vectors"
    rows = "__memoturn_episodes"
    texts = "description"
    condition = "1"
    setting = "embedding_unembedded_episodes"


class TurnVectors(_RowVectors):
    table = "__memoturn_turn_vectors"


EMBEDDED: Sequence[type[OwnVectors]] = (MemoryVectors, EpisodeVectors)


def _placed(keep: Callable[[list[int]], set[int]], start: int) -> Callable[[list[int]], set[int]]:
    """`keep` of rows, for their vectors in the space that begins at `start`."""
    return lambda placed: {start + rowid for rowid in keep([each - start for each in placed])}


def _space(connection: apsw.Connection, model: str | None, dimension: int) -> range:
    known = _spaces(connection, "model IS ? AND dimension = ?", (model, dimension))
    if known:
        return known[0]
    connection.execute(
        "INSERT INTO __memoturn_spaces SELECT coalesce(max(id) + 1, 0), ?, ? FROM __memoturn_spaces", (model, dimension)
    )
    return _rowids(connection.last_insert_rowid())


def _spaces(connection: apsw.Connection, condition: str = "1", parameters: Iterable[Any] = ()) -> Spaces:
    found: list[Any] = connection.execute(
        f"SELECT id FROM __memoturn_spaces WHERE {condition}", tuple(parameters)
    ).fetchall()
    return [_rowids(id_) for (id_,) in found]


def _rowids(space: int) -> range:
    return range(space << 40, (space + 1) << 40)


def _set(connection: apsw.Connection, **settings: int | str | None) -> None:
    for key, value in settings.items():
        if value is None:
            connection.execute("DELETE FROM __memoturn_settings WHERE key = ?", (key,))
        else:
            connection.execute("INSERT OR REPLACE INTO __memoturn_settings VALUES (?, ?)", (key, value))
