"""Made `profile-v1.db`, the golden file of schema version 1. Run once, when version 1 was the newest.

Never run it again: the file stands for those that people have on their disks, and a newer program would
make another one. A later version of the schema gets a script and a file of its own beside these.

    python -m tests.formats.make_profile_v1
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
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

TARGET = Path(__file__).with_name("profile-v1.db")
PROFILE = Address.of_profile("golden", "profile")


async def write(node: Node, ambient: ManualAmbient) -> None:
    async def call(operation: str, **arguments: Any) -> Any:
        ambient.advance(seconds=1)
        return (await invoke(node, OPERATIONS[operation], PROFILE, arguments, LOCAL)).value

    def city(name: str, vector: list[float]) -> dict[str, Any]:
        return {
            "type": "fact",
            "topic_key": "user.city",
            "summary": f"The user lives in {name}",
            "content": {"city": name},
            "keywords": "home address",
            "embedding": vector,
            "session_id": "first",
            "source": "agent-a",
        }

    await call("memory_ingest", memories=[city("Berlin", [1.0, 0.0, 0.0, 0.0])])
    await call("memory_ingest", memories=[city("Paris", [0.0, 1.0, 0.0, 0.0]), city("Zürich", [0.0, 0.0, 1.0, 0.0])])
    await call("memory_ingest", memories=[{**city("Berlin", [9.0, 9.0, 9.0, 9.0]), "source": "agent-b"}])
    await call(
        "memory_ingest",
        memories=[
            {
                "type": "instruction",
                "topic_key": "style",
                "summary": "Answer briefly",
                "content": {"z": [1, 2.5, None, True], "a": {"nested": "naïve 🦊"}},
            },
            {"type": "event", "summary": "Went running in the rain", "content": "5 km", "embedding": [0.5] * 4},
            {"type": "event", "summary": "To be forgotten", "content": {"secret": 1}, "embedding": [0.1] * 4},
            {"type": "task", "summary": "Buy oat milk", "ttl": 10_000_000_000, "session_id": "second"},
            {"type": "task", "summary": "Call back within a minute", "content": 1, "ttl": 60, "source": "agent-a"},
        ],
    )
    forgotten = await call("memory_recall", query="forgotten")
    await call("memory_forget", id=forgotten["memories"][0]["id"])
    for seq, (role, content) in enumerate(
        [("user", "Where do I live?"), ("assistant", "In Berlin, as far as I know."), ("user", "Danke, schön!")]
    ):
        embedding = [[1.0, 0.0, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0], None][seq]
        given = {} if embedding is None else {"embedding": embedding}
        await call("memory_append", session="first", role=role, content=content, **given)


def main() -> None:
    if TARGET.exists():
        raise SystemExit(f"{TARGET.name} is there already, and is never made again")
    with tempfile.TemporaryDirectory() as directory:
        ambient = ManualAmbient(seed=1)
        node = Node.open(Path(directory), ambient=ambient, limits=Limits(threads=0))
        entry = node.catalog.create(PROFILE.database or "")
        asyncio.run(write(node, ambient))
        asyncio.run(node.close())
        shutil.copyfile(LocalFiles(Path(directory) / "databases", BranchRef(entry.uuid)).database, TARGET)


if __name__ == "__main__":
    main()
