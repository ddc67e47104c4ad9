"""The one tree of errors: what went wrong, grouped by what a caller would do about it.

Every layer raises these and every surface maps them once: REST to a status and the envelope
`{"error", "code"}`, MCP to an `isError` result, the CLI to an exit code. A class is a kind; its
attributes say how each surface shows it. Exceptions of libraries are translated where they are met
(`memoturn_storage.errors` for SQLite, `memoturn_core.providers` for HTTP) and never reach a surface.

Codes and statuses are the wire contract: kinds may be added, existing ones never change.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from typing_extensions import TypedDict

ErrorCode = Literal[
    "unauthorized",
    "forbidden",
    "not_found",
    "database_not_found",
    "branch_not_found",
    "already_exists",
    "conflict",
    "invalid_request",
    "payload_too_large",
    "request_timeout",
    "overloaded",
    "unconfigured",
    "unavailable",
    "internal",
]


class ErrorEnvelope(TypedDict):
    """What every failed request answers with."""

    error: str
    code: ErrorCode


class MemoturnError(Exception):
    """Root of the tree; raise one of its kinds.

    `str(error)` is written for the person or agent who sent the request: what is wrong, where, and
    what would be right. It never holds a path of the host, a stack trace or a credential.
    """

    code: ClassVar[ErrorCode] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without anything else being changed."""
    retry_after_s: int | None = None
    """In how many seconds, where that is known."""

    def envelope(self) -> ErrorEnvelope:
        return {"error": str(self), "code": self.code}


# --- change the request --------------------------------------------------------------------------


class InvalidRequest(MemoturnError):
    """The request can never succeed as it stands. The message names the field by its path."""

    code: ClassVar[ErrorCode] = "invalid_request"
    status = 400
    exit_code = 2


class MethodNotAllowed(InvalidRequest):
    """The route exists, the method does not."""

    status = 405


class PayloadTooLarge(MemoturnError):
    """The body is over the limit; nothing of it was processed."""

    code: ClassVar[ErrorCode] = "payload_too_large"
    status = 413
    exit_code = 2


# --- look elsewhere ------------------------------------------------------------------------------


class NotFound(MemoturnError):
    """The thing asked for is not there."""

    code: ClassVar[ErrorCode] = "not_found"
    status = 404
    exit_code = 3


class DatabaseNotFound(NotFound):
    """No such database or profile. Reads never create one."""

    code: ClassVar[ErrorCode] = "database_not_found"


class BranchNotFound(NotFound):
    """The database exists, the branch does not."""

    code: ClassVar[ErrorCode] = "branch_not_found"


# --- resolve a conflict --------------------------------------------------------------------------


class Conflict(MemoturnError):
    """The state of the database does not allow the request."""

    code: ClassVar[ErrorCode] = "conflict"
    status = 409
    exit_code = 4


class AlreadyExists(Conflict):
    """The name is taken."""

    code: ClassVar[ErrorCode] = "already_exists"


# --- get other credentials -----------------------------------------------------------------------


class Unauthorized(MemoturnError):
    """No credential, or one that does not verify."""

    code: ClassVar[ErrorCode] = "unauthorized"
    status = 401
    exit_code = 5


class Forbidden(MemoturnError):
    """A valid credential that does not cover this request."""

    code: ClassVar[ErrorCode] = "forbidden"
    status = 403
    exit_code = 5


# --- try again later -----------------------------------------------------------------------------


class RequestTimeout(MemoturnError):
    """The request's time budget ran out. A write that was interrupted changed nothing."""

    code: ClassVar[ErrorCode] = "request_timeout"
    status = 408
    exit_code = 7
    retryable = True


class Overloaded(MemoturnError):
    """A bounded queue is full; the request was not started."""

    code: ClassVar[ErrorCode] = "overloaded"
    status = 429
    exit_code = 6
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(MemoturnError):
    """Something this request needs is down, full or behind."""

    code: ClassVar[ErrorCode] = "unavailable"
    status = 503
    exit_code = 6
    retryable = True

    def __init__(self, message: str = "", *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


# --- ask the operator ----------------------------------------------------------------------------


class Unconfigured(MemoturnError):
    """The node was not given what this request needs. The message names the setting."""

    code: ClassVar[ErrorCode] = "unconfigured"
    status = 503
    exit_code = 6


class Internal(MemoturnError):
    """A fault of ours. Details go to the log under the request id, never to the client."""


class UpstreamFailure(MemoturnError):
    """What this node had to ask failed or answered garbage: a model provider, or a database's owner."""

    status = 502
    exit_code = 6
    retryable = True


# --- an error of another process -----------------------------------------------------------------


_KINDS: dict[tuple[str, int], type[MemoturnError]] = {
    (kind.code, kind.status): kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, MemoturnError) and kind is not MemoturnError
}


def raised_elsewhere(message: str, code: str, status: int, retry_after_s: int | None = None) -> MemoturnError:
    """The error that another process raised, from what came over the wire; `Internal` where no kind is so."""
    error = _KINDS.get((code, status), Internal)(message)
    if retry_after_s is not None:
        error.retry_after_s = retry_after_s
    return error
