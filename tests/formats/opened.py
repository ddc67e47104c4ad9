"""A node on a copy of a golden file. Used by the tests of every version's file."""

from __future__ import annotations

import asyncio
import os
import shutil
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

PROFILE = Address.of_profile("golden", "profile")
MADE_AT = 1_700_000_000_000
"""The clock of the scripts that made the files, before their first operation."""


class Opened:
    """A node, ten minutes after the file `golden` was made, on a copy of it."""

    def __init__(self, directory: Path, golden: Path) -> None:
        self.node = Node.open(
            directory, ambient=ManualAmbient(now_ms=MADE_AT + 600_000, seed=os.getpid()), limits=Limits(threads=0)
        )
        self.database = BranchRef(self.node.catalog.create("golden--profile").uuid)
        self.path = LocalFiles(directory / "databases", self.database).database
        self.path.parent.mkdir(parents=True)
        shutil.copyfile(golden, self.path)

    def call(self, operation: str, **arguments: Any) -> Any:
        return asyncio.run(invoke(self.node, OPERATIONS[operation], PROFILE, arguments, LOCAL)).value

    def recalled(self, **arguments: Any) -> list[str]:
        return [hit["id"] for hit in self.call("memory_recall", **arguments)["memories"]]

    def check(self, *indexes: str) -> list[Any]:
        """What SQLite says of the file and its full-text indexes, and its version."""

        def look(state: Any) -> list[Any]:
            for table in indexes:
                state.connection.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")
            return [state.connection.execute(f"PRAGMA {name}").get for name in ("integrity_check", "user_version")]

        return self.node.engine.read(self.database, look).result().value
