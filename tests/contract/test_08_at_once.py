"""Branches that are made, rewound, promoted and deleted while others write: nothing fails, nothing is half done."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from contract.branches import (
    WAIT,
    KeptStore,
    act,
    checkpoint,
    create,
    elsewhere,
    fork,
    names,
    on,
    ref,
    remove,
    rewind,
    selected,
    storage,
    summaries,
    sync,
)
from contract.live_node import Live, Memory, event, serve
from memoturn_storage.ambient import ManualAmbient

DURABLE = {"Memoturn-Durability": "durable"}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    ambient = ManualAmbient()
    with serve(tmp_path_factory.mktemp("node"), ambient=ambient, store=KeptStore(ambient)) as served:
        yield served


def beside_writers(memory: Memory, work: Callable[[], None], *, also: tuple[int, ...] = ()) -> set[str]:
    """Do `work` while two clients write, one of them durably; the notes they wrote. Statuses are 201 or of `also`."""
    over = threading.Event()
    begun = threading.Barrier(3)

    def write(by: str, headers: dict[str, str]) -> set[str]:
        kept = set()
        number = 0
        while not over.is_set():
            number += 1
            response = memory.ingest(event(f"note {number} by {by}"), headers=headers)
            assert response.status_code in (201, *also), response.text
            if response.status_code == 201:
                kept.add(f"note {number} by {by}")
            if number == 2:
                begun.wait(WAIT)
        return kept

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, "a", {}), pool.submit(write, "b", DURABLE)]
        try:
            begun.wait(WAIT)
            work()
        finally:
            over.set()
        return set().union(*(writer.result(WAIT) for writer in writers))


def whole(live: Live, memory: Memory, branch: str = "main") -> None:
    """What this node and a node that knows only the object store say of a branch is the same."""
    here = on(memory, branch)
    txid = sync(here)
    assert (storage(here)["head_txid"], here.txid) == (txid, txid)
    assert selected(live, ref(live, memory, branch), "PRAGMA integrity_check") == [("ok",)]
    assert summaries(here, as_of=txid) == summaries(here)


def test_forks_while_others_write_are_each_one_state_of_their_parent(live, memory):
    memory.keep(event("note 0"))
    forks: list[Memory] = []

    def work() -> None:
        for number in range(12):
            forks.append(fork(memory, f"x{number}"))

    kept = beside_writers(memory, work)
    assert summaries(memory) == kept | {"note 0"}
    seen = [summaries(there) for there in forks]
    for earlier, later in itertools.pairwise(seen):
        assert {"note 0"} <= earlier <= later <= kept | {"note 0"}
    for there, notes in zip(forks, seen, strict=True):
        assert there.txid <= memory.txid
        assert summaries(memory, as_of=there.txid) == notes
    whole(live, memory)


def test_checkpoints_while_others_write_are_each_one_state(live, memory):
    memory.keep(event("note 0"))
    txids: dict[str, int] = {}

    def work() -> None:
        for number in range(12):
            txids[f"c{number}"] = checkpoint(memory, f"c{number}")

    beside_writers(memory, work)
    assert list(txids.values()) == sorted(txids.values())
    assert storage(memory)["checkpoints"] == txids
    for name, txid in txids.items():
        assert summaries(memory, as_of=name) == summaries(memory, as_of=txid)
    whole(live, memory)


def test_rewinds_while_others_write_fail_no_write_and_leave_one_history(live, memory):
    memory.keep(event("note 0"))
    checkpoint(memory, "c")

    def work() -> None:
        for _ in range(8):
            assert rewind(memory, "c")["rewound_to"] == 1

    beside_writers(memory, work)
    whole(live, memory)
    rewind(memory, "c")
    assert summaries(memory) == {"note 0"}
    assert sync(memory) == 1


def test_a_durable_write_that_is_acknowledged_after_a_rewind_is_not_of_before_it(live, memory):
    memory.keep(event("note 0"))
    checkpoint(memory, "c")

    def work() -> None:
        for _ in range(4):
            rewind(memory, "c")

    beside_writers(memory, work)
    assert memory.ingest(event("note at last"), headers=DURABLE).status_code == 201
    assert "note at last" in summaries(memory)
    whole(live, memory)


def test_promotions_while_others_write_to_main_leave_one_history(live, memory):
    memory.keep(event("note 0"))
    fork(memory, "x").keep(event("note of x"))

    def work() -> None:
        for number in range(6):
            assert act(memory, "x", "promote", keep_as=f"old{number}").status_code == 200

    beside_writers(memory, work)
    assert {"note 0", "note of x"} <= summaries(memory)
    assert summaries(on(memory, "x")) == {"note 0", "note of x"}
    for name in ("main", "x", *(f"old{number}" for number in range(6))):
        whole(live, memory, name)


def test_a_branch_that_is_deleted_while_others_write_to_it_is_gone_and_main_is_whole(live, memory):
    memory.keep(event("note 0"))
    for _ in range(4):
        there = fork(memory, "x")
        beside_writers(there, lambda: remove_it(memory), also=(404, 503))  # 503: it was written, and never shipped
        assert there.recall(query="note").status_code == 404
        assert names(memory) == []
    assert summaries(memory) == {"note 0"}
    whole(live, memory)


def remove_it(memory: Memory) -> None:
    assert remove(memory, "x").status_code == 204


def test_of_many_who_make_the_same_branch_one_does(memory):
    memory.keep(event("note 0"))
    with ThreadPoolExecutor(8) as pool:
        answers = [each.result(WAIT) for each in [pool.submit(create, memory, "x") for _ in range(8)]]
    assert sorted(response.status_code for response in answers) == [201, *[409] * 7]
    assert names(memory) == ["x"]


def test_of_many_who_delete_a_branch_none_fails(memory):
    memory.keep(event("note 0"))
    fork(memory, "x")
    with ThreadPoolExecutor(8) as pool:
        answers = [each.result(WAIT) for each in [pool.submit(remove, memory, "x") for _ in range(8)]]
    assert {response.status_code for response in answers} == {204}


def test_everything_at_once_on_one_profile_ends_in_a_profile_that_another_node_can_read(tmp_path, live, memory):
    memory.keep(event("note 0"))
    checkpoint(memory, "c")
    actions: list[Callable[[], httpx.Response]] = [
        lambda: create(memory, "x"),
        lambda: act(memory, "main", "rewind", to="c"),
        lambda: act(memory, "main", "checkpoint", name="d"),
        lambda: act(memory, "x", "promote"),
        lambda: act(memory, "x", "rewind", to=1),
        lambda: remove(memory, "x"),
        lambda: memory.http.post(f"{memory.database}/sync"),
        lambda: memory.http.get(f"{memory.database}/storage"),
        lambda: memory.recall(query="note", as_of=1),
    ]

    def work() -> None:
        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(action) for _ in range(4) for action in actions]:
                response = each.result(WAIT)
                # 503 where the history was replaced or the branch deleted under it: trying again is safe.
                assert response.status_code in (200, 201, 204, 404, 409, 503), response.text

    beside_writers(memory, work)
    whole(live, memory)
    before = summaries(memory)
    store = live.node.store
    assert isinstance(store, KeptStore)
    lost = store.copy()
    with serve(tmp_path, ambient=live.ambient, store=lost) as fresh:
        assert summaries(elsewhere(memory, fresh)) == before
