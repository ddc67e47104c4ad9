"""A real `memoturn-mcp` process, reached by the SDK's client or by raw lines. Used by the stdio tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from contract.live_node import INITIALIZE

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "memoturn_mcp"]


def environment(directory: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    return {**inherited, "MEMOTURN_DATA_DIR": str(directory), **more}


def with_client(
    directory: Path, use: Callable[[Client], Awaitable[T]], *flags: str, variables: Mapping[str, str] | None = None
) -> T:
    """Start a server on `directory`, connect, and hand the client to `use`."""
    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], *flags], env=environment(directory, **(variables or {}))
    )

    async def main() -> T:
        with anyio.fail_after(60):
            async with Client(stdio_client(parameters)) as client:
                return await use(client)

    return anyio.run(main)


def exchange(directory: Path, *lines: bytes | dict[str, Any]) -> tuple[list[Any], str, int]:
    """Send lines after the handshake, close stdin; the answers after the handshake's, stderr, exit code."""
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    sent = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in (INITIALIZE, ready, *lines)
    )
    done = subprocess.run(COMMAND, input=sent, capture_output=True, env=environment(directory), timeout=60, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0]["id"] == 0
    return answers[1:], done.stderr.decode(), done.returncode


def tool_call(id_: int, name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    params: dict[str, Any] = {"name": name} if arguments is None else {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}
