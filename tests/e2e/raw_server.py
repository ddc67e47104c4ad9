"""A `memoturn-mcp` process spoken to in bare lines, so that a test may send much at once and kill it at any moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

WAIT = 30
"""Seconds after which something that should have happened counts as hung."""


class Said:
    """The lines that a process says, read as they come, so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def lines(self, count: int) -> list[str]:
        return [self._lines.get(timeout=WAIT) for _ in range(count)]

    def until_killed(self) -> list[str]:
        """Kill the process and give what it had still said; a last line that is cut short is not said."""
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait(WAIT) == -signal.SIGKILL
        self._reader.join(WAIT)
        rest = [self._lines.get() for _ in range(self._lines.qsize())]
        return [line for line in rest if line.endswith("\n")]


class RawServer:
    """A server after the handshake; calls are sent without waiting for their answers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.said = Said(process)
        opening = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        self._send({"id": "opening", "method": "initialize", "params": opening})
        assert json.loads(self.said.lines(1)[0])["result"]["serverInfo"]["name"] == "memoturn"
        self._send({"method": "notifications/initialized"})

    def call(self, id_: int, tool: str, **arguments: Any) -> None:
        self._send({"id": id_, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self._process.stdin.flush()


@contextmanager
def raw_server(directory: Path, environment: Mapping[str, str]) -> Iterator[RawServer]:
    """A server that runs in `directory`; the block must have it killed."""
    with (
        (directory / "raw-server.log").open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "memoturn_mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            cwd=directory,
            text=True,
        ) as process,
    ):
        try:
            yield RawServer(process)
        finally:
            process.kill()
