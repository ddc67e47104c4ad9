"""The storage's rows: shipping, branching, waking; and what is shipped for a memory, how late, and how soon
a killed process is replaced.

    python -m benchmarks.storage [--quick] [--figures] [--json FILE]

The rows are in process, one thread, the inline engine, an object store in memory, so that what is timed is
ours; `python -m benchmarks.engine` prints them too. The figures below the table are of the threaded engine
over a `file://` store and of real processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from benchmarks.measure import Row, Texts, percentile, table, timed
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_core.tables import SCHEMA
from memoturn_mcp.logs import configure_logging
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.branching import Branching, Moment
from memoturn_storage.connection import open_database, turn_lookaside_off
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.leases.memory import LeaseRegistry, MemoryLeases
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore

INLINE = Limits(threads=0, ship_interval_s=3_600, hot_cap=64)
TABLE = "CREATE TABLE IF NOT EXISTS bench (id INTEGER PRIMARY KEY, value)"


class Bench:
    """An inline engine over an object store in memory."""

    def __init__(self, directory: Path) -> None:
        self.ambient = SystemAmbient()
        self.directory = directory
        self.store = MemoryStore(self.ambient)
        self.engine = self.engine_in(directory / "node")
        self.branching = Branching(self.engine, self.ambient)
        self._names = 0

    def engine_in(self, directory: Path) -> Engine:
        leases = MemoryLeases(LeaseRegistry(), "bench", self.ambient)
        return Engine(SCHEMA, self.ambient, directory, self.store, leases, INLINE)

    def name(self) -> str:
        self._names += 1
        return f"b{self._names}"

    def fill(self, number: int, size: int) -> BranchRef:
        """A shipped database of about `size` bytes."""
        ref = BranchRef(f"{number:032x}")

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(TABLE)
            for _ in range(max(1, size // 2_000)):
                transaction.connection.execute("INSERT INTO bench (value) VALUES (?)", (os.urandom(1_000).hex(),))

        self.engine.write(ref, work, durable=True).result()
        return ref

    # --- rows ------------------------------------------------------------------------------------

    async def ship(self, n: int) -> Row:
        """One row: committed, captured, encoded, put and linked."""
        ref = self.fill(1, 10_000)
        raw = open_raw(self.directory / "ship-bound.db")

        async def operation(index: int) -> None:
            self.engine.write(ref, insert(index), durable=True).result()

        def bound(index: int) -> None:
            raw.execute("INSERT INTO bench (value) VALUES (?)", (f"value {index}",))

        return await timed("ship", n, operation, bound)

    async def branching_rows(self, n: int, large: int) -> list[Row]:
        """The bound is writing the manifest: its bytes into the store, on no condition."""
        small, big = self.fill(2, 10_000), self.fill(3, large)

        def put(ref: BranchRef) -> Any:
            manifest = self.engine.manifests.require(ref).manifest
            return lambda index: self.store.put("v1/bench/manifest.json", replace(manifest, epoch=index + n).encode())

        async def fork_small(_: int) -> None:
            self.branching.fork(small, self.name())

        async def fork_big(_: int) -> None:
            self.branching.fork(big, self.name())

        rows = [
            await timed("branch_create", n, fork_small, put(small)),
            await timed(f"branch_create_{large // 1_000_000}mb", n, fork_big, put(big)),
        ]
        rows.append(
            self._after_a_write("checkpoint", small, n, lambda: self.branching.checkpoint(small, "c"), put(small))
        )
        for label, ref, times in (("rewind", small, n), ("rewind_large", big, max(3, n // 50))):
            target = Moment(txid=self.branching.checkpoint(ref, "back"))
            rewind = partial(self.branching.rewind, ref, target)
            rows.append(self._after_a_write(label, ref, times, rewind, put(ref)))
        return rows

    def _after_a_write(
        self, label: str, ref: BranchRef, n: int, operation: Callable[[], object], bound: Callable[[int], object]
    ) -> Row:
        """Only the operation is timed: not the write before it, which gives it something to do, nor a waking after."""
        samples, bounds = [], []
        for index in range(n):
            self.engine.write(ref, insert(index), durable=True).result()
            started = time.perf_counter()
            operation()
            samples.append(time.perf_counter() - started)
            started = time.perf_counter()
            bound(index)
            bounds.append(time.perf_counter() - started)
        return row(label, samples, bounds)

    async def cold_wake(self, label: str, number: int, size: int, n: int) -> Row:
        """A branch that is only in the object store answers a query; the bound writes and opens the same file."""
        ref = self.fill(number, size)
        image = bytes(self.engine.restorer.image(self.engine.manifests.require(ref).manifest))
        samples, bounds = [], []
        for index in range(n):
            directory = self.directory / f"wake-{index}"
            engine = self.engine_in(directory)
            started = time.perf_counter()
            engine.read(ref, count).result()
            samples.append(time.perf_counter() - started)
            engine.close()
            path = self.directory / f"wake-bound-{index}.db"
            started = time.perf_counter()
            restore_raw(path, image)
            bounds.append(time.perf_counter() - started)
            shutil.rmtree(directory)
            path.unlink()
        return row(label, samples, bounds)


def row(label: str, samples: list[float], bounds: list[float]) -> Row:
    p50, p99, bound = percentile(samples, 0.5), percentile(samples, 0.99), percentile(bounds, 0.5)
    return Row(label, round(p50 * 1e6, 1), round(p99 * 1e6, 1), round(bound * 1e6, 1), len(samples))


def insert(index: int) -> Any:
    def work(transaction: Transaction) -> None:
        transaction.connection.execute("INSERT INTO bench (value) VALUES (?)", (f"value {index}",))

    return work


def count(snapshot: Snapshot) -> Any:
    return snapshot.connection.execute("SELECT count(*) FROM bench").get


def open_raw(path: Path) -> apsw.Connection:
    SCHEMA.create(path, SystemAmbient())
    connection = open_database(path)
    connection.execute(TABLE)
    return connection


def restore_raw(path: Path, image: bytes) -> None:
    with path.open("wb") as file:
        file.write(image)
        os.fdatasync(file.fileno())
    connection = open_database(path)
    connection.execute("SELECT count(*) FROM bench").fetchall()
    connection.close()


async def rows(directory: Path, *, quick: bool) -> list[Row]:
    bench = Bench(directory)
    n = 100 if quick else 500
    found = [await bench.ship(n)]
    found += await bench.branching_rows(n, 10_000_000 if quick else 100_000_000)
    found.append(await bench.cold_wake("cold_wake_200kb", 4, 200_000, n // 5))
    found.append(await bench.cold_wake("cold_wake_10mb", 5, 10_000_000, 5 if quick else 20))
    bench.engine.close()
    return found


# --- figures that are no rows --------------------------------------------------------------------


def bytes_shipped(directory: Path, batch: int, count: int) -> float:
    """Bytes in segments for each memory of 200 characters, `batch` of them in a write."""
    ambient = SystemAmbient()
    texts = Texts(seed=5)

    async def run() -> float:
        node = Node.open(directory, store=MemoryStore(ambient), limits=replace(INLINE, threads=1))
        address = Address.of_profile("bench", "bytes")

        async def ingest(first: int, size: int) -> None:
            summaries = [texts.words(60)[:200] for _ in range(size)]
            items = [
                {"type": "fact", "topic_key": f"topic.{first + index}", "summary": summary, "content": None}
                for index, summary in enumerate(summaries)
            ]
            await invoke(node, OPERATIONS["memory_ingest"], address, {"memories": items}, LOCAL, durable=True)

        await ingest(0, 200)
        entry = node.catalog.known("bench--bytes")
        assert entry is not None
        before = node.engine.publisher.stats.bytes
        for number in range(count):
            await ingest(1_000 + number * batch, batch)
        shipped = node.engine.publisher.stats.bytes - before
        await node.close()
        return shipped / (batch * count)

    return asyncio.run(run())


def publish_lags(directory: Path, n: int) -> list[float]:
    """Seconds from a standard commit to its being in the manifest, threads and a `file://` store."""
    ambient = SystemAmbient()
    node = Node.open(directory, limits=Limits(threads=1))
    ref = BranchRef("7" * 32)
    lags = []
    try:
        node.engine.write(ref, lambda t: t.connection.execute(TABLE).fetchall()).result()
        for index in range(n):
            started = ambient.monotonic()
            node.engine.write(ref, insert(index)).result()
            txid = node.engine.read(ref, lambda _: None, durable=False).result().txid
            while (held := node.engine.manifests.read(ref)) is None or held.manifest.head_txid < txid:
                time.sleep(0.001)
            lags.append(ambient.monotonic() - started)
    finally:
        asyncio.run(node.close())
    return lags


_OWNER = """
import asyncio, sys
from pathlib import Path
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_mcp.logs import configure_logging
from memoturn_core.registry import OPERATIONS

