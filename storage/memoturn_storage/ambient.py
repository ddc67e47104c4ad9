"""Where time, randomness and identifiers enter the program.

Nothing else reads a clock or a random source (ruff's `banned-api` sees to it), so a test or a
simulation that passes a `ManualAmbient` decides what happens when. Called by every layer.
"""

from __future__ import annotations

import os
import random
import threading
import time
from functools import cache
from pathlib import Path
from typing import Protocol


class Ambient(Protocol):
    """The world a node runs in."""

    def now_ms(self) -> int:
        """Wall clock, integer Unix milliseconds: for what is stored."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back: for deadlines and durations."""
        ...

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        ...

    def boot(self) -> str:
        """Names the time since the machine was started: another after each start, which may be a power cut."""
        ...


class SystemAmbient:
    """The operating system's clocks and randomness."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def boot(self) -> str:
        return _boot()


class ManualAmbient:
    """A world that stands still until `advance` moves it; `seed` fixes its randomness."""

    def __init__(self, *, now_ms: int = 1_700_000_000_000, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._start_ms = now_ms
        self._elapsed_ms = 0
        self._random = random.Random(seed)  # noqa: S311
        self._boots = 0

    def now_ms(self) -> int:
        return self._start_ms + self._elapsed_ms

    def monotonic(self) -> float:
        return self._elapsed_ms / 1000

    def token(self, size: int) -> bytes:
        with self._lock:
            return self._random.randbytes(size)

    def boot(self) -> str:
        return f"boot {self._boots}"

    def start_again(self) -> None:
        """The machine is started anew."""
        self._boots += 1

    def advance(self, *, seconds: float) -> None:
        with self._lock:
            self._elapsed_ms += round(seconds * 1000)


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        # Elsewhere than on Linux each process takes the machine for started anew, which costs time and nothing else.
        return os.urandom(16).hex()


def new_uuid(ambient: Ambient) -> str:
    """A random identifier of 128 bits as 32 lower-case hex digits."""
    return ambient.token(16).hex()
