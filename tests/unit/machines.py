"""Machines: nodes with data directories of their own on one object store, which may fail at any call."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memoturn_core.address import NODE, Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectStore

GRACE_S = 600


class SharedStore(MemoryStore):
    """Objects that outlive the nodes which close them."""

    def close(self) -> None:
        """Stay as it is."""

    def names(self, prefix: str = "v1/") -> set[str]:
        return {info.key for info in self.list(prefix)}

    def uuids(self) -> set[str]:
        """The databases of which there is any object."""
        return {part for part in (key.split("/")[1] for key in self.names()) if not part.startswith("_")}


class Machine:
    """One node, on one thread; each of its writes is acknowledged once the store has it."""

    def __init__(self, store: ObjectStore, ambient: ManualAmbient, directory: Path | None = None) -> None:
        self._store = store
        self._ambient = ambient
        self._directory = directory
        self._runner = asyncio.Runner()
        self._temporary = tempfile.TemporaryDirectory(prefix="machine-")
        self.open()

    @property
    def directory(self) -> Path:
        return self._directory or Path(self._temporary.name)

    def open(self) -> None:
        limits = Limits(threads=0, idle_s=0, cold_s=0, grace_s=GRACE_S)
        self.node = Node.open(self.directory, ambient=self._ambient, store=self._store, limits=limits, durable=True)

    def call(self, operation: str, address: Address = NODE, **arguments: Any) -> Any:
        """The answer's value. Afterwards everything sleeps, as machines that share no leases need it."""
        try:
            return self._runner.run(invoke(self.node, OPERATIONS[operation], address, arguments, LOCAL)).value
        finally:
            self.rest()

    def rest(self) -> None:
        self.node.engine.run_due()

    def restart(self, *, fresh_disk: bool = False) -> None:
        self._runner.run(self.node.close())
        if fresh_disk:
            self._temporary.cleanup()
            self._temporary = tempfile.TemporaryDirectory(prefix="machine-")
        self.open()

    def close(self) -> None:
        self._runner.run(self.node.close())
        self._runner.close()
        self._temporary.cleanup()

    # --- what tests do ---------------------------------------------------------------------------

    def create(self, name: str, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.call("provision_database", name=name, **more)
        return made

    def delete(self, name: str) -> None:
        self.call("db_delete", Address.of_database(name))

    def write(self, name: str, text: str) -> None:
        self.call("memory_append", _address(name), session="s", role="user", content=text)

    def texts(self, name: str) -> list[str]:
        turns = self.call("memory_window", _address(name), session="s", last=1_000)["turns"]
        return [turn["content"] for turn in turns]

    def listed(self) -> list[str]:
        return [entry["name"] for entry in self.call("list_databases", limit=1_000)["databases"]]

    def upkeep(self) -> None:
        self.node.upkeep.light_pass()
        self.node.upkeep.heavy_pass()

    def deleted_at(self, name: str) -> int | None:
        return self.node.catalog.deleted_at(name)


def _address(name: str) -> Address:
    namespace, separator, profile = name.partition("--")
    return Address.of_profile(namespace, profile) if separator else Address.of_database(name)


def tidy(store: SharedStore, ambient: ManualAmbient, machine: Machine, done: Callable[[], bool]) -> bool:
    """Let time go by and the upkeep work until `done`."""
    for _ in range(8):
        if done():
            return True
        ambient.advance(seconds=GRACE_S + 1)
        machine.upkeep()
    return done()
