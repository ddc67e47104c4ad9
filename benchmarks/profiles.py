"""Many profiles on one node, few of them active: memory and descriptors must not grow with their number.

    python -m benchmarks.profiles [--profiles N] [--active N] [--rounds N]

Creates the profiles, then lets a moving window of active ones write and recall, round after round, and prints after
each round what the process holds. A long run of its own; the engine has threads and a `file://` store.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Texts
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.logs import configure_logging
from memoturn_storage.connection import turn_lookaside_off
from memoturn_storage.descriptors import handle_capacity, raise_descriptor_limit
from memoturn_storage.engine import Limits


class Process:
    """What the kernel says of this process."""

    def memory_mb(self) -> float:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        return resident * os.sysconf("SC_PAGE_SIZE") / 1e6

    def descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def run(directory: Path, profiles: int, active: int, rounds: int) -> None:
    node = Node.open(directory, limits=Limits(hot_cap=handle_capacity(active)))
    texts = Texts(seed=3)
    process = Process()
    started = time.perf_counter()
    for number in range(profiles):
        node.catalog.create(f"bench--p{number}")
    print(f"{profiles} profiles created in {time.perf_counter() - started:.1f} s, metadata only")
    report(process, node, "created")
    for number in range(rounds):
        started = time.perf_counter()
        window = [(number * active + offset) % profiles for offset in range(active)]
        await asyncio.gather(*(one(node, texts, f"p{profile}") for profile in window))
        seconds = time.perf_counter() - started
        report(process, node, f"round {number + 1}: {active} profiles wrote and recalled in {seconds:.1f} s")
    await node.close()
    report(process, node, "closed")


async def one(node: Node, texts: Texts, profile: str) -> None:
    address = Address.of_profile("bench", profile)
    summary = texts.sentence()
    item = {"type": "fact", "topic_key": "t", "summary": summary, "content": None}
    await invoke(node, OPERATIONS["memory_ingest"], address, {"memories": [item]}, LOCAL, timeout_s=None)
    await invoke(node, OPERATIONS["memory_recall"], address, {"query": summary}, LOCAL, timeout_s=None)


def report(process: Process, node: Node, label: str) -> None:
    open_branches = node.engine.stats().open_branches
    print(
        f"{label}: {process.memory_mb():.0f} MB, {process.descriptors()} descriptors, {open_branches} open", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=int, default=100_000)
    parser.add_argument("--active", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    turn_lookaside_off()
    raise_descriptor_limit()
    configure_logging("warning", json=False)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory:
        asyncio.run(run(Path(directory), arguments.profiles, arguments.active, arguments.rounds))


if __name__ == "__main__":
    main()
