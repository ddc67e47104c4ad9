"""What branches have come to since they parted, and taking it from one into another, by the routes."""

from __future__ import annotations

from typing import Any

import httpx

from contract.branches import act
from contract.live_node import Memory


def diff(memory: Memory, branch: str, **query: Any) -> dict[str, Any]:
    response = memory.http.get(f"{memory.database}/branches/{branch}/diff", params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def try_merge(memory: Memory, branch: str, **body: Any) -> httpx.Response:
    return act(memory, branch, "merge", **body)


def merge(memory: Memory, branch: str, **body: Any) -> dict[str, Any]:
    response = try_merge(memory, branch, **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert response.headers["Memoturn-Txid"] == str(answer["txid"])
    return answer
