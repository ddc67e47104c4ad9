"""The HTTP application, put together: settings, node, surfaces. Called by `serving`.

It serves everything on one port: REST at `/v1`, MCP as streamable HTTP at `/mcp` and
as SSE at `/sse`, health, metrics and the description of the API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
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

from memoturn_core.caller import LOCAL
from memoturn_core.invoke import listen
from memoturn_core.node import Node
from memoturn_mcp import docs_page, openapi
from memoturn_mcp.front import Front
from memoturn_mcp.guard import Guard
from memoturn_mcp.metrics import Metrics
from memoturn_mcp.opening import local_door
from memoturn_mcp.responses import error_response, json_response
from memoturn_mcp.rest import Rest
from memoturn_mcp.server import make_server
from memoturn_mcp.settings import ALL, Settings
from memoturn_mcp.tools import Defaults
from memoturn_schemas.errors import MethodNotAllowed, NotFound


def http_app(node: Node, settings: Settings) -> ASGIApp:
    """Everything that a node serves over HTTP. The node is the caller's to close."""
    metrics = Metrics(node)
    door = local_door(node, settings, metrics.observe)
    server = make_server(door, settings.tool_choice(ALL), Defaults(settings.namespace, settings.profile))
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

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # What a killed process left here is shipped whether or not anybody asks for it.
        await listen(node, metrics.observe)
        async with sessions.run():
            yield

    app = Starlette(
        routes=[
            *(Route(path, ok) for path in ("/health", "/healthz", "/readyz")),
            Route("/openapi.json", describe),
            Route("/docs", docs),
            Route("/metrics", measure),
            Route("/mcp", StreamableHTTPASGIApp(sessions)),
            Route("/sse", _Sse(server, sse)),
            Mount("/messages", sse.handle_post_message),
        ],
        exception_handlers={HTTPException: _no_such_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Front(Rest(node, settings, LOCAL, metrics.observe), app, Guard(settings), node.ambient)


class _Sse:
    """The stream of one SSE connection; its messages come in at `/messages/`."""

    def __init__(self, server: Server[Any], transport: SseServerTransport) -> None:
        self._server = server
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._transport.connect_sse(scope, receive, send) as (incoming, outgoing):
            await self._server.run(incoming, outgoing, self._server.create_initialization_options())


async def _no_such_route(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        return error_response(MethodNotAllowed(f"{request.method} is not allowed here"))
    return error_response(NotFound(f"there is no route {request.method} {request.url.path[:200]}"))
