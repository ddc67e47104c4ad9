"""How the tests of bad input send it through REST and through MCP, and how they judge what it left behind.

The client itself judges every error of REST (`live_node.assert_envelope`); `unharmed` looks at what the
input may have left behind.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx

from contract.live_node import Live, Memory, event, fact

ROUTES = {
    "memory_ingest": "/memories",
    "memory_recall": "/recall",
    "memory_append": "/sessions/s/turns",
    "memory_search": "/sessions/s/search",
    "memory_extract": "/extract",
    "memory_ask": "/ask",
}


@contextlib.contextmanager
def unharmed(live: Live) -> Iterator[tuple[Memory, Memory]]:
    """A used and an unused profile that are, after the block, as they were, on a node that still serves."""
    used, unused = live.memory(), live.memory()
    [kept] = used.keep(fact("user.city", "Lives in Oslo", session_id="s"))
    before = (used.get(kept["id"]).json(), used.sessions().json())
    yield used, unused
    assert live.http.get("/health").text == "ok"
    assert used.txid == 1
    assert (used.get(kept["id"]).json(), used.sessions().json()) == before
    assert live.http.get(f"/v1/memory/{unused.namespace}").json()["profiles"] == []
    assert used.keep(event("Still serving"))[0]["status"] == "created"
    assert used.txid == 2


def refused(response: httpx.Response, field: str) -> None:
    """400, and the message names the field by its path; an empty path stands for the request as a whole."""
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request"), response.text[:500]
    assert names(response.json()["error"], field), response.json()["error"]


def names(error: str, field: str) -> bool:
    return any(fault.startswith(f"{field}: " if field else "") for fault in error.split("; "))


def addressed(memory: Memory, tool: str, arguments: str) -> str:
    """The arguments with the profile's address, and the session where the route has it in its path."""
    given = {"namespace": memory.namespace, "profile": memory.profile}
    if "/sessions/s/" in ROUTES[tool]:
        given["session"] = "s"
    rest = arguments.removeprefix("{")
    return json.dumps(given)[:-1] + ("" if rest == "}" else ", ") + rest


def refusal(message: dict[str, Any]) -> dict[str, str]:
    """The envelope of a tool's error: as text and as `_meta`, and no structured content beside it."""
    result = message["result"]
    assert result["isError"] is True
    assert "structuredContent" not in result
    [content] = result["content"]
    envelope: dict[str, str] = json.loads(content["text"])
    assert set(envelope) == {"error", "code"}
    assert {name: result["_meta"][name] for name in envelope} == envelope
    return envelope


def where(memory: Memory) -> dict[str, str]:
    return {"namespace": memory.namespace, "profile": memory.profile}
