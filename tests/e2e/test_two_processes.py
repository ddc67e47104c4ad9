"""Two MCP servers on one data directory, without any configuration, each with a client of its own.

A database is open in one of them, its owner, and the other asks it; nobody who uses them sees a difference.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from e2e.raw_server import RawServer, raw_server
from memoturn_core.node import Node
from memoturn_storage.engine import Limits
from memoturn_storage.manifest import BranchRef

EACH = 200
AT_ONCE = 4
"""Calls that each client has under way."""

AT_ONCE_S = 5.0
"""How long a call may take while its database changes hands; a lease that had to run out would take longer."""

Call = Callable[..., Awaitable[Any]]


def environment(directory: Path) -> dict[str, str]:
    """That of a user who has set nothing, and whose home is `directory`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MEMOTURN_", "XDG_"))}
    return inherited | {"HOME": str(directory)}


def data_directory(directory: Path) -> Path:
    """Where the servers keep what that user's memories are."""
    (catalog,) = directory.rglob("catalog.db")
    return catalog.parent


def owner_of(directory: Path) -> int:
    """The process that has the only database open."""
    (lease,) = (data_directory(directory) / "databases").rglob("lease")
    pid = json.loads(lease.read_text())["pid"]
    assert isinstance(pid, int)
    return pid


@asynccontextmanager
async def server(directory: Path, name: str) -> AsyncIterator[Call]:
    """A server process with its client. The call gives a tool's `{"txid", "result"}`; any error fails the test."""
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "memoturn_mcp"], env=environment(directory), cwd=directory
    )
    with (directory / f"{name}.log").open("w") as log:
        async with Client(stdio_client(parameters, errlog=log)) as client:

            async def call(tool: str, **arguments: Any) -> Any:
                result = await client.call_tool(tool, arguments)
                assert not result.is_error, result.content
                return result.structured_content

            yield call


def run(directory: Path, scenario: Callable[[Call, Call], Awaitable[None]]) -> None:
    async def main() -> None:
        async with server(directory, "a") as a, server(directory, "b") as b:
            await scenario(a, b)

    anyio.run(main)
    assert (directory / "a.log").read_text() == (directory / "b.log").read_text() == ""


def point(number: int, of: int) -> list[float]:
    """A vector that points nowhere another of the `of` numbers does."""
    angle = number / of * 6.0
    return [math.cos(angle), math.sin(angle)]


def note(writer: str, number: int) -> dict[str, Any]:
    return {
        "type": "event",
        "summary": f"note {number} by {writer}",
        "content": {"writer": writer, "number": number},
        "embedding": point(number + (EACH if writer == "b" else 0), 2 * EACH),
    }


def ids_of(answer: Any) -> list[str]:
    return [result["id"] for result in answer["result"]["results"]]


async def write_all(call: Call, writer: str) -> list[Any]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def write(number: int) -> Any:
        async with limit:
            return await call("memory_ingest", memories=[note(writer, number)])

    return await asyncio.gather(*(write(number) for number in range(EACH)))


def test_what_both_write_at_once_is_all_there_and_both_find_it_by_word_and_by_vector(tmp_path: Path) -> None:
    async def scenario(a: Call, b: Call) -> None:
        # Each has the index in memory before the other begins to change it.
        for call in (a, b):
            await call("memory_recall", embedding=point(0, 1))
        answers_a, answers_b = await asyncio.gather(write_all(a, "a"), write_all(b, "b"))
        answers = answers_a + answers_b
        assert len(answers) == 2 * EACH
        assert {answer["result"]["results"][0]["status"] for answer in answers} == {"created"}
        assert len({id_ for answer in answers for id_ in ids_of(answer)}) == 2 * EACH
        last = max(answer["txid"] for answer in answers)
        assert {answer["txid"] for answer in answers} == set(range(1, last + 1))
        expected = {f"note {number} by {writer}" for writer in "ab" for number in range(EACH)}
        for call in (a, b):
            recalled = await call("memory_recall", query="note", k=1_000)
            assert {hit["summary"] for hit in recalled["result"]["memories"]} == expected
            assert recalled["txid"] == last
            for writer in "ab":
                for number in range(0, EACH, 17):
                    wanted = note(writer, number)
                    nearest = await call("memory_recall", embedding=wanted["embedding"], k=1)
                    assert [hit["summary"] for hit in nearest["result"]["memories"]] == [wanted["summary"]]
            everything = await call("memory_recall", embedding=point(0, 1), k=1_000)
            assert {hit["summary"] for hit in everything["result"]["memories"]} == expected

    run(tmp_path, scenario)


