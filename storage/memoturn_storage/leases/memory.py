"""Leases of several owners in one process: for simulations and tests of what happens between owners.

Each owner has its own `MemoryLeases`; what they share is the `LeaseRegistry`. With a time to live, a
lease runs out by the ambient clock unless its owner renews it, as with a lease store between machines.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from memoturn_storage.ambient import Ambient
from memoturn_storage.leases.lease import Lease, OwnedElsewhere


@dataclass(slots=True)
class _Grant:
    holder: MemoryLeases
    address: str
    deadline: float | None

    def valid(self, now: float) -> bool:
        return self.deadline is None or now < self.deadline


class LeaseRegistry:
    """Who holds which lease; shared by the `MemoryLeases` of all owners."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.grants: dict[str, _Grant] = {}


class MemoryLeases:
    """The leases of one owner, who answers at `address`. `ttl_s` None: they never run out."""

    def __init__(self, registry: LeaseRegistry, address: str, ambient: Ambient, ttl_s: float | None = None) -> None:
        self._registry = registry
        self._address = address
        self._ambient = ambient
        self._ttl_s = ttl_s

    def acquire(self, database: str) -> Lease:
        with self._registry.lock:
            grant = self._valid(database)
            if grant is None:
                grant = self._registry.grants[database] = _Grant(self, self._address, self._next_deadline())
            if grant.holder is not self:
                raise OwnedElsewhere(grant.address)
            return Lease(database, grant.deadline)

    def held(self, database: str) -> bool:
        with self._registry.lock:
            grant = self._valid(database)
            return grant is not None and grant.holder is self

    def renew(self) -> None:
        """Give all leases that are still ours their full time again; one that has run out stays lost."""
        with self._registry.lock:
            now = self._ambient.monotonic()
            for grant in self._registry.grants.values():
                if grant.holder is self and grant.valid(now):
                    grant.deadline = self._next_deadline()

    def release(self, database: str) -> None:
        with self._registry.lock:
            grant = self._registry.grants.get(database)
            if grant is not None and grant.holder is self:
                del self._registry.grants[database]

    def owner(self, database: str) -> str | None:
        with self._registry.lock:
            grant = self._valid(database)
            return None if grant is None or grant.holder is self else grant.address

    def close(self) -> None:
        with self._registry.lock:
            kept = {database: grant for database, grant in self._registry.grants.items() if grant.holder is not self}
            self._registry.grants = kept

    def _valid(self, database: str) -> _Grant | None:
        grant = self._registry.grants.get(database)
        return grant if grant is not None and grant.valid(self._ambient.monotonic()) else None

    def _next_deadline(self) -> float | None:
        return None if self._ttl_s is None else self._ambient.monotonic() + self._ttl_s
