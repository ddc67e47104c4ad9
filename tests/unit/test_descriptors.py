"""Open databases are bounded by what the process may open, measured on a process that may open little."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, resource, sys
from pathlib import Path
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_storage.descriptors import handle_capacity, raise_descriptor_limit
from memoturn_storage.engine import Limits

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
raise_descriptor_limit()
capacity = handle_capacity(1_000)

async def main():
    node = Node.open(Path(sys.argv[1]), limits=Limits(threads=2, hot_cap=capacity))
    for round in range(2):
        for number in range(100):
            memories = {"memories": [{"type": "event", "summary": f"round {round}", "content": [round, number]}]}
            address = Address.of_profile("many", f"p{number}")
            await invoke(node, OPERATIONS["memory_ingest"], address, memories, LOCAL)
            found = await invoke(node, OPERATIONS["memory_recall"], address, {"query": "round"}, LOCAL)
            assert len(found.value["memories"]) == round + 1
    print(capacity, node.engine.stats().open_branches)
    await node.close()

asyncio.run(main())
"""


def test_a_process_with_few_descriptors_serves_many_databases_in_turn(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    capacity, open_branches = map(int, done.stdout.split())
    assert 0 < open_branches <= capacity < 100
