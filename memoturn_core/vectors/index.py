"""The one index that searches vectors: of memories, of turns, of collections.

An index mirrors the rows `(rowid, embedding)` of a table, or those of one collection in it: it is built at the first
search and then changed by each commit. Up to 10 000 vectors, or 32 MiB, it holds them all and compares them all. Above,
it holds bits of each: the rows whose bits differ least are candidates, and are compared by their vectors, which it
reads from the file. So every distance is exact, and a neighbour is missed now and then; docs/vectors.md has how often.
What all indexes of a process hold is bounded by `VectorIndex.budget`.

Called by `memoturn_core.memory.vectors` and `memoturn_core.vectors.collections`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import apsw
import numpy as np

from memoturn_core.vectors.budget import Budget
from memoturn_core.vectors.codes import Signs, Units
from memoturn_core.vectors.mirror import Mirror
from memoturn_core.vectors.vector import Vector, batches, unit
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.lookups import Lookups

_EXACT_ROWS = 10_000
_CHEAP_BYTES = 32 << 20
"""Of vectors, which are compared about as fast as bits and candidates are, however many they are."""
_EXACT_BYTES = 64 << 20
"""Of vectors, which is the most that an index holds, however few they are."""
_BUDGET_BYTES = 256 << 20

_CANDIDATES = 240
_CANDIDATES_EACH = 6
"""Candidates to each row that is wanted, beside those that there are in any case."""
_FIRST_PROBE = 64

_WHOLE_TABLE = range(-(2**63), 2**63 - 1)


class VectorIndex:
    """The vectors of the rowids in `span`. Subclasses name the table."""

    table: ClassVar[str]
    exact_rows: ClassVar[int] = _EXACT_ROWS
    cheap_bytes: ClassVar[int] = _CHEAP_BYTES
    exact_bytes: ClassVar[int] = _EXACT_BYTES
    budget: ClassVar[Budget] = Budget(_BUDGET_BYTES)
    lookups: ClassVar[Lookups] = Lookups()
    """By searches; a hit had all vectors in memory."""

    def __init__(self, span: range) -> None:
        self.used = 0
        self._span = span
        # Any thread may take it away, so that whoever works with it takes it from here once. Without it there is
        # nothing to be kept in step, and the next search reads the rows anew.
        self._mirror: Mirror | None = None

    @classmethod
    def of(cls, snapshot: Snapshot, span: range | None = None) -> VectorSearch:
        """The index of this state. What it does not hold yet is read now, all of it."""
        index = cls._cached(snapshot, span)
        return VectorSearch(cls.table, index._read(snapshot.connection), snapshot.connection)

    @classmethod
    def begun(cls, snapshot: Snapshot, span: range | None = None) -> VectorSearch | None:
        """As `of`, for those who must be short: reads a MiB at most, and is None until that was all."""
        index = cls._cached(snapshot, span)
        mirror = index._read(snapshot.connection, a_part=True)
        if mirror is not None and not mirror.complete:
            return None
        return VectorSearch(cls.table, mirror, snapshot.connection)

    @classmethod
    def _cached(cls, snapshot: Snapshot, span: range | None) -> VectorIndex:
        index: VectorIndex = snapshot.cached(cls, lambda _: cls(span or _WHOLE_TABLE), of=span)
        index.used = cls.budget.now()
        cls.lookups.note(index.complete)
        return index

    # --- reading the file ------------------------------------------------------------------------

    def _read(self, connection: apsw.Connection, *, a_part: bool = False) -> Mirror | None:
        """All rows, or with `a_part` some more of them; None where there are none."""
        mirror = self._mirror
        if mirror is not None and mirror.complete:
            return mirror
        cursor = connection.execute(
            f"SELECT rowid, embedding FROM {self.table} WHERE rowid >= ? AND rowid < ? ORDER BY rowid",
            (self._span.start if mirror is None else mirror.through + 1, self._span.stop),
        )
        for rowids, vectors, more in batches(cursor):
            if mirror is None:
                dimension = vectors.shape[1]
                mirror = Mirror(Units(dimension), dimension)
            mirror.append(rowids, vectors)
            mirror.through = rowids[-1]
            self._mirror = mirror
            self._fit(mirror)
            self.budget.make_room(self)
            if more and a_part:
                cursor.close()
                return mirror
        if mirror is not None:
            mirror.complete = True
            self.budget.make_room(self)
        return mirror

    def _fit(self, mirror: Mirror) -> None:
        """Go over to bits where there are too many vectors."""
        codes = mirror.codes
        allowed = self.exact_bytes if mirror.count <= self.exact_rows else self.cheap_bytes
        if isinstance(codes, Units) and 4 * mirror.count * mirror.dimension > allowed:
            units = codes.matrix[: mirror.count]
            mirror.codes = Signs(units)
            mirror.codes.write(np.arange(mirror.count), units)

    # --- kept in step ----------------------------------------------------------------------------

    @classmethod
    def put(
        cls, transaction: Transaction, rowids: Sequence[int], vectors: Vector, *, span: range | None = None
    ) -> None:
        """The transaction has inserted or replaced these rows, each once."""
        transaction.maintain(cls, lambda index: index._put(rowids, vectors), of=span)

    @classmethod
    def remove(cls, transaction: Transaction, rowids: Sequence[int], *, span: range | None = None) -> None:
        """The transaction has deleted these rows."""
        transaction.maintain(cls, lambda index: index._remove(rowids), of=span)

    def _put(self, rowids: Sequence[int], vectors: Vector) -> None:
        mirror = self._mirror
        if mirror is None:
            return
        before = mirror.nbytes
        if mirror.dimension != vectors.shape[1] or not mirror.put(rowids, vectors):
            self._mirror = None
            return
        self._fit(mirror)
        if mirror.nbytes > before:
            self.budget.make_room(self)

    def _remove(self, rowids: Sequence[int]) -> None:
        mirror = self._mirror
        if mirror is None:
            return
        mirror.remove(rowids)
        if mirror.wasteful:
            self._mirror = None

    # --- within the budget -----------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        mirror = self._mirror
        return 0 if mirror is None else mirror.nbytes

    @property
    def complete(self) -> bool:
        mirror = self._mirror
        return mirror is not None and mirror.complete

    def let_go(self) -> None:
        self._mirror = None


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """An index in step with the state that `connection` reads."""

    table: str
    mirror: Mirror | None
    connection: apsw.Connection

    def __len__(self) -> int:
        return 0 if self.mirror is None else self.mirror.alive

    @property
    def exact(self) -> bool:
        """Whether every row is compared by its vector."""
        return self.mirror is None or isinstance(self.mirror.codes, Units)

    def nearest(self, query: Vector, wanted: int, keep: Callable[[list[int]], set[int]]) -> list[tuple[int, float]]:
        """The `wanted` rows nearest to `query` among those that `keep` lets pass.

        `keep` takes rowids and returns those that the search may use; it is asked for growing numbers
        of the nearest rows, so that a filter never starves the result. Returns `(rowid, cosine)`,
        nearest first; equal ones in the order of the newer row. Zero vectors match nothing, and so do those of
        another dimension than the rows'.
        """
        mirror = self.mirror
        if mirror is None or mirror.dimension != len(query) or not np.any(query):
            return []
        enough = wanted if self.exact else _CANDIDATES + _CANDIDATES_EACH * wanted
        found: list[tuple[int, float]] = []
        for rowids, ranks in mirror.nearest_first(query, max(_FIRST_PROBE, enough)):
            passed = keep(rowids)
            if not self.exact:
                found += self._compared(passed, query)
            else:
                ranked = zip(rowids, ranks, strict=True)
                found += [(rowid, -rank) for rowid, rank in ranked if rowid in passed and rank != np.inf]
            if len(found) >= enough:
                break
        if not self.exact:
            found.sort(key=lambda hit: (-hit[1], -hit[0]))
        return found[:wanted]

    def _compared(self, rowids: set[int], query: Vector) -> list[tuple[int, float]]:
        """The cosines by the vectors in the file."""
        if not rowids:
            return []
        ordered = np.array(sorted(rowids), np.int64)
        rows = self.connection.execute(
            f"SELECT rowid, embedding FROM {self.table} WHERE rowid IN carray(?)", (apsw.carray(ordered),)
        )
        direction = unit(query[None])[0]
        return [
            (rowid, cosine)
            for found, vectors, _ in batches(rows)
            for rowid, cosine in zip(found, (unit(vectors) @ direction).tolist(), strict=True)
            if not np.isnan(cosine)
        ]
