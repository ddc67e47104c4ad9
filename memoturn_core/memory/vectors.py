"""The embeddings of memories and turns: a row each, and an index of each table.

The first embedding that a profile stores fixes its dimension, for memories and turns alike. Called by `rows`,
`turns`, `ingest`, `transcript` and `recall`.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from memoturn_core.vectors.index import VectorIndex
from memoturn_core.vectors.vector import Vector
from memoturn_storage.handle import Transaction


def accept_dimension(connection: apsw.Connection, vector: Vector, *, model: str | None) -> bool:
    """Whether the profile takes vectors of this dimension; the first one asked about fixes it."""
    fixed = dimension(connection)
    if fixed is None:
        connection.execute(
            "INSERT INTO __memoturn_settings VALUES ('embedding_dimension', ?), ('embedding_model', ?)",
            (len(vector), model),
        )
        return True
    return fixed == len(vector)


def dimension(connection: apsw.Connection) -> int | None:
    """The profile's dimension, or None while it has stored no vector."""
    value = connection.execute("SELECT value FROM __memoturn_settings WHERE key = 'embedding_dimension'").get
    return value if isinstance(value, int) else None


class _RowVectors(VectorIndex):
    """Vectors under the rowids of other rows."""

    @classmethod
    def insert(cls, transaction: Transaction, rowid: int, vector: Vector) -> None:
        transaction.connection.execute(f"INSERT INTO {cls.table} VALUES (?, ?)", (rowid, vector.tobytes()))
        cls.put(transaction, [rowid], vector[None])

    @classmethod
    def delete(cls, transaction: Transaction, rowids: Sequence[int]) -> None:
        connection = transaction.connection
        for rowid in rowids:
            connection.execute(f"DELETE FROM {cls.table} WHERE rowid = ?", (rowid,))
        cls.remove(transaction, rowids)


class MemoryVectors(_RowVectors):
    table = "__memoturn_memory_vectors"


class TurnVectors(_RowVectors):
    table = "__memoturn_turn_vectors"
