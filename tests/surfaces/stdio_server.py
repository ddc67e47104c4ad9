"""`memoturn-mcp`, reached by the SDK's client or by raw lines. Used by the stdio tests.

In this process, with pipes or files for stdin and stdout, where no process of its own is what a test is about.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import mcp_types as types
import pytest
import structlog
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.message import SessionMessage

from contract.live_node import INITIALIZE
from memoturn_mcp.__main__ import main
from surfaces.in_process import captured
from surfaces.shell import Done

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "memoturn_mcp"]


def environment(directory: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    return {**inherited, "MEMOTURN_DATA_DIR": str(directory), **more}


def with_process(directory: Path, use: Callable[[Client], Awaitable[T]]) -> T:
    """Start a server's process on `directory`, connect, and hand the client to `use`."""
    parameters = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environment(directory))
    return _use(stdio_client(parameters), use)


def with_client(
    directory: Path, use: Callable[[Client], Awaitable[T]], *flags: str, variables: Mapping[str, str] | None = None
) -> T:
    """As `with_process`, but that the server is in this process and these are its flags and variables."""
    return _use(_in_a_thread(list(flags), {"MEMOTURN_DATA_DIR": str(directory), **(variables or {})}), use)


def _use(transport: Any, use: Callable[[Client], Awaitable[T]]) -> T:
    async def connected() -> T:
        with anyio.fail_after(60):
            async with Client(transport) as client:
                return await use(client)

    return anyio.run(connected)


class _Pipe(io.RawIOBase):
    """An end of one, which nobody minds to be left open until the end, as nobody does of a process's own stdin."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return os.readv(self._descriptor, [buffer])

    def write(self, data: Any) -> int:
        return os.write(self._descriptor, data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


@asynccontextmanager
async def _in_a_thread(flags: list[str], variables: dict[str, str]) -> AsyncIterator[Any]:
    """What the SDK's `stdio_client` gives, of a server on a thread that takes two pipes for its stdin and stdout."""
    (asked, asking), (answered, answering) = os.pipe(), os.pipe()
    incoming, heard = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    said, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    with (
        pytest.MonkeyPatch.context() as patch,
        os.fdopen(asking, "wb", 0) as requests,
        os.fdopen(answered, "rb") as answers,
    ):
        for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(_Pipe(asked))))
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(_Pipe(answering))))

        def serve() -> None:
            stdin, stdout = sys.stdin, sys.stdout
            try:
                main(flags)
            finally:
                stdin.close()
                stdout.close()

        async def send() -> None:
            async for message in outgoing:
                data = message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
                await anyio.to_thread.run_sync(requests.write, data)

        async def receive() -> None:
            async with incoming:
                while line := await anyio.to_thread.run_sync(answers.readline):
                    message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                    await incoming.send(SessionMessage(message))

        server = threading.Thread(target=serve)
        server.start()
        try:
            async with anyio.create_task_group() as tasks, heard, said, outgoing:
                tasks.start_soon(send)
                tasks.start_soon(receive)
                yield heard, said
                said.close()
                requests.close()
                await anyio.to_thread.run_sync(server.join)
                tasks.cancel_scope.cancel()
        finally:
            requests.close()
            await anyio.to_thread.run_sync(server.join, abandon_on_cancel=True)
            structlog.reset_defaults()


def exchange(directory: Path, *lines: bytes | dict[str, Any], process: bool = False) -> tuple[list[Any], str, int]:
    """Send lines after the handshake, close stdin; the answers after the handshake's, stderr, exit code."""
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    sent = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in (INITIALIZE, ready, *lines)
    )
    if process:
        ended = subprocess.run(COMMAND, input=sent, capture_output=True, env=environment(directory), timeout=60)
        done = Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    else:
        done = started(directory, stdin=sent)
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert answers[0]["id"] == 0
    return answers[1:], done.err, done.code


def started(directory: Path, *flags: str, stdin: bytes = b"", **variables: str) -> Done:
    """Run a server with this stdin until it ends."""
    try:
        return captured(lambda: main(list(flags)), stdin, {"MEMOTURN_DATA_DIR": str(directory), **variables})
    finally:
        structlog.reset_defaults()


def tool_call(id_: int, name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    params: dict[str, Any] = {"name": name} if arguments is None else {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}
