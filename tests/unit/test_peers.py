"""Calls between processes, over real sockets: what crosses, what breaks on the way, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from memoturn_core.address import Address
from memoturn_core.caller import LOCAL, Caller
from memoturn_core.operations import Reply, Scope
from memoturn_core.peers import Answer, PeerLost, PeerRequest, Peers, PeerServer, _encoded_request
from memoturn_schemas import errors
from memoturn_schemas.errors import InvalidRequest, MemoturnError, Overloaded, RequestTimeout, Unavailable
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.leases.lease import OwnedElsewhere

WAIT = 30
PROMPTLY = 5
"""Seconds: less than what closing may wait for calls under way."""

REQUEST = PeerRequest(
    operation="memory_recall", address=Address.of_profile("acme", "alice"), arguments={"query": "x"}, caller=LOCAL
)
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MemoturnError)]
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


# --- what crosses --------------------------------------------------------------------------------


TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**40), 10**40) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
VALUES = st.dictionaries(TEXT, JSON | st.binary(max_size=40), max_size=5)
REQUESTS = st.builds(
    PeerRequest,
    operation=TEXT,
    address=st.builds(
        Address, namespace=st.none() | TEXT, database=st.none() | TEXT, branch=TEXT, may_create=st.booleans()
    ),
    arguments=VALUES,
    caller=st.builds(Caller, st.sampled_from(Scope), st.none() | TEXT, st.none() | TEXT),
    text_arguments=st.booleans(),
    min_txid=st.integers(0, 2**63 - 1),
    timeout_s=st.none(),
    durable=st.booleans(),
)


def test_a_request_arrives_as_it_was_sent_and_its_reply_as_it_was_given(directory: Path) -> None:
    arrived: list[PeerRequest] = []
    given_back: list[Reply] = []

    async def answer(request: PeerRequest) -> Reply:
        arrived.append(request)
        return given_back[-1]

    with asyncio.Runner() as runner:
        server, peers = PeerServer(directory, answer, SystemAmbient()), Peers(SystemAmbient())
        runner.run(server.start())

        @settings(max_examples=200, deadline=None)
        @given(REQUESTS, st.builds(Reply, VALUES, st.none() | st.integers(0, 2**63 - 1), st.none() | st.just(201)))
        def crosses(request: PeerRequest, reply: Reply) -> None:
            given_back.append(reply)
            # By their text, in which NaN is itself and -0.0, 0.0, 0 and False are different.
            assert repr(runner.run(peers.call(server.address, request))) == repr(reply)
            assert repr(arrived[-1]) == repr(request)
            assert type(arrived[-1].caller.scope) is Scope

        crosses()
        runner.run(peers.close())
        runner.run(server.close())


@pytest.mark.parametrize("kind", KINDS)
def test_the_owners_error_arrives_as_the_kind_that_it_was(directory: Path, kind: type[MemoturnError]) -> None:
    async def answer(request: PeerRequest) -> Reply:
        raise kind("what is wrong: ‘é’")

    async def scenario() -> None:
        async with process(directory, answer) as owner, asking() as peers:
            for _ in range(2):
                with pytest.raises(MemoturnError) as raised:
                    await peers.call(owner.address, REQUEST)
                # The root of the tree is what nobody raises; it has the code and the status of Internal.
                assert type(raised.value) is (errors.Internal if kind is MemoturnError else kind)
                assert str(raised.value) == "what is wrong: ‘é’"

    run(scenario())


def test_an_owner_says_when_to_come_back_and_a_former_one_who_owns_it_now(directory: Path) -> None:
    raised: list[MemoturnError] = [Overloaded("full", retry_after_s=9), OwnedElsewhere("/a.sock"), OwnedElsewhere("")]
    raised += [Unavailable("soon", retry_after_s=30), Unavailable("down")]

    async def answer(request: PeerRequest) -> Reply:
        raise raised[request.min_txid]

    async def scenario() -> None:
        async with process(directory, answer) as owner, asking() as peers:
            with pytest.raises(Overloaded) as overloaded:
                await peers.call(owner.address, REQUEST)
            assert overloaded.value.retry_after_s == 9
            for number, seconds in ((3, 30), (4, None)):
                with pytest.raises(Unavailable) as unavailable:
                    await peers.call(owner.address, replace(REQUEST, min_txid=number))
                assert unavailable.value.retry_after_s == seconds
            for number, address in ((1, "/a.sock"), (2, "")):
                with pytest.raises(OwnedElsewhere) as moved:
                    await peers.call(owner.address, replace(REQUEST, min_txid=number))
                assert moved.value.address == address

    run(scenario())


@pytest.mark.parametrize("answer_value", [{"nested": {"bytes": b"x"}}, {"an": object()}])
def test_an_answer_that_is_not_json_is_our_fault_and_its_details_stay_in_the_log(
    directory: Path, answer_value: dict[str, Any]
) -> None:
    async def answer(request: PeerRequest) -> Reply:
        return Reply(answer_value)

    async def scenario() -> None:
        async with process(directory, answer) as owner, asking() as peers:
            with pytest.raises(errors.Internal, match=r"^internal error$"):
                await peers.call(owner.address, REQUEST)

    with capture_logs() as logs:
        run(scenario())
    [entry] = logs
    assert (entry["log_level"], entry["operation"]) == ("error", REQUEST.operation)


def test_a_request_that_is_not_json_is_refused_before_it_is_sent(directory: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    async def scenario() -> None:
        async with asking() as peers:
            for value in (object(), {"bytes": b"x"}, deep, 10**5_000):
                with pytest.raises(InvalidRequest, match="cannot be sent"):
                    await peers.call(str(directory / "nobody"), replace(REQUEST, arguments={"content": value}))

    run(scenario())


def test_what_is_over_the_limit_is_refused_on_either_side_and_the_connection_stays(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoturn_core.peers.LARGEST_FRAME", 1_000_000)

    async def answer(request: PeerRequest) -> Reply:
        return Reply({"text": "x" * request.min_txid})

    async def scenario() -> None:
        async with process(directory, answer) as owner, asking() as peers:
            with pytest.raises(errors.PayloadTooLarge, match="the request has"):
                await peers.call(owner.address, replace(REQUEST, arguments={"content": "x" * 1_000_000}))
            with pytest.raises(errors.PayloadTooLarge, match="the answer has"):
                await peers.call(owner.address, replace(REQUEST, min_txid=1_000_000))
            assert len((await peers.call(owner.address, replace(REQUEST, min_txid=990_000))).value["text"]) == 990_000

    run(scenario())


@both_loops
def test_large_requests_and_answers_cross_whole(directory: Path, loop: Any) -> None:
    arguments = {"content": "x" * 9_000_000, "blob": bytes(range(256)) * 4_000}

    async def scenario() -> None:
        async with process(directory) as owner, asking() as peers:
            for _ in range(2):
                reply = await peers.call(owner.address, replace(REQUEST, arguments=arguments))
                assert reply.value == arguments

    run(scenario(), loop)


# --- many at once --------------------------------------------------------------------------------


@both_loops
def test_each_of_many_concurrent_calls_gets_its_own_answer_while_others_hang(directory: Path, loop: Any) -> None:
    release = asyncio.Event()

    async def answer(request: PeerRequest) -> Reply:
        if request.min_txid == 0:
            await release.wait()
        else:
            await asyncio.sleep(0)
        return Reply({}, request.min_txid)

    async def scenario() -> None:
        async with process(directory, answer) as owner, asking() as peers:
            hanging = [asyncio.create_task(peers.call(owner.address, REQUEST)) for _ in range(20)]
            calls = [peers.call(owner.address, replace(REQUEST, min_txid=number)) for number in range(1, 500)]
            assert [reply.txid for reply in await asyncio.gather(*calls)] == list(range(1, 500))
            assert not any(call.done() for call in hanging)
            release.set()
            assert {reply.txid for reply in await asyncio.gather(*hanging)} == {0}

    run(scenario(), loop)


def test_processes_that_came_and_went_leave_no_descriptors(directory: Path) -> None:
    async def scenario() -> None:
        async with asking() as peers:
            async with process(directory) as staying:
                await peers.call(staying.address, REQUEST)
                before = descriptors()
                for _ in range(20):
                    async with process(directory) as leaving:
                        await asyncio.gather(*(peers.call(leaving.address, REQUEST) for _ in range(10)))
                    await peers.call(staying.address, REQUEST)
                await peers.call(staying.address, REQUEST)
                assert descriptors() <= before + 1
            assert sockets(directory) == []

    before = descriptors()
    run(scenario())
    assert descriptors() == before


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


# --- the socket ----------------------------------------------------------------------------------


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
