"""Searching vectors, exactly and by bits: time beside numpy's plain matrix product, recall, memory, and the crossover.

    python -m benchmarks.vectors [--counts N ...] [--dimensions N ...] [--rounds N]

The vectors are made up as those of embedding models are: many clusters of uneven size, within a space of fewer
dimensions than the vectors have, all leaning to one side. Queries are drawn from the same clusters and are not among
the vectors. The rows lie in a file as Memoturn makes it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np

from benchmarks.measure import percentile
from memoturn_core.memory.vectors import MemoryVectors
from memoturn_core.tables import SCHEMA
from memoturn_core.vectors.index import VectorSearch
from memoturn_core.vectors.vector import Vector, unit
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import open_database
from memoturn_storage.handle import Snapshot

_LATENT = 64
_CLUSTER = 50
_WANTED = 10


class Bits(MemoryVectors):
    """As above the threshold, however few there are."""

    exact_rows = cheap_bytes = exact_bytes = 0


class Exact(MemoryVectors):
    """As below the threshold, however many there are."""

    exact_rows = cheap_bytes = exact_bytes = 1 << 62


def clustered(count: int, dimension: int, seed: int = 1) -> Vector:
    drawn = np.random.default_rng(seed)
    latent = min(_LATENT, dimension)
    centres = drawn.standard_normal((max(1, count // _CLUSTER), latent))
    sizes = drawn.pareto(1.5, len(centres)) + 0.1
    members = drawn.choice(len(centres), count, p=sizes / sizes.sum())
    points = centres[members] + 0.7 * drawn.standard_normal((count, latent))
    spread = points @ drawn.standard_normal((latent, dimension)) / latent**0.5
    lean = 0.5 * drawn.standard_normal(dimension)
    return unit((spread + lean + 0.1 * drawn.standard_normal((count, dimension))).astype("<f4"))


def fill(path: Path, vectors: Vector) -> apsw.Connection:
    SCHEMA.create(path, SystemAmbient())
    connection = open_database(path, sync=False)
    with connection:
        connection.executemany(
            f"INSERT INTO {MemoryVectors.table} VALUES (?, ?)",
            ((rowid, vector.tobytes()) for rowid, vector in enumerate(vectors)),
        )
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return connection


def interleaved_us(queries: Vector, *searches: Callable[[Vector], object]) -> list[float]:
    """What each takes for a query, in turn; of its times the tenth fastest in a hundred, for others may be busy."""
    times: list[list[float]] = [[] for _ in searches]
    for query in queries:
        for work, taken in zip(searches, times, strict=True):
            started = time.perf_counter()
            work(query)
            taken.append(time.perf_counter() - started)
    return [percentile(taken, 0.1) * 1e6 for taken in times]


def found(search: VectorSearch, query: Vector, wanted: int = _WANTED) -> set[int]:
    return {rowid for rowid, _ in search.nearest(query, wanted, set)}


def recall(exact: VectorSearch, bits: VectorSearch, queries: Vector, wanted: int) -> float:
    right = sum(len(found(exact, query, wanted) & found(bits, query, wanted)) for query in queries)
    return right / (len(queries) * wanted)


def measure(directory: Path, count: int, dimension: int, rounds: int) -> str:
    vectors = clustered(count + rounds, dimension)
    queries, vectors = vectors[:rounds], vectors[rounds:]
    with closing(fill(directory / f"{count}-{dimension}.db", vectors)) as connection:
        snapshot = Snapshot(connection, 1, SystemAmbient(), {})
        started = time.perf_counter()
        exact = Exact.of(snapshot)
        exact_built = time.perf_counter()
        bits = Bits.of(snapshot)
        bits_built = time.perf_counter()
        assert exact.mirror is not None
        assert bits.mirror is not None
        bound, exact_us, bits_us = interleaved_us(
            queries,
            lambda query: vectors @ query,
            lambda query: found(exact, query),
            lambda query: found(bits, query),
        )
        return (
            f"{dimension:>9}{count:>9}{bound:>12.0f}{exact_us:>12.0f}{bits_us:>12.0f}"
            f"{recall(exact, bits, queries, 10):>8.3f}{recall(exact, bits, queries, 100):>8.3f}"
            f"{exact.mirror.nbytes / 1e6:>12.1f}{bits.mirror.nbytes / 1e6:>10.1f}"
            f"{1e3 * (exact_built - started):>14.0f}{1e3 * (bits_built - exact_built):>14.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[256, 384, 1_536])
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    print(
        f"{'dimension':>9}{'vectors':>9}{'product µs':>12}{'exact µs':>12}{'bits µs':>12}{'of 10':>8}{'of 100':>8}"
        f"{'exact MB':>12}{'bits MB':>10}{'exact up ms':>14}{'bits up ms':>14}"
    )
    for dimension in arguments.dimensions:
        for count in arguments.counts:
            with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
                print(measure(Path(name), count, dimension, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
