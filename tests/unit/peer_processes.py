"""Processes that ask one another over real sockets, and one that only pretends to be such."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.operations import Reply
from memoturn_core.peers import Answer, PeerRequest, Peers, PeerServer
from memoturn_storage.ambient import SystemAmbient

WAIT = 30
PROMPTLY = 5
"""Seconds: less than what closing may wait for calls under way."""

REQUEST = PeerRequest(
    operation="memory_recall", address=Address.of_profile("acme", "alice"), arguments={"query": "x"}, caller=LOCAL
)
ACCEPTED = b"\0\0\0\0"

both_loops = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def run(scenario: Coroutine[Any, Any, Any], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> Any:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(asyncio.wait_for(scenario, WAIT))


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def sockets(directory: Path) -> list[str]:
    return [str(path) for path in (directory / "run").iterdir()]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A data directory whose path is short enough for sockets, as that of a test seldom is."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


async def echo(request: PeerRequest) -> Reply:
    return Reply(request.arguments, 7, 201)


@asynccontextmanager
async def process(directory: Path, answer: Answer = echo) -> AsyncIterator[PeerServer]:
    server = PeerServer(directory, answer, SystemAmbient())
    await server.start()
    try:
        yield server
    finally:
        await server.close(0)


@asynccontextmanager
async def asking() -> AsyncIterator[Peers]:
    peers = Peers(SystemAmbient())
    try:
        yield peers
    finally:
        await peers.close()


@asynccontextmanager
async def impostor(path: Path, talk: Callable[[socket.socket], None]) -> AsyncIterator[str]:
    """Something that listens and says what it likes; `talk` has each connection until it returns."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(WAIT)
