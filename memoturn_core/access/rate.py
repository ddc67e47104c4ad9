"""A bound on how often something may be asked for: one token bucket. Called by the surfaces, for the control plane."""

from __future__ import annotations

from memoturn_schemas.errors import Overloaded
from memoturn_storage.ambient import Ambient


class Rate:
    """`per_second` on the long run and twice as many at once. Belongs to one event loop."""

    def __init__(self, per_second: int, ambient: Ambient) -> None:
        self._per_second = per_second
        self._burst = 2.0 * per_second
        self._ambient = ambient
        self._left = self._burst
        self._at = ambient.monotonic()

    def take(self) -> None:
        """Count one request.

        Raises:
            Overloaded: too many came; one second brings more room than any of them needs.
        """
        now = self._ambient.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            raise Overloaded(f"over {self._per_second} requests a second to the control plane; MEMOTURN_CONTROL_RATE")
        self._left -= 1
