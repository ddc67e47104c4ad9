"""The key-value store of a profile by its routes; every function but `value` gives the response as it came."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from contract.live_node import Memory, event

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def db(memory: Memory) -> Memory:
    """A profile that exists, at transaction 1."""
    memory.keep(event("Something"))
    return memory


def path(*segments: str) -> str:
    # A segment of dots would be another path to every client.
    return "".join("/" + quote(segment, safe="").replace(".", "%2E") for segment in segments)


def put(memory: Memory, key: str, value: bytes = b"value", ns: str = "n", **query: Any) -> httpx.Response:
    return memory.http.request("PUT", f"{memory.database}/kv{path(ns, key)}", params=query, content=value)


def get(memory: Memory, key: str, ns: str = "n", **query: Any) -> httpx.Response:
    return memory.http.request("GET", f"{memory.database}/kv{path(ns, key)}", params=query)


def delete(memory: Memory, key: str, ns: str = "n", **query: Any) -> httpx.Response:
    return memory.http.request("DELETE", f"{memory.database}/kv{path(ns, key)}", params=query)


def listing(memory: Memory, ns: str = "n", **query: Any) -> httpx.Response:
    return memory.http.request("GET", f"{memory.database}/kv{path(ns)}", params=query)


def value(memory: Memory, key: str, ns: str = "n", **query: Any) -> bytes | None:
    """What the key holds; None where that is nothing."""
    response = get(memory, key, ns, **query)
    if response.status_code == 404:
        assert response.json()["code"] == "not_found"
        return None
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    return response.content


def keys(memory: Memory, ns: str = "n", **query: Any) -> list[str]:
    """One page of keys."""
    response = listing(memory, ns, **query)
    assert response.status_code == 200, response.text
    found: list[str] = response.json()["keys"]
    return found
