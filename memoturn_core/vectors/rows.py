"""Vectors in collections as rows: put, delete, search. Called by `memoturn_core.vectors.collections`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import apsw
import numpy as np

from memoturn_core.vectors.index import VectorIndex
from memoturn_core.vectors.tables import rowids
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.vectors import VectorCollection, VectorHit
from memoturn_storage.handle import Snapshot, Transaction


class CollectionVectors(VectorIndex):
    table = "__memoturn_vectors"


@dataclass(frozen=True, slots=True)
class Collection:
    id: int
    name: str
    dimension: int

    @classmethod
    def named(cls, connection: apsw.Connection, name: str) -> Self | None:
        found: Any = connection.execute(
            "SELECT id, name, dimension FROM __memoturn_vector_collections WHERE name = ?", (name,)
        ).fetchone()
        return None if found is None else cls(*found)

    @classmethod
    def create(cls, connection: apsw.Connection, name: str, dimension: int) -> Self:
        connection.execute(
            "INSERT INTO __memoturn_vector_collections (name, dimension) VALUES (?, ?)", (name, dimension)
        )
        return cls(connection.last_insert_rowid(), name, dimension)

    @property
    def rowids(self) -> range:
        return rowids(self.id)

    def require_dimension(self, vector: Vector, field: str) -> None:
        if len(vector) != self.dimension:
            raise InvalidRequest(
                f"{field}: has {len(vector)} numbers, but the vectors of {self.name} have {self.dimension}"
            )


def put(transaction: Transaction, name: str, given: Sequence[tuple[str, str, Vector]]) -> None:
    """Insert or replace vectors by id, each `(field, id, vector)`; of the same id the last one stays.

    Raises:
        InvalidRequest: names the field whose vector has another dimension than the collection.
    """
    connection = transaction.connection
    _, _, first = given[0]
    collection = Collection.named(connection, name) or Collection.create(connection, name, len(first))
    for field, _, vector in given:
        collection.require_dimension(vector, field)
    newest = connection.execute(
        "SELECT max(rowid) FROM __memoturn_vectors WHERE rowid BETWEEN ? AND ?", _bounds(collection)
    ).get
    free = collection.rowids.start if newest is None else int(newest) + 1
    placed: dict[int, Vector] = {}
    for id_, vector in {id_: vector for _, id_, vector in given}.items():
        known = _rowid(connection, collection, id_)
        if known is None:
            connection.execute(
                "INSERT INTO __memoturn_vectors (rowid, collection, id, embedding) VALUES (?, ?, ?, ?)",
                (free, collection.id, id_, vector.tobytes()),
            )
            placed[free] = vector
            free += 1
        else:
            connection.execute("UPDATE __memoturn_vectors SET embedding = ? WHERE rowid = ?", (vector.tobytes(), known))
            placed[known] = vector
    CollectionVectors.put(transaction, list(placed), np.stack(list(placed.values())), span=collection.rowids)


def delete(transaction: Transaction, name: str, id_: str) -> bool:
    """Whether there was one. With its last vector a collection is gone, and its dimension is free."""
    connection = transaction.connection
    collection = Collection.named(connection, name)
    rowid = None if collection is None else _rowid(connection, collection, id_)
    if collection is None or rowid is None:
        return False
    connection.execute("DELETE FROM __memoturn_vectors WHERE rowid = ?", (rowid,))
    CollectionVectors.remove(transaction, [rowid], span=collection.rowids)
    left = "SELECT 1 FROM __memoturn_vectors WHERE rowid BETWEEN ? AND ?"
    if connection.execute(left, _bounds(collection)).fetchone() is None:
        connection.execute("DELETE FROM __memoturn_vector_collections WHERE id = ?", (collection.id,))
    return True


def near(snapshot: Snapshot, name: str, vector: Vector, k: int) -> list[VectorHit] | None:
    """The nearest `k`, nearest first; None while the index is still being built, a part of it with each call.

    Raises:
        InvalidRequest: the vector has another dimension than the collection.
    """
    connection = snapshot.connection
    collection = Collection.named(connection, name)
    if collection is None:
        return []
    collection.require_dimension(vector, "vector")
    index = CollectionVectors.begun(snapshot, collection.rowids)
    if index is None:
        return None
    nearest = index.nearest(vector, k, set)
    if not nearest:
        return []
    wanted = apsw.carray(np.array([rowid for rowid, _ in nearest], np.int64))
    found: list[Any] = connection.execute(
        "SELECT rowid, id FROM __memoturn_vectors WHERE rowid IN carray(?)", (wanted,)
    ).fetchall()
    ids = dict(found)
    return [VectorHit(id=ids[rowid], distance=min(max(0.0, 1.0 - cosine), 2.0)) for rowid, cosine in nearest]


def collections(snapshot: Snapshot) -> list[VectorCollection]:
    """All of them, by name."""
    found: list[Any] = snapshot.connection.execute(
        "SELECT name, dimension, (SELECT count(*) FROM __memoturn_vectors WHERE collection = c.id)"
        " FROM __memoturn_vector_collections AS c ORDER BY name"
    ).fetchall()
    return [VectorCollection(name=name, dimension=dimension, count=count) for name, dimension, count in found]


def _rowid(connection: apsw.Connection, collection: Collection, id_: str) -> int | None:
    found: Any = connection.execute(
        "SELECT rowid FROM __memoturn_vectors WHERE collection = ? AND id = ?", (collection.id, id_)
    ).fetchone()
    return None if found is None else int(found[0])


def _bounds(collection: Collection) -> tuple[int, int]:
    return collection.rowids.start, collection.rowids.stop - 1
