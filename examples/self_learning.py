"""An agent that learns from what it tried: the same kind of task takes it fewer steps the second time.

    python examples/self_learning.py [--show]

Starts `memoturn-mcp` as an MCP client would. A scripted agent, without a language model, releases the services
of a small workshop. The workshop refuses what is done in the wrong order, and the agent has no idea of the order:
it tries its tools until the release succeeds. Each try is recorded as an episode. Then it meets the tasks again, in
other words, and asks first: it follows the playbook that its own episodes give, and says what came of the patterns
that were recommended. Exits with an error unless every task is done, and the second time takes fewer steps.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

Call = Callable[..., Any]

TOOLS = ("archive", "benchmark", "build", "bump_version", "generate", "lint", "migrate", "publish", "run_tests", "tag")


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be released; `needs` says of each tool which must have been used before it works."""

    domain: str
    first_words: str
    other_words: str
    needs: dict[str, tuple[str, ...]]

    @property
    def tools(self) -> set[str]:
        """Those that do something here."""
        return {*self.needs, *(tool for needed in self.needs.values() for tool in needed)}


LIBRARY = {
    "publish": ("build", "tag"),
    "tag": ("bump_version", "run_tests"),
    "build": ("bump_version",),
}
SERVICE = {
    "publish": ("build", "run_tests"),
    "run_tests": ("migrate",),
    "build": ("generate",),
}
TASKS = (
    Task("library", "Release the parser library", "Get a new version of the parser package out", LIBRARY),
    Task("library", "Release the colour library", "Make a new colours package available to users", LIBRARY),
    Task("library", "Release the date library", "Ship the next version of the package for dates", LIBRARY),
    Task("service", "Deploy the billing service", "Roll out the new billing backend", SERVICE),
    Task("service", "Deploy the search service", "Bring the changed search backend into production", SERVICE),
    Task("service", "Deploy the login service", "Put the latest login backend live", SERVICE),
)


@dataclass
class Workshop:
    """Where the tools are used; they fail until what they need has been done."""

    task: Task
    done: list[str] = field(default_factory=list)

    def use(self, tool: str) -> str | None:
        """The error, or None where it worked."""
        if tool not in self.task.tools:
            return f"{tool} found nothing to do"
        missing = [needed for needed in self.task.needs.get(tool, ()) if needed not in self.done]
        if missing:
            return f"{tool} refused: {missing[0]} has not been done"
        self.done.append(tool)
        return None

    @property
    def released(self) -> bool:
        return "publish" in self.done


def tries(known: list[str], chance: random.Random) -> Iterator[str]:
    """What is known to work first, in its order; then anything, again and again."""
    yield from known
    while True:
        yield from chance.sample(TOOLS, len(TOOLS))


async def attempt(call: Call, task: Task, description: str, chance: random.Random, *, ask_first: bool) -> int:
    """Do a task and record it; how many steps it took."""
    about = {"task_description": description, "domain": task.domain, "task_type": "other"}
    known: list[str] = []
    offered: dict[str, Any] = {"recommendation_id": None, "recommended": []}
    episode = (await call("create_episode", **about))["episode_id"]
    if ask_first:
        known = [step["tool"] for step in (await call("recommend_playbook", **about))["steps"]]
        offered = await call("recommend_patterns", **about, episode_id=episode)
    workshop = Workshop(task)
    steps = 0
    for tool in tries(known, chance):
        if tool in workshop.done:
            continue
        error = workshop.use(tool)
        steps += 1
        result = {"type": "success", "output": "done"} if error is None else {"type": "error", "message": error}
        await call("add_step", episode_id=episode, tool=tool, action=f"use {tool}", result=result)
        if workshop.released:
            break
    outcome = {"type": "success", "verdict": f"released after {steps} steps", "artifacts": ["release"]}
    await call("complete_episode", episode_id=episode, outcome=outcome)
    if offered["recommended"]:
        said = [{"pattern_id": each["pattern_id"], "outcome": "helped"} for each in offered["recommended"]]
        await call("record_feedback", recommendation_id=offered["recommendation_id"], feedback=said)
    return steps


async def run(directory: str, show: bool) -> tuple[list[int], list[int]]:
    """The steps that each task took the first time, and the second."""
    settings = {"MEMOTURN_DATA_DIR": directory, "MEMOTURN_NAMESPACE": "example", "MEMOTURN_PROFILE": "workshop"}
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "memoturn_mcp"],
        env={**os.environ, **settings, "MEMOTURN_TOOLSETS": "episodes"},
    )
    async with Client(stdio_client(server)) as client:

        async def call(name: str, /, **arguments: Any) -> Any:
            answer = await client.call_tool(name, arguments)
            if answer.is_error or answer.structured_content is None:
                raise RuntimeError(f"{name}: {answer.content}")
            return answer.structured_content["result"]

        chance = random.Random(20)
        first = [await attempt(call, task, task.first_words, chance, ask_first=False) for task in TASKS]
        second = [await attempt(call, task, task.other_words, chance, ask_first=True) for task in TASKS]
        if show:
            playbook = await call("recommend_playbook", task_description="Release another library", domain="library")
            print("a playbook for another library:", *(step["tool"] for step in playbook["steps"]))
            for pitfall in playbook["pitfalls"]:
                print("  beware:", pitfall["text"])
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print what was learnt")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        first, second = asyncio.run(run(directory, arguments.show))
    for task, before, after in zip(TASKS, first, second, strict=True):
        print(f"{before:3} steps, then {after:2}: {task.first_words}, then: {task.other_words}")
    print(f"{sum(first):3} steps, then {sum(second):2}: in all")
    if any(after >= before for before, after in zip(first, second, strict=True)):
        raise SystemExit("a task took as long as before")


if __name__ == "__main__":
    main()
