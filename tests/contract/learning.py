"""A profile's recommendations by their routes, and episodes to learn from."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from contract.episodes import right
from contract.live_node import Live, Memory

LOGIN, DEPLOY = "Fix the failing login test", "Deploy the billing service to staging"
DAY = 86_400_000


class Learning:
    """A profile's recommendations by their routes."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.http = memory.http
        self.path = memory.path

    def ask(self, description: str = LOGIN, **more: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/patterns/recommend", json={"task_description": description, **more})

    def judge(self, recommendation: str, *said: tuple[str, str], **more: Any) -> httpx.Response:
        feedback = [{"pattern_id": id_, "outcome": outcome} for id_, outcome in said]
        body = {"recommendation_id": recommendation, "feedback": feedback, **more}
        return self.http.post(f"{self.path}/patterns/feedback", json=body)

    def plan(self, description: str = LOGIN, **more: Any) -> dict[str, Any]:
        return right(self.http.post(f"{self.path}/patterns/playbook", json={"task_description": description, **more}))

    def effects(self, **query: Any) -> dict[str, Any]:
        return right(self.http.get(f"{self.path}/patterns/effectiveness", params=query))

    def evaluation(self, **query: Any) -> dict[str, Any]:
        return right(self.http.get(f"{self.path}/evaluation", params=query))

    def episode(self, episode: str) -> dict[str, Any]:
        found: dict[str, Any] = right(self.http.get(f"{self.path}/episodes/{episode}"))["episode"]
        return found

    def lived(self, *episodes: dict[str, Any]) -> list[str]:
        body = {"episodes": list(episodes)}
        ids: list[str] = right(self.http.post(f"{self.path}/episodes/bulk", json=body), 201)["episode_ids"]
        return ids

    def recommended(self, *args: Any, **more: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = right(self.ask(*args, **more))["recommended"]
        return found


def steps(tools: str) -> list[dict[str, Any]]:
    """Tools in their order; one with a `!` failed."""
    return [
        {
            "tool": tool.rstrip("!"),
            "action": f"use {tool.rstrip('!')} on it",
            "latency_ms": 2_000,
            "result": {"type": "error", "message": f"{tool.rstrip('!')}: connection refused"}
            if tool.endswith("!")
            else {"type": "success", "output": "fine"},
        }
        for tool in tools.split()
    ]


def won(description: str, tools: str, **more: Any) -> dict[str, Any]:
    outcome = {"type": "success", "verdict": "It works"}
    return {"task_description": description, "steps": steps(tools), "outcome": outcome, **more}


def lost(description: str, tools: str, **more: Any) -> dict[str, Any]:
    return won(description, tools, **{"outcome": {"type": "failure", "reason": "It does not work"}, **more})


def family(count: int, description: str, tools: str, **more: Any) -> list[dict[str, Any]]:
    return [won(f"{description} of module {number}", tools, **more) for number in range(count)]


def place(recommended: list[dict[str, Any]], pattern_id: str) -> int:
    return [each["pattern_id"] for each in recommended].index(pattern_id)


@pytest.fixture(name="learning")
def learning_of_memory(memory: Memory) -> Learning:
    return Learning(memory)


@pytest.fixture(name="known")
def known_tasks(learning: Learning) -> Learning:
    """Login tests that were repaired in one way or another, and services that could not be deployed."""
    learning.lived(
        *family(4, LOGIN, "grep read edit pytest", domain="web", task_type="debugging", language="python"),
        *family(4, LOGIN, "bisect revert", domain="web", task_type="debugging", language="python"),
        *(lost(f"{DEPLOY} {number}", "build push!", domain="ops") for number in range(3)),
        won(f"{DEPLOY} again", "build push! login push", domain="ops"),
    )
    return learning


@pytest.fixture(name="migrated")
def migrated_tables(learning: Learning, live: Live) -> Learning:
    """Tables that were migrated: mostly in one way, once with a detour, once in vain; and something else."""
    course = "inspect backup alter verify"
    start = live.ambient.now_ms() - 7 * DAY

    def migration(table: str, tools: str, day: int, seconds: int, made: Any = won) -> dict[str, Any]:
        began = start + day * DAY
        description = f"Migrate the {table} table to the new schema"
        whole: dict[str, Any] = made(description, tools, domain="db")
        return whole | {"start_time": began, "end_time": began + seconds * 1_000}

    learning.lived(
        migration("users", course, 0, 100),
        migration("orders", course, 1, 200),
        migration("items", "inspect think backup alter verify", 2, 400),
        migration("events", "inspect backup alter! unlock alter verify", 3, 300),
        migration("logs", "inspect alter!", 4, 50, lost),
        *family(3, "Write the release notes", "read write", domain="docs"),
    )
    return learning
