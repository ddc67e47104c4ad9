"""The episodes of a profile by their routes, and what the tests of episodes say of them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from contract.live_node import Memory

SUCCESS = {"type": "success", "verdict": "The login works again", "artifacts": ["auth.py"]}
FAILURE = {"type": "failure", "reason": "The server does not start", "error_details": "port in use"}
NOBODY = "00000000-0000-0000-0000-000000000000"


class Episodes:
    """The episodes of a profile by their routes."""

    def __init__(self, memory: Memory) -> None:
        self.http = memory.http
        self.path = f"{memory.path}/episodes"

    def create(self, **more: Any) -> httpx.Response:
        return self.http.post(self.path, json={"task_description": "Repair the login", **more})

    def step(self, episode: str, **more: Any) -> httpx.Response:
        body = {"tool": "grep", "action": "look for the call", **more}
        return self.http.post(f"{self.path}/{episode}/steps", json=body)

    def complete(self, episode: str, outcome: Any = SUCCESS, **more: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/{episode}/complete", json={"outcome": outcome, **more})

    def get(self, episode: str, **query: Any) -> httpx.Response:
        return self.http.get(f"{self.path}/{episode}", params=query)

    def delete(self, episode: str) -> httpx.Response:
        return self.http.delete(f"{self.path}/{episode}")

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/{path}", json=body)

    def list(self, **query: Any) -> httpx.Response:
        return self.http.get(self.path, params=query)

    def bulk(self, *episodes: dict[str, Any]) -> httpx.Response:
        return self.http.post(f"{self.path}/bulk", json={"episodes": list(episodes)})

    # --- what is certainly right -----------------------------------------------------------------

    def begun(self, **more: Any) -> str:
        return str(right(self.create(**more), 201)["episode_id"])

    def completed(self, *steps: dict[str, Any], outcome: Any = SUCCESS, **more: Any) -> str:
        episode = self.begun(**more)
        for step in steps:
            right(self.step(episode, **step), 201)
        right(self.complete(episode, outcome))
        return episode

    def listed(self, **query: Any) -> list[str]:
        return [entry["episode_id"] for entry in right(self.list(**query))["episodes"]]

    def imported(self, *episodes: dict[str, Any]) -> list[str]:
        ids: list[str] = right(self.bulk(*episodes), 201)["episode_ids"]
        return ids

    def known(self, episode: str, **query: Any) -> dict[str, Any]:
        found: dict[str, Any] = right(self.get(episode, **query))["episode"]
        return found


def right(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.text[:500]
    body: dict[str, Any] = response.json()
    return body


@pytest.fixture(name="episodes")
def episodes_of_memory(memory: Memory) -> Episodes:
    return Episodes(memory)


def whole(description: str = "Repair the login", **more: Any) -> dict[str, Any]:
    return {"task_description": description, **more}


def did(tool: str, **more: Any) -> dict[str, Any]:
    return {"tool": tool, "action": f"use {tool}", "result": {"type": "success", "output": "fine"}, **more}
