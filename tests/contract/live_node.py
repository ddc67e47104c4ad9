"""A real node on a real socket, served from a background thread, and a client that judges its errors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from contract.statuses import STATUSES
from memoturn_core.node import Node
from memoturn_core.providers.embedding import Embedder
from memoturn_core.providers.language import LanguageModel
from memoturn_mcp.app import http_app
from memoturn_mcp.settings import Settings
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.objects.store import ObjectStore

_MCP_PATHS = ("/mcp", "/sse", "/messages")

_numbers = itertools.count(1)


def assert_envelope(response: httpx.Response) -> None:
    """An error of the REST surface is the envelope and nothing else, with a status that fits its code."""
    said = f"{response.request.method} {response.request.url} -> {response.status_code} {response.text[:300]}"
    assert response.headers.get("content-type") == "application/json", said
    envelope = response.json()
    assert set(envelope) == {"error", "code"}, said
    assert isinstance(envelope["error"], str), said
    assert envelope["error"].strip(), said
    assert response.status_code in STATUSES[envelope["code"]], said


def _judge(response: httpx.Response) -> None:
    """Every response that any test meets has a request id, and every error is the envelope.

    MCP's own paths speak JSON-RPC instead.
    """
    identified = re.fullmatch("[0-9a-f]{32}", response.headers.get("Memoturn-Request-Id", ""))
    assert identified, f"no request id: {response.request.url} -> {response.status_code} {response.read()[:300]!r}"
    if response.status_code >= 400 and not response.request.url.path.startswith(_MCP_PATHS):
        response.read()
        assert_envelope(response)


def event(summary: str, **more: Any) -> dict[str, Any]:
    """A memory to ingest; its content says what the summary says, so that no two of them are the same."""
    return {"type": "event", "summary": summary, "content": {"text": summary}, **more}


def task(summary: str, **more: Any) -> dict[str, Any]:
    return event(summary, **{"type": "task", **more})


def fact(topic_key: str, summary: str, **more: Any) -> dict[str, Any]:
    return event(summary, **{"type": "fact", "topic_key": topic_key, **more})


def ids(memories: list[dict[str, Any]]) -> list[str]:
    return [memory["id"] for memory in memories]


def statuses(results: list[dict[str, Any]]) -> list[str]:
    return [result["status"] for result in results]


class Memory:
    """One profile of a served node, by its routes; every method gives the response as it came."""

    def __init__(self, http: httpx.Client, namespace: str, profile: str) -> None:
        self.http = http
        self.namespace = namespace
        self.profile = profile
        self.path = f"/v1/memory/{namespace}/{profile}"
        self.database = f"/v1/db/{namespace}--{profile}"

    def ingest(self, *memories: dict[str, Any], **options: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/memories", json={"memories": list(memories)}, **options)

    def keep(self, *memories: dict[str, Any]) -> list[dict[str, Any]]:
        """Ingest what is certainly right; the results."""
        response = self.ingest(*memories)
        assert response.status_code == 201, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    def recall(self, **request: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/recall", json=request)

    def found(self, **request: Any) -> list[dict[str, Any]]:
        """The hits of a recall that is certainly right."""
        response = self.recall(**request)
        assert response.status_code == 200, response.text
        memories: list[dict[str, Any]] = response.json()["memories"]
        return memories

    def get(self, memory_id: str) -> httpx.Response:
        return self.http.get(f"{self.path}/memories/{memory_id}")

    def forget(self, memory_id: str) -> httpx.Response:
        return self.http.delete(f"{self.path}/memories/{memory_id}")

    def append(self, session: str, role: str, content: str, **more: Any) -> httpx.Response:
        """Append a turn below the profile, which makes the profile if need be."""
        body = {"role": role, "content": content, **more}
        return self.http.post(f"{self.path}/sessions/{session}/turns", json=body)

    def sessions(self, **query: Any) -> httpx.Response:
        return self.http.get(f"{self.path}/sessions", params=query)

    @property
    def txid(self) -> int:
        """The last transaction; 0 where the profile does not exist."""
        response = self.recall(query="anything")
        assert response.status_code == 200, response.text
        return int(response.json()["txid"])

    @property
    def exists(self) -> bool:
        listed = self.http.get(f"/v1/memory/{self.namespace}").json()["profiles"]
        return self.profile in {entry["profile"] for entry in listed}


ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "contract", "version": "1"},
    },
}


class RawMcp:
    """An MCP session over streamable HTTP, as bare JSON-RPC."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        opened = http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
        assert opened.status_code == 200, opened.text
        self.headers = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        self.post('{"jsonrpc": "2.0", "method": "notifications/initialized"}')

    def post(self, message: str | bytes) -> httpx.Response:
        return self.http.post("/mcp", content=message, headers=self.headers)

    def call_text(self, tool: str, arguments: str) -> httpx.Response:
        """Call a tool with arguments as JSON text, which may be what no JSON library would write."""
        head = '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": '
        return self.post(f'{head}{json.dumps(tool)}, "arguments": {arguments}}}}}')

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result of a call that the protocol accepts."""
        result: dict[str, Any] = message_of(self.call_text(tool, json.dumps(arguments)))["result"]
        return result


def message_of(response: httpx.Response) -> dict[str, Any]:
    """The one JSON-RPC message of a response that is an event stream."""
    assert response.status_code == 200, response.text[:500]
    assert response.headers["content-type"].startswith("text/event-stream"), response.text[:500]
    [data] = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    message: dict[str, Any] = json.loads(data)
    return message


@dataclass(frozen=True)
class Live:
    """A served node. `ambient` is its clock, which stands still until it is advanced."""

    url: str
    node: Node
    ambient: ManualAmbient
    http: httpx.Client
    port: int

    def memory(self) -> Memory:
        """A profile that nobody has used, in a namespace of its own."""
        number = next(_numbers)
        return Memory(self.http, f"acme{number}", f"user{number}")


@contextlib.contextmanager
def serve(
    directory: Path,
    *,
    embedder: Embedder | None = None,
    language_model: LanguageModel | None = None,
    toolsets: str | None = None,
    ambient: ManualAmbient | None = None,
    store: ObjectStore | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    durable: bool = False,
    control_rate: int = 1_000_000,
    **settings: Any,
) -> Iterator[Live]:
    """Serve a node on a data directory until the block ends; the control plane is fast, for its clock stands still."""
    # Names in the directory for temporary files are random, and other runs of these tests use it too.
    ambient = ambient or ManualAmbient(seed=os.getpid() << 32 | next(_numbers))
    node = Node.open(
        directory,
        ambient=ambient,
        store=store,
        limits=limits,
        durable=durable,
        embedder=embedder,
        language_model=language_model,
    )
    asked = frozenset() if toolsets is None else frozenset({toolsets})
    app = http_app(node, Settings(data_dir=directory, toolsets=asked, control_rate=control_rate, **settings))
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    async def main() -> None:
        try:
            await server.serve(sockets=[listener])
        finally:
            await node.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(main())

    port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    thread = threading.Thread(target=run, name="memoturn-node")
    thread.start()
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=30.0, event_hooks={"response": [_judge]}) as http:
            yield Live(url, node, ambient, http, port)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
