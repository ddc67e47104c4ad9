"""How often a cache had what it was asked for. Called by whoever looks into one, from any thread."""

from __future__ import annotations

import threading


class Lookups:
    """Counters since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    def note(self, hit: bool) -> None:
        with self._lock:
            if hit:
                self._hits += 1
            else:
                self._misses += 1

    @property
    def counts(self) -> tuple[int, int]:
        """Hits and misses."""
        with self._lock:
            return self._hits, self._misses
