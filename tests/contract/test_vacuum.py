"""Vacuum: less room, the same content, here and from the object store alone, whenever the process dies."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from contract.branches import KeptStore
from contract.live_node import Live, Memory, event, serve
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Handle
from objects.faulty import Faults, FaultyStore


def fill(memory: Memory) -> None:
    """Something of every kind, and much that is deleted again."""
    for number in range(5):
        memory.keep(event(f"note {number}", embedding=[1.0, float(number)]))
    sql(memory, "CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT)", "CREATE TABLE plain (name TEXT)")
    sql(memory, "INSERT INTO plain VALUES ('a'), ('b'), ('c')", "DELETE FROM plain WHERE name = 'b'")
    for _ in range(5):
        sql(memory, *["INSERT INTO big (text) VALUES (hex(zeroblob(20000)))"] * 10)
    sql(memory, "DELETE FROM big WHERE id > 2")


def sql(memory: Memory, *statements: str) -> Any:
    response = memory.http.post(f"{memory.path}/sql", json={"stmts": [{"q": each} for each in statements]})
    assert response.status_code == 200, response.text
    return response.json()["results"]


def content(memory: Memory) -> Any:
    found = memory.found(query="note", embedding=[1.0, 1.0])
    rows = sql(memory, "SELECT id, length(text) FROM big ORDER BY id", "SELECT name FROM plain ORDER BY name")
    return found, [each["rows"] for each in rows]


def vacuum(memory: Memory) -> Any:
    response = memory.http.post(f"{memory.database}/storage/vacuum")
    assert response.status_code == 200, response.text
    return response.json()


def sync(memory: Memory) -> int:
    return int(memory.http.post(f"{memory.database}/sync").json()["txid"])


def elsewhere(memory: Memory, live: Live) -> Memory:
    return Memory(live.http, memory.namespace, memory.profile)


def test_it_takes_less_room_and_holds_the_same_here_and_on_another_machine(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    with serve(tmp_path / "one", ambient=ambient, store=store) as live:
        memory = live.memory()
        fill(memory)
        before, txid = content(memory), memory.txid
        done = vacuum(memory)
        assert done["txid"] == txid + 1
        assert done["bytes_after"] < done["bytes_before"] / 3
        assert content(memory) == before
        memory.keep(event("later"))
        assert sync(memory) == txid + 2
        assert len(content(memory)[0]) == 5
        response = memory.recall(query="note", as_of=txid)
        assert len(response.json()["memories"]) == 5, "what was before is still in the history"
        after = content(memory)
    with serve(tmp_path / "two", ambient=ambient, store=store) as live:
        restored = elsewhere(memory, live)
        assert content(restored) == after
        rewound = live.http.post(f"{memory.database}/branches/main/rewind", json={"to": txid})
        assert rewound.status_code == 200, rewound.text
        assert content(restored) == before


@pytest.mark.parametrize("dies", ["before the transaction", "before it is shipped"])
@pytest.mark.parametrize("machine", ["stays up", "is started anew"])
def test_a_process_that_dies_in_between_loses_nothing(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore, monkeypatch: pytest.MonkeyPatch, dies: str, machine: str
) -> None:
    faulty = FaultyStore(store, Random(1), Faults())
    right = Handle.restart_tail
    left: list[KeptStore] = []

    def die(handle: Handle) -> None:
        if dies == "before it is shipped":
            faulty.down = True
            right(handle)
        shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("run"))
        left.append(store.copy())
        if dies == "before the transaction":
            right(handle)

    with serve(tmp_path / "one", ambient=ambient, store=faulty) as live:
        memory = live.memory()
        fill(memory)
        before, txid = content(memory), memory.txid
        with monkeypatch.context() as patch:
            patch.setattr(Handle, "restart_tail", die)
            vacuum(memory)
        faulty.down = False
    if machine == "is started anew":
        ambient.start_again()
    with serve(tmp_path / "two", ambient=ambient, store=left[0]) as live:
        again = elsewhere(memory, live)
        assert content(again) == before
        again.keep(event("later"))
        assert sync(again) > txid
        after = content(again)
    with serve(tmp_path / "three", ambient=ambient, store=left[0]) as live:
        assert content(elsewhere(memory, live)) == after


def test_without_the_object_store_nothing_is_changed(tmp_path: Path, ambient: ManualAmbient, store: KeptStore) -> None:
    faulty = FaultyStore(store, Random(1), Faults())
    with serve(tmp_path, ambient=ambient, store=faulty) as live:
        memory = live.memory()
        fill(memory)
        sync(memory)
        sql(memory, "INSERT INTO plain VALUES ('d')")
        faulty.down = True
        before, txid = content(memory), memory.txid
        refused = live.http.post(f"{memory.database}/storage/vacuum")
        assert refused.status_code == 503
        assert (content(memory), memory.txid) == (before, txid)
        faulty.down = False
        assert vacuum(memory)["txid"] == txid + 1


def test_of_what_was_never_written_there_is_nothing_to_vacuum(live: Live, memory: Memory) -> None:
    missing = live.http.post(f"{memory.database}/storage/vacuum")
    assert (missing.status_code, missing.json()["code"]) == (404, "database_not_found")
    assert live.http.post("/v1/databases", json={"name": "empty"}).status_code == 201
    done = live.http.post("/v1/db/empty/storage/vacuum")
    assert done.json() == {"bytes_before": 0, "bytes_after": 0, "txid": 0}
