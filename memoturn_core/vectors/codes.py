"""What an index keeps of each vector: its direction, or some hundred bits of it.

Both put vectors into numbered places and rank all places against a query, the nearest lowest. `Units` ranks
exactly; `Signs` takes a fraction of the memory and of the time, and says only who should be looked at again.
Called by `memoturn_core.vectors.index`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from memoturn_core.vectors.vector import Vector, unit

Places = npt.NDArray[np.intp]
Ranks = npt.NDArray[Any]
"""Of all places, whatever numbers compare; the same rank means equally near."""

_FEWEST = 16
_BLOCK = 1 << 14
_PLANES = 512
"""Where there are fewer axes, vectors are told apart by their sides of so many planes, drawn at random."""


class Codes(Protocol):
    """Numbered places, each with what is kept of one vector."""

    @property
    def nbytes(self) -> int: ...

    def write(self, places: Places, vectors: Vector) -> None:
        """Put one vector into each place; there is always room."""
        ...

    def ranks(self, query: Vector, count: int) -> Ranks:
        """Of the first `count` places."""
        ...


class Units:
    """Unit vectors; the rank is the cosine, negated, or infinity for a vector of length zero."""

    def __init__(self, dimension: int) -> None:
        self.matrix: Vector = np.empty((0, dimension), "<f4")

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes

    def write(self, places: Places, vectors: Vector) -> None:
        self._make_room(int(places.max()) + 1)
        self.matrix[places] = unit(vectors)

    def _make_room(self, count: int) -> None:
        capacity, dimension = self.matrix.shape
        if count > capacity:
            grown = np.empty((max(_FEWEST, count, 2 * capacity), dimension), "<f4")
            grown[:capacity] = self.matrix
            self.matrix = grown

    def ranks(self, query: Vector, count: int) -> Ranks:
        cosines = self.matrix[:count] @ unit(query[None])[0]
        return np.where(np.isnan(cosines), np.float32(np.inf), -cosines)


class Signs:
    """On which side of each axis a unit vector lies, seen from the middle of them all; the rank counts differences.

    The middle is that of the vectors at hand when it is made; without it, vectors that all point into the same
    half of the space would look alike. Zero vectors get some rank too. The bits lie in words of 64, each with that of
    the next place beside it, so that one word of many places is compared at a time.
    """

    def __init__(self, units: Vector) -> None:
        known = units[~np.isnan(units[:, 0])]
        dimension = units.shape[1]
        self._middle: Vector = known.mean(axis=0) if len(known) else np.zeros(dimension, "<f4")
        self._planes: Vector | None = None
        if dimension < _PLANES:
            # Always the same ones: what a search finds must not depend on when the index was made.
            self._planes = np.random.default_rng(0).standard_normal((dimension, _PLANES), np.float32)
        self._words = -(-(dimension if self._planes is None else _PLANES) // 64)
        self._blocks: list[npt.NDArray[np.uint64]] = []

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self._blocks)

    def write(self, places: Places, vectors: Vector) -> None:
        words = self._encoded(vectors)
        blocks, columns = np.divmod(places, _BLOCK)
        while len(self._blocks) <= blocks.max():
            self._blocks.append(np.zeros((self._words, _BLOCK), np.uint64))
        for number in np.unique(blocks):
            here = blocks == number
            self._blocks[number][:, columns[here]] = words[here].T

    def _encoded(self, vectors: Vector) -> npt.NDArray[np.uint64]:
        seen = unit(vectors) - self._middle
        if self._planes is not None:
            seen = np.nan_to_num(seen) @ self._planes
        packed = np.packbits(seen > 0, axis=1)
        padded = np.zeros((len(vectors), 8 * self._words), np.uint8)
        padded[:, : packed.shape[1]] = packed
        return padded.view(np.uint64)

    def ranks(self, query: Vector, count: int) -> Ranks:
        wanted = self._encoded(query[None])[0]
        # 65 536 differences would count as none; the candidate too many is found out when it is looked at.
        differences = np.zeros(count, np.uint16)
        differing = np.empty(_BLOCK, np.uint64)
        bits = np.empty(_BLOCK, np.uint8)
        for block, start in zip(self._blocks, range(0, count, _BLOCK), strict=False):
            there = differences[start : start + _BLOCK]
            size = len(there)
            for word, of_query in zip(block, wanted, strict=True):
                np.bitwise_xor(word[:size], of_query, out=differing[:size])
                np.bitwise_count(differing[:size], out=bits[:size])
                there += bits[:size]
        return differences