async def main():
    node = Node.open(Path(sys.argv[1]))
    address = Address.of_profile("bench", "killed")
    for number in range(10**6):
        turn = {"session": "s", "role": "user", "content": f"turn {number}"}
        reply = await invoke(node, OPERATIONS["memory_append"], address, turn, LOCAL)
        print(reply.value["seq"], flush=True)

asyncio.run(main())
"""


@contextmanager
def owner(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the profile and writes to it all the time; says each turn that it acknowledged."""
    process = subprocess.Popen([sys.executable, "-c", _OWNER, str(directory)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def recoveries(directory: Path, n: int) -> list[float]:
    """Seconds from the owner's kill -9 to the first write that another process acknowledges."""
    found = []
    for number in range(n):
        data = directory / f"killed-{number}"
        with owner(data) as process:
            assert process.stdout is not None
            for _ in range(50):
                process.stdout.readline()

            async def take_over(data: Path = data, process: subprocess.Popen[str] = process) -> float:
                node = Node.open(data)
                address = Address.of_profile("bench", "killed")
                turn = {"session": "t", "role": "user", "content": "from elsewhere"}
                await invoke(node, OPERATIONS["memory_append"], address, turn, LOCAL)  # through the owner
                process.send_signal(signal.SIGKILL)
                started = time.perf_counter()
                await invoke(node, OPERATIONS["memory_window"], address, {"session": "t"}, LOCAL)
                await invoke(node, OPERATIONS["memory_append"], address, turn | {"session": "u"}, LOCAL)
                seconds = time.perf_counter() - started
                await node.close()
                return seconds

            found.append(asyncio.run(take_over()))
    return found


def figures(directory: Path, *, quick: bool) -> list[str]:
    n = 20 if quick else 100
    lags = publish_lags(directory / "lag", n)
    taken_over = recoveries(directory, 3 if quick else 10)
    return [
        f"bytes shipped a memory of 200 characters: {bytes_shipped(directory / 'single', 1, n):.0f} single, "
        f"{bytes_shipped(directory / 'batched', 10, n // 5):.0f} in batches of 10",
        f"publish lag: p50 {percentile(lags, 0.5) * 1e3:.0f} ms, p99 {percentile(lags, 0.99) * 1e3:.0f} ms "
        f"(interval {Limits().ship_interval_s * 1e3:.0f} ms, n {len(lags)})",
        f"kill -9 of the owner to another's acknowledged write: p50 {percentile(taken_over, 0.5) * 1e3:.0f} ms, "
        f"slowest {max(taken_over) * 1e3:.0f} ms (n {len(taken_over)})",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, 10 MB instead of 100")
    parser.add_argument("--figures", action="store_true", help="only the figures, not the rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    turn_lookaside_off()
    configure_logging("warning", json=False)
    with tempfile.TemporaryDirectory() as directory:
        found = [] if arguments.figures else asyncio.run(rows(Path(directory), quick=arguments.quick))
        print(f"python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}, {platform.machine()}")
        print(table(found))
        for figure in figures(Path(directory), quick=arguments.quick):
            print(figure)
    if arguments.json:
        arguments.json.write_text(json.dumps([each.as_json() for each in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
