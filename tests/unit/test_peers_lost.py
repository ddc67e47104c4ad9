"""Calls between processes, over real sockets: giving up, an owner that goes away, and one that closes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memoturn_core.operations import Reply
from memoturn_core.peers import PeerLost, PeerRequest, PeerServer, _encoded_request
from memoturn_schemas.errors import RequestTimeout
from memoturn_storage.ambient import SystemAmbient
from unit.peer_processes import (
    ACCEPTED,
    PROMPTLY,
    REQUEST,
    asking,
    both_loops,
    descriptors,
    frame,
    impostor,
    process,
    run,
    sockets,
)
from unit.peer_processes import directory as directory

# --- giving up -----------------------------------------------------------------------------------


@both_loops
def test_cancelling_a_call_cancels_the_operation_and_the_next_call_is_answered(directory: Path, loop: Any) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def answer(request: PeerRequest) -> Reply:
        if request.min_txid:
            return Reply({}, request.min_txid)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async def scenario() -> None:
        async with process(directory, answer) as owner, asking() as peers:
            call = asyncio.create_task(peers.call(owner.address, REQUEST))
            await started.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await cancelled.wait()
            assert (await peers.call(owner.address, replace(REQUEST, min_txid=3))).txid == 3

    run(scenario(), loop)


def test_the_owner_is_told_what_is_left_of_the_budget_and_is_given_up_soon_after_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoturn_core.peers._GRACE_S", 0.05)
    monkeypatch.setattr("memoturn_core.peers._CALLS_AT_ONCE", 1)
    budgets: list[float | None] = []
    cancelled = asyncio.Event()

    async def answer(request: PeerRequest) -> Reply:
        budgets.append(request.timeout_s)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async def scenario() -> None:
        async with process(directory, answer) as owner, asking() as peers:
            # The second waits for the first, for as long as there is one call at once.
            calls = [peers.call(owner.address, replace(REQUEST, timeout_s=budget)) for budget in (0.1, 0.3)]
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, RequestTimeout)
            await cancelled.wait()

    run(scenario())
    first, second = budgets
    assert first is not None and second is not None
    assert 0.05 < first <= 0.1
    assert 0.05 < second <= 0.3 - 0.1


# --- an owner that goes away ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (b"", False),
        (b"\0\0", False),
        (ACCEPTED, True),
        (ACCEPTED + b"\0\0", True),
        (ACCEPTED + (100).to_bytes(4, "big") + b'{"reply": ', True),
        (ACCEPTED + frame(b"not JSON"), True),
        (ACCEPTED + frame(b"[]"), True),
        (ACCEPTED + frame(b'{"reply": {}}'), True),
        (ACCEPTED + frame(b'{"error": {"message": "x"}}'), True),
        (ACCEPTED + b"\xff\xff\xff\xff", True),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
    ],
)
def test_a_lost_connection_says_whether_the_operation_may_have_begun(directory: Path, said: bytes, sent: bool) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(100_000)
        connection.sendall(said)

    async def scenario() -> None:
        async with impostor(directory / "s", talk) as address, asking() as peers:
            for _ in range(2):
                with pytest.raises(PeerLost) as lost:
                    await peers.call(address, REQUEST)
                assert lost.value.sent is sent

    before = descriptors()
    run(scenario())
    assert descriptors() == before


@pytest.mark.parametrize("address", ["", "nobody", "x" * 200])
def test_where_nobody_listens_nothing_was_sent(directory: Path, address: str) -> None:
    (directory / "a file").touch()

    async def scenario() -> None:
        async with asking() as peers:
            for where in (address and str(directory / address), str(directory / "a file")):
                with pytest.raises(PeerLost) as lost:
                    await peers.call(where, REQUEST)
                assert lost.value.sent is False
                assert str(directory) not in str(lost.value)

    run(scenario())


def test_a_connection_that_was_closed_while_it_was_idle_has_sent_nothing(directory: Path) -> None:
    async def scenario() -> None:
        async with asking() as peers, process(directory) as owner:
            await peers.call(owner.address, REQUEST)
            async with asyncio.timeout(PROMPTLY):
                await owner.close()
            # Before this loop has heard that the connection was closed, and after.
            for _ in range(3):
                with pytest.raises(PeerLost) as lost:
                    await peers.call(owner.address, REQUEST)
                assert lost.value.sent is False

    run(scenario())


OWNER = """
import asyncio, os, signal, sys
from pathlib import Path
import uvloop
from memoturn_core.operations import Reply
from memoturn_core.peers import PeerServer
from memoturn_storage.ambient import SystemAmbient

