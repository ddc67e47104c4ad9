"""Items 112, 116 and 124: whoever does not own a database asks the process that does.

Two nodes are served from one data directory; the lease is a lock of the open file, so they keep each other
out as two processes do, and ask each other over a socket.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract.branches import (
    WAIT,
    KeptStore,
    act,
    checkpoint,
    create,
    elsewhere,
    names,
    on,
    ref,
    remove,
    rewind,
    shipped,
    storage,
    summaries,
    sync,
    turns,
)
from contract.live_node import Live, Memory, event, fact, ids, serve, statuses
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits

DURABLE = {"Memoturn-Durability": "durable"}
QUEUE = 16
"""Writes that may wait for one database."""


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Iterator[tuple[Live, Live]]:
    """Two nodes on one data directory, on one clock, over one object store."""
    directory, ambient = tmp_path_factory.mktemp("shared"), ManualAmbient()
    store = KeptStore(ambient)
    with (
        serve(directory, ambient=ambient, store=store, limits=Limits(queue_depth=QUEUE)) as first,
        serve(directory, ambient=ambient, store=store) as second,
    ):
        yield first, second


@pytest.fixture
def first(two) -> Live:
    return two[0]


@pytest.fixture
def second(two) -> Live:
    return two[1]


@pytest.fixture
def mine(first) -> Memory:
    """A profile that the first node owns."""
    memory = first.memory()
    memory.keep(fact("user.city", "Lives in Oslo", session_id="s"))
    return memory


@pytest.fixture
def theirs(mine, second) -> Memory:
    """The same by way of the second node."""
    return elsewhere(mine, second)


def owns(live: Live, memory: Memory) -> bool:
    return live.node.engine.is_open(ref(live, memory))


# --- forwarding ----------------------------------------------------------------------------------


def test_item_112_the_first_write_acquires_the_database_at_epoch_1(mine, first, second):
    assert (owns(first, mine), owns(second, mine)) == (True, False)
    sync(mine)
    assert storage(mine)["epoch"] == 1


def test_item_112_a_write_elsewhere_is_forwarded_and_its_status_body_and_txid_are_relayed(mine, theirs, first, second):
    [oslo] = mine.found(topic_key="user.city")
    response = theirs.ingest(fact("user.city", "Lives in Rome"))
    assert (response.status_code, response.headers["Memoturn-Txid"]) == (201, "2")
    [rome] = response.json()["results"]
    assert (rome["status"], rome["superseded"], response.json()["txid"]) == ("created", [oslo["id"]], 2)
    for memory in (mine, theirs):
        assert ids(memory.found(topic_key="user.city")) == [rome["id"]]
        assert memory.get(oslo["id"]).json()["superseded_by"] == rome["id"]
    assert theirs.append("s", "user", "Hello").json() == {"seq": 1, "txid": 3}
    gone = theirs.forget(rome["id"])
    assert (gone.status_code, gone.content, gone.headers["Memoturn-Txid"]) == (204, b"", "4")
    assert (owns(first, mine), owns(second, mine)) == (True, False)
    sync(theirs)
    assert storage(theirs)["epoch"] == storage(mine)["epoch"] == 1


def test_item_112_errors_are_relayed_as_the_owner_says_them(mine, theirs):
    create(mine, "x")
    for here, there in (
        (mine.get("mem_" + "0" * 32), theirs.get("mem_" + "0" * 32)),
        (mine.forget("mem_" + "0" * 32), theirs.forget("mem_" + "0" * 32)),
        (create(mine, "x"), create(theirs, "x")),
        (act(mine, "main", "rewind", to="nope"), act(theirs, "main", "rewind", to="nope")),
        (act(mine, "main", "rewind", to=99), act(theirs, "main", "rewind", to=99)),
        (mine.recall(), theirs.recall()),
        (on(mine, "nope").recall(query="x"), on(theirs, "nope").recall(query="x")),
    ):
        assert there.status_code == here.status_code >= 400
        assert there.json() == here.json()


def test_item_112_reads_elsewhere_are_the_owners_and_disclose_its_txid(mine, theirs):
    mine.append("s", "user", "Hello")
    assert theirs.recall(query="lives").json() == mine.recall(query="lives").json()
    assert theirs.sessions().json() == mine.sessions().json()
    assert turns(theirs, "s") == ["Hello"]
    newest = {"Memoturn-Min-Txid": "2"}
    response = theirs.http.get(f"{theirs.path}/sessions", headers=newest)
    assert (response.status_code, response.headers["Memoturn-Txid"]) == (200, "2")
    response = theirs.http.get(f"{theirs.path}/sessions", headers={"Memoturn-Min-Txid": "3"})
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


def test_item_112_branches_are_made_rewound_promoted_and_deleted_by_the_owner(mine, theirs, first, second):
    mine.keep(event("note 1"))
    assert create(theirs, "x").json()["fork_txid"] == 2
    on(theirs, "x").keep(event("note 2"))
    assert summaries(on(mine, "x")) == {"note 1", "note 2"}
    assert checkpoint(theirs, "c", "x") == 3
    on(mine, "x").keep(event("note 3"))
    assert rewind(theirs, "c", "x")["rewound_to"] == 3
    assert summaries(on(mine, "x")) == {"note 1", "note 2"}
    assert act(theirs, "x", "promote", keep_as="old").status_code == 200
    assert summaries(mine) == summaries(theirs) == {"note 1", "note 2"}
    assert remove(theirs, "x").status_code == 204
    assert names(mine) == names(theirs) == ["old"]
    assert on(mine, "x").recall(query="note").status_code == 404
    assert not owns(second, mine)
    assert theirs.keep(event("note 4"))[0]["status"] == "created"
    assert owns(first, mine)


def test_item_112_what_both_write_at_once_is_all_there_once(mine, theirs):
    with ThreadPoolExecutor(2) as pool:
        writing = [
            pool.submit(lambda memory, by: [memory.keep(event(f"note {n} by {by}")) for n in range(20)], memory, by)
            for memory, by in ((mine, "a"), (theirs, "b"))
        ]
        results = [result for each in writing for [result] in each.result(WAIT)]
    assert statuses(results) == ["created"] * 40
    expected = {f"note {n} by {by}" for n in range(20) for by in "ab"}
    assert summaries(mine) == summaries(theirs) == expected


def test_item_116_creates_that_race_converge_on_one_database(first, second):
    memories = [first.memory() for _ in range(6)]
    start = threading.Barrier(2)

    def make(live: Live, by: str) -> None:
        start.wait(WAIT)
        for memory in memories:
            elsewhere(memory, live).keep(event(f"note by {by}"))

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(make, first, "a"), pool.submit(make, second, "b")]:
            each.result(WAIT)
    for memory in memories:
        assert ref(first, memory) == ref(second, memory)
        for live in (first, second):
            assert summaries(elsewhere(memory, live)) == {"note by a", "note by b"}


def test_item_124_a_forwarded_write_is_as_durable_as_was_asked_for(mine, theirs, first):
    store = first.node.store
    theirs.keep(event("note 1"))
    assert shipped(store, ref(first, mine)) == 0
    assert theirs.ingest(event("note 2"), headers=DURABLE).status_code == 201
    assert shipped(store, ref(first, mine)) == 3


def test_item_124_a_forwarded_refusal_keeps_its_retry_after(mine, theirs, first):
    entered, released = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        entered.set()
        assert released.wait(WAIT)

    branch = ref(first, mine)
    holding = first.node.engine.read(branch, hold)
    assert entered.wait(WAIT)
    queued = [first.node.engine.write(branch, lambda _: None) for _ in range(QUEUE)]
    try:
        for memory in (mine, theirs):
            response = memory.ingest(event("note"))
            assert (response.status_code, response.json()["code"]) == (429, "overloaded")
            assert response.headers["Retry-After"] == "1"
    finally:
        released.set()
    holding.result(WAIT)
    for waiting in queued:
        waiting.result(WAIT)
    assert statuses(theirs.keep(event("note"))) == ["created"]
