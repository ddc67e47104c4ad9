"""Shells with data directories of their own: a fresh one, one with a node on it, one with many memories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from surfaces.in_process import InProcess, in_process
from surfaces.shell import MANY, Done, RunningNode, Shell, start_node, stop_node


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "data")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[InProcess]:
    """Commands in this process, on a fresh data directory."""
    with in_process(tmp_path / "data") as made:
        yield made


@pytest.fixture
def beside(node: RunningNode) -> Iterator[InProcess]:
    """Commands in this process, on the data directory of the node."""
    with in_process(node.shell.home) as made:
        yield made


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node with a few memories in `default/default`, whose data directory the shell shares."""
    shell = Shell(tmp_path_factory.mktemp("node") / "data")
    memories = [
        {"type": "fact", "topic_key": "user.city", "summary": "lives in Paris", "session_id": "one"},
        {"type": "fact", "topic_key": "user.city", "summary": "lives in Rome", "session_id": "one", "source": "chat"},
        {"type": "event", "summary": "flew to Rome", "content": {"flight": 7, "b": [1, None, "é"]}},
        {"type": "task", "summary": "book a table in Rome", "session_id": "two", "ttl": 5_000},
        {"type": "event", "summary": "hello \x1b[2J [red]there[/red] \x07\u202e\x9b31m"},
    ]
    with in_process(shell.home) as here:
        kept = here("memory", "ingest", "--file", "-", stdin="\n".join(map(json.dumps, memories)).encode())
    running = replace(start_node(shell), ids=tuple(result["id"] for result in kept.json["results"]))
    yield running
    stop_node(running)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, Done]:
    """A shell with more memories than one batch holds, and how they were kept."""
    shell = Shell(tmp_path_factory.mktemp("many") / "data")
    lines = [json.dumps({"type": "event", "summary": f"step {number}"}) for number in range(MANY)]
    text = "\ufeff" + "\r\n".join(lines[:500]) + "\n\n" + "\n".join(lines[500:])
    flags = ("--session", "import", "--source", "log")
    with in_process(shell.home) as here:
        return shell, here("memory", "ingest", "--file", "-", *flags, stdin=text.encode())
