"""Vectors in the collections of a profile, by their routes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from contract.live_node import Memory, event


@pytest.fixture
def used(memory: Memory) -> Memory:
    """A profile that exists, at transaction 1."""
    memory.keep(event("Something"))
    return memory


def upsert(memory: Memory, collection: str = "c", **body: Any) -> httpx.Response:
    return memory.http.post(f"{memory.database}/vectors/{collection}", json=body)


def put(memory: Memory, collection: str = "c", **vectors: list[float]) -> None:
    items = [{"id": id_, "embedding": embedding} for id_, embedding in vectors.items()]
    response = upsert(memory, collection, vectors=items)
    assert response.status_code == 200, response.text


def search(memory: Memory, vector: list[float], collection: str = "c", **more: Any) -> httpx.Response:
    return memory.http.post(f"{memory.database}/vectors/{collection}/search", json={"vector": vector, **more})


def hits(memory: Memory, vector: list[float], collection: str = "c", **more: Any) -> list[tuple[str, float]]:
    response = search(memory, vector, collection, **more)
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"hits"}
    return [(hit["id"], hit["distance"]) for hit in response.json()["hits"]]


def found(memory: Memory, vector: list[float], collection: str = "c", **more: Any) -> list[str]:
    return [id_ for id_, _ in hits(memory, vector, collection, **more)]


def delete(memory: Memory, id_: str, collection: str = "c") -> httpx.Response:
    return memory.http.delete(f"{memory.database}/vectors/{collection}/{quote(id_, safe='')}")


def collections(memory: Memory) -> list[dict[str, Any]]:
    response = memory.http.get(f"{memory.database}/vectors")
    assert response.status_code == 200, response.text
    listed: list[dict[str, Any]] = response.json()["collections"]
    return listed
