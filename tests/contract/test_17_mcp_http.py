"""Items 176 to 182: MCP over HTTP, as bare JSON-RPC and with the SDK's clients."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from contract.live_node import ACCEPT, INITIALIZE, Live, Memory, RawMcp, event, fact, message_of

TOOLSETS = "all"


@pytest.fixture
def mcp(live: Live) -> RawMcp:
    return RawMcp(live.http)


CONNECTIONS: dict[str, Callable[[str], Client]] = {
    "streamable HTTP": lambda url: Client(f"{url}/mcp"),
    "streamable HTTP with a handshake": lambda url: Client(f"{url}/mcp", mode="legacy"),
    "streamable HTTP by its transport": lambda url: Client(streamable_http_client(f"{url}/mcp")),
    "SSE": lambda url: Client(sse_client(f"{url}/sse")),
    "SSE with a handshake": lambda url: Client(sse_client(f"{url}/sse"), mode="legacy"),
}
each_connection = pytest.mark.parametrize("connect", CONNECTIONS.values(), ids=CONNECTIONS)


def using(client: Client, story: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(20):
            async with client:
                await story(client)

    anyio.run(main)


def where(memory: Memory) -> dict[str, str]:
    """The arguments that address a profile."""
    return {"namespace": memory.namespace, "profile": memory.profile}


def answer(result: dict[str, Any]) -> dict[str, Any]:
    """What a tool answered; its text and its structured content are the same."""
    assert result["isError"] is False, result
    [content] = result["content"]
    assert content["type"] == "text"
    told: dict[str, Any] = json.loads(content["text"])
    assert told == result["structuredContent"]
    return told


# --- the endpoint --------------------------------------------------------------------------------


def test_item_176_the_server_has_health_and_mcp_and_other_paths_are_404(live):
    assert live.http.get("/health").text == "ok"
    for path in ("/", "/mcp/", "/mcp/x", "/mcpx", "/MCP", "/v1/mcp", "/health/"):
        for method in ("GET", "POST"):
            response = live.http.request(method, path)
            assert response.status_code == 404, f"{method} {path}"


def test_item_177_initialize_is_200_sse_with_the_servers_name_and_a_session_id(live):
    response = live.http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["mcp-session-id"]
    message = message_of(response)
    assert message["id"] == INITIALIZE["id"]
    assert message["result"]["serverInfo"]["name"] == "memoturn"


def test_item_177_the_notification_initialized_is_202_without_a_body(live):
    opened = live.http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
    response = live.http.post(
        "/mcp",
        json={"jsonrpc": "2.0", "method": "notifications/initialized"},
        headers={**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]},
    )
    assert (response.status_code, response.content) == (202, b"")


def test_item_177_each_initialize_opens_a_session_of_its_own(live):
    sessions = {RawMcp(live.http).headers["mcp-session-id"] for _ in range(3)}
    assert len(sessions) == 3


@pytest.mark.parametrize("message", ["tools/list", "tools/call", "ping", "notifications/initialized"])
def test_item_178_without_a_session_a_request_is_400(live, message):
    body = {"jsonrpc": "2.0", "id": 1, "method": message, "params": {"name": "health_check"}}
    response = live.http.post("/mcp", json=body, headers=ACCEPT)
    assert response.status_code == 400
    assert live.http.get("/mcp", headers=ACCEPT).status_code == 400


def test_item_178_an_unknown_session_is_404(live):
    headers = {**ACCEPT, "mcp-session-id": "0" * 32}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert live.http.post("/mcp", json=body, headers=headers).status_code == 404
    assert live.http.get("/mcp", headers=headers).status_code == 404
    assert live.http.delete("/mcp", headers=headers).status_code == 404


def test_item_178_a_session_that_was_ended_is_404(live, mcp):
    assert "result" in message_of(mcp.post('{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'))
    assert live.http.delete("/mcp", headers=mcp.headers).status_code == 200
    assert mcp.post('{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}').status_code == 404


# --- tools ---------------------------------------------------------------------------------------


@each_connection
def test_item_179_every_client_lists_the_tools_of_memory(live, connect):
    async def story(client: Client) -> None:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names >= {
            "memory_recall",
            "memory_ask",
            "memory_append",
            "memory_window",
            "memory_search",
            "memory_ingest",
            "memory_extract",
            "memory_forget",
            "memory_get",
            "memory_sessions_list",
            "memory_session_end",
            "memory_profiles_list",
        }

    using(connect(live.url), story)


def test_item_179_each_tool_says_what_it_takes_and_gives(live, mcp):
    message = message_of(mcp.post('{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'))
    for tool in message["result"]["tools"]:
        assert tool["description"].strip(), tool["name"]
        assert tool["inputSchema"]["additionalProperties"] is False, tool["name"]
        assert "$ref" not in json.dumps(tool), tool["name"]
        assert set(tool["outputSchema"]["required"]) == {"txid", "result"}, tool["name"]


@each_connection
def test_items_179_and_182_every_client_ingests_recalls_gets_and_forgets(live, memory, connect):
    async def story(client: Client) -> None:
        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, {**where(memory), **arguments})
            assert not result.is_error, result.content
            [content] = result.content
            assert json.loads(content.text) == result.structured_content
            assert set(result.structured_content) == {"txid", "result"}
            return result.structured_content

        kept = await call("memory_ingest", memories=[fact("user.city", "Lives in Oslo")])
        [result] = kept["result"]["results"]
        assert (kept["txid"], result["status"]) == (1, "created")
        recalled = await call("memory_recall", query="Oslo")
        assert recalled == {"txid": 1, "result": {"memories": [{"id": result["id"], "summary": "Lives in Oslo"}]}}
        detailed = await call("memory_recall", query="Oslo", response_format="detailed")
        assert detailed["result"]["memories"] == memory.found(query="Oslo")
        got = await call("memory_get", id=result["id"])
        record = memory.get(result["id"]).json()
        assert got["result"] == {"found": True, **record}
        assert await call("memory_forget", id=result["id"]) == {"txid": 2, "result": {"forgotten": True}}
        assert (await call("memory_recall", query="Oslo"))["result"]["memories"] == []

    using(connect(live.url), story)


def test_item_179_the_tools_of_sessions_and_transcript_do_what_their_routes_do(live, memory, mcp):
    at = where(memory)
    turn = answer(mcp.call("memory_append", **at, session="s", role="user", content="Hello", embedding=[1.0, 0.0]))
    assert turn == {"txid": 1, "result": {"seq": 1}}
    window = answer(mcp.call("memory_window", **at, session="s"))
    assert [each["content"] for each in window["result"]["turns"]] == ["Hello"]
    near = answer(mcp.call("memory_search", **at, session="s", vector=[1.0, 0.0]))
    assert [each["seq"] for each in near["result"]["turns"]] == [1]
    sessions = answer(mcp.call("memory_sessions_list", **at))
    assert [each["id"] for each in sessions["result"]["sessions"]] == ["s"]
    assert answer(mcp.call("memory_session_end", **at, session="s", turns=True))["txid"] == 2
    assert memory.sessions().json()["sessions"] == []
    profiles = answer(mcp.call("memory_profiles_list", namespace=memory.namespace))
    assert [each["profile"] for each in profiles["result"]["profiles"]] == [memory.profile]


@each_connection
def test_item_180_a_recall_forwards_the_source(live, memory, connect):
    memory.keep(event("Zebra one", source="a"), event("Zebra two", source="b"))

    async def story(client: Client) -> None:
        result = await client.call_tool("memory_recall", {**where(memory), "query": "zebra", "source": "b"})
        found = result.structured_content["result"]["memories"]
        assert [hit["summary"] for hit in found] == ["Zebra two"]

    using(connect(live.url), story)


def test_item_181_the_source_is_filled_from_the_environment_at_call_time(memory, mcp, monkeypatch):
    def source_of(**item: Any) -> object:
        memories = [{"type": "event", "summary": f"Number {memory.txid}", **item}]
        kept = answer(mcp.call("memory_ingest", **where(memory), memories=memories))
        return memory.get(kept["result"]["results"][0]["id"]).json()["source"]

    assert source_of() is None
    monkeypatch.setenv("MEMOTURN_SOURCE", "first agent")
    assert source_of() == "first agent"
    monkeypatch.setenv("MEMOTURN_SOURCE", "second agent")
    assert source_of() == "second agent"
    assert source_of(source=None) == "second agent"
    assert source_of(source="explicit") == "explicit"
    monkeypatch.delenv("MEMOTURN_SOURCE")
    assert source_of() is None


def test_item_181_the_environment_fills_each_item_on_its_own(memory, mcp, monkeypatch):
    monkeypatch.setenv("MEMOTURN_SOURCE", "agent")
    kept = answer(mcp.call("memory_ingest", **where(memory), memories=[event("One"), event("Two", source="other")]))
    sources = [memory.get(each["id"]).json()["source"] for each in kept["result"]["results"]]
    assert sources == ["agent", "other"]


def test_item_181_events_without_content_stay_different_memories(memory, mcp):
    events = [{"type": "event", "summary": "Met Ann"}, {"type": "event", "summary": "Met Bob"}]
    kept = answer(mcp.call("memory_ingest", **where(memory), memories=events))
    assert [each["status"] for each in kept["result"]["results"]] == ["created", "created"]
    records = [memory.get(each["id"]).json() for each in kept["result"]["results"]]
    assert [record["content"] for record in records] == [{"summary": "Met Ann"}, {"summary": "Met Bob"}]


def test_item_182_a_result_is_the_json_of_txid_and_result(memory, mcp):
    kept = answer(mcp.call("memory_ingest", **where(memory), memories=[event("Met Ann")]))
    assert set(kept) == {"txid", "result"}
    assert kept["txid"] == memory.txid == 1
    assert set(kept["result"]) == {"results"}
    recalled = answer(mcp.call("memory_recall", **where(memory), query="Ann"))
    assert recalled["txid"] == 1


@each_connection
def test_item_182_every_client_reads_text_with_line_separators_and_huge_integers(live, memory, connect):
    content = {"text": "one\u2028two\u2029three\u0085four\r\nfive\x0bsix\x1cseven", "n": 10**30}

    async def story(client: Client) -> None:
        memories = [event("Odd", content=content)]
        kept = await client.call_tool("memory_ingest", {**where(memory), "memories": memories})
        [result] = kept.structured_content["result"]["results"]
        got = await client.call_tool("memory_get", {**where(memory), "id": result["id"]})
        assert got.structured_content["result"]["content"] == content
        assert memory.get(result["id"]).json()["content"] == content

    using(connect(live.url), story)


def test_item_182_get_and_forget_of_what_is_not_there_are_answers_and_not_errors(memory, mcp):
    absent = "mem_" + "0" * 32
    for _ in ("on an unknown profile", "on a known one"):
        got = answer(mcp.call("memory_get", **where(memory), id=absent))
        assert got["result"] == {"found": False}
        forgotten = answer(mcp.call("memory_forget", **where(memory), id=absent))
        assert forgotten["result"] == {"forgotten": False}
        memory.keep(event("Met Ann"))


@each_connection
def test_item_182_other_errors_are_errors_with_the_envelope_for_every_client(live, memory, connect):
    async def story(client: Client) -> None:
        for tool, arguments, code in (
            ("memory_recall", {"query": 7}, "invalid_request"),
            ("memory_window", {"session": "s"}, "database_not_found"),
            ("memory_ask", {"question": "Where?"}, "unconfigured"),
        ):
            result = await client.call_tool(tool, {**where(memory), **arguments})
            assert result.is_error
            assert result.structured_content is None
            [content] = result.content
            envelope = json.loads(content.text)
            assert set(envelope) == {"error", "code"}
            assert envelope["code"] == code
            assert {name: result.meta[name] for name in envelope} == envelope
        with pytest.raises(MCPError, match="no_such_tool"):
            await client.call_tool("no_such_tool", {})
        assert not (await client.call_tool("health_check", {})).is_error

    using(connect(live.url), story)
    assert not memory.exists
