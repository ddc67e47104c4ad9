"""Item 145: what a database's usage counts, and says that it does not know."""

from __future__ import annotations

import threading
from typing import Any

from contract.branches import KeptStore, execute, fork, sync
from contract.databases import append, made, name_of, usage
from contract.live_node import event, serve
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.store import StoreUnavailable


def test_item_145_usage_counts_rows_and_bytes_by_kind(live):
    entry = made(live.http, "counted")
    path = "/v1/db/counted"
    empty = usage(live.http, "counted")
    kinds = ("memories", "turns", "documents", "kv", "vectors", "episodes", "tables")
    assert empty["rows"] == dict.fromkeys(kinds, 0)
    assert (empty["txid"], empty["reads"], empty["counted_since"]) == (0, None, None)
    assert set(empty["unknown"]) == {"reads", "counted_since"}
    append(live.http, "counted", "Hello " * 2_000)
    for key in ("a", "b", "c"):
        assert live.http.put(f"{path}/kv/ns/{key}", content=b"x" * 5_000).status_code == 200
    for collection in ("one", "two"):
        docs = [{"n": number, "text": "y" * 500} for number in range(20)]
        assert live.http.post(f"{path}/docs/{collection}/insert", json={"docs": docs}).status_code == 201
    for number in range(5):
        vector = {"id": str(number), "embedding": [float(number), 1.0]}
        assert live.http.post(f"{path}/vectors/v", json=vector).status_code == 200
    branch = BranchRef(entry["uuid"])
    execute(live, branch, 'CREATE TABLE "odd "" name" (x)')
    execute(live, branch, 'CREATE INDEX by_x ON "odd "" name" (x)')
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)"
    execute(live, branch, f'{numbers} INSERT INTO "odd "" name" SELECT i FROM n')
    execute(live, branch, "CREATE VIRTUAL TABLE words USING fts5(w)")
    execute(live, branch, "INSERT INTO words VALUES ('of mine')")
    found = usage(live.http, "counted")
    assert found["rows"] == {
        "memories": 0,
        "turns": 1,
        "documents": 40,
        "kv": 3,
        "vectors": 5,
        "episodes": 0,
        "tables": 700,
    }
    grown = {kind: found["bytes"][kind] - empty["bytes"][kind] for kind in found["bytes"]}
    assert grown["memories"] == 0
    assert grown["turns"] > 12_000
    assert grown["kv"] > 15_000
    assert grown["documents"] > 20_000
    assert grown["tables"] > 2 * 700
    assert found["size"] >= sum(found["bytes"].values()) > 50_000
    assert found["txid"] == 1 + 3 + 2 + 5 + 5


def test_episodes_are_counted_as_episodes(live, memory):
    memory.keep(event("Something"))
    empty = usage(live.http, name_of(memory))
    path = f"{memory.path}/episodes"
    for number in range(2):
        begun = live.http.post(path, json={"task_description": f"task {number}"}).json()["episode_id"]
        step = {"tool": "grep", "action": "look " * 500, "result": {"type": "success"}}
        assert live.http.post(f"{path}/{begun}/steps", json=step).status_code == 201
    found = usage(live.http, name_of(memory))
    assert found["rows"] == {**empty["rows"], "episodes": 2}
    grown = {kind for kind in found["bytes"] if found["bytes"][kind] > empty["bytes"][kind]}
    assert grown == {"episodes"}


def test_item_145_usage_counts_reads_and_writes_since_a_time_that_it_says(live, memory):
    memory.keep(event("Something"))
    live.ambient.advance(seconds=3)
    memory.recall(query="x")
    since = live.ambient.now_ms()
    before = usage(live.http, name_of(memory))
    assert before["counted_since"] == since
    assert before["reads"] >= 1
    for _ in range(4):
        memory.recall(query="x")
    memory.keep(event("More"))
    memory.keep(event("And more"))
    after = usage(live.http, name_of(memory))
    assert after["counted_since"] == since
    assert after["reads"] == before["reads"] + 4 + 1
    assert (after["writes"], after["txid"]) == (before["writes"] + 2, 3)
    assert after["unknown"] == {}


def test_item_145_usage_says_what_object_storage_has(tmp_path, ambient, store):
    with serve(tmp_path, ambient=ambient, store=store) as live:
        memory = live.memory()
        memory.keep(event("Something"))
        sync(memory)
        memory.keep(event("More"))
        sync(memory)
        fork(memory, "x")
        found = usage(live.http, name_of(memory))
        assert (found["branches"], found["snapshots"], found["segments"], found["shipped_txid"]) == (2, 1, 1, 2)
        objects = {info.key: info.size for info in store.list(f"v1/{found['uuid']}/")}
        assert found["bytes_stored"] == sum(objects.values())
        assert found["bytes_shipped"] == sum(size for key, size in objects.items() if key.endswith(".ltx"))
        on_branch = live.http.get(f"/v1/databases/{name_of(memory)}@x/usage").json()
        assert (on_branch["branch"], on_branch["rows"]["memories"]) == ("x", 2)


def test_item_145_what_is_not_known_is_null_with_a_reason(tmp_path, ambient):
    class Deaf(KeptStore):
        def list(self, prefix: str) -> Any:
            if deaf.is_set() and "branches" in prefix:
                raise StoreUnavailable("listing")
            return super().list(prefix)

    deaf = threading.Event()
    with serve(tmp_path, ambient=ambient, store=Deaf(ambient)) as live:
        memory = live.memory()
        memory.keep(event("Something"))
        memory.txid  # noqa: B018
        deaf.set()
        found = usage(live.http, name_of(memory))
        nothing = {"branches", "segments", "snapshots", "shipped_txid", "bytes_shipped", "bytes_stored"}
        assert {name for name, value in found.items() if value is None} == nothing == set(found["unknown"])
        assert found["rows"]["memories"] == 1


def test_item_145_usage_of_an_unknown_database_is_404(live):
    for name in ("never-was", "acme--never"):
        response = live.http.get(f"/v1/databases/{name}/usage")
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
