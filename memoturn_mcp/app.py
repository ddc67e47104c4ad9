"""The HTTP application, put together: settings, node, surfaces. Called by `serving`.

It serves everything on one port: REST at `/v1`, MCP as streamable HTTP at `/mcp` and
as SSE at `/sse`, health, metrics and the description of the API. With auth on, REST and MCP ask for a
credential with every request; the rest is open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from memoturn_core.access.rate import Rate
from memoturn_core.address import Address
from memoturn_core.caller import Caller, Kind
from memoturn_core.door import Door
from memoturn_core.invoke import listen
from memoturn_core.node import Node
from memoturn_core.operations import Operation, Reply
from memoturn_mcp import docs_page, openapi
from memoturn_mcp.front import METADATA_PATH, Front, origin
from memoturn_mcp.guard import CALLER, Bound, Gate, Guard
from memoturn_mcp.metrics import Metrics
from memoturn_mcp.opening import local_door, open_authority
from memoturn_mcp.responses import error_response, json_response
from memoturn_mcp.rest import Rest
from memoturn_mcp.server import Context, make_server
from memoturn_mcp.settings import ALL, Settings
from memoturn_mcp.tools import Defaults, Reach
from memoturn_schemas.errors import Internal, MemoturnError, MethodNotAllowed, NotFound, Unauthorized


def http_app(node: Node, settings: Settings) -> ASGIApp:
    """Everything that a node serves over HTTP. The node is the caller's to close.

    Raises:
        Unconfigured, StoreUnavailable: auth is on and there is no signing key to be had.
    """
    metrics = Metrics(node)
    authority, guard = open_authority(node, settings), Guard(settings)
    gate = Gate(authority)
    control = Rate(settings.control_rate, node.ambient)

    def reach(context: Context) -> Reach:
        assert context.request is not None  # noqa: S101 - both transports hand it on, as `Bound` left it
        caller: Caller = context.request.scope[CALLER]
        door = local_door(node, settings, caller)
        return Reach(_Paced(door, caller, control), _defaults(caller, settings))

    server = make_server(reach, settings.tool_choice(ALL))
    sessions = StreamableHTTPSessionManager(server, max_request_body_size=settings.max_body_bytes)
    sse = SseServerTransport("/messages/", max_request_body_size=settings.max_body_bytes)

    async def ok(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def describe(_: Request) -> Response:
        return json_response(openapi.document())

    async def docs(_: Request) -> Response:
        return HTMLResponse(docs_page.page(openapi.document()))

    async def measure(_: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    async def resource(request: Request) -> Response:
        return json_response(
            {
                "resource": origin(request.scope) + request.url.path.removeprefix(METADATA_PATH),
                "resource_name": "Memoturn",
                "scopes_supported": ["read", "write", "admin"],
                "bearer_methods_supported": ["header"],
            }
        )

    async def internal(request: Request) -> Response:
        if (await gate.caller(request.headers)).kind not in (Kind.INTERNAL, Kind.LOCAL):
            raise Unauthorized("the cluster key is needed here, as X-Memoturn-Internal")
        raise HTTPException(404)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # What a killed process left here is shipped whether or not anybody asks for it.
        await listen(node)
        if node.sandbox is not None and settings.code == "on":
            node.sandbox.get_ready()
        async with sessions.run():
            yield

    app = Starlette(
        routes=[
            *(Route(path, ok) for path in ("/health", "/healthz", "/readyz")),
            Route("/openapi.json", describe),
            Route("/docs", docs),
            Route("/metrics", measure),
            Route("/mcp", Bound(StreamableHTTPASGIApp(sessions), gate, node.ambient)),
            Route("/sse", Bound(_Sse(server, sse), gate, node.ambient)),
            Mount("/messages", Bound(sse.handle_post_message, gate, node.ambient)),
            Route("/internal/{path:path}", internal, methods=["GET", "POST", "PUT", "DELETE"]),
            *([] if authority is None else [Route(METADATA_PATH + below, resource) for below in ("", "/mcp")]),
        ],
        exception_handlers={HTTPException: _no_such_route, MemoturnError: _refused},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Front(Rest(node, settings, gate, guard, control), app, guard, node.ambient)


class _Sse:
    """The stream of one SSE connection; its messages come in at `/messages/`."""

    def __init__(self, server: Server[Any], transport: SseServerTransport) -> None:
        self._server = server
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._transport.connect_sse(scope, receive, send) as (incoming, outgoing):
            await self._server.run(incoming, outgoing, self._server.create_initialization_options())


class _Paced:
    """A door through which the control plane is reached no faster than by its routes."""

    def __init__(self, door: Door, caller: Caller, control: Rate) -> None:
        self._door = door
        self._caller = caller
        self._control = control

    async def call(self, operation: Operation, address: Address, arguments: Mapping[str, Any]) -> Reply:
        if operation.control:
            self._caller.require(operation, address)  # who may not learns that, and uses nobody else's turn
            self._control.take()
        return await self._door.call(operation, address, arguments)

    def offers(self, operation: Operation) -> bool:
        return self._door.offers(operation)

    async def close(self) -> None:
        await self._door.close()


def _defaults(caller: Caller, settings: Settings) -> Defaults:
    """What the credential names, or the settings where it is bound to nothing."""
    if caller.database is not None:
        namespace, of_a_profile, profile = caller.database.partition("--")
        return Defaults(namespace, profile) if of_a_profile else Defaults(db=caller.database)
    return Defaults(caller.namespace or settings.namespace, settings.profile)


async def _refused(_: Request, error: Exception) -> Response:
    return error_response(error if isinstance(error, MemoturnError) else Internal("internal error"))


async def _no_such_route(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        return error_response(MethodNotAllowed(f"{request.method} is not allowed here"))
    return error_response(NotFound(f"there is no route {request.method} {request.url.path[:200]}"))
