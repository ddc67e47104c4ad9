"""Items 97 to 105: what the object store holds of a database, and coming back from it alone."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator

import pytest

from contract.branches import (
    KeptStore,
    checkpoint,
    elsewhere,
    execute,
    fork,
    manifest,
    names,
    on,
    ref,
    rewind,
    selected,
    shipped,
    storage,
    summaries,
    sync,
    turns,
)
from contract.live_node import Live, Memory, event, fact, serve
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.restore import Restorer


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Iterator[Live]:
    """A node over an object store that can be looked into; while its clock stands still, nothing ships by itself."""
    ambient = ManualAmbient()
    with serve(tmp_path_factory.mktemp("node"), ambient=ambient, store=KeptStore(ambient)) as served:
        yield served


# --- loss ----------------------------------------------------------------------------------------


def lived(live) -> tuple[Memory, Memory]:
    """A profile with something of everything, on main and on a branch, all of it in the object store."""
    memory = live.memory()
    memory.keep(fact("user.city", "Lives in Oslo", session_id="s", embedding=[1.0, 0.0]))
    memory.keep(fact("user.city", "Lives in Rome", embedding=[0.0, 1.0]))
    memory.append("s", "user", "Hello")
    execute(live, ref(live, memory), "CREATE TABLE mine (value)")
    execute(live, ref(live, memory), "INSERT INTO mine VALUES (?)", "kept")
    there = fork(memory, "x")
    there.keep(event("note of x"))
    checkpoint(memory, "c")
    sync(memory)
    sync(there)
    return memory, there


def seen(memory: Memory, live) -> tuple:
    here = elsewhere(memory, live)
    there = on(here, "x")
    hits = [
        state.found(query="lives note", embedding=[0.0, 1.0], include_superseded=True, k=100) for state in (here, there)
    ]
    tables = [selected(live, ref(live, memory, branch), "SELECT value FROM mine") for branch in ("main", "x")]
    return hits, tables, here.sessions().json(), turns(here, "s"), names(here), here.exists


def test_item_97_synced_state_survives_the_total_loss_of_a_node(tmp_path, ambient, store):
    with serve(tmp_path / "lost", ambient=ambient, store=store) as live:
        memory, _ = lived(live)
        before = seen(memory, live)
        lost = store.copy()
        memory.keep(event("note that was never shipped"))
    fastest = 1e9
    for number in range(3):
        with serve(tmp_path / f"fresh{number}", ambient=ambient, store=lost) as fresh:
            here = elsewhere(memory, fresh)
            began = time.perf_counter()
            assert len(here.found(query="lives")) == 1
            fastest = min(fastest, time.perf_counter() - began)
            assert seen(memory, fresh) == before
            for branch in ("main", "x"):
                assert selected(fresh, ref(fresh, memory, branch), "PRAGMA integrity_check") == [("ok",)]
            assert summaries(on(here, "x")) == {"note of x"}
            assert here.keep(event(f"note {number}"))[0]["status"] == "created"
            assert rewind(here, "c")["rewound_to"] == 5
    assert fastest < 0.2


def test_item_97_the_local_files_are_a_cache_that_may_be_deleted(tmp_path):
    with serve(tmp_path) as live:
        memory, _ = lived(live)
        before = seen(memory, live)
    shutil.rmtree(tmp_path / "databases")
    (tmp_path / "catalog.db").unlink()
    with serve(tmp_path) as live:
        assert seen(memory, live) == before


def test_what_a_killed_node_had_acknowledged_and_not_shipped_is_there_and_is_shipped(tmp_path, ambient, store):
    with serve(tmp_path / "a", ambient=ambient, store=store) as live:
        memory, there = lived(live)
        memory.keep(event("note 1"))
        memory.append("s", "user", "Goodbye")
        there.keep(event("note 2"))
        before = seen(memory, live)
        killed = store.copy()
        shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("run", "objects"))
    with serve(tmp_path / "b", ambient=ambient, store=killed) as live:
        assert seen(memory, live) == before
        ambient.advance(seconds=1)
        killed.wait_until(lambda: shipped(killed, ref(live, memory)) == 7)
        killed.wait_until(lambda: shipped(killed, ref(live, memory, "x")) == 7)


def test_item_105_names_survive_the_loss_of_a_node_without_any_sync(tmp_path, ambient, store):
    def profiles(live) -> list:
        return [live.http.get(f"/v1/memory/{memory.namespace}").json() for memory in memories]

    with serve(tmp_path / "a", ambient=ambient, store=store) as live:
        memories = [live.memory() for _ in range(3)]
        for memory in memories:
            memory.keep(event("note"))
            ambient.advance(seconds=1)
        before, uuids = profiles(live), [ref(live, memory) for memory in memories]
        lost = store.copy()
    with serve(tmp_path / "b", ambient=ambient, store=lost) as fresh:
        assert profiles(fresh) == before
        assert [ref(fresh, memory) for memory in memories] == uuids
        assert elsewhere(memories[0], fresh).keep(event("another note"))[0]["status"] == "created"


# --- the object store ----------------------------------------------------------------------------


def test_item_98_the_first_ship_is_one_snapshot_and_later_ones_are_contiguous_segments(live, kept, memory):
    memory.keep(event("note 1"))
    sync(memory)
    head = ref(live, memory)
    first = manifest(kept, head)
    assert ([entry.txid for entry in first.snapshots], first.segments) == ([1], ())
    for number in range(2, 8):
        memory.keep(event(f"note {number}"))
        if number % 2:
            assert sync(memory) == number
    found = manifest(kept, head)
    assert [(entry.min, entry.max) for entry in found.segments] == [(1, 3), (3, 5), (5, 7)]
    assert found.head_txid == 7
    assert {*found.keys()} <= kept.names()
    inspected = storage(memory)
    assert [(entry["min"], entry["max"]) for entry in inspected["segments"]] == [(1, 3), (3, 5), (5, 7)]
    sizes = {info.key: info.size for info in kept.list(f"v1/{head.uuid}/")}
    assert inspected["bytes"] == sum(sizes[key] for key in set(found.keys()))


def test_item_98_after_21_syncs_there_are_two_snapshots_a_short_chain_and_every_transaction(live, kept, memory):
    for number in range(1, 22):
        memory.keep(event(f"note {number}"))
        assert sync(memory) == number
    head = ref(live, memory)
    kept.wait_until(lambda: len(manifest(kept, head).snapshots) >= 2 and len(manifest(kept, head).chain) < 16)
    for txid in (1, 2, 15, 16, 17, 20, 21):
        image = Restorer(kept).image(manifest(kept, head), txid)
        assert len(image) % 1024 == 0
        assert rewind_free_count(memory, txid) == txid


def rewind_free_count(memory: Memory, txid: int) -> int:
    return len(memory.found(query="note", k=1_000, as_of=txid))


def test_item_99_after_a_rewind_in_mid_chain_the_fork_keeps_the_full_chain_and_main_ships_again(
    tmp_path, ambient, store
):
    with serve(tmp_path, ambient=ambient, store=store) as live:
        memory = live.memory()
        for number in range(1, 9):
            memory.keep(event(f"note {number}"))
            sync(memory)
            if number == 4:
                checkpoint(memory, "c")
        there = fork(memory, "x")
        assert rewind(memory, "c")["rewound_to"] == 4
        head, branch = ref(live, memory), ref(live, memory, "x")
        assert (manifest(store, head).segments[-1].max, manifest(store, branch).segments[-1].max) == (4, 8)
        memory.keep(event("note of another future"))
        assert sync(memory) == 5
        there.keep(event("note 9"))
        assert sync(there) == 9
        lost = store.copy()
    with serve(tmp_path / "fresh", ambient=ambient, store=lost) as fresh:
        here = elsewhere(memory, fresh)
        assert summaries(here) == {*(f"note {n}" for n in range(1, 5)), "note of another future"}
        assert summaries(on(here, "x")) == {f"note {n}" for n in range(1, 10)}


def test_item_100_a_damaged_object_is_refused_and_named_and_nothing_is_answered_from_it(tmp_path, ambient, store):
    def damage(key: str, how: str) -> None:
        data = bytearray(store.get(key).data)
        if how == "gone":
            return store.delete(key)
        data[len(data) // 2] ^= 0x40
        return store.put(key, bytes(data if how == "changed" else data[: len(data) // 2]))

    damaged = {}
    with serve(tmp_path / "a", ambient=ambient, store=store) as live:
        whole = live.memory()
        for kind in ("snapshots", "ltx"):
            for how in ("changed", "cut", "gone"):
                memory = live.memory()
                damaged[kind, how] = memory
        for memory in (whole, *damaged.values()):
            for number in (1, 2):
                memory.keep(event(f"note {number}"))
                sync(memory)
        keys = {each: store.names(f"v1/{ref(live, memory).uuid}/{each[0]}/") for each, memory in damaged.items()}
    for (_, how), [key] in keys.items():
        damage(key, how)
    with serve(tmp_path / "b", ambient=ambient, store=store) as fresh:
        for each, memory in damaged.items():
            here = elsewhere(memory, fresh)
            # One request each, for a fault is logged with its traceback, which takes its time.
            response = here.recall(query="note") if each[1] == "cut" else here.ingest(event("note 3"))
            assert (response.status_code, response.json()["code"]) == (500, "internal"), each
            assert response.json()["error"].startswith(f"{next(iter(keys[each]))}: "), each
        assert summaries(elsewhere(whole, fresh)) == {"note 1", "note 2"}


def test_item_101_a_pool_of_one_open_database_loses_nothing(tmp_path, ambient, store):
    with serve(tmp_path / "a", ambient=ambient, store=store, limits=Limits(hot_cap=1)) as live:
        memories = [live.memory() for _ in range(2)]
        for memory in memories:
            memory.keep(event("note 0"))
        states = [*memories, *(fork(memory, "x") for memory in memories)]
        for number in range(1, 6):
            for state in states:
                state.keep(event(f"note {number}"))
                state.append("s", "user", f"turn {number}")
        for state in states:
            assert summaries(state) == {f"note {n}" for n in range(6)}
            assert turns(state, "s") == [f"turn {n}" for n in range(1, 6)]
        assert live.node.engine.stats().open_branches <= 2
    with serve(tmp_path / "b", ambient=ambient, store=store) as fresh:
        for memory in memories:
            for state in (elsewhere(memory, fresh), on(elsewhere(memory, fresh), "x")):
                assert summaries(state) == {f"note {n}" for n in range(6)}
                assert turns(state, "s") == [f"turn {n}" for n in range(1, 6)]


def test_item_103_what_a_rewind_discards_before_it_is_shipped_never_reaches_the_object_store(tmp_path, ambient, store):
    with serve(tmp_path / "a", ambient=ambient, store=store) as live:
        memory = live.memory()
        memory.keep(event("note 1"))
        sync(memory)
        uuid = ref(live, memory).uuid
        before = store.names(f"v1/{uuid}/")
        memory.keep(event("note that is discarded"))
        rewind(memory, 1)
        assert store.names(f"v1/{uuid}/") == before
        response = memory.http.get(f"{memory.path}/sessions", headers={"Memoturn-Min-Txid": "9"})
        assert response.status_code == 503
        ambient.advance(seconds=60)
        memory.keep(event("note 2"))
        shutil.copytree(tmp_path / "a", tmp_path / "killed", ignore=shutil.ignore_patterns("run"))
        killed = store.copy()
        response = memory.http.get(f"{memory.path}/sessions", headers={"Memoturn-Min-Txid": "9"})
        assert response.status_code == 503
        assert summaries(memory) == {"note 1", "note 2"}
    for directory, objects in ((tmp_path / "b", store), (tmp_path / "killed", killed)):
        with serve(directory, ambient=ambient, store=objects) as again:
            assert summaries(elsewhere(memory, again)) == {"note 1", "note 2"}
            assert sync(elsewhere(memory, again)) == 2


def test_item_103_a_node_that_was_killed_after_a_rewind_elsewhere_does_not_bring_back_what_it_discarded(
    tmp_path, ambient, store
):
    with serve(tmp_path / "a", ambient=ambient, store=store) as live:
        memory = live.memory()
        memory.keep(event("note 1"))
        sync(memory)
        memory.keep(event("note that is discarded"))
        shutil.copytree(tmp_path / "a", tmp_path / "killed", ignore=shutil.ignore_patterns("run"))
        rewind(memory, 1)
        memory.keep(event("note 2"))
        sync(memory)
    with serve(tmp_path / "killed", ambient=ambient, store=store) as again:
        assert summaries(elsewhere(memory, again)) == {"note 1", "note 2"}
        ambient.advance(seconds=60)
        assert sync(elsewhere(memory, again)) == 2
        assert summaries(elsewhere(memory, again)) == {"note 1", "note 2"}


def test_item_104_every_object_lies_where_the_contract_says(live, kept, memory):
    memory, there = lived(live)
    there.keep(event("note"))
    sync(there)
    uuid = ref(live, memory).uuid
    places = r"v1/[0-9a-f]{32}/(branches/(main|x)/manifest\.json|snapshots/.+|ltx/.+|garbage\.json)|v1/_catalog/.+"
    assert [key for key in kept.names() if not re.fullmatch(places, key)] == []
    for kind in ("branches", "snapshots", "ltx"):
        assert kept.names(f"v1/{uuid}/{kind}/")


def test_storage_tells_what_a_branch_consists_of(live, kept, memory):
    memory, there = lived(live)
    for state, branch, head in ((memory, "main", 5), (there, "x", 6)):
        inspected = storage(state)
        held = manifest(kept, ref(live, memory, branch))
        assert inspected["database"] == f"{memory.namespace}--{memory.profile}"
        assert (inspected["uuid"], inspected["branch"]) == (held.db_uuid, branch)
        assert (inspected["epoch"], inspected["head_txid"], inspected["oldest_txid"]) == (held.epoch, head, 1)
        assert {entry["key"] for entry in inspected["snapshots"] + inspected["segments"]} == held.keys()
        assert inspected["checkpoints"] == ({"c": 5} if branch == "main" else {})
