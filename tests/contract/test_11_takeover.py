"""Items 113 to 115 and 123: an owner that is closed, deposed, idle, or does not answer.

The nodes of one data directory keep each other out as processes do: the lease is a lock of the open file.
"""

from __future__ import annotations

import fcntl
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from contract.branches import (
    WAIT,
    create,
    elsewhere,
    execute,
    fork,
    manifest,
    on,
    ref,
    selected,
    shipped,
    storage,
    summaries,
    sync,
    turns,
)
from contract.live_node import Live, Memory, event, fact, serve, statuses
from memoturn_storage.leases.file import FileLeases
from memoturn_storage.leases.lease import OwnedElsewhere
from objects.faulty import Faults, FaultyStore

DURABLE = {"Memoturn-Durability": "durable"}


def owns(live: Live, memory: Memory) -> bool:
    return live.node.engine.is_open(ref(live, memory))


# --- the owner goes ------------------------------------------------------------------------------


def test_item_113_when_the_owner_is_closed_the_next_write_elsewhere_acquires_and_keeps_everything(
    tmp_path, ambient, store
):
    with ExitStack() as outer, serve(tmp_path, ambient=ambient, store=store) as second:
        first = outer.enter_context(serve(tmp_path, ambient=ambient, store=store))
        memory = first.memory()
        [oslo] = memory.keep(fact("user.city", "Lives in Oslo"))
        there = fork(memory, "x")
        there.keep(event("note of x"))
        theirs = elsewhere(memory, second)
        theirs.append("s", "user", "Hello")
        execute(first, ref(first, memory), "CREATE TABLE mine (value)")
        outer.close()
        [rome] = theirs.keep(fact("user.city", "Lives in Rome"))
        assert rome["superseded"] == [oslo["id"]]
        assert owns(second, memory)
        assert turns(theirs, "s") == ["Hello"]
        assert selected(second, ref(second, memory), "SELECT * FROM mine") == []
        assert summaries(on(theirs, "x")) == {"note of x"}
        assert sync(theirs) == 4
        assert storage(theirs)["epoch"] == 2


def test_item_113_what_a_closed_owner_could_not_ship_is_carried_on_by_the_next(tmp_path, ambient, store):
    faulty = FaultyStore(store, Random(0), Faults())
    with ExitStack() as outer, serve(tmp_path, ambient=ambient, store=store) as second:
        first = outer.enter_context(serve(tmp_path, ambient=ambient, store=faulty))
        memory = first.memory()
        memory.keep(event("note 1"))
        sync(memory)
        faulty.down = True
        memory.keep(event("note 2"))
        outer.close()
        assert shipped(store, ref(second, memory)) == 1
        theirs = elsewhere(memory, second)
        theirs.keep(event("note 3"))
        assert summaries(theirs) == {"note 1", "note 2", "note 3"}
        assert sync(theirs) == 3


def test_item_113_requests_under_way_while_the_owner_is_closed_are_answered_and_lose_nothing(tmp_path, ambient, store):
    with ExitStack() as outer, serve(tmp_path, ambient=ambient, store=store) as second:
        first = outer.enter_context(serve(tmp_path, ambient=ambient, store=store))
        memory = first.memory()
        memory.keep(event("note 0"))
        theirs = elsewhere(memory, second)
        some, closed = threading.Event(), threading.Event()

        def write() -> set[str]:
            kept = {"note 0"}
            number = 0
            while not closed.is_set() or number < 30:
                number += 1
                response = theirs.ingest(event(f"note {number}"))
                # What is lost on the way may have been carried out; the writer asks again, for that is safe.
                if response.status_code == 503:
                    response = theirs.ingest(event(f"note {number}"))
                assert response.status_code == 201, response.text
                kept.add(f"note {number}")
                if number == 5:
                    some.set()
            return kept

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            assert some.wait(WAIT)
            outer.close()
            closed.set()
            kept = writing.result(WAIT)
        assert summaries(theirs) == kept
        assert owns(second, memory)


