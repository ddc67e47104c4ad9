"""Items 6 and 92 to 105: what a write is safe against, and what the object store holds of it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from random import Random

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
    restored,
    rewind,
    selected,
    shipped,
    storage,
    summaries,
    sync,
    turns,
)
from contract.live_node import Live, Memory, event, fact, serve
from contract.provider_server import provider
from contract.replies import endpoint, openai_says, proposed
from memoturn_core.providers.language import OpenAIModel
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.restore import Restorer
from objects.faulty import Faults, FaultyStore

DURABLE = {"Memoturn-Durability": "durable"}
NEVER = Faults()


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Iterator[Live]:
    """A node over an object store that can be looked into; while its clock stands still, nothing ships by itself."""
    ambient = ManualAmbient()
    with serve(tmp_path_factory.mktemp("node"), ambient=ambient, store=KeptStore(ambient)) as served:
        yield served


@pytest.fixture
def kept(live) -> KeptStore:
    """The object store of the module's node."""
    assert isinstance(live.node.store, KeptStore)
    return live.node.store


@pytest.fixture
def ambient() -> ManualAmbient:
    """The clock of nodes and stores of the test's own."""
    return ManualAmbient()


@pytest.fixture
def store(ambient) -> KeptStore:
    return KeptStore(ambient)


# --- acknowledged is durable ---------------------------------------------------------------------


def test_item_6_a_durable_ingest_is_in_the_object_store_before_it_is_acknowledged(live, kept, memory):
    assert memory.ingest(event("note 1"), headers=DURABLE).status_code == 201
    assert shipped(kept, ref(live, memory)) == 1
    memory.keep(event("note 2"))
    memory.append("s", "user", "Hello")
    assert memory.append("s", "user", "Hello").status_code == 201
    assert shipped(kept, ref(live, memory)) == 1
    assert memory.ingest(event("note 3"), headers=DURABLE).headers["Memoturn-Txid"] == "5"
    assert shipped(kept, ref(live, memory)) == 5


def test_item_6_a_duplicate_of_what_is_not_shipped_yet_is_durable_when_it_is_acknowledged(live, kept, memory):
    memory.keep(event("note"))
    again = memory.ingest(event("note"), headers=DURABLE).json()
    assert (again["results"][0]["status"], again["txid"]) == ("duplicate", 1)
    assert shipped(kept, ref(live, memory)) == 1


def test_item_6_a_durable_extract_is_shipped_and_elsewhere_the_wish_is_ignored(tmp_path, ambient, store):
    reply = openai_says({"memories": [proposed(summary="note")]})
    with (
        provider(reply) as it,
        serve(tmp_path, ambient=ambient, store=store, language_model=OpenAIModel(endpoint(it.url), ambient)) as live,
    ):
        memory = live.memory()
        body = {"turns": [{"role": "user", "content": "Hello"}]}
        assert memory.http.post(f"{memory.path}/extract", json=body, headers=DURABLE).status_code == 201
        assert shipped(store, ref(live, memory)) == 1
        turn = {"role": "user", "content": "Hello"}
        assert memory.http.post(f"{memory.path}/sessions/s/turns", json=turn, headers=DURABLE).status_code == 201
        [hit] = memory.found(query="note")
        assert memory.http.delete(f"{memory.path}/memories/{hit['id']}", headers=DURABLE).status_code == 204
        assert shipped(store, ref(live, memory)) == 1


def test_item_96_a_durable_node_ships_every_write_before_it_acknowledges_it(tmp_path, ambient, store):
    with serve(tmp_path, ambient=ambient, store=store, durable=True) as live:
        memory = live.memory()
        [kept] = memory.keep(event("note", session_id="s"))
        head = ref(live, memory)
        assert shipped(store, head) == 1
        memory.append("s", "user", "Hello")
        assert shipped(store, head) == 2
        memory.forget(kept["id"])
        assert shipped(store, head) == 3
        memory.http.delete(f"{memory.path}/sessions/s")
        assert shipped(store, head) == 4
        standard = memory.ingest(event("note"), headers={"Memoturn-Durability": "standard"})
        assert (standard.status_code, shipped(store, head)) == (201, 5)


def test_item_96_what_is_acknowledged_at_once_is_shipped_within_half_a_second(live, kept, memory):
    memory.keep(event("note 1"))
    memory.keep(event("note 2"))
    head = ref(live, memory)
    assert shipped(kept, head) == 0
    live.ambient.advance(seconds=0.5)
    kept.wait_until(lambda: shipped(kept, head) == 2)


@pytest.mark.parametrize("wish", ["Durable", "yes", "durable, durable", ""])
def test_item_6_a_wish_that_is_none_is_400_and_writes_nothing(memory, wish):
    response = memory.ingest(event("note"), headers={"Memoturn-Durability": wish})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["error"].startswith("Memoturn-Durability: ")
    assert not memory.exists


# --- an object store that is down ----------------------------------------------------------------


def test_a_store_that_is_down_fails_durable_writes_and_no_others_and_is_caught_up_with(tmp_path, ambient, store):
    faulty = FaultyStore(store, Random(0), NEVER)
    with serve(tmp_path, ambient=ambient, store=faulty) as live:
        memory = live.memory()
        memory.ingest(event("note 1"), headers=DURABLE)
        faulty.down = True
        memory.keep(event("note 2"))
        response = memory.ingest(event("note 3"), headers=DURABLE)
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        memory.keep(event("note 4"))
        assert summaries(memory) == {"note 1", "note 2", "note 3", "note 4"}
        assert shipped(store, ref(live, memory)) == 1
        faulty.down = False
        ambient.advance(seconds=5)
        store.wait_until(lambda: shipped(store, ref(live, memory)) == 4)
        again = memory.ingest(event("note 3"), headers=DURABLE).json()
        assert (again["results"][0]["status"], again["txid"]) == ("duplicate", 4)


