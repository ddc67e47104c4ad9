"""Working against a node elsewhere: the stdio server with MEMOTURN_URL, and every error that crosses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from mcp import Client

from contract.live_node import event, fact, serve
from memoturn_core.address import NODE, Address
from memoturn_core.door import RemoteDoor
from memoturn_core.registry import OPERATIONS
from memoturn_schemas import errors
from surfaces.stdio_server import with_client

ALICE = Address.of_profile("acme", "alice")


def ask(url: str, name: str, address: Address = ALICE, **arguments: object):
    async def main():
        door = RemoteDoor(url)
        try:
            return await door.call(OPERATIONS[name], address, arguments)
        finally:
            await door.close()

    return asyncio.run(main())


def test_a_stdio_server_with_a_url_uses_the_nodes_memories_and_keeps_none_itself(tmp_path):
    async def use(client: Client):
        kept = await client.call_tool("memory_ingest", {"memories": [fact("user.city", "lives in Lisbon")]})
        assert kept.structured_content["txid"] == 1
        appended = await client.call_tool("memory_append", {"session": "a/b?#é", "role": "user", "content": "Olá"})
        assert appended.structured_content == {"txid": 2, "result": {"seq": 1}}
        window = await client.call_tool("memory_window", {"session": "a/b?#é", "last": 3})
        assert [turn["content"] for turn in window.structured_content["result"]["turns"]] == ["Olá"]
        found = await client.call_tool("memory_recall", {"query": "Lisbon"})
        [hit] = found.structured_content["result"]["memories"]
        assert (await client.call_tool("memory_forget", {"id": hit["id"]})).structured_content == {
            "txid": 3,
            "result": {"forgotten": True},
        }
        gone = await client.call_tool("memory_get", {"id": hit["id"]})
        assert gone.structured_content["result"] == {"found": False}
        wrong = await client.call_tool("memory_ingest", {"memories": [{"type": "fact"}]})
        assert wrong.is_error
        assert json.loads(wrong.content[0].text)["error"] == "memories[0].summary: is required"
        healthy = await client.call_tool("health_check", {})
        assert healthy.structured_content["result"]["databases"] == 1

    with serve(tmp_path / "node") as node:
        with_client(tmp_path / "here", use, variables={"MEMOTURN_URL": node.url, "NO_PROXY": "127.0.0.1"})
        assert [entry["profile"] for entry in node.http.get("/v1/memory/default").json()["profiles"]] == ["default"]
    assert not (tmp_path / "here").exists()


def test_a_transcript_begins_a_profile_through_the_node_too(tmp_path):
    with serve(tmp_path) as node:
        assert ask(node.url, "memory_append", session="s", role="user", content="hi").txid == 1
        with pytest.raises(errors.DatabaseNotFound):
            ask(node.url, "memory_append", Address.of_database("acme--bob"), session="s", role="user", content="hi")


@pytest.mark.parametrize(
    ("kind", "name", "address", "arguments"),
    [
        (errors.InvalidRequest, "memory_recall", ALICE, {}),
        (errors.InvalidRequest, "memory_recall", ALICE, {"query": "x", "k": "8"}),
        (errors.NotFound, "memory_get", ALICE, {"id": "mem_0"}),
        (errors.DatabaseNotFound, "memory_get", Address.of_profile("acme", "nobody"), {"id": "mem_0"}),
        (errors.BranchNotFound, "memory_recall", Address.of_profile("acme", "alice", "b"), {"query": "x"}),
        (errors.Unconfigured, "memory_ask", ALICE, {"question": "x"}),
        (errors.PayloadTooLarge, "memory_ingest", ALICE, {"memories": [event("x" * 5_000)]}),
    ],
)
def test_the_nodes_error_arrives_as_the_error_it_was(tmp_path, kind, name, address, arguments):
    with serve(tmp_path, max_body_bytes=4_096) as node:
        ask(node.url, "memory_ingest", memories=[event("one")])
        with pytest.raises(kind) as raised:
            ask(node.url, name, address, **arguments)
        assert type(raised.value) is kind
        assert str(raised.value)


def test_text_that_is_not_unicode_is_refused_before_it_is_sent(tmp_path):
    with serve(tmp_path) as node, pytest.raises(errors.InvalidRequest):
        ask(node.url, "memory_recall", query="\udcff")


def test_a_node_that_is_not_there_is_unavailable_and_the_message_says_which(tmp_path: Path):
    with pytest.raises(errors.Unavailable, match=r"http://127\.0\.0\.1:1"):
        ask("http://127.0.0.1:1", "health_check", NODE)