def test_item_114_a_deposed_writer_is_fenced_and_the_new_owners_data_is_intact(tmp_path, ambient, store):
    # Two data directories have two sets of leases: what two machines would have whose leases failed them.
    with (
        serve(tmp_path / "a", ambient=ambient, store=store) as first,
        serve(tmp_path / "b", ambient=ambient, store=store) as second,
    ):
        memory = first.memory()
        memory.keep(event("note 1"))
        sync(memory)
        theirs = elsewhere(memory, second)
        theirs.keep(event("note 2"))
        assert sync(theirs) == 2
        assert storage(theirs)["epoch"] == 2
        memory.keep(event("note that is not linked"))
        response = memory.ingest(event("nor is this"), headers=DURABLE)
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        found = manifest(store, ref(second, memory))
        assert (found.head_txid, found.epoch) == (2, 2)
        theirs.keep(event("note 3"))
        assert sync(theirs) == 3
        assert summaries(theirs) == {"note 1", "note 2", "note 3"}
        assert summaries(memory) >= {"note 1", "note 2"}
        assert "note that is not linked" not in summaries(memory)


def test_item_115_the_owner_does_not_acquire_again_and_epochs_outlive_leases(tmp_path, ambient, store):
    for epoch in (1, 2, 3):
        with serve(tmp_path, ambient=ambient, store=store) as live:
            memory = Memory(live.http, "acme", "ann")
            for number in range(3):
                memory.keep(event(f"note {epoch} {number}"))
                sync(memory)
                assert storage(memory)["epoch"] == epoch
            uuid = ref(live, memory).uuid
            with pytest.raises(OwnedElsewhere):
                stranger(tmp_path).acquire(uuid)
        free = stranger(tmp_path)
        free.acquire(uuid)
        free.close()


def test_item_115_an_idle_database_is_given_up_and_another_process_may_have_it(tmp_path, ambient, store):
    with (
        serve(tmp_path, ambient=ambient, store=store) as first,
        serve(tmp_path, ambient=ambient, store=store) as second,
    ):
        memory = first.memory()
        memory.keep(event("note 1"))
        ambient.advance(seconds=3_600)
        first.node.upkeep.light_pass()
        first.node.engine.exclusive(ref(first, first_other(first)), lambda _: None).result(WAIT)
        wait_for_release(tmp_path, ref(first, memory).uuid)
        assert not owns(first, memory)
        assert elsewhere(memory, second).keep(event("note 2"))[0]["status"] == "created"
        assert (owns(first, memory), owns(second, memory)) == (False, True)
        assert summaries(memory) == {"note 1", "note 2"}


def first_other(live: Live) -> Memory:
    memory = live.memory()
    memory.keep(event("note"))
    return memory


def wait_for_release(directory: Path, uuid: str) -> None:
    """Wait until nobody holds the lease."""
    with (directory / "databases" / uuid[:2] / uuid / "lease").open() as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)


def stranger(directory: Path, address: str = "") -> FileLeases:
    """The leases of another process, which answers nobody."""
    return FileLeases(directory / "databases", address)


# --- an owner that does not answer ---------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "nobody.sock"])
def test_item_123_an_owner_that_cannot_be_reached_is_an_error_in_time_and_the_others_are_served(
    tmp_path, ambient, store, address
):
    with serve(tmp_path, ambient=ambient, store=store, request_timeout_s=0.5) as live:
        live.node.catalog.create("acme--ann")
        memory, other = Memory(live.http, "acme", "ann"), live.memory()
        hung = stranger(tmp_path, address and str(tmp_path / address))
        hung.acquire(ref(live, memory).uuid)
        for response in (memory.ingest(event("note")), memory.recall(query="note")):
            assert response.status_code in (408, 502, 503), response.text
        assert statuses(other.keep(event("note"))) == ["created"]
        hung.close()
        assert statuses(memory.keep(event("note"))) == ["created"]


def test_item_123_leases_that_do_not_work_are_503_and_nothing_is_written(tmp_path, ambient, store):
    with serve(tmp_path, ambient=ambient, store=store) as live:
        live.node.catalog.create("acme--ann")
        memory = Memory(live.http, "acme", "ann")
        uuid = ref(live, memory).uuid
        lease = tmp_path / "databases" / uuid[:2] / uuid / "lease"
        lease.mkdir(parents=True)
        for response in (memory.ingest(event("note")), memory.recall(query="note"), create(memory, "x")):
            assert (response.status_code, response.json()["code"]) == (503, "unavailable")
            assert str(tmp_path) not in response.text
        assert shipped(store, ref(live, memory)) == 0
        shutil.rmtree(lease)
        assert statuses(memory.keep(event("note"))) == ["created"]
