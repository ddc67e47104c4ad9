"""kill -9 at any moment: what was acknowledged is there, and a batch is there whole or not at all.

The processes are real and die by SIGKILL while they write; the directory they leave behind is then
opened here. Batches are numbered; what a batch writes names its number.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from e2e.raw_server import Said, raw_server
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_storage.engine import Limits
from memoturn_storage.handle import Snapshot
from memoturn_storage.manifest import BranchRef

BATCH = 10
IN_FLIGHT = 4
PROFILE = Address.of_profile("killed", "profile")

WRITER = f"""
import asyncio, itertools, json, sys
from pathlib import Path
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.logs import configure_logging
from memoturn_storage.engine import Limits

configure_logging("warning", json=False)  # stdout is for what was acknowledged
numbers = itertools.count(int(sys.argv[2]))

async def write(node, batches):
    for number in numbers:
        memories = json.loads(batches.replace('"NUMBER"', str(number)))
        await invoke(node, OPERATIONS["memory_ingest"], Address.of_profile("killed", "profile"), dict(memories=memories), LOCAL)
        print(number, flush=True)

async def main():
    node = Node.open(Path(sys.argv[1]), limits=Limits(threads=2))
    print("ready", flush=True)
    await asyncio.gather(*(write(node, sys.argv[3]) for _ in range({IN_FLIGHT})))

asyncio.run(main())
"""  # noqa: E501


def batch(number: int | str) -> list[dict[str, Any]]:
    """Five facts, each of which supersedes that of another batch, and five events; with vectors and a session."""
    return [
        {
            "type": "fact" if item % 2 else "event",
            **({"topic_key": f"topic.{item}"} if item % 2 else {}),
            "summary": f"item {item} of some batch {'and a few words more ' * 5}",
            "content": {"batch": number, "item": item},
            "embedding": [1.0, float(item), 0.5, -1.0],
            "session_id": "s",
        }
        for item in range(BATCH)
    ]


def state(snapshot: Snapshot) -> dict[str, Any]:
    connection = snapshot.connection
    for table in ("__memoturn_memories_fts", "__memoturn_turns_fts"):
        connection.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")
    rows = connection.execute("SELECT rowid, content, topic_key, superseded_at FROM __memoturn_memories").fetchall()
    vectors = connection.execute("SELECT rowid FROM __memoturn_memory_vectors").fetchall()
    return {
        "integrity": connection.execute("PRAGMA integrity_check").fetchall(),
        "batches": Counter(json.loads(content)["batch"] for _, content, *_ in rows),
        "active": Counter(topic for *_, topic, superseded_at in rows if topic is not None and superseded_at is None),
        "rows without a vector": {rowid for rowid, *_ in rows} ^ {rowid for (rowid,) in vectors},
        "txid": snapshot.txid,
    }


def inspect_and_write(directory: Path, number: int) -> dict[str, Any]:
    """What a process that comes afterwards finds; it also writes batch `number`."""
    node = Node.open(directory, limits=Limits(threads=0))

    async def call(operation: str, **arguments: Any) -> Any:
        return (await invoke(node, OPERATIONS[operation], PROFILE, arguments, LOCAL)).value

    async def use() -> dict[str, Any]:
        entry = node.catalog.create(PROFILE.database or "")
        found = node.engine.read(BranchRef(entry.uuid), state).result().value
        written = await call("memory_ingest", memories=batch(number))
        assert {result["status"] for result in written["results"]} == {"created"}
        hits = (await call("memory_recall", topic_key="topic.3"))["memories"]
        assert [hit["content"] for hit in hits] == [{"batch": number, "item": 3}]
        nearest = (await call("memory_recall", embedding=[1.0, 0.0, 0.5, -1.0], k=1))["memories"]
        assert nearest[0]["content"]["item"] == 0
        await node.close()
        return found

    return asyncio.run(use())


def assert_whole(found: dict[str, Any], acknowledged: set[int], in_flight: int) -> None:
    assert found["integrity"] == [("ok",)]
    assert set(found["batches"].values()) <= {BATCH}, "a batch is there whole or not at all"
    present = set(found["batches"])
    assert acknowledged <= present
    assert len(present - acknowledged) <= in_flight
    assert set(found["active"].values()) <= {1}
    assert len(found["active"]) == (BATCH // 2 if present else 0)
    assert found["rows without a vector"] == set()


def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    unacknowledged_at_most = 0
    start = 0
    for lines in (0, 1, 2, 5, 13, 40, 90, 200):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(start), json.dumps(batch("NUMBER"))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            writer = Said(process)
            assert writer.lines(1) == ["ready\n"]
            said = writer.lines(lines) + writer.until_killed()
        acknowledged |= {int(line) for line in said}
        unacknowledged_at_most += IN_FLIGHT
        start += len(said) + IN_FLIGHT
        found = inspect_and_write(tmp_path, start)
        assert_whole(found, acknowledged, unacknowledged_at_most)
        acknowledged.add(start)
        start += 1
    assert found["txid"] > 8


def test_a_killed_mcp_server_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    environment |= {
        "MEMOTURN_DATA_DIR": str(tmp_path / "data"),
        "MEMOTURN_NAMESPACE": "killed",
        "MEMOTURN_PROFILE": "profile",
    }
    acknowledged: set[int] = set()
    asked: set[int] = set()
    numbers = itertools.count()
    for lines in (1, 7, 30, 75):
        with raw_server(tmp_path, environment) as server:
            for number in itertools.islice(numbers, lines + 10):
                asked.add(number)
                server.call(number, "memory_ingest", memories=batch(number))
            answers = [json.loads(line) for line in server.said.lines(lines) + server.said.until_killed()]
        assert [answer for answer in answers if "error" in answer or answer["result"].get("isError")] == []
        acknowledged |= {answer["id"] for answer in answers}
        mine = next(numbers)
        found = inspect_and_write(tmp_path / "data", mine)
        assert set(found["batches"]) <= asked
        assert_whole(found, acknowledged, len(asked - acknowledged))
        acknowledged.add(mine)
        asked.add(mine)
