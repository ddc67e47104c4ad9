"""Runs the surfaces: a node over HTTP, or the MCP server over this process's stdin and stdout.

Called by the entry points. Both return once the surface has ended and everything is closed.
"""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import sys
from dataclasses import replace

import anyio
import structlog
from mcp.server.stdio import stdio_server

from memoturn_mcp.opening import open_door, open_node
from memoturn_mcp.server import make_server
from memoturn_mcp.settings import DEFAULT, DEFAULT_NAME, Settings
from memoturn_mcp.stdio_streams import Answers, Outstanding, Requests
from memoturn_mcp.tools import Defaults, Reach
from memoturn_schemas.errors import InvalidRequest, MemoturnError

log = structlog.get_logger("memoturn")


def serve_http(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are finished first.

    Raises:
        InvalidRequest: the address cannot be listened on. Unavailable: the data directory is unusable.
        Unconfigured: auth is on and the signing key cannot be used.
    """
    import uvicorn  # only a node needs these, and the stdio server should start fast

    from memoturn_mcp.app import http_app

    if settings.url is not None:
        raise InvalidRequest("MEMOTURN_URL: a node serves its own files and asks no other; unset it")
    listener = _listen(settings.host, settings.port)
    try:
        node = open_node(settings)
        try:
            app = http_app(node, settings)
        except MemoturnError:
            asyncio.run(node.close())  # its threads would hold the process up
            raise
    except MemoturnError:
        listener.close()
        raise
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )

    async def main() -> None:
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if settings.access is None:
            log.warning("auth is off: whoever reaches this address reads and writes every memory", url=url)
        print(f"memoturn: listening on {url} (MCP at {url}/mcp, API at {url}/docs)", file=sys.stderr, flush=True)
        try:
            await uvicorn.Server(config).serve(sockets=[listener])
        finally:
            await node.close()

    # The server raises the signal that stopped it once more when it has ended; by then it must no
    # longer kill the process, whose files are still to be closed.
    signal.signal(signal.SIGTERM, _exit)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(main())


def serve_stdio(settings: Settings) -> None:
    """Serve one MCP client until it closes stdin.

    Raises:
        InvalidRequest: a tool that does not exist is asked for. Unavailable: the data directory is unusable.
    """
    settings = replace(settings, namespace=settings.namespace or DEFAULT_NAME, profile=settings.profile or DEFAULT_NAME)
    door = open_door(settings)
    reach = Reach(door, Defaults(settings.namespace, settings.profile))
    server = make_server(lambda _: reach, settings.tool_choice(DEFAULT))

    async def main() -> None:
        # Bytes that are not UTF-8 become surrogates, which the parser refuses, and not U+FFFD, which
        # would be kept as if the client had said it.
        stdin = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="surrogateescape")
        try:
            async with stdio_server(stdin=anyio.wrap_file(stdin)) as (incoming, outgoing):
                outstanding = Outstanding()
                answers = Answers(outgoing, outstanding)
                requests = Requests(incoming, answers, outstanding, settings.request_timeout_s)
                await server.run(requests, answers, server.create_initialization_options())
        finally:
            await door.close()

    anyio.run(main)


def _exit(_number: int, _frame: object) -> None:
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise InvalidRequest(f"MEMOTURN_LISTEN: cannot listen on {host}:{port}: {error.strerror}") from error
