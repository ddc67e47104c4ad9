"""Items 6, 95 and 96: what is safe when it is acknowledged, and an object store that is down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest

from contract.branches import (
    KeptStore,
    elsewhere,
    fork,
    names,
    ref,
    restored,
    shipped,
    storage,
    summaries,
    sync,
)
from contract.live_node import Live, event, serve
from contract.provider_server import provider
from contract.replies import endpoint, openai_says, proposed
from memoturn_core.providers.language import OpenAIModel
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from objects.faulty import Faults, FaultyStore

DURABLE = {"Memoturn-Durability": "durable"}
NEVER = Faults()


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Iterator[Live]:
    """A node over an object store that can be looked into; while its clock stands still, nothing ships by itself."""
    ambient = ManualAmbient()
    with serve(tmp_path_factory.mktemp("node"), ambient=ambient, store=KeptStore(ambient)) as served:
        yield served


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
