"""What a run may use. Read by everything here; the figures are those of docs/code.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # a worker process starts in half the time without pydantic
    from memoturn_schemas.code import Preset


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one run: seconds by the wall's clock, and bytes of the interpreter's memory."""

    seconds: float
    memory_bytes: int


PRESETS: Final[dict[Preset, Limits]] = {
    "restrictive": Limits(3.0, 64 << 20),
    "default": Limits(5.0, 128 << 20),
    "permissive": Limits(10.0, 256 << 20),
}

OUTPUT_BYTES = 1 << 20
"""What a snippet may print, stdout and stderr together."""
ANSWER_BYTES = 2 << 20
"""What the interpreter may say of how a run ended; as much output fits in."""
AT_ONCE = 20
"""Runs, each in a process of its own."""
WAITING = 20
"""Requests that may wait for one of them to end."""
WAIT_S = 5.0
"""How long they do."""
IDLE_WORKERS = 4
"""Processes that are kept for the next run."""
IDLE_S = 240.0
"""For so long, after the last one."""
