"""Embeddings: stored as float32 rows, searched exactly in a matrix that is kept in step with them.

The first embedding that a profile stores fixes its dimension, for memories and turns alike. The matrix
holds unit vectors; it is built once for an open database (10 000 rows in some 10 ms) and then changed
by each commit. Called by `rows`, `turns`, `ingest`, `transcript` and `recall`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import apsw
import numpy as np
import numpy.typing as npt

from memoturn_storage.handle import Snapshot, Transaction

Vector = npt.NDArray[np.float32]

_FIRST_PROBE = 64
_PROBE_GROWTH = 8


def as_vector(values: Sequence[float]) -> Vector:
    return np.asarray(values, dtype="<f4")


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


class VectorIndex:
    """The unit vectors of one table, by rowid. Subclasses name the table."""

    table: ClassVar[str]

    def __init__(self, rowids: Sequence[int], matrix: Vector) -> None:
        self._count = len(rowids)
        self._rowids = np.array(rowids, dtype=np.int64)
        self._matrix = _unit(matrix)
        self._position = {rowid: position for position, rowid in enumerate(rowids)}

    # --- rows ------------------------------------------------------------------------------------

    @classmethod
    def insert(cls, transaction: Transaction, rowid: int, vector: Vector) -> None:
        transaction.connection.execute(f"INSERT INTO {cls.table} VALUES (?, ?)", (rowid, vector.tobytes()))
        transaction.maintain(cls, lambda index: index._put(rowid, vector))

    @classmethod
    def delete(cls, transaction: Transaction, rowids: Sequence[int]) -> None:
        connection = transaction.connection
        for rowid in rowids:
            connection.execute(f"DELETE FROM {cls.table} WHERE rowid = ?", (rowid,))
        transaction.maintain(cls, lambda index: index._remove(rowids))

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        return snapshot.cached(cls, cls._build)

    @classmethod
    def _build(cls, connection: apsw.Connection) -> Self:
        rows: list[Any] = connection.execute(f"SELECT rowid, embedding FROM {cls.table}").fetchall()
        matrix = np.frombuffer(b"".join(blob for _, blob in rows), dtype="<f4")
        return cls([rowid for rowid, _ in rows], matrix.reshape(len(rows), -1) if rows else np.empty((0, 0), "<f4"))

    # --- search ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    def nearest(self, query: Vector, wanted: int, keep: Callable[[list[int]], set[int]]) -> list[tuple[int, float]]:
        """The `wanted` rows nearest to `query` among those that `keep` lets pass.

        `keep` takes rowids and returns those that the search may use; it is asked for growing numbers
        of the nearest rows, so that a filter never starves the result. Returns `(rowid, cosine)`,
        nearest first; equal ones in the order of the newer row. Zero vectors match nothing.
        """
        if self._count == 0 or self._matrix.shape[1] != len(query) or not np.any(query):
            return []
        similarity = self._matrix[: self._count] @ _unit(query.reshape(1, -1))[0]
        found: list[tuple[int, float]] = []
        for positions in self._by_similarity(similarity, max(_FIRST_PROBE, wanted)):
            rowids = self._rowids[positions].tolist()
            passed = keep(rowids)
            found += [
                (rowid, cosine)
                for rowid, cosine in zip(rowids, similarity[positions].tolist(), strict=True)
                if rowid in passed and not np.isnan(cosine)
            ]
            if len(found) >= wanted:
                break
        return found[:wanted]

    def _by_similarity(self, similarity: Vector, probe: int) -> Iterator[npt.NDArray[np.intp]]:
        """Positions by falling similarity, the newer of equals first, in slices of growing size."""
        start = 0
        rank = np.where(np.isnan(similarity), np.float32(2.0), -similarity)
        while start < self._count:
            end = min(start + probe, self._count)
            # All that rank no lower than the last wanted one, however many are equal to it.
            nearest = np.flatnonzero(rank <= np.partition(rank, end - 1)[end - 1])
            yield nearest[np.lexsort((-self._rowids[nearest], rank[nearest]))][start:end]
            start, probe = end, probe * _PROBE_GROWTH

    # --- keeping in step -------------------------------------------------------------------------

    def _put(self, rowid: int, vector: Vector) -> None:
        if self._count == len(self._rowids):
            capacity = max(16, 2 * self._count)
            self._rowids = np.resize(self._rowids, capacity)
            grown = np.empty((capacity, len(vector)), dtype="<f4")
            grown[: self._count] = self._matrix[: self._count].reshape(self._count, len(vector))
            self._matrix = grown
        self._rowids[self._count] = rowid
        self._matrix[self._count] = _unit(vector.reshape(1, -1))[0]
        self._position[rowid] = self._count
        self._count += 1

    def _remove(self, rowids: Sequence[int]) -> None:
        for rowid in rowids:
            position = self._position.pop(rowid, None)
            if position is None:
                continue
            self._count -= 1
            last = int(self._rowids[self._count])
            if last != rowid:
                self._rowids[position] = last
                self._matrix[position] = self._matrix[self._count]
                self._position[last] = position


class MemoryVectors(VectorIndex):
    table = "__memoturn_memory_vectors"


class TurnVectors(VectorIndex):
    table = "__memoturn_turn_vectors"


def _unit(matrix: Vector) -> Vector:
    """Rows of length one, computed in float64 so that no finite vector overflows; zero rows are NaN."""
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: Vector = (matrix / lengths[:, None]).astype("<f4")
    return unit
