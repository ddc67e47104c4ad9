"""The one door: every surface runs every operation through `invoke`.

validate -> authorise -> limit in time -> run -> measure. Whatever goes wrong comes out as one of the
errors of `memoturn_schemas.errors`; a fault of ours is logged here with its cause and leaves as
`Internal`, without details.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import structlog
from pydantic import ValidationError

from memoturn_core.address import Address
from memoturn_core.caller import Caller
from memoturn_core.node import Node
from memoturn_core.operations import Operation, Reply, Target
from memoturn_core.profiles import Budget, Profile
from memoturn_schemas.errors import Internal, InvalidRequest, RequestTimeout
from memoturn_storage.errors import translate

log = structlog.get_logger("memoturn")


class Observer(Protocol):
    """Told of every operation that ran, for metrics."""

    def __call__(self, operation: str, outcome: str, seconds: float) -> None:
        """`outcome` is `ok`, `cancelled` or the error's code; `seconds` is how long the operation took."""
        ...


def ignore(operation: str, outcome: str, seconds: float) -> None:
    """The observer of those who measure nothing."""


async def invoke(
    node: Node,
    operation: Operation,
    address: Address,
    arguments: Mapping[str, Any],
    caller: Caller,
    *,
    text_arguments: bool = False,
    min_txid: int = 0,
    timeout_s: float | None = 30.0,
    observer: Observer = ignore,
) -> Reply:
    """Run one operation.

    Args:
        arguments: the request as parsed JSON; with `text_arguments`, values may also be strings that
            stand for numbers and booleans, as in a query string.
        min_txid: never answer a read from a state older than this.
        timeout_s: the time budget in seconds.

    Raises:
        MemoturnError: and nothing else.
    """
    started = node.ambient.monotonic()
    outcome = "cancelled"
    try:
        caller.require(operation, address)
        request = _validated(operation, arguments, strict=not text_arguments)
        deadline = None if timeout_s is None else started + timeout_s
        subject: Any = node
        if operation.target is Target.NAMESPACE:
            subject = (node, address.namespace)
        elif operation.target is not Target.NODE:
            subject = Profile(node, address, Budget(deadline, min_txid))
        async with asyncio.timeout(timeout_s):
            reply = await operation.handler(subject, request)
        outcome = "ok"
        return reply
    except TimeoutError as error:
        outcome = RequestTimeout.code
        raise RequestTimeout("the request took longer than its time budget") from error
    except Exception as error:
        failure = translate(error)
        outcome = failure.code
        if isinstance(failure, Internal):
            log.error("operation failed", operation=operation.name, exc_info=failure.__cause__ or failure)
        elif failure.__cause__ is not None:
            log.warning(
                "operation refused",
                operation=operation.name,
                error=str(failure),
                cause=repr(failure.__cause__),
            )
        if failure is error:
            raise
        raise failure from error
    finally:
        observer(operation.name, outcome, node.ambient.monotonic() - started)


def _validated(operation: Operation, arguments: Mapping[str, Any], *, strict: bool) -> Any:
    try:
        return operation.request.model_validate(arguments, strict=strict)
    except ValidationError as error:
        raise InvalidRequest(describe(error)) from None
    except RecursionError:
        raise InvalidRequest("the request is nested too deeply") from None


def describe(error: ValidationError) -> str:
    """Each fault as `path.to[3].field: what is wrong`, at most five of them."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{_path(fault['loc'])}{_message(fault['type'], fault['msg'])}" for fault in faults[:5]]
    if len(faults) > len(lines):
        lines.append(f"and {len(faults) - len(lines)} more")
    return "; ".join(lines)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return f"{path}: " if path else ""


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "missing":
        return "is required"
    return message.removeprefix("Value error, ").removeprefix("Input ")
