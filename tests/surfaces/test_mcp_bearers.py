"""MCP over HTTP with auth on: every request has its bearer, and acts for it; a session is its opener's alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from contract.access import PLATFORM, bearer, closed_node, minted, of_database, of_namespace
from contract.live_node import ACCEPT, INITIALIZE, Live, message_of, serve

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with closed_node(tmp_path_factory.mktemp("node")) as live:
        for profile in ("alice", "bob"):
            session = Session(live.http, of_namespace(live, "acme", "write"))
            session.result("memory_ingest", profile=profile, memories=[{"type": "event", "summary": f"Met {profile}"}])
        yield live


class Session:
    """An MCP session of one bearer, as bare JSON-RPC."""

    def __init__(self, http: httpx.Client, credential: dict[str, str]) -> None:
        self.http = http
        opened = http.post("/mcp", json=INITIALIZE, headers=ACCEPT | credential)
        assert opened.status_code == 200, opened.text
        self.id = {"mcp-session-id": opened.headers["mcp-session-id"]}
        self.headers = ACCEPT | credential | self.id
        http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=self.headers)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return message_of(self.http.post("/mcp", json=message, headers=self.headers))

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = self.send("tools/call", name=tool, arguments=arguments)["result"]
        return result

    def result(self, tool: str, **arguments: Any) -> dict[str, Any]:
        told = self.call(tool, **arguments)
        assert told["isError"] is False, told
        found: dict[str, Any] = told["structuredContent"]["result"]
        return found

    def refusal(self, tool: str, **arguments: Any) -> str:
        told = self.call(tool, **arguments)
        assert told["isError"] is True, told
        code: str = json.loads(told["content"][0]["text"])["code"]
        return code


def test_item_178_every_request_needs_a_bearer(closed):
    session = Session(closed.http, of_namespace(closed, "acme", "read"))
    for headers in ({}, bearer("garbage"), {"Authorization": "Basic x"}):
        for response in (
            closed.http.post("/mcp", json=INITIALIZE, headers=ACCEPT | headers),
            closed.http.post("/mcp", json=LIST, headers=ACCEPT | session.id | headers),
            closed.http.get("/mcp", headers=ACCEPT | session.id | headers),
            closed.http.delete("/mcp", headers=ACCEPT | session.id | headers),
            closed.http.get("/sse", headers=headers),
            closed.http.post("/messages/?session_id=" + "0" * 32, json=LIST, headers=headers),
        ):
            assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
            assert "/.well-known/oauth-protected-resource" in response.headers["WWW-Authenticate"]
    at = f'resource_metadata="{closed.url}/.well-known/oauth-protected-resource/mcp"'
    assert at in closed.http.post("/mcp", json=INITIALIZE, headers=ACCEPT).headers["WWW-Authenticate"]
    assert "tools" in session.send("tools/list")["result"]


def test_item_178_a_session_of_another_bearer_is_401_and_stays_its_openers(closed):
    session = Session(closed.http, of_namespace(closed, "acme", "read"))
    for other in (of_namespace(closed, "acme", "read"), of_namespace(closed, "strangers", "admin"), PLATFORM):
        for response in (
            closed.http.post("/mcp", json=LIST, headers=ACCEPT | session.id | other),
            closed.http.get("/mcp", headers=ACCEPT | session.id | other),
            closed.http.delete("/mcp", headers=ACCEPT | session.id | other),
        ):
            assert response.status_code == 401
        theirs = Session(closed.http, other)
        # Neither another's session under one's own seal nor one's own under another's.
        mixed = session.id["mcp-session-id"].partition(".")[0] + "." + theirs.id["mcp-session-id"].partition(".")[2]
        for forged in (mixed, session.id["mcp-session-id"].partition(".")[0]):
            response = closed.http.post("/mcp", json=LIST, headers=ACCEPT | other | {"mcp-session-id": forged})
            assert response.status_code in (401, 404)
    assert "tools" in session.send("tools/list")["result"]


def test_item_178_no_session_is_400_an_unknown_or_ended_one_404(closed):
    credential = of_namespace(closed, "acme", "read")
    assert closed.http.post("/mcp", json=LIST, headers=ACCEPT | credential).status_code == 400
    unknown = ACCEPT | credential | {"mcp-session-id": "0" * 32}
    assert closed.http.post("/mcp", json=LIST, headers=unknown).status_code == 404
    session = Session(closed.http, credential)
    assert closed.http.delete("/mcp", headers=session.headers).status_code == 200
    assert closed.http.post("/mcp", json=LIST, headers=session.headers).status_code == 404


def test_item_180_a_tool_runs_with_the_bearer_of_its_own_request(closed):
    sessions = {
        "alice": Session(closed.http, of_database(closed, "acme--alice", "write")),
        "bob": Session(closed.http, of_database(closed, "acme--bob", "read")),
        "acme": Session(closed.http, of_namespace(closed, "acme", "read")),
        "stranger": Session(closed.http, of_namespace(closed, "strangers", "admin")),
    }
    for who, session in sessions.items():
        for profile in ("alice", "bob"):
            asked = {"namespace": "acme", "profile": profile, "query": "met"}
            if who in (profile, "acme"):
                [hit] = session.result("memory_recall", **asked)["memories"]
                assert hit["summary"] == f"Met {profile}"
            else:
                assert session.refusal("memory_recall", **asked) == "forbidden"
    more = {"namespace": "acme", "profile": "bob", "memories": [{"type": "event", "summary": "No"}]}
    for who in sessions:
        assert sessions[who].refusal("memory_ingest", **more) == "forbidden"
    assert sessions["stranger"].refusal("memory_profiles_list", namespace="acme") == "forbidden"
    assert sessions["alice"].refusal("memory_profiles_list", namespace="acme") == "forbidden"
    assert sessions["acme"].result("memory_profiles_list", namespace="acme")["profiles"] != []


def test_what_is_not_a_tool_runs_with_the_bearer_too(closed):
    stranger = Session(closed.http, of_namespace(closed, "strangers", "admin"))
    alice = Session(closed.http, of_database(closed, "acme--alice", "read"))
    uri = "memoturn://acme/{}/sessions/s"
    assert "result" in alice.send("resources/read", uri=uri.format("alice"))
    prompt = {"name": "recall_context", "arguments": {"about": "met", "namespace": "acme", "profile": "bob"}}
    for session in (stranger, alice):
        assert "error" in session.send("resources/read", uri=uri.format("bob"))
        assert "error" in session.send("prompts/get", **prompt)
    completion = {
        "ref": {"type": "ref/resource", "uri": "memoturn://{namespace}/{profile}/sessions/{session}"},
        "argument": {"name": "profile", "value": ""},
        "context": {"arguments": {"namespace": "acme"}},
    }
    assert "error" in stranger.send("completion/complete", **completion)


def test_the_address_follows_the_token_where_it_names_one(closed):
    session = Session(closed.http, of_database(closed, "acme--alice", "write"))
    [hit] = session.result("memory_recall", query="met")["memories"]
    assert hit["summary"] == "Met alice"
    tools = {tool["name"]: tool["inputSchema"] for tool in session.send("tools/list")["result"]["tools"]}
    recall = tools["memory_recall"]
    assert (recall["properties"]["namespace"]["default"], recall["properties"]["profile"]["default"]) == (
        "acme",
        "alice",
    )
    assert not {"namespace", "profile"} & set(recall["required"])
    of_acme = Session(closed.http, of_namespace(closed, "acme", "read"))
    assert of_acme.result("memory_profiles_list")["profiles"] != []
    assert of_acme.refusal("memory_recall", query="met") == "invalid_request"


def test_the_platform_key_opens_the_control_plane_and_no_memory(closed):
    platform = Session(closed.http, PLATFORM)
    assert platform.result("list_databases")["databases"] != []
    minted_here = platform.result("token_create", namespace="acme", profile="alice", scope="read")
    alice = Session(closed.http, bearer(minted_here["token"]))
    assert alice.result("memory_recall", query="met")["memories"] != []
    assert platform.refusal("memory_recall", namespace="acme", profile="alice", query="met") == "unauthorized"
    assert alice.refusal("list_databases") == "unauthorized"
    assert alice.refusal("token_create_ns", namespace="acme", scope="read") == "unauthorized"


def test_a_revoked_or_expired_token_ends_its_sessions(tmp_path):
    with closed_node(tmp_path) as live:
        revoked = minted(live, "namespaces/acme", "read")
        expiring = minted(live, "namespaces/acme", "read", expires_in=60)
        sessions = [Session(live.http, bearer(token["token"])) for token in (revoked, expiring)]
        live.http.delete(f"/v1/tokens/{revoked['jti']}", headers=PLATFORM)
        assert live.http.post("/mcp", json=LIST, headers=sessions[0].headers).status_code == 401
        assert "tools" in sessions[1].send("tools/list")["result"]
        live.ambient.advance(seconds=65)
        assert live.http.post("/mcp", json=LIST, headers=sessions[1].headers).status_code == 401


@pytest.mark.parametrize("auth", ["on", "off"])
def test_the_control_plane_is_no_faster_through_tools(tmp_path, auth):
    node = closed_node(tmp_path, control_rate=1) if auth == "on" else serve(tmp_path, control_rate=1)
    with node as live:
        session = Session(live.http, PLATFORM if auth == "on" else {})
        for _ in range(2):
            session.result("list_databases")
        assert session.refusal("list_databases") == "overloaded"
        assert live.http.get("/v1/databases", headers=PLATFORM).status_code == 429
        if auth == "on":
            live.ambient.advance(seconds=1)
            of_acme = Session(live.http, of_namespace(live, "acme", "admin"))
            assert of_acme.refusal("list_databases") == "unauthorized"


@asynccontextmanager
async def streamable(url: str, headers: dict[str, str]) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


CONNECTIONS = {
    "streamable HTTP": streamable,
    "SSE": lambda url, headers: Client(sse_client(f"{url}/sse", headers=headers)),
}


@pytest.mark.parametrize("connect", CONNECTIONS.values(), ids=CONNECTIONS)
def test_the_sdks_clients_act_for_their_own_bearers_at_the_same_time(closed, connect):
    found: dict[str, Any] = {}

    async def ask(name: str, headers: dict[str, str]) -> None:
        async with connect(closed.url, headers) as client:
            for _ in range(5):
                own = await client.call_tool("memory_recall", {"query": "met"})
                others = {"namespace": "acme", "profile": "bob" if name == "alice" else "alice", "query": "met"}
                refused = await client.call_tool("memory_recall", others)
                assert refused.is_error
                found.setdefault(name, set()).add(own.structured_content["result"]["memories"][0]["summary"])

    async def main() -> None:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for name in ("alice", "bob"):
                    tasks.start_soon(ask, name, of_database(closed, f"acme--{name}", "read"))

    anyio.run(main)
    assert found == {"alice": {"Met alice"}, "bob": {"Met bob"}}


def test_messages_of_an_sse_session_come_from_its_opener_alone(closed):
    mine, other = (of_namespace(closed, "acme", "read") for _ in range(2))

    async def main() -> None:
        with anyio.fail_after(20):
            async with (
                httpx.AsyncClient(base_url=closed.url, trust_env=False, headers=mine) as client,
                client.stream("GET", "/sse") as stream,
            ):
                lines = stream.aiter_lines()
                path = ""
                while not path.startswith("/messages/"):
                    path = (await anext(lines)).removeprefix("data: ")
                assert (await client.post(path, json=INITIALIZE, headers=other)).status_code == 404
                assert (await client.post(path, json=INITIALIZE)).status_code == 202

    anyio.run(main)