def test_a_store_that_is_down_fails_syncs_and_branches_and_they_change_nothing(tmp_path, ambient, store):
    faulty = FaultyStore(store, Random(0), NEVER)
    with serve(tmp_path, ambient=ambient, store=faulty) as live:
        memory = live.memory()
        memory.keep(event("note 1"))
        there = fork(memory, "x")
        memory.keep(event("note 2"))
        before = store.names()
        faulty.down = True
        for response in (
            memory.http.post(f"{memory.database}/sync"),
            memory.http.get(f"{memory.database}/storage"),
            memory.http.get(f"{memory.database}/branches"),
            memory.http.post(f"{memory.database}/branches", json={"name": "y"}),
            memory.http.post(f"{memory.database}/branches/main/checkpoint", json={"name": "c"}),
            memory.http.post(f"{memory.database}/branches/main/rewind", json={"to": 1}),
            memory.http.post(f"{memory.database}/branches/x/promote", json={"keep_as": "z"}),
            memory.http.delete(f"{memory.database}/branches/x"),
        ):
            assert (response.status_code, response.json()["code"]) == (503, "unavailable"), response.request.url
        assert store.names() == before
        faulty.down = False
        assert (summaries(memory), summaries(there), names(memory)) == ({"note 1", "note 2"}, {"note 1"}, ["x"])
        assert (sync(memory), sync(there)) == (2, 1)
        assert storage(memory)["checkpoints"] == {}


def test_a_profile_cannot_begin_while_the_store_is_down_and_nothing_of_it_is_left(tmp_path, ambient, store):
    faulty = FaultyStore(store, Random(0), NEVER)
    with serve(tmp_path, ambient=ambient, store=faulty) as live:
        live.memory().keep(event("note"))
        memory = live.memory()
        faulty.down = True
        assert memory.ingest(event("note")).status_code == 503
        assert memory.recall(query="note").status_code == 503
        faulty.down = False
        assert memory.found(query="note") == []
        assert not memory.exists
        assert memory.keep(event("note"))[0]["status"] == "created"


def test_a_backlog_that_is_too_long_refuses_writes_loses_nothing_and_reads_go_on(tmp_path, ambient, store):
    faulty = FaultyStore(store, Random(0), NEVER)
    with serve(tmp_path, ambient=ambient, store=faulty, limits=Limits(backlog_bytes=200_000)) as live:
        memory = live.memory()
        memory.keep(event("note 0"))
        faulty.down = True
        kept = {"note 0"}
        for number in range(1, 100):
            response = memory.ingest(event(f"note {number}", keywords="word " * 500))
            if response.status_code != 201:
                break
            kept.add(f"note {number}")
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        assert "object store" in response.json()["error"]
        assert summaries(memory) == kept
        faulty.down = False
        assert sync(memory) == len(kept)
        memory.keep(event("note at last"))
        assert summaries(memory) == kept | {"note at last"}


@pytest.mark.parametrize("seed", range(4))
def test_over_a_store_that_fails_before_and_after_the_effect_what_is_acknowledged_is_there(
    tmp_path, ambient, store, seed
):
    faults = Faults(before=0.1, after=0.1, lost=0.1)
    with serve(tmp_path / "a", ambient=ambient, store=FaultyStore(store, Random(seed), faults)) as live:
        memory = live.memory()
        acknowledged = set()
        for number in range(40):
            response = memory.ingest(event(f"note {number}"), headers=DURABLE)
            assert response.status_code in (201, 503), response.text
            if response.status_code == 201:
                acknowledged.add(f"note {number}")
        lost = store.copy()
    assert acknowledged
    with serve(tmp_path / "b", ambient=ambient, store=lost) as fresh:
        assert summaries(elsewhere(memory, fresh)) >= acknowledged


# --- sync ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"content": b""}, {"content": b" \n"}, {"json": {}}])
def test_item_95_sync_answers_when_the_object_store_has_everything(live, kept, memory, options):
    memory.keep(event("note 1"))
    memory.keep(event("note 2"))
    assert shipped(kept, ref(live, memory)) == 0
    response = memory.http.post(f"{memory.database}/sync", **options)
    assert (response.status_code, response.json()) == (200, {"txid": 2})
    assert response.headers["Memoturn-Txid"] == "2"
    with closing(restored(kept, ref(live, memory))) as state:
        assert state.execute("SELECT count(*) FROM __memoturn_memories").get == 2
        assert state.execute("PRAGMA integrity_check").get == "ok"


def test_item_95_a_database_that_nobody_has_written_to_is_in_sync(live, memory):
    live.node.catalog.create(f"{memory.namespace}--{memory.profile}")
    assert sync(memory) == 0
    inspected = storage(memory)
    assert (inspected["head_txid"], inspected["oldest_txid"], inspected["snapshots"]) == (0, None, [])


def test_item_95_sync_of_one_branch_leaves_the_others_unshipped(live, kept, memory):
    memory.keep(event("note 1"))
    there = fork(memory, "x")
    there.keep(event("note 2"))
    memory.keep(event("note 3"))
    memory.keep(event("note 4"))
    assert sync(there) == 2
    assert shipped(kept, ref(live, memory, "x")) == 2
    assert shipped(kept, ref(live, memory)) == 1


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
