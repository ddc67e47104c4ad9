"""Who sends a request and what it may reach. Surfaces make callers, `invoke` asks them."""

from __future__ import annotations

from dataclasses import dataclass

from memoturn_core.address import Address
from memoturn_core.operations import Operation, Scope, Target
from memoturn_schemas.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Caller:
    """A scope, and the namespace or database that it is bound to; None is bound to nothing."""

    scope: Scope
    namespace: str | None = None
    database: str | None = None

    def require(self, operation: Operation, address: Address) -> None:
        """Raise `Forbidden` unless this caller may run `operation` on `address`."""
        if self.scope < operation.scope:
            raise Forbidden(f"{operation.name} needs scope {operation.scope.name.lower()}")
        if operation.target is Target.NODE:
            return
        if self.namespace is not None and address.namespace != self.namespace:
            raise Forbidden(f"the credential covers namespace {self.namespace} only")
        if self.database is not None and address.database != self.database:
            raise Forbidden(f"the credential covers database {self.database} only")


LOCAL = Caller(Scope.ADMIN)
"""Whoever runs the process on this machine, and everybody while auth is off."""
