"""How the benchmarks time things: each operation beside its bound, interleaved in one run.

A machine that is busy slows both alike, so the ratio is what to compare; times are quoted beside it.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import apsw

VOCABULARY = [
    start + middle + end
    for end in ("la", "ren", "to", "mis", "ker", "dan", "vo", "ste", "nil", "gar")
    for middle in ("a", "e", "i", "o", "ai", "or")
    for start in "bdfgklmnprst"
]
"""720 made-up words, drawn so that the commonest is in a quarter of the texts and most are in few."""

EVERYWHERE = "alice"
"""A word that every text has, as a transcript has the speaker's name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times in microseconds, `bound_us` None where nothing bounds it."""

    row: str
    p50_us: float
    p99_us: float
    bound_us: float | None
    n: int

    @property
    def ratio(self) -> float | None:
        return None if not self.bound_us else self.p50_us / self.bound_us

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def percentile(samples: list[float], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def timed(
    row: str, n: int, operation: Callable[[int], Awaitable[object]], bound: Callable[[int], object] | None
) -> Row:
    """Run `operation` and `bound` in turn, `n` times each after a tenth of that to warm up."""
    times: list[float] = []
    bounds: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for index in range(-max(1, n // 10), n):
            started = time.perf_counter()
            await operation(index)
            ended = time.perf_counter()
            if index >= 0:
                times.append(ended - started)
            if bound is not None:
                started = time.perf_counter()
                bound(index)
                ended = time.perf_counter()
                if index >= 0:
                    bounds.append(ended - started)
    finally:
        gc.enable()
    return Row(
        row,
        round(percentile(times, 0.5) * 1e6, 1),
        round(percentile(times, 0.99) * 1e6, 1),
        round(percentile(bounds, 0.5) * 1e6, 1) if bounds else None,
        n,
    )


class Texts:
    """A reproducible stream of sentences and vectors."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._weights = [1 / (rank + 12) for rank in range(len(VOCABULARY))]

    def words(self, count: int) -> str:
        return " ".join(self._random.choices(VOCABULARY, self._weights, k=count))

    def sentence(self) -> str:
        return f"{EVERYWHERE}: {self.words(14)}"

    def vector(self, dimension: int = 256) -> list[float]:
        return [self._random.gauss(0, 1) for _ in range(dimension)]


def table(rows: list[Row]) -> str:
    lines = [f"{'row':<24}{'p50 µs':>12}{'p99 µs':>12}{'bound µs':>12}{'ratio':>8}{'n':>8}"]
    for each in rows:
        bound = "-" if each.bound_us is None else f"{each.bound_us:.1f}"
        ratio = "-" if each.ratio is None else f"{each.ratio:.1f}"
        lines.append(f"{each.row:<24}{each.p50_us:>12.1f}{each.p99_us:>12.1f}{bound:>12}{ratio:>8}{each.n:>8}")
    return "\n".join(lines)


def raw_database(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA page_size=1024; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").fetchall()
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection
