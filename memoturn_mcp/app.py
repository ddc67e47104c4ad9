"""The composition root: puts settings, node, doors and surfaces together. Called by the entry points.

The HTTP application serves everything on one port: REST at `/v1`, MCP as streamable HTTP at `/mcp` and
as SSE at `/sse`, health, metrics and the description of the API.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
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
from memoturn_core.door import Door, LocalDoor, RemoteDoor
from memoturn_core.invoke import Observer, ignore
from memoturn_core.node import Node
from memoturn_core.providers.settings import make_embedder, make_language_model
from memoturn_mcp import docs_page, openapi
from memoturn_mcp.front import Front
from memoturn_mcp.guard import Guard
from memoturn_mcp.metrics import Metrics
from memoturn_mcp.responses import error_response, json_response
from memoturn_mcp.rest import Rest
from memoturn_mcp.server import make_server
from memoturn_mcp.settings import Settings
from memoturn_mcp.tools import Defaults
from memoturn_schemas.errors import MethodNotAllowed, NotFound
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import turn_lookaside_off
from memoturn_storage.descriptors import handle_capacity, raise_descriptor_limit


def configure_logging(level: str, *, json: bool) -> None:
    """Send every log line to stderr: stdout belongs to the protocol or to the command's output."""
    threshold = getattr(logging, level.upper())
    logging.basicConfig(stream=sys.stderr, level=max(threshold, logging.WARNING), format="%(name)s: %(message)s")
    renderer = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def open_node(settings: Settings) -> Node:
    """The node of this process, on its data directory.

    Raises:
        Unavailable: the data directory cannot be used.
    """
    turn_lookaside_off()
    raise_descriptor_limit()
    ambient = SystemAmbient()
    return Node.open(
        settings.data_dir,
        ambient=ambient,
        threads=settings.engine_threads,
        hot_cap=handle_capacity(settings.hot_cap),
        queue_depth=settings.write_queue_depth,
        embedder=make_embedder(settings.providers, ambient),
        language_model=make_language_model(settings.providers, ambient),
    )


def open_door(settings: Settings) -> Door:
    """To the node at `settings.url` where it is set, else to the files of this machine."""
    if settings.url is not None:
        return RemoteDoor(settings.url, settings.token)
    return local_door(open_node(settings), settings)


def local_door(node: Node, settings: Settings, observer: Observer = ignore) -> LocalDoor:
    return LocalDoor(node, LOCAL, observer, settings.request_timeout_s)


def http_app(node: Node, settings: Settings) -> ASGIApp:
    """Everything that a node serves over HTTP. The node is the caller's to close."""
    metrics = Metrics(node)
    door = local_door(node, settings, metrics.observe)
    server = make_server(door, settings.tools, Defaults(settings.namespace, settings.profile))
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
