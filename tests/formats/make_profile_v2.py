"""Made `profile-v2.db`, the golden file of schema version 2. Run once, when version 2 was the newest.

Never run it again, as `make_profile_v1` says.

    python -m tests.formats.make_profile_v2
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import BranchRef

TARGET = Path(__file__).with_name("profile-v2.db")
PROFILE = Address.of_profile("golden", "profile")


class Compass:
    """An embedder that knows four words, each a direction of its own."""

    model = "compass"

    async def embed(self, texts: Sequence[str], *, purpose: str) -> list[list[float]]:
        return [
            [1.0 if word in text.lower() else 0.125 for word in ("north", "east", "south", "west")] for text in texts
        ]

    async def aclose(self) -> None:
        pass


async def write(node: Node, ambient: ManualAmbient) -> None:
    async def call(operation: str, **arguments: Any) -> Any:
        ambient.advance(seconds=1)
        return (await invoke(node, OPERATIONS[operation], PROFILE, arguments, LOCAL)).value

    def city(name: str, **further: Any) -> dict[str, Any]:
        fact = {"type": "fact", "topic_key": "user.city", "summary": f"The user lives in {name}"}
        return {**fact, "content": {"city": name}, "session_id": "first", "source": "agent-a", **further}

    await call("memory_ingest", memories=[city("Oslo, in the north")])
    await call("memory_ingest", memories=[city("Rome, in the south", keywords="home address")])
    await call(
        "memory_ingest",
        memories=[
            {"type": "instruction", "topic_key": "style", "summary": "Answer briefly", "content": {"a": "naïve 🦊"}},
            {"type": "event", "summary": "A client's own vector", "content": 1, "embedding": [0.0, 0.0, 0.0, 2.0]},
            {"type": "event", "summary": "To be forgotten in the east", "content": {"secret": 1}},
            {"type": "task", "summary": "Buy oat milk", "ttl": 10_000_000_000, "session_id": "second"},
            {"type": "task", "summary": "Call back within a minute", "content": 1, "ttl": 60},
        ],
    )
    forgotten = await call("memory_recall", query="forgotten")
    await call("memory_forget", id=forgotten["memories"][0]["id"])
    for role, content in [("user", "Which way is north?"), ("assistant", "Up."), ("user", "Danke, schön!")]:
        await call("memory_append", session="first", role=role, content=content)

    await call("docs_insert", collection="orders", docs=[{"_id": "o1", "total": 30, "lines": [{"sku": "tea"}]}])
    await call("docs_index", collection="orders", path="total")
    await call("docs_insert", collection="orders", docs=[{"_id": "o2", "total": 7.5}, {"_id": "o3", "total": None}])
    await call("docs_update", collection="orders", filter={"_id": "o2"}, update={"$set": {"paid.by": "card"}})
    await call("docs_delete", collection="orders", filter={"_id": "o3"})

    await call("kv_put", ns="cache", key="greeting", value="hello")
    await call("kv_put", ns="cache", key="bytes", value={"$base64": "AP8A"})
    await call("kv_put", ns="cache", key="brief", value="soon gone", ttl=60)
    await call("kv_put", ns="cache", key="long", value="kept", ttl=10_000_000_000)

    near = [{"id": "a", "embedding": [1.0, 0.0, 0.0]}, {"id": "b", "embedding": [0.0, 3.0, 0.0]}]
    await call("vector_upsert", collection="places", vectors=near)
    await call("vector_upsert", collection="places", id="c", embedding=[0.0, 0.0, 1.0])
    await call("vector_delete", collection="places", id="c")

    statements: list[dict[str, Any]] = [
        {"q": "CREATE TABLE cups (id INTEGER PRIMARY KEY, name TEXT NOT NULL, size REAL, photo BLOB)"},
        {"q": "CREATE INDEX cups_by_name ON cups (name)"},
        {"q": "INSERT INTO cups (name, size, photo) VALUES (?, ?, ?)", "params": ["tea", 0.25, {"$base64": "AP8A"}]},
        {"q": "INSERT INTO cups (name) VALUES ('mocha')"},
        {"q": "CREATE VIEW large AS SELECT name FROM cups WHERE size > 0.2"},
    ]
    await call("query", stmts=statements)


def main() -> None:
    if TARGET.exists():
        raise SystemExit(f"{TARGET.name} is there already, and is never made again")
    with tempfile.TemporaryDirectory() as directory:
        ambient = ManualAmbient(seed=2)
        node = Node.open(Path(directory), ambient=ambient, limits=Limits(threads=0), embedder=Compass())
        entry = node.catalog.create(PROFILE.database or "")
        asyncio.run(write(node, ambient))
        asyncio.run(node.close())
        shutil.copyfile(LocalFiles(Path(directory) / "databases", BranchRef(entry.uuid)).database, TARGET)


if __name__ == "__main__":
    main()
