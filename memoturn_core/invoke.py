"""The one door: every surface runs every operation through `invoke`.

authorise -> limit in time -> validate -> run, here or in the process that has the database open ->
measure. Whatever goes wrong comes out as one of the errors of `memoturn_schemas.errors`; a fault of ours
is logged here with its cause and leaves as `Internal`, without details.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError

from memoturn_core.address import MAIN, Address
from memoturn_core.caller import Caller, acting
from memoturn_core.node import Node
from memoturn_core.operations import DECLARED, Operation, Reply, Scope, Target
from memoturn_core.peers import PeerLost, PeerRequest
from memoturn_core.profiles import Budget, Profile
from memoturn_schemas.errors import BranchNotFound, Forbidden, Internal, InvalidRequest, RequestTimeout, UpstreamFailure
from memoturn_storage.errors import translate
from memoturn_storage.leases.lease import OwnedElsewhere

log = structlog.get_logger("memoturn")

_UNREACHABLE_AFTER_S = 5.0
"""How long a process may hold a database and not be reachable."""
_LOOK_AGAIN_AFTER_S = 0.005
_LOOK_AGAIN_AT_MOST_S = 0.2
"""Between two looks at who owns a database that is changing hands; the request's time budget ends it."""


async def invoke(
    node: Node,
    operation: Operation,
    address: Address,
    arguments: Mapping[str, Any],
    caller: Caller,
    *,
    text_arguments: bool = False,
    min_txid: int = 0,
    durable: bool = False,
    control: bool = False,
    timeout_s: float | None = 30.0,
) -> Reply:
    """Run one operation.

    Args:
        arguments: the request as parsed JSON; with `text_arguments`, values may also be strings that
            stand for numbers and booleans, as in a query string.
        min_txid: never answer a read from a state older than this.
        durable: answer only once the object store has what was written; operations that do not
            declare it ignore it.
        control: whether the request came by a path of the control plane.
        timeout_s: the time budget in seconds.

    Raises:
        MemoturnError: and nothing else.
    """
    request = PeerRequest(
        operation=operation.name,
        address=address,
        arguments=arguments,
        caller=caller,
        text_arguments=text_arguments,
        min_txid=min_txid,
        timeout_s=timeout_s,
        durable=(durable and operation.durable) or node.durable,
    )
    started = node.ambient.monotonic()
    outcome = "cancelled"
    try:
        caller.require(operation, address, control=control)
        async with asyncio.timeout(timeout_s):
            reply = await _where_it_is_owned(node, operation, request)
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
        node.latencies.note(operation.name, outcome, node.ambient.monotonic() - started)


async def listen(node: Node) -> None:
    """Have the other processes on the data directory reach this one, and begin the upkeep, unless that was done."""
    await node.listen(partial(_answer, node))


async def _where_it_is_owned(node: Node, operation: Operation, request: PeerRequest) -> Reply:
    """Run it here unless another process has the database open: then there, in one hop."""
    deadline = None if request.timeout_s is None else node.ambient.monotonic() + request.timeout_s
    give_up_at = node.ambient.monotonic() + _UNREACHABLE_AFTER_S
    wait_s = _LOOK_AGAIN_AFTER_S
    while True:
        try:
            return await _here(node, operation, request, deadline)
        except OwnedElsewhere as elsewhere:
            address = elsewhere.address
        if address:
            left = None if deadline is None else max(0.0, deadline - node.ambient.monotonic())
            try:
                return await node.peers.call(address, replace(request, timeout_s=left))
            except OwnedElsewhere:
                pass  # it was the owner and is no more
            except PeerLost as lost:
                if lost.sent and not (operation.read_only or operation.idempotent):
                    raise
                if node.ambient.monotonic() >= give_up_at:
                    raise UpstreamFailure("the process that has the database open does not answer") from lost
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LOOK_AGAIN_AT_MOST_S)


async def _here(node: Node, operation: Operation, request: PeerRequest, deadline: float | None) -> Reply:
    address = request.address
    validated = _validated(operation, request.arguments, strict=not request.text_arguments)
    if operation.target in (Target.NODE, Target.NAMESPACE):
        subject = node if operation.target is Target.NODE else (node, address.namespace)
        with acting(request.caller):
            return await operation.handler(subject, validated)
    if operation.whole_database:
        address = replace(address, branch=MAIN)
    name = address.database or ""
    entry = node.catalog.known(name) or await node.wait_for(lambda: node.catalog.find(name))
    scope = _scope_left(node, operation, request.caller, name)
    if entry is not None and not operation.asleep:
        await listen(node)
    budget = Budget(deadline, request.min_txid, request.durable)
    profile = Profile(node, address, budget, entry, partial(listen, node), scope)
    try:
        if not operation.asleep:
            await profile.settle()
        with acting(request.caller):
            return await operation.handler(profile, validated)
    except BranchNotFound:
        if not await profile.moved_on():
            raise
    # Deleted meanwhile, perhaps on another machine: everything is asked again of what the name means now.
    return await _here(node, operation, request, deadline)


def _scope_left(node: Node, operation: Operation, caller: Caller, database: str) -> Scope:
    """What the caller's scope is worth on this database: a token from before its deletion only reads.

    Asked here and in the process that owns the database, once its name was looked up.
    """
    if caller.issued_at is None or not caller.revoked_by(node.catalog.deleted_at(database)):
        return caller.scope
    if operation.scope >= Scope.WRITE:
        raise Forbidden(f"token revoked: {database} was deleted after it was issued")
    return Scope.READ


async def _answer(node: Node, request: PeerRequest) -> Reply:
    """What another process asks of this one, which answers only for what it owns."""
    operation = DECLARED[request.operation]
    deadline = None if request.timeout_s is None else node.ambient.monotonic() + request.timeout_s
    async with asyncio.timeout(request.timeout_s):
        return await _here(node, operation, request, deadline)


def _validated(operation: Operation, arguments: Mapping[str, Any], *, strict: bool) -> Any:
    try:
        return operation.request.model_validate(arguments, strict=strict)
    except ValidationError as error:
        raise InvalidRequest(describe(error, arguments)) from None
    except RecursionError:
        raise InvalidRequest("the request is nested too deeply") from None


def describe(error: ValidationError, given: Any) -> str:
    """Each fault of what was `given` as `path.to[3].field: what is wrong`, at most five of them."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{_path(fault['loc'], given)}{_message(fault['type'], fault['msg'])}" for fault in faults[:5]]
    if len(faults) > len(lines):
        lines.append(f"and {len(faults) - len(lines)} more")
    return "; ".join(lines)


def _path(location: tuple[int | str, ...], given: Any) -> str:
    path, value = "", given
    for place, part in enumerate(location, start=1):
        fields = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, list) else {}
        if fields.get("type") == part and part not in fields and place < len(location):
            continue  # which member of a union it is, and no field
        value = fields.get(part)
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return f"{path}: " if path else ""


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "missing":
        return "is required"
    return message.removeprefix("Value error, ").removeprefix("Input ")
