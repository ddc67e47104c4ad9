"""The rows of an index in memory: which rowid is in which place, and the code of its vector there.

Rowids ascend with the places, so that of two rows the newer has the higher place. A row that is removed leaves
its place dead. Called by `memoturn_core.vectors.index`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from memoturn_core.vectors.codes import Codes, Places
from memoturn_core.vectors.vector import Vector

Rowids = npt.NDArray[np.int64]

_FEWEST = 16
_FEW_DEAD = 64
_PROBE_GROWTH = 8


class Mirror:
    """Of the rows up to and with `through`, or of all where it is `complete`."""

    def __init__(self, codes: Codes, dimension: int) -> None:
        self.codes = codes
        self.dimension = dimension
        self.through = -(2**63)
        self.complete = False
        self.count = 0
        """Places."""
        self.alive = 0
        """Rows."""
        self._rowids: Rowids = np.empty(_FEWEST, np.int64)
        self._living = np.empty(_FEWEST, np.bool_)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self._rowids.nbytes + self._living.nbytes

    @property
    def wasteful(self) -> bool:
        return self.count - self.alive > max(self.alive, _FEW_DEAD)

    def append(self, rowids: Sequence[int] | Rowids, vectors: Vector) -> None:
        """Rows above all that are here, ascending."""
        start, end = self.count, self.count + len(rowids)
        if end > len(self._rowids):
            capacity = max(end, 2 * len(self._rowids))
            self._rowids = np.resize(self._rowids, capacity)
            self._living = np.resize(self._living, capacity)
        self._rowids[start:end] = rowids
        self._living[start:end] = True
        self.codes.write(np.arange(start, end), vectors)
        self.count = end
        self.alive += len(rowids)

    def put(self, rowids: Sequence[int], vectors: Vector) -> bool:
        """Insert or replace rows; False where one belongs between those that are here, and there is no place."""
        if self.complete and len(rowids) == 1 and self._is_above(rowids[0]):
            self.append(rowids, vectors)
            return True
        order = np.argsort(rowids)
        given, vectors = np.asarray(rowids, np.int64)[order], vectors[order]
        if not self.complete:
            mirrored = given <= self.through
            given, vectors = given[mirrored], vectors[mirrored]
        new = given > self._rowids[self.count - 1] if self.count else np.ones(len(given), np.bool_)
        places, found = self._places(given[~new])
        if not found.all():
            return False
        if len(places):
            self.codes.write(places, vectors[~new])
            self.alive += int(np.count_nonzero(~self._living[places]))
            self._living[places] = True
        if new.any():
            self.append(given[new], vectors[new])
        return True

    def remove(self, rowids: Sequence[int]) -> None:
        """Rows that are not here are none."""
        places, found = self._places(np.asarray(rowids, np.int64))
        dying = np.unique(places[found])
        self.alive -= int(np.count_nonzero(self._living[dying]))
        self._living[dying] = False
        # The file gives the next row the rowid after the highest that is left, and that has to be above all here.
        while self.count and not self._living[self.count - 1]:
            self.count -= 1

    def _is_above(self, rowid: int) -> bool:
        return self.count == 0 or rowid > int(self._rowids[self.count - 1])

    def _places(self, rowids: Rowids) -> tuple[Places, npt.NDArray[np.bool_]]:
        """The place of each rowid, and whether it is really there."""
        places = np.searchsorted(self._rowids[: self.count], rowids)
        inside = places < self.count
        found = inside.copy()
        found[inside] = self._rowids[places[inside]] == rowids[inside]
        return places, found

    def nearest_first(self, query: Vector, probe: int) -> Iterator[tuple[list[int], list[float]]]:
        """Rowids and their ranks, the nearest first and the newer of equals, in slices of growing size."""
        ranks = self.codes.ranks(query, self.count)
        places: Places = np.arange(self.count)
        if self.alive < self.count:
            places = np.flatnonzero(self._living[: self.count])
            ranks = ranks[places]
        start = 0
        while start < len(ranks):
            end = min(start + probe, len(ranks))
            # All that rank no worse than the last wanted one, however many are equal to it.
            near = np.flatnonzero(ranks <= np.partition(ranks, end - 1)[end - 1])
            chosen = near[np.lexsort((-near, ranks[near]))][start:end]
            yield self._rowids[places[chosen]].tolist(), ranks[chosen].tolist()
            start, probe = end, probe * _PROBE_GROWTH