@pytest.mark.parametrize("acknowledged_before", [1, 60])
def test_when_the_owner_is_killed_the_other_goes_on_at_once_and_nothing_acknowledged_is_lost(
    tmp_path: Path, acknowledged_before: int
) -> None:
    slowest = 0.0

    def timed(call: Call) -> Call:
        async def measured(tool: str, **arguments: Any) -> Any:
            nonlocal slowest
            began = time.monotonic()
            answer = await call(tool, **arguments)
            slowest = max(slowest, time.monotonic() - began)
            return answer

        return measured

    async def main(owner: RawServer) -> None:
        owner.call(0, "memory_ingest", memories=[note("a", 0)])
        said = await asyncio.to_thread(owner.said.lines, 1)
        assert owner_of(tmp_path) == owner.pid
        async with server(tmp_path, "b") as other:
            await other("memory_recall", query="note")
            writing = asyncio.create_task(write_all(timed(other), "b"))
            for number in range(1, EACH):
                owner.call(number, "memory_ingest", memories=[note("a", number)])
            said += await asyncio.to_thread(owner.said.lines, acknowledged_before)
            assert not writing.done()
            said += await asyncio.to_thread(owner.said.until_killed)
            answers = await writing
            assert owner_of(tmp_path) != owner.pid
            acknowledged = {answer["id"]: answer["result"] for answer in map(json.loads, said)}
            assert [answer for answer in acknowledged.values() if answer.get("isError")] == []
            recalled = await other("memory_recall", query="note", k=1_000)
        found = {hit["summary"] for hit in recalled["result"]["memories"]}
        assert found >= {note("a", number)["summary"] for number in acknowledged}
        assert {summary for summary in found if summary.endswith("by b")} == {
            note("b", number)["summary"] for number in range(EACH)
        }
        assert len(recalled["result"]["memories"]) == len(found) <= 2 * EACH
        txids = [answer["structuredContent"]["txid"] for answer in acknowledged.values()]
        assert recalled["txid"] >= max(txids + [answer["txid"] for answer in answers])

    with raw_server(tmp_path, environment(tmp_path)) as owner:
        anyio.run(main, owner)
    assert slowest < AT_ONCE_S
    assert (tmp_path / "b.log").read_text().count("Traceback") == 0


def test_each_sees_at_once_what_the_other_wrote_replaced_and_forgot(tmp_path: Path) -> None:
    async def scenario(a: Call, b: Call) -> None:
        for number in range(20):
            writer, reader = (a, b) if number % 2 else (b, a)
            memory = {
                "type": "fact",
                "topic_key": "shared.topic",
                "summary": f"generation {number}",
                "content": number,
                "embedding": point(number, 20),
            }
            written = await writer("memory_ingest", memories=[memory, note("a", number)])
            assert len(written["result"]["results"][0]["superseded"]) == min(number, 1)
            for recall in ({"topic_key": "shared.topic"}, {"query": "generation"}):
                found = await reader("memory_recall", **recall)
                assert [hit["summary"] for hit in found["result"]["memories"]] == [memory["summary"]]
                assert found["txid"] == written["txid"]
            nearest = await reader("memory_recall", embedding=memory["embedding"], types=["fact"], k=1)
            assert [hit["summary"] for hit in nearest["result"]["memories"]] == [memory["summary"]]
            forgotten = await reader("memory_forget", id=written["result"]["results"][1]["id"])
            assert forgotten["result"] == {"forgotten": True}
            left = await writer("memory_recall", embedding=note("a", number)["embedding"], types=["event"])
            assert left["result"]["memories"] == []

    run(tmp_path, scenario)


def test_one_topic_that_both_rewrite_at_once_has_one_active_memory(tmp_path: Path) -> None:
    async def rewrite(call: Call, writer: str) -> None:
        for number in range(40):
            memory = {"type": "fact", "topic_key": "contested", "summary": f"{writer} {number}", "content": writer}
            await call("memory_ingest", memories=[{**memory, "content": {"by": writer, "number": number}}])

    async def scenario(a: Call, b: Call) -> None:
        await asyncio.gather(rewrite(a, "a"), rewrite(b, "b"))
        seen = [await call("memory_recall", topic_key="contested") for call in (a, b)]
        assert seen[0] == seen[1]
        (active,) = seen[0]["result"]["memories"]
        assert active["summary"] in ("a 39", "b 39")
        history = (await a("memory_get", id=active["id"]))["result"]["chain"]
        assert len(history) == 80
        assert [link["id"] for link in history if link["superseded_at"] is None] == [active["id"]]

    run(tmp_path, scenario)


def test_profiles_that_both_make_at_once_are_one_each(tmp_path: Path) -> None:
    profiles = [f"p{number:02}" for number in range(12)]
    txids: dict[str, int] = {}

    async def make(call: Call, writer: str) -> None:
        memories = [{"type": "event", "summary": f"made by {writer}", "content": writer}]
        await asyncio.gather(*(call("memory_ingest", profile=profile, memories=memories) for profile in profiles))

    async def scenario(a: Call, b: Call) -> None:
        await asyncio.gather(make(a, "a"), make(b, "b"))
        for profile in profiles:
            for call in (a, b):
                found = await call("memory_recall", profile=profile, query="made")
                assert {hit["summary"] for hit in found["result"]["memories"]} == {"made by a", "made by b"}
                txids[profile] = found["txid"]

    run(tmp_path, scenario)
    data = data_directory(tmp_path)
    node = Node.open(data, limits=Limits(threads=0))
    entries = node.catalog.with_prefix("default--")
    manifests = [node.engine.manifests.require(BranchRef(entry.uuid)).manifest for entry in entries]
    asyncio.run(node.close())
    assert [entry.name for entry in entries] == [f"default--{profile}" for profile in profiles]
    files = (data / "databases").rglob("*.db")
    assert sorted(file.parent.name for file in files) == sorted(entry.uuid for entry in entries)
    assert [manifest.head_txid for manifest in manifests] == list(txids.values()), "closing ships everything"
    assert list(data.rglob("*.tmp")) == []
