"""The memory that all vector indexes of a process may hold together.

Where they hold more, those that were not searched for longest let go of what they hold, and read it again from the
file at their next search. The one that asks for room never goes, however much it holds. Called by
`memoturn_core.vectors.index` from all engine threads.
"""

from __future__ import annotations

import threading
from itertools import count
from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    used: int
    """When it was searched last, as `Budget.now` counts."""

    @property
    def nbytes(self) -> int: ...

    @property
    def complete(self) -> bool:
        """Whether it can be searched; if not, it is on the way there."""
        ...

    def let_go(self) -> None:
        """Called by any thread, also while another searches."""
        ...


class Budget:
    """`limit` is in bytes, and may be changed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._uses = count(1)
        self._holders: WeakSet[Holder] = WeakSet()

    def now(self) -> int:
        return next(self._uses)

    @property
    def held(self) -> int:
        """Bytes."""
        with self._lock:
            return sum(holder.nbytes for holder in self._holders)

    def make_room(self, holder: Holder) -> None:
        """`holder` holds more than before: others let go until all is within the limit again."""
        with self._lock:
            self._holders.add(holder)
            held = {each: each.nbytes for each in self._holders}
            excess = sum(held.values()) - self.limit
            for other in sorted(held, key=lambda each: each.used) if excess > 0 else ():
                if excess <= 0:
                    return
                # Two on the way would throw each other back for ever.
                if other is not holder and (holder.complete or other.complete):
                    other.let_go()
                    excess -= held[other]
