"""`memoturn serve` and `memoturn mcp`: the commands that run until they are stopped."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from memoturn_mcp.cli.flags import DataDir


def serve(
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen. [MEMOTURN_LISTEN]")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Run a node over HTTP: MCP at /mcp and /sse, REST at /v1."""
    from memoturn_mcp.cli.reach import settings_of

    settings = settings_of(listen=listen, data_dir=data_dir)

    from memoturn_mcp.logs import configure_logging
    from memoturn_mcp.serving import serve_http

    configure_logging(settings.log_level, json=not sys.stderr.isatty(), file=settings.log_file)
    serve_http(settings)


def mcp(
    toolsets: Annotated[
        str | None, typer.Option("--toolsets", metavar="NAMES", help="Toolsets to list, with commas, or 'all'.")
    ] = None,
    tools: Annotated[
        str | None, typer.Option("--tools", metavar="NAMES", help="Single tools to list, with commas.")
    ] = None,
    exclude_tools: Annotated[
        str | None, typer.Option("--exclude-tools", metavar="NAMES", help="Tools not to list, with commas.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="List only tools that change nothing.")] = False,
) -> None:
    """Run the MCP server over stdin and stdout, as memoturn-mcp does."""
    from memoturn_mcp.__main__ import run

    run({"toolsets": toolsets, "tools": tools, "exclude_tools": exclude_tools, "read_only": read_only})
