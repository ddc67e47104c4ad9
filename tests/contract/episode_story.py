"""What goes with an episode, by its routes: its steps, timeline, tags, relationships, checkpoints and handoff packs."""

from __future__ import annotations

from typing import Any

from contract.live_node import Live, Memory

NOWHERE = "00000000-0000-4000-8000-000000000000"
SUCCESS = {"type": "success", "verdict": "Done", "artifacts": ["fix.patch"]}
GOOD = {"type": "success", "output": "fine"}


def bad(message: str) -> dict[str, str]:
    return {"type": "error", "message": message}


def begin(memory: Memory, description: str = "Find the fault", **more: Any) -> str:
    response = memory.http.post(f"{memory.path}/episodes", json={"task_description": description, **more})
    assert response.status_code == 201, response.text
    episode_id: str = response.json()["episode_id"]
    return episode_id


def step(memory: Memory, episode: str, tool: str = "grep", **more: Any) -> None:
    body = {"tool": tool, "action": f"Use {tool}", "result": GOOD, **more}
    response = memory.http.post(f"{memory.path}/episodes/{episode}/steps", json=body)
    assert response.status_code == 201, response.text


def complete(memory: Memory, episode: str, outcome: dict[str, Any] = SUCCESS) -> None:
    response = memory.http.post(f"{memory.path}/episodes/{episode}/complete", json={"outcome": outcome})
    assert response.status_code == 200, response.text


def get(memory: Memory, episode: str, of: str = "", **query: Any) -> dict[str, Any]:
    response = memory.http.get(f"{memory.path}/episodes/{episode}{of}", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def post(memory: Memory, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    response = memory.http.post(f"{memory.path}/episodes/{path}", json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def error(memory: Memory, path: str, **body: Any) -> tuple[int, str]:
    response = memory.http.post(f"{memory.path}/episodes/{path}", json=body)
    return response.status_code, response.json()["error"]


def events(memory: Memory, episode: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(memory, episode, "/timeline", **query)["events"]
    return found


def pack_of(memory: Memory, episode: str, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = get(memory, episode, "/handoff", **query)["pack"]
    return found


def story(memory: Memory, live: Live) -> tuple[str, str]:
    """An open episode, a second between all that happens, and its checkpoint."""
    episode = begin(memory, domain="ci", tags=["nightly"], metadata={"ticket": 7}, source="agent-a")

    def then(tool: str, result: Any, **more: Any) -> None:
        live.ambient.advance(seconds=1)
        step(memory, episode, tool, result=result, **more)

    then("grep", GOOD)
    then("pytest", bad("no module named yaml"), latency_ms=90)
    live.ambient.advance(seconds=1)
    marked = post(memory, f"{episode}/checkpoints", 201, note="Before the installation")["checkpoint"]
    then("pip", GOOD, action="Chose pip over conda", step_number=5)
    then("pytest", GOOD)
    then("deploy", None)
    return episode, marked["checkpoint_id"]


def tagged(memory: Memory, *tags: str) -> set[str]:
    found = memory.http.get(f"{memory.path}/episodes", params={"tags": ",".join(tags)}).json()["episodes"]
    return {each["episode_id"] for each in found}


def related(memory: Memory, episode: str) -> set[tuple[str, str, str]]:
    found = get(memory, episode, "/relationships")["relationships"]
    return {(each["direction"], each["type"], each["episode_id"]) for each in found}


def link(target: str, type_: str, **more: Any) -> dict[str, Any]:
    return {"target": target, "type": type_, **more}
