"""Who sends a request and what it may reach. Surfaces make callers, `invoke` asks them.

The registry says what each operation needs; nothing else decides who may run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from memoturn_core.address import Address
from memoturn_core.operations import Operation, Scope, Target
from memoturn_schemas.errors import Forbidden, Unauthorized
from memoturn_schemas.names import check_name

if TYPE_CHECKING:
    from memoturn_core.access.authority import Authority


class Kind(StrEnum):
    """By what a caller is known."""

    LOCAL = "local"
    """By running on this machine, or because auth is off."""
    PLATFORM = "platform"
    """By the platform key, which opens the control plane and nothing else."""
    INTERNAL = "internal"
    """By the cluster key: another node, which has checked who asks."""
    TOKEN = "token"  # noqa: S105 - the name of a kind


@dataclass(frozen=True, slots=True)
class Caller:
    """A scope, and the namespace or database that it is bound to; None is bound to nothing."""

    scope: Scope
    namespace: str | None = None
    database: str | None = None
    kind: Kind = Kind.LOCAL
    issued_at: int | None = None
    """This and the next are a token's claims, in Unix seconds."""
    expires_at: int | None = None
    jti: str | None = None
    credential: str | None = None
    """A hash of what the caller showed, in hex: tells credentials apart and gives none away."""
    authority: Authority | None = field(default=None, repr=False, compare=False)
    """What knows this caller and can make others; None while auth is off, and in other processes."""

    def require(self, operation: Operation, address: Address, *, control: bool = False) -> None:
        """Raise unless this caller may run `operation` on `address`.

        Args:
            control: whether the request came by a path of the control plane, which the platform key opens
                whatever the operation is.

        Raises:
            Unauthorized: the credential is not one for this plane.
            Forbidden: it is, and its scope or what it is bound to does not cover the request.
        """
        if operation.scope is Scope.NONE:
            return
        control = control or operation.control
        if self.kind is Kind.PLATFORM:
            if not control:
                raise Unauthorized(f"the platform key opens the control plane only; {operation.name} needs a token")
            return
        refusal = self._refusal(operation, address)
        if refusal is not None:
            raise Unauthorized(refusal) if control and self.kind is Kind.TOKEN else Forbidden(refusal)

    def covers(self, database: str) -> bool:
        """Whether a database of this name, which may be none that can be, is within what the caller is bound to."""
        if self.database is not None:
            return database == self.database
        if self.namespace is None:
            return True
        namespace, separator, profile = database.partition("--")
        return bool(separator) and namespace == self.namespace and _is_name(profile)

    def revoked_by(self, deleted_at: int | None) -> bool:
        """Whether this is a token from before the database of its address was deleted, at Unix milliseconds.

        Such a token may still read, but must not bring the database back.
        """
        return deleted_at is not None and self.issued_at is not None and self.issued_at * 1_000 <= deleted_at

    def _refusal(self, operation: Operation, address: Address) -> str | None:
        if self.scope < operation.scope:
            return f"{operation.name} needs scope {operation.scope.name.lower()}"
        if operation.control and self.kind is Kind.TOKEN:
            return self._control_refusal(operation, address)
        if operation.target is Target.NODE:
            return None
        if address.database is None:
            covered = self.database is None and self.namespace in (None, address.namespace)
        else:
            covered = self.covers(address.database)
        return None if covered else self._bounds

    def _control_refusal(self, operation: Operation, address: Address) -> str | None:
        """Of the control plane, a namespace's admin has what concerns its own profiles, and may look at the rest."""
        if operation.target is Target.NODE and operation.scope < Scope.ADMIN:
            return None  # of a caller's own making, which the operation itself looks at
        if operation.target is Target.NAMESPACE:
            allowed = operation.read_only and self.namespace is not None and self.namespace == address.namespace
        elif operation.target is Target.NODE:
            allowed = False
        else:
            allowed = self.namespace is not None and self.covers(address.database or "")
        return None if allowed else f"{operation.name} needs the platform key"

    @property
    def _bounds(self) -> str:
        if self.database is not None:
            return f"the credential covers database {self.database} only"
        return f"the credential covers namespace {self.namespace} only"


LOCAL = Caller(Scope.ADMIN)
"""Whoever runs the process on this machine, and everybody while auth is off."""

NOBODY = Caller(Scope.NONE)
"""Who asks for what is open to all."""

_acting: ContextVar[Caller] = ContextVar("caller")


@contextmanager
def acting(caller: Caller) -> Iterator[None]:
    """While the block runs, what is done in this task is done for `caller`."""
    before = _acting.set(caller)
    try:
        yield
    finally:
        _acting.reset(before)


def current_caller() -> Caller:
    """For whom the operation runs that asks."""
    return _acting.get()


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ValueError:
        return False
    return True
