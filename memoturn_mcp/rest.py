"""The REST side door, `/v1`: an ASGI application made from the registry.

Per request: match the route, find out who sends it and whether they may, keep the control plane's pace,
read a bounded body, build the arguments, `invoke`, answer. So nobody without access learns what exists or
has a body read. Everything that goes wrong leaves as the error envelope. The shapes are the wire
contract, of which `tests/contract` has each statement.

The routes of a database are also served without `/db/{db}` (`/v1/sql`), about the database that the Host
names (`guard`) or else the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import structlog
from pydantic_core import from_json
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from memoturn_core.access.rate import Rate
from memoturn_core.address import NODE, Address
from memoturn_core.caller import NOBODY, Caller, Kind
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.operations import Reply
from memoturn_core.operations import Scope as Needed
from memoturn_mcp.guard import Gate, Guard
from memoturn_mcp.responses import TXID, error_response, json_response
from memoturn_mcp.routes import ADDRESS_PARTS, Route, Router
from memoturn_mcp.settings import Settings
from memoturn_schemas.errors import (
    Forbidden,
    Internal,
    InvalidRequest,
    MemoturnError,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    Unauthorized,
)

log = structlog.get_logger("memoturn")

_LONGEST_INTEGER = 19
"""Digits of the largest 64-bit integer."""


_CONTROL_BODY = 1024 * 1024
_BARE_PREFIX = "/v1/db/-"
"""In place of `/v1` makes a bare path a whole one; the database is then put in place of the `-`."""


class Rest:
    """Serves every operation that has a route."""

    def __init__(self, node: Node, settings: Settings, gate: Gate, guard: Guard, control: Rate) -> None:
        self._node = node
        self._gate = gate
        self._guard = guard
        self._control = control
        self._max_body = settings.max_body_bytes
        self._timeout_s = settings.request_timeout_s
        self._in_flight = anyio.CapacityLimiter(settings.max_in_flight)
        self._router = Router()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._in_flight:
            response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._serve(request)
        except MemoturnError as error:
            return error_response(error)
        except TimeoutError:
            return error_response(RequestTimeout("the request took longer than its time budget"))
        except ClientDisconnect:
            return error_response(InvalidRequest("the request's body ended before it was complete"))
        except Exception:
            log.exception("request failed", method=request.method, path=request.url.path)
            return error_response(Internal("internal error"))

    async def _serve(self, request: Request) -> Response:
        raw_path = request.scope.get("raw_path") or request.url.path.encode()
        route, parameters, bare = self._match(request.method, raw_path.decode("ascii", "replace"))
        operation = route.operation
        caller = NOBODY if operation.scope is Needed.NONE else await self._gate.caller(request.headers)
        if bare:
            parameters["db"] = self._meant(request.headers, caller)
        control = route.control
        arguments: dict[str, Any] = {name: v for name, v in parameters.items() if name not in ADDRESS_PARTS}
        _require_cover(caller, parameters, control)
        query = _query(request.query_params)
        address = _address(parameters, query.pop("branch", None), request.headers.get("Memoturn-Branch"))
        caller.require(operation, address, control=control)
        if control:
            self._control.take()
        _check_consistency(request.headers)
        largest = min(_CONTROL_BODY, self._max_body) if control else self._max_body
        if route.rest.raw_body is not None:
            _require_disjoint(arguments, query)
            _require_disjoint(query, {route.rest.raw_body: None})
            arguments[route.rest.raw_body] = await self._body(request, largest)
        elif route.rest.has_body:
            body = _json_object(await self._body(request, largest))
            _require_disjoint(arguments, body)
            _require_disjoint(body, query)
            arguments |= body
        else:
            _require_disjoint(arguments, query)
        arguments |= query
        reply = await invoke(
            self._node,
            operation,
            address,
            arguments,
            caller,
            text_arguments=not route.rest.has_body or route.rest.raw_body is not None,
            min_txid=_min_txid(request.headers),
            durable=_durable(request.headers),
            control=control,
            timeout_s=self._timeout_s,
        )
        return _answer(route, reply)

    def _match(self, method: str, raw_path: str) -> tuple[Route, dict[str, str], bool]:
        """The route, the parameters of its path, and whether it came without its database."""
        try:
            return *self._router.match(method, raw_path), False
        except NotFound as unknown:
            try:
                return *self._router.match(method, _BARE_PREFIX + raw_path.removeprefix("/v1")), True
            except NotFound:
                raise unknown from None

    def _meant(self, headers: Headers, caller: Caller) -> str:
        database = self._guard.database(headers) or caller.database
        if database is None and caller.kind is Kind.PLATFORM:
            raise Unauthorized("the platform key opens the control plane only; this path needs a token")
        if database is None:
            raise InvalidRequest(
                "this path says of no database; use /v1/db/{db}/…, or a token for one database,"
                " or {db}. before a host of MEMOTURN_ALLOWED_HOSTS"
            )
        return database

    async def _body(self, request: Request, largest: int) -> bytes:
        too_large = PayloadTooLarge(f"the body is over the limit of {largest} bytes")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > largest:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > largest:
                raise too_large
        return bytes(body)


def _answer(route: Route, reply: Reply) -> Response:
    headers = {} if reply.txid is None else {TXID: str(reply.txid)}
    status = reply.status or route.rest.status
    if status == 204:
        return Response(status_code=204, headers=headers)
    if route.rest.raw_reply is not None:
        body = reply.value[route.rest.raw_reply]
        return Response(body, status, headers, media_type="application/octet-stream")
    return json_response(reply.value, status, headers)


def _json_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body should be a JSON object")
    return value


def _query(parameters: QueryParams) -> dict[str, str]:
    for name in parameters:
        if len(parameters.getlist(name)) > 1:
            raise InvalidRequest(f"{name}: is given more than once")
    return dict(parameters)


def _require_disjoint(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    for name in first.keys() & second.keys():
        raise InvalidRequest(f"{name}: is given twice, in the path or query and in the body")


def _address(parameters: Mapping[str, str], query_branch: str | None, header_branch: str | None) -> Address:
    """The query's branch wins over the one in the path, and that over the header's."""
    if "db" in parameters:
        spec = parameters["db"]
        return Address.of_database(spec, query_branch or (None if "@" in spec else header_branch))
    if "profile" in parameters:
        return Address.of_profile(parameters["namespace"], parameters["profile"], query_branch or header_branch)
    if "namespace" in parameters:
        return Address.of_namespace(parameters["namespace"])
    return NODE


def _require_cover(caller: Caller, parameters: Mapping[str, str], control: bool) -> None:
    """A name that cannot be is none that a token covers: refused as such, like all others that it does not."""
    database = parameters.get("db", "").partition("@")[0]
    if "profile" in parameters:
        database = f"{parameters['namespace']}--{parameters['profile']}"
    if database and not caller.covers(database):
        refusal = f"the credential does not cover {database[:200]}"
        raise Unauthorized(refusal) if control else Forbidden(refusal)


def _check_consistency(headers: Headers) -> None:
    wanted = headers.get("Memoturn-Consistency", "primary")
    if wanted not in ("primary", "cached"):
        raise InvalidRequest(f"Memoturn-Consistency: should be 'primary' or 'cached', not {wanted[:40]!r}")


def _min_txid(headers: Headers) -> int:
    text = headers.get("Memoturn-Min-Txid", "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_INTEGER):
        raise InvalidRequest(f"Memoturn-Min-Txid: should be a transaction number, not {text[:40]!r}")
    return int(text)


def _durable(headers: Headers) -> bool:
    wanted = headers.get("Memoturn-Durability", "standard")
    if wanted not in ("standard", "durable"):
        raise InvalidRequest(f"Memoturn-Durability: should be 'standard' or 'durable', not {wanted!r}")
    return wanted == "durable"
