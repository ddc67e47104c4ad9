"""The right to have a database open: all branches of one uuid, in one owner at a time.

An owner is whoever answers at an address; everybody else forwards to it. A lease may run out: its
deadline is on the owner's monotonic clock, and nobody else gets the lease before that moment, so an
owner that asks `held` before it acts never acts beside its successor. `FileLeases` is for the
processes of one machine, `MemoryLeases` for several owners in one process. Called by whoever opens
databases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from memoturn_schemas.errors import Unavailable


class OwnedElsewhere(Unavailable):
    """Another owner holds the lease. `address` is where it answers, "" where it cannot be told yet: ask again."""

    def __init__(self, address: str) -> None:
        super().__init__("the database is open in another process; try again")
        self.address = address


@dataclass(frozen=True, slots=True)
class Lease:
    """One database's lease, as it stood when it was acquired."""

    database: str
    """The database's uuid."""
    deadline: float | None
    """Seconds on the monotonic clock at which it runs out unless it is renewed; None: never."""


class Leases(Protocol):
    """The leases of one owner; safe from any thread."""

    def acquire(self, database: str) -> Lease:
        """Take the lease of this uuid; where it is ours already, the lease as it stands.

        Raises:
            OwnedElsewhere: somebody else has it.
            Unavailable: whatever keeps the leases does not work; nothing was acquired.
        """
        ...

    def held(self, database: str) -> bool:
        """Whether it is ours now, by the clock too."""
        ...

    def release(self, database: str) -> None:
        """Give it up; nothing happens where it is not ours."""
        ...

    def owner(self, database: str) -> str | None:
        """The address of somebody else who owns it now, "" where it cannot be told; None: nobody, or we."""
        ...

    def close(self) -> None:
        """Release all of ours."""
        ...