async def answer(request):
    if request.operation == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return Reply({"pid": os.getpid()})

async def main():
    server = PeerServer(Path(sys.argv[1]), answer, SystemAmbient())
    await server.start()
    print(server.address, flush=True)
    await asyncio.Event().wait()

asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[2] == "uvloop" else None).run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_owner_that_dies_in_the_operations_first_step_had_said_that_it_accepted(directory: Path, loop: str) -> None:
    async def scenario(address: str, pid: int) -> None:
        async with asking() as peers:
            assert (await peers.call(address, REQUEST)).value == {"pid": pid}
            with pytest.raises(PeerLost) as lost:
                await peers.call(address, replace(REQUEST, operation="die"))
            assert lost.value.sent is True
            with pytest.raises(PeerLost) as gone:
                await peers.call(address, REQUEST)
            assert gone.value.sent is False
            assert sockets(directory) == [address]
            async with process(directory) as successor:
                assert sockets(directory) == [successor.address], "the dead one's is removed"

    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory), loop], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        try:
            run(scenario(owner.stdout.readline().strip(), owner.pid))
        finally:
            owner.kill()


# --- closing -------------------------------------------------------------------------------------


@both_loops
def test_closing_lets_what_runs_finish_and_starts_nothing_more(directory: Path, loop: Any) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def answer(request: PeerRequest) -> Reply:
        if not request.min_txid:
            started.set()
            await release.wait()
        return Reply({"done": "x" * 3_000_000})

    async def scenario() -> None:
        async with asking() as peers:
            owner = PeerServer(directory, answer, SystemAmbient())
            await owner.start()
            running = asyncio.create_task(peers.call(owner.address, REQUEST))
            await started.wait()
            closing = asyncio.create_task(owner.close())
            await asyncio.sleep(0)  # the closing begins
            with pytest.raises(PeerLost) as refused:
                await peers.call(owner.address, replace(REQUEST, min_txid=1))
            assert refused.value.sent is False
            assert not closing.done()
            release.set()
            assert (await running).value == {"done": "x" * 3_000_000}
            async with asyncio.timeout(PROMPTLY):
                await closing
            assert sockets(directory) == []

    run(scenario(), loop)


@both_loops
def test_an_answer_that_is_on_its_way_when_the_owner_closes_arrives_whole(directory: Path, loop: Any) -> None:
    sizes = range(20_000, 400_000, 20_000)

    async def answer(request: PeerRequest) -> Reply:
        return Reply({"text": "x" * request.min_txid})

    async def scenario() -> None:
        here = asyncio.get_running_loop()
        async with process(directory, answer) as owner:
            with ExitStack() as callers:
                asked = {}
                for size in sizes:
                    caller = asked[size] = callers.enter_context(socket.socket(socket.AF_UNIX))
                    caller.setblocking(False)
                    await here.sock_connect(caller, owner.address)
                    await here.sock_sendall(caller, frame(_encoded_request(replace(REQUEST, min_txid=size))))
                    assert await here.sock_recv(caller, 4) == ACCEPTED
                closing = asyncio.create_task(owner.close())
                for size, caller in asked.items():
                    answered = b""
                    while received := await here.sock_recv(caller, 1_000_000):
                        answered += received
                    assert answered.count(b"x") == size + 2, "the text, and those of `text` and `txid`"
                await closing

    run(scenario(), loop)


def test_closing_waits_no_longer_than_it_may(directory: Path) -> None:
    started = asyncio.Event()

    async def answer(request: PeerRequest) -> Reply:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        async with asking() as peers:
            owner = PeerServer(directory, answer, SystemAmbient())
            await owner.start()
            running = asyncio.create_task(peers.call(owner.address, REQUEST))
            await started.wait()
            await owner.close(0.01)
            with pytest.raises(PeerLost) as lost:
                await running
            assert lost.value.sent is True

    run(scenario())
