"""A profile's branches by their routes, and an object store that tests look into and that outlives its nodes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import apsw
import httpx

from contract.live_node import Live, Memory, RawMcp
from memoturn_storage.ambient import Ambient
from memoturn_storage.connection import open_memory
from memoturn_storage.handle import Transaction
from memoturn_storage.manifest import BranchRef, Manifest
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectMissing
from memoturn_storage.restore import Restorer

WAIT = 20
"""Seconds after which something that should have happened counts as hung."""


class KeptStore(MemoryStore):
    """Objects that outlive the nodes that close it, and whose writes can be waited for."""

    def __init__(self, ambient: Ambient) -> None:
        super().__init__(ambient)
        self._changed = threading.Condition()

    def close(self) -> None:
        """Stay as it is."""

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        self._tell()

    def put_if_absent(self, key: str, data: bytes) -> str:
        version = super().put_if_absent(key, data)
        self._tell()
        return version

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        version = super().put_if_match(key, data, version)
        self._tell()
        return version

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for a write after which `holds`."""
        with self._changed:
            assert self._changed.wait_for(holds, WAIT)

    def names(self, prefix: str = "v1/") -> set[str]:
        return {info.key for info in self.list(prefix)}

    def copy(self) -> KeptStore:
        """What is there now, as another store."""
        other = KeptStore(self._ambient)
        with self._lock:
            other._kept, other._keys = dict(self._kept), list(self._keys)
            other._writes = self._writes
        return other


class OnBranch:
    """A client that addresses a branch in every query."""

    def __init__(self, http: httpx.Client, branch: str) -> None:
        self._http = http
        self._branch = branch

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        params = {**(options.pop("params", None) or {}), "branch": self._branch}
        return self._http.request(method, path, params=params, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._send("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._send("POST", path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self._send("DELETE", path, **options)


def on(memory: Memory, branch: str) -> Memory:
    """The profile as it is on a branch."""
    client: Any = OnBranch(memory.http, branch)
    return Memory(client, memory.namespace, memory.profile)


def elsewhere(memory: Memory, live: Live) -> Memory:
    """The profile by way of another node."""
    return Memory(live.http, memory.namespace, memory.profile)


# --- routes --------------------------------------------------------------------------------------


def create(memory: Memory, name: str, **more: Any) -> httpx.Response:
    return memory.http.post(f"{memory.database}/branches", json={"name": name, **more})


def fork(memory: Memory, name: str, **more: Any) -> Memory:
    """The profile on a new branch."""
    response = create(memory, name, **more)
    assert response.status_code == 201, response.text
    return on(memory, name)


def listed(memory: Memory) -> list[dict[str, Any]]:
    response = memory.http.get(f"{memory.database}/branches")
    assert response.status_code == 200, response.text
    branches: list[dict[str, Any]] = response.json()["branches"]
    return branches


def names(memory: Memory) -> list[str]:
    return [entry["branch"] for entry in listed(memory)]


def remove(memory: Memory, branch: str) -> httpx.Response:
    return memory.http.delete(f"{memory.database}/branches/{branch}")


def act(memory: Memory, branch: str, what: str, **body: Any) -> httpx.Response:
    """`checkpoint`, `rewind` or `promote` a branch."""
    return memory.http.post(f"{memory.database}/branches/{branch}/{what}", json=body)


def checkpoint(memory: Memory, name: str, branch: str = "main") -> int:
    response = act(memory, branch, "checkpoint", name=name)
    assert response.status_code == 200, response.text
    return int(response.json()["txid"])


def rewind(memory: Memory, to: int | str, branch: str = "main") -> dict[str, Any]:
    response = act(memory, branch, "rewind", to=to)
    assert response.status_code == 200, response.text
    done: dict[str, Any] = response.json()
    return done


def sync(memory: Memory) -> int:
    response = memory.http.post(f"{memory.database}/sync")
    assert response.status_code == 200, response.text
    return int(response.json()["txid"])


def storage(memory: Memory) -> dict[str, Any]:
    response = memory.http.get(f"{memory.database}/storage")
    assert response.status_code == 200, response.text
    inspected: dict[str, Any] = response.json()
    return inspected


def tool(mcp: RawMcp, memory: Memory, name: str, /, **arguments: Any) -> dict[str, Any]:
    """What a tool that is certainly right answers."""
    called = mcp.call(name, namespace=memory.namespace, profile=memory.profile, **arguments)
    assert called["isError"] is False, called
    answer: dict[str, Any] = called["structuredContent"]
    assert json.loads(called["content"][0]["text"]) == answer
    return answer


# --- what is there -------------------------------------------------------------------------------


def summaries(memory: Memory, query: str = "note", **more: Any) -> set[str]:
    return {hit["summary"] for hit in memory.found(query=query, k=1_000, **more)}


def turns(memory: Memory, session: str, **query: Any) -> list[str]:
    response = memory.http.get(f"{memory.database}/memory/{session}/turns", params=query)
    assert response.status_code == 200, response.text
    return [turn["content"] for turn in response.json()["turns"]]


def ref(live: Live, memory: Memory, branch: str = "main") -> BranchRef:
    entry = live.node.catalog.find(f"{memory.namespace}--{memory.profile}")
    assert entry is not None
    return BranchRef(entry.uuid, branch)


def manifest(store: MemoryStore, branch: BranchRef) -> Manifest | None:
    """What the object store has of a branch, without asking any node."""
    try:
        return Manifest.decode(store.get(branch.manifest_key).data, branch.manifest_key)
    except ObjectMissing:
        return None


def shipped(store: MemoryStore, branch: BranchRef) -> int:
    """The head in the object store; 0 where there is none."""
    found = manifest(store, branch)
    return 0 if found is None else found.head_txid


def restored(store: MemoryStore, branch: BranchRef) -> apsw.Connection:
    """The branch's newest state as nobody but the object store knows it; to be closed."""
    found = manifest(store, branch)
    assert found is not None
    return open_memory(bytes(Restorer(store).image(found)))


# --- a table of the user's -----------------------------------------------------------------------


def execute(live: Live, branch: BranchRef, sql: str, *values: object) -> int:
    """Write with raw SQL, past every operation; the txid."""

    def work(transaction: Transaction) -> None:
        transaction.connection.execute(sql, values)

    return live.node.engine.write(branch, work).result(WAIT).txid


def selected(live: Live, branch: BranchRef, sql: str) -> list[Any]:
    return (
        live.node.engine.read(branch, lambda snapshot: snapshot.connection.execute(sql).fetchall()).result(WAIT).value
    )
