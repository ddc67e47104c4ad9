"""Episodes that are written by processes which die, or by two at once: what was acknowledged is there, whole."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from e2e.raw_server import Said
from memoturn_core.address import Address
from memoturn_core.node import Node
from memoturn_storage.engine import Limits
from memoturn_storage.handle import Snapshot
from memoturn_storage.manifest import BranchRef

PROFILE = Address.of_profile("killed", "profile")
STEPS = 12
EACH = 500
"""Episodes that each of two processes writes."""

WRITER = """
import asyncio, sys
from pathlib import Path
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.logs import configure_logging
from memoturn_storage.engine import Limits

configure_logging("warning", json=False)  # stdout is for what was acknowledged
PROFILE = Address.of_profile("killed", "profile")
OUTCOME = dict(type="success", verdict="It works", artifacts=["a.py"])

async def call(node, name, **arguments):
    return (await invoke(node, OPERATIONS[name], PROFILE, arguments, LOCAL)).value

def step(number):
    failed = dict(type="error", message=f"no such file /tmp/{number}")
    return dict(
        tool=("grep", "edit", "test")[number % 3],
        action=f"action {number}",
        result=failed if number % 4 == 2 else dict(type="success", output="fine"),
    )
"""

COMPLETER = f"""{WRITER}
async def main():
    node = Node.open(Path(sys.argv[1]), limits=Limits(threads=2))
    print("ready", flush=True)
    async def go():
        while True:
            begun = await call(node, "create_episode", task_description="Mend it", tags=["tag"], embedding=[1.0, 0.5])
            episode = begun["episode_id"]
            for number in range(1, {STEPS} + 1):
                await call(node, "add_step", episode_id=episode, step_number=number, **step(number))
            print("steps", episode, flush=True)
            await call(node, "complete_episode", episode_id=episode, outcome=OUTCOME)
            print("completed", episode, flush=True)
    await asyncio.gather(*(go() for _ in range(3)))

asyncio.run(main())
"""

IMPORTER = f"""{WRITER}
async def main():
    node = Node.open(Path(sys.argv[1]), limits=Limits(threads=1))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async def some(first):
        for start in range(first, {EACH}, 100):
            whole = [
                dict(task_description=f"{{sys.argv[2]}} {{n}}", steps=[step(n), step(n + 1)], outcome=OUTCOME)
                for n in range(start, start + 25)
            ]
            await call(node, "bulk_episodes", episodes=whole)
    await asyncio.gather(*(some(first) for first in range(0, 100, 25)))
    print("done", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await node.close()

asyncio.run(main())
"""


def state(snapshot: Snapshot) -> dict[str, Any]:
    """What there is of episodes, once the file and its indexes were found to be sound."""
    connection = snapshot.connection
    fts = "__memoturn_episodes_fts"
    connection.execute(f"INSERT INTO {fts} ({fts}, rank) VALUES ('integrity-check', 1)")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def all_of(sql: str) -> list[Any]:
        return connection.execute(sql).fetchall()

    return {
        "episodes": all_of(
            "SELECT rowid, id, description, outcome, step_count, ended_at, body FROM __memoturn_episodes"
        ),
        "steps": [rowid for (rowid,) in all_of("SELECT rowid >> 20 FROM __memoturn_episode_steps")],
        "learnt": {rowid for (rowid,) in all_of("SELECT episode FROM __memoturn_pattern_evidence")},
        "told": {rowid for (rowid,) in all_of(f"SELECT rowid FROM {fts} WHERE {fts} MATCH 'words: works'")},
        "vectors": {rowid for (rowid,) in all_of("SELECT rowid FROM __memoturn_episode_vectors")},
    }


def inspected(directory: Path) -> dict[str, Any]:
    node = Node.open(directory, limits=Limits(threads=0))
    entry = node.catalog.create(PROFILE.database or "")
    found = node.engine.read(BranchRef(entry.uuid), state).result().value
    asyncio.run(node.close())
    return found


def test_a_killed_process_leaves_every_completion_whole_or_not_at_all(tmp_path: Path) -> None:
    with_steps: set[str] = set()
    completed: set[str] = set()
    for lines in (1, 7, 30):
        command = [sys.executable, "-c", COMPLETER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            writer = Said(process)
            assert writer.lines(1) == ["ready\n"]
            for line in writer.lines(lines) + writer.until_killed():
                what, episode = line.split()
                {"steps": with_steps, "completed": completed}[what].add(episode)
        found = inspected(tmp_path)
        episodes = {str(row[1].hex()): row for row in found["episodes"]}
        assert {episode.replace("-", "") for episode in with_steps} <= episodes.keys()
        for episode in completed:
            assert episodes[episode.replace("-", "")][3] == "success"
        for rowid, _, _, outcome, step_count, ended_at, body in episodes.values():
            derived = json.loads(body).keys() & {"outcome", "reward", "reflection", "salient", "summary", "pattern_ids"}
            whole = [outcome == "success", ended_at is not None, len(derived) == 6, step_count == STEPS]
            whole += [rowid in found["learnt"], rowid in found["told"]]
            assert len(set(whole)) == 1, "it is completed in everything or in nothing"
            assert whole[0] or (not derived and step_count is None)
            assert not whole[0] or found["steps"].count(rowid) == STEPS
            assert rowid in found["vectors"]
        assert set(found["steps"]) <= {row[0] for row in episodes.values()}
    assert len(completed) > 4


def test_two_processes_write_1_000_episodes_and_none_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORTER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    try:
        said = [Said(writer) for writer in writers]
        assert [each.lines(1) for each in said] == [["ready\n"]] * 2
        # Both begin together, and neither leaves before the other is done.
        for expected in (["done\n"], []):
            for writer in writers:
                assert writer.stdin is not None
                writer.stdin.write("go on\n")
                writer.stdin.flush()
            assert [each.lines(len(expected)) for each in said] == [expected] * 2
        assert [writer.wait(20) for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            for pipe in (writer.stdin, writer.stdout):
                assert pipe is not None
                pipe.close()
    found = inspected(tmp_path)
    assert sorted(row[2] for row in found["episodes"]) == sorted(f"{name} {n}" for name in "ab" for n in range(EACH))
    rowids = {row[0] for row in found["episodes"]}
    assert rowids == found["learnt"] == found["told"] == set(found["steps"])
    assert len(found["steps"]) == 4 * EACH
