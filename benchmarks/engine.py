"""The engine's rows: in process, one thread, inline, each beside what raw SQLite and numpy take.

    python -m benchmarks.engine [--quick] [--json FILE]

The operations run through `invoke`, with validation and everything else that a surface would cause.
A row's bound is the least that must be done: the same rows written with plain apsw in one transaction,
the same full-text query and matrix product without anything around them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from benchmarks import episodes, storage, substrate
from benchmarks.measure import EVERYWHERE, Row, Texts, raw_database, table, timed
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_core.tables import SCHEMA
from memoturn_mcp.logs import configure_logging
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import open_database, turn_lookaside_off
from memoturn_storage.engine import Limits
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore

DIMENSION = 256


class Bench:
    def __init__(self, directory: Path) -> None:
        self.node = Node.open(directory, store=MemoryStore(SystemAmbient()), limits=Limits(threads=0))
        self.directory = directory
        self.texts = Texts(seed=7)

    async def call(self, operation: str, profile: str, arguments: dict[str, Any]) -> Any:
        address = Address.of_profile("bench", profile)
        return (await invoke(self.node, OPERATIONS[operation], address, arguments, LOCAL)).value

    def memory(self, topic: str) -> dict[str, Any]:
        summary = self.texts.sentence()
        return {
            "type": "fact",
            "topic_key": topic,
            "summary": summary,
            "content": {"text": summary},
            "embedding": self.texts.vector(DIMENSION),
        }

    async def fill(self, profile: str, count: int) -> None:
        for start in range(0, count, 1_000):
            batch = [self.memory(f"topic.{start + index}") for index in range(min(1_000, count - start))]
            await self.call("memory_ingest", profile, {"memories": batch})

    # --- rows ------------------------------------------------------------------------------------

    async def creation(self, quick: bool) -> list[Row]:
        raw = raw_database(self.directory / "catalog-bound.db")
        raw.execute("CREATE TABLE d (name TEXT PRIMARY KEY, uuid TEXT UNIQUE, created_at INTEGER) WITHOUT ROWID")

        async def create(index: int) -> None:
            self.node.catalog.create(f"bench--new-{index + 1_000}")

        def insert(index: int) -> None:
            raw.execute("INSERT INTO d VALUES (?, ?, ?)", (f"bench--{index}", f"{index:032x}", index))

        async def create_10k(index: int) -> None:
            for number in range(10_000):
                self.node.catalog.create(f"bench--many-{index + 1}-{number}")

        def insert_10k(index: int) -> None:
            for number in range(10_000):
                name = f"{index}-{number}"
                raw.execute("INSERT INTO d VALUES (?, ?, ?)", (name, f"{name:>032}", number))

        return [
            await timed("create_database", 200 if quick else 2_000, create, insert),
            await timed("create_10k_databases", 1 if quick else 5, create_10k, insert_10k),
        ]

    async def first_touch(self, quick: bool) -> Row:
        """The first write to a database that exists by name only."""
        image = SCHEMA.template

        async def touch(index: int) -> None:
            await self.call("memory_append", f"cold-{index + 1_000}", {"session": "s", "role": "user", "content": "hi"})

        def copy(index: int) -> None:
            path = self.directory / f"touch-{index}.db"
            path.write_bytes(image)
            connection = open_database(path)
            connection.execute("UPDATE __memoturn_txid SET txid = 1")
            connection.close()

        return await timed("first_touch", 50 if quick else 500, touch, copy)

    async def ingest(self, label: str, profile: str, count: int, n: int) -> Row:
        """One fact with a vector that supersedes another, in a profile of `count` memories."""
        raw = RawMemories(self.directory / f"{profile}-bound.db", self.texts, count)
        items = [self.memory(f"topic.{index % count}") for index in range(n + n // 10 + 1)]
        position = iter(items)

        async def operation(_: int) -> None:
            await self.call("memory_ingest", profile, {"memories": [next(position)]})

        return await timed(label, n, operation, lambda index: raw.supersede(items[index]))

    async def ingest_batch(self, profile: str, n: int) -> Row:
        raw = RawMemories(self.directory / f"{profile}-batch-bound.db", self.texts, 1_000)
        batches = [
            [self.memory(f"batch.{index}.{number}") for number in range(100)] for index in range(n + n // 10 + 1)
        ]
        position = iter(batches)

        async def operation(_: int) -> None:
            await self.call("memory_ingest", profile, {"memories": next(position)})

        return await timed("ingest_batch_100", n, operation, lambda index: raw.insert(batches[index]))

    async def recall(self, label: str, profile: str, n: int, extra: str = "") -> Row:
        """Topic, keyword and vector at once; the bound is one matrix product and one FTS5 query."""
        entry = self.node.catalog.known(f"bench--{profile}")
        if entry is None:
            raise LookupError(profile)
        connection = open_database(LocalFiles(self.directory / "databases", BranchRef(entry.uuid)).database)
        blobs: list[Any] = connection.execute("SELECT embedding FROM __memoturn_memory_vectors").fetchall()
        matrix = np.frombuffer(b"".join(blob for (blob,) in blobs), dtype="<f4").reshape(len(blobs), DIMENSION)
        questions = [(self.texts.words(6) + extra, self.texts.vector(DIMENSION)) for _ in range(64)]

        async def operation(index: int) -> None:
            query, vector = questions[index % 64]
            arguments = {"query": query, "embedding": vector, "topic_key": f"topic.{index % 100}"}
            await self.call("memory_recall", profile, arguments)

        def bound(index: int) -> None:
            query, vector = questions[index % 64]
            np.argpartition(-(matrix @ np.asarray(vector, "<f4")), 100)[:100]
            connection.execute(
                "SELECT rowid FROM __memoturn_memories_fts WHERE __memoturn_memories_fts MATCH ?"
                " ORDER BY rank LIMIT 100",
                (" OR ".join(f'"{word}"' for word in query.split()),),
            ).fetchall()

        return await timed(label, n, operation, bound)


class RawMemories:
    """The same tables, written with apsw and nothing else."""

    def __init__(self, path: Path, texts: Texts, count: int) -> None:
        SCHEMA.create(path, SystemAmbient())
        self._db = open_database(path)
        items = [
            {"topic_key": f"topic.{index}", "summary": texts.sentence(), "embedding": texts.vector(DIMENSION)}
            for index in range(count)
        ]
        self._next = 0
        self.insert(items)

    def insert(self, items: Sequence[dict[str, Any]]) -> None:
        with self._db:
            for item in items:
                self._put(item)

    def supersede(self, item: dict[str, Any]) -> None:
        with self._db:
            self._db.execute(
                "UPDATE __memoturn_memories SET superseded_at = 1, superseded_by = x'00'"
                " WHERE topic_key = ? AND type = 'fact' AND superseded_at IS NULL",
                (item["topic_key"],),
            )
            self._put(item)

    def _put(self, item: dict[str, Any]) -> None:
        self._next += 1
        key = self._next.to_bytes(16, "big")
        self._db.execute(
            "INSERT INTO __memoturn_memories (id, type, topic_key, summary, content, keywords, created_at)"
            " VALUES (?, 'fact', ?, ?, ?, '', 1)",
            (key, item["topic_key"], item["summary"], item["summary"]),
        )
        rowid = self._db.last_insert_rowid()
        self._db.execute(
            "INSERT INTO __memoturn_memories_fts (rowid, summary, keywords) VALUES (?, ?, '')", (rowid, item["summary"])
        )
        self._db.execute(
            "INSERT INTO __memoturn_memory_vectors VALUES (?, ?)",
            (rowid, np.asarray(item["embedding"], "<f4").tobytes()),
        )


async def measure(directory: Path, *, quick: bool) -> list[Row]:
    bench = Bench(directory)
    n = 100 if quick else 1_000
    rows = await bench.creation(quick)
    rows.append(await bench.first_touch(quick))
    rows += await substrate.rows(bench, quick=quick)
    for label, count in (("1k", 1_000), ("10k", 10_000)):
        await bench.fill(label, count)
        rows.append(await bench.recall(f"recall_{label}", label, n))
        if count == 10_000:
            rows.append(await bench.recall("recall_10k_common", label, n, f" {EVERYWHERE}"))
        rows.append(await bench.ingest(f"ingest_fact_{label}", label, count, n))
    rows.append(await bench.ingest_batch("1k", max(5, n // 20)))
    rows += await episodes.rows(bench, quick=quick)
    if not quick:
        await bench.fill("100k", 100_000)
        rows.append(await bench.recall("recall_100k", "100k", 100))
    await bench.node.close()
    return [*rows, *await storage.rows(directory / "storage", quick=quick)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, no 100 000 memories; under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    turn_lookaside_off()
    configure_logging("warning", json=False)
    with tempfile.TemporaryDirectory() as directory:
        rows = asyncio.run(measure(Path(directory), quick=arguments.quick))
    print(f"python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}, {platform.machine()}")
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
