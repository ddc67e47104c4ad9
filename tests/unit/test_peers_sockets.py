"""The sockets between processes: what breaks in on them, who can reach them, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from memoturn_core.operations import Reply
from memoturn_core.peers import PeerLost, PeerRequest, PeerServer
from memoturn_schemas.errors import Unavailable
from memoturn_storage.ambient import SystemAmbient
from unit.peer_processes import ACCEPTED, REQUEST, WAIT, asking, echo, frame, impostor, process, run
from unit.peer_processes import directory as directory


@pytest.mark.parametrize(
    ("said", "event"),
    [
        (b"\xff\xff\xff\xff", "closed"),
        (frame(b""), "closed"),
        (frame(b"GET / HTTP/1.1"), "closed"),
        (frame(b"[" * 100_000), "closed"),
        (frame(b"[]"), "closed"),
        (frame(b"{}"), "closed"),
        (frame(json.dumps({"operation": "x", "address": {"nonsense": 1}, "caller": {}}).encode()), "closed"),
        (b"\0\0\0", "lost"),
        ((100).to_bytes(4, "big") + b"cut short", "lost"),
    ],
)
def test_a_malformed_request_runs_nothing_and_the_others_are_still_answered(
    directory: Path, said: bytes, event: str
) -> None:
    arrived: list[PeerRequest] = []

    async def answer(request: PeerRequest) -> Reply:
        arrived.append(request)
        return Reply({}, 1)

    async def scenario() -> None:
        async with process(directory, answer) as owner, asking() as peers:
            reader, writer = await asyncio.open_unix_connection(owner.address)
            writer.write(said)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            assert arrived == []
            assert (await peers.call(owner.address, REQUEST)).txid == 1

    with capture_logs() as logs:
        run(scenario())
    [entry] = logs
    assert entry["event"] == f"connection of another process {event}"


def test_a_request_before_the_answer_to_the_last_closes_the_connection_and_cancels(directory: Path) -> None:
    cancelled = asyncio.Event()

    async def answer(request: PeerRequest) -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async def scenario() -> None:
        async with process(directory, answer) as owner:
            sent: list[bytes] = []

            def hear(connection: socket.socket) -> None:
                sent.append(connection.recv(100_000))

            async with impostor(directory / "s", hear) as address, asking() as peers:
                with pytest.raises(PeerLost):
                    await peers.call(address, REQUEST)
            reader, writer = await asyncio.open_unix_connection(owner.address)
            writer.write(sent[0] * 2)
            assert await reader.read() == ACCEPTED
            await cancelled.wait()
            writer.close()

    with capture_logs() as logs:
        run(scenario())
    assert logs[-1]["reason"] == "a request came before the last one was answered"


def test_a_process_of_another_version_is_told_so(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with process(directory) as owner, asking() as peers:
            with monkeypatch.context() as patch:
                encoded = json.dumps({"protocol": 2, "what": "it means is unknown"}).encode()
                patch.setattr("memoturn_core.peers._encoded_request", lambda _: encoded)
                with pytest.raises(Unavailable, match="another version"):
                    await peers.call(owner.address, REQUEST)
            assert (await peers.call(owner.address, REQUEST)).txid == 7

    run(scenario())


def test_only_its_user_can_reach_the_socket(directory: Path) -> None:
    async def scenario() -> None:
        async with process(directory / "made" / "here") as owner:
            assert Path(owner.address).parent == directory / "made" / "here" / "run"
            assert (directory / "made" / "here").stat().st_mode & 0o077 == 0
            assert Path(owner.address).parent.stat().st_mode & 0o077 == 0

    run(scenario())


@pytest.mark.parametrize("spoil", ["open to others", "a link"])
def test_a_socket_directory_that_others_could_enter_is_refused(directory: Path, spoil: str) -> None:
    run_directory = directory / "run"
    if spoil == "open to others":
        run_directory.mkdir()
        run_directory.chmod(0o755)
    else:
        (directory / "elsewhere").mkdir(mode=0o700)
        run_directory.symlink_to(directory / "elsewhere")
    server = PeerServer(directory, echo, SystemAmbient())
    with pytest.raises(Unavailable, match="closed to all others") as refused:
        run(server.start())
    assert str(directory) not in str(refused.value)


def test_a_directory_too_deep_for_a_socket_gets_one_among_the_temporary_files(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        monkeypatch.setattr(tempfile, "tempdir", temporary)

        async def scenario() -> None:
            async with process(directory / ("deep" * 25)) as owner, asking() as peers:
                assert Path(owner.address).parent == Path(temporary) / f"memoturn-{os.geteuid()}"
                assert len(owner.address.encode()) <= 103
                assert Path(owner.address).parent.stat().st_mode & 0o077 == 0
                assert (await peers.call(owner.address, REQUEST)).txid == 7

        run(scenario())


def test_processes_that_start_at_once_remove_no_socket_of_one_another(directory: Path) -> None:
    together = threading.Barrier(6, timeout=WAIT)

    def one() -> None:
        async def scenario() -> None:
            together.wait()
            async with process(directory) as owner, asking() as peers:
                together.wait()
                assert (await peers.call(owner.address, REQUEST)).txid == 7
                together.wait()

        for _ in range(20):
            run(scenario())

    with ThreadPoolExecutor(6) as threads:
        for started in [threads.submit(one) for _ in range(6)]:
            started.result(WAIT)


def test_a_socket_that_is_made_and_does_not_listen_yet_is_not_taken_for_a_dead_ones(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with process(directory) as owner, asking() as peers:
            assert (await peers.call(owner.address, REQUEST)).txid == 7

    class Hesitant(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            monkeypatch.undo()
            others.append(threads.submit(run, scenario()))
            wait(others, timeout=0.2)  # time enough to start, and to do harm, if it could
            super().listen(backlog)

    others: list[Future[None]] = []
    monkeypatch.setattr(socket, "socket", Hesitant)
    with ThreadPoolExecutor(1) as threads:
        run(scenario())
        others[0].result(WAIT)
