"""Databases by name, by the routes that make, list, measure and delete them, and turns that are kept in them."""

from __future__ import annotations

from typing import Any

import httpx

from contract.live_node import Memory


def made(http: httpx.Client, name: str, **more: Any) -> dict[str, Any]:
    """A new database that is certainly right."""
    response = http.post("/v1/databases", json={"name": name, **more})
    assert response.status_code == 201, response.text
    entry: dict[str, Any] = response.json()
    return entry


def listed(http: httpx.Client, **query: Any) -> list[str]:
    response = http.get("/v1/databases", params={"limit": 1_000, **query})
    assert response.status_code == 200, response.text
    return [entry["name"] for entry in response.json()["databases"]]


def delete(http: httpx.Client, name: str) -> httpx.Response:
    return http.delete(f"/v1/databases/{name}")


def name_of(memory: Memory) -> str:
    return f"{memory.namespace}--{memory.profile}"


def usage(http: httpx.Client, name: str) -> dict[str, Any]:
    response = http.get(f"/v1/databases/{name}/usage")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def append(http: httpx.Client, name: str, text: str) -> httpx.Response:
    return http.post(f"/v1/db/{name}/memory/s/turns", json={"role": "user", "content": text})


def texts(http: httpx.Client, name: str) -> list[str]:
    response = http.get(f"/v1/db/{name}/memory/s/turns", params={"last": 1_000})
    assert response.status_code == 200, response.text
    return [turn["content"] for turn in response.json()["turns"]]
