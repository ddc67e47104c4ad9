"""How many examples a search for bugs tries: few in every run of the tests, more where `EXAMPLES` multiplies them."""

from __future__ import annotations

import os

_TIMES = int(os.environ.get("EXAMPLES", "1"))


def examples(count: int) -> int:
    """`make fuzz` looks at many times as many."""
    return count * _TIMES
