"""How long operations take and how they end: counted since the start, and remembered for a while.

`invoke` tells of every operation, on the event loop. `memoturn_core.metrics` and the surfaces read it there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from memoturn_storage.ambient import Ambient

BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
WINDOW_S = 300
WINDOW_CALLS = 1_000
"""Of one operation: the calls that percentiles are of are its last ones, and not older than the window."""


@dataclass(slots=True)
class Durations:
    """Of the calls of one operation that ended one way."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    """How many took no longer than each of `BUCKETS_S`, and longer than the one before; the last are the others."""
    seconds: float = 0.0
    """In all."""

    @property
    def count(self) -> int:
        return sum(self.buckets)


class Latencies:
    """Of the operations of one node."""

    def __init__(self, ambient: Ambient) -> None:
        self._ambient = ambient
        self._ended: dict[str, dict[str, Durations]] = {}
        self._recent: dict[str, deque[tuple[float, float]]] = {}

    def note(self, operation: str, outcome: str, seconds: float) -> None:
        """A call has ended: `outcome` is `ok`, `cancelled` or the error's code."""
        ended = self._ended.setdefault(operation, {}).setdefault(outcome, Durations())
        ended.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        ended.seconds += seconds
        recent = self._recent.setdefault(operation, deque(maxlen=WINDOW_CALLS))
        recent.append((self._ambient.monotonic(), seconds))

    def ended(self) -> dict[str, dict[str, Durations]]:
        """By operation and outcome, in the order of their names."""
        return {operation: dict(sorted(self._ended[operation].items())) for operation in sorted(self._ended)}

    def outcomes(self, operation: str) -> Counter[str]:
        return Counter({outcome: each.count for outcome, each in self._ended.get(operation, {}).items()})

    def recent(self, operation: str) -> list[float]:
        """The seconds that the window's calls took, ascending."""
        since = self._ambient.monotonic() - WINDOW_S
        return sorted(seconds for at, seconds in self._recent.get(operation, ()) if at >= since)


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """The least of the values that is no less than this share of them; None where there are none."""
    return ascending[ceil(share * len(ascending)) - 1] if ascending else None
