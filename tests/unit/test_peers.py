"""Calls between processes, over real sockets: what crosses, whole and as it was, and of many at once each its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from memoturn_core.address import Address
from memoturn_core.caller import Caller
from memoturn_core.operations import Reply, Scope
from memoturn_core.peers import PeerRequest, Peers, PeerServer
from memoturn_schemas import errors
from memoturn_schemas.errors import InvalidRequest, MemoturnError, Overloaded, Unavailable
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.leases.lease import OwnedElsewhere
from unit.peer_processes import REQUEST, asking, both_loops, descriptors, process, run, sockets
from unit.peer_processes import directory as directory

# --- what crosses --------------------------------------------------------------------------------


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MemoturnError)]


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
