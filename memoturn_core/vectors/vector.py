"""Vectors as arrays: little-endian float32, as the rows hold them. Used by everything that embeds or searches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""One vector, or a matrix with one in each row."""

_AT_ONCE = 1 << 20
"""Bytes of vectors that are taken from the file at a time."""


def as_vector(values: Sequence[float]) -> Vector:
    return np.asarray(values, dtype="<f4")


def unit(matrix: Vector) -> Vector:
    """Rows of length one, computed in float64 so that no finite vector overflows; zero rows are NaN."""
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Vector = (matrix / lengths[:, None]).astype("<f4")
    return result


def batches(rows: Iterable[Any]) -> Iterator[tuple[list[int], Vector, bool]]:
    """Rows of `(rowid, embedding)` as rowids and a matrix, a MiB at a time; and whether it was cut off there."""
    rowids: list[int] = []
    blobs: list[bytes] = []
    size = 0
    for rowid, blob in rows:
        rowids.append(rowid)
        blobs.append(blob)
        size += len(blob)
        if size >= _AT_ONCE:
            yield rowids, _matrix(blobs), True
            rowids, blobs, size = [], [], 0
    if rowids:
        yield rowids, _matrix(blobs), False


def _matrix(blobs: Sequence[bytes]) -> Vector:
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), -1)
