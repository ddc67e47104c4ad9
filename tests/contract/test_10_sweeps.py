"""Item 110, for what is in a database: expired keys and expired tasks are removed where the database is open.

The nodes run their engine on the caller's thread, so that a pass is over when it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contract.branches import checkpoint, fork, manifest, on, ref, restored, rewind, selected, sync
from contract.kv import get, keys, put, value
from contract.live_node import Live, Memory, event, serve, task
from memoturn_storage.engine import Limits

INLINE = Limits(threads=0)

KEYS = "SELECT key FROM __memoturn_kv ORDER BY key"
SUMMARIES = "SELECT summary FROM __memoturn_memories ORDER BY rowid"


@pytest.fixture
def live(tmp_path, ambient, store) -> Iterator[Live]:
    with serve(tmp_path, ambient=ambient, store=store, limits=INLINE) as served:
        yield served


def sweep(live: Live) -> None:
    live.node.upkeep.light_pass()


def rows(live: Live, memory: Memory, sql: str, branch: str = "main") -> list[Any]:
    return [row[0] for row in selected(live, ref(live, memory, branch), sql)]


def is_open(live: Live, memory: Memory, branch: str = "main") -> bool:
    return live.node.engine.is_open(ref(live, memory, branch))


def test_item_110_a_pass_deletes_what_has_expired_and_nothing_else(live, memory):
    memory.keep(
        event("Stays"),
        task("Expires", ttl=5, session_id="s", embedding=[1.0, 0.0]),
        task("Expires later", ttl=50, session_id="s", embedding=[0.0, 1.0]),
        task("Call Ann", ttl=0),
    )
    put(memory, "expires", ttl=5)
    put(memory, "expires later", ttl=50)
    put(memory, "stays")
    live.ambient.advance(seconds=5)
    # By rank: how rare a word is, and so what it scores, changes with what is there.
    query = {"query": "stays expires", "embedding": [1.0, 0.0], "fusion": "rrf"}
    before = (memory.found(**query), memory.sessions().json()["sessions"])
    sweep(live)
    assert memory.txid == 5
    assert (memory.found(**query), memory.sessions().json()["sessions"]) == before
    assert rows(live, memory, SUMMARIES) == ["Stays", "Expires later"]
    assert rows(live, memory, KEYS) == keys(memory) == ["expires later", "stays"]
    assert rows(live, memory, "SELECT count(*) FROM __memoturn_memory_vectors") == [1]
    live.ambient.advance(seconds=45)
    sweep(live)
    assert memory.txid == 6
    assert rows(live, memory, SUMMARIES) == ["Stays"]
    assert rows(live, memory, KEYS) == ["stays"]


def test_item_110_a_swept_task_leaves_nothing_in_the_full_text_index(live, memory):
    memory.keep(task("Zebra crossing", ttl=1, keywords="stripes"), event("Zebra at the zoo"))
    live.ambient.advance(seconds=1)
    sweep(live)
    found = rows(live, memory, "SELECT rowid FROM __memoturn_memories_fts WHERE __memoturn_memories_fts MATCH 'zebra'")
    assert found == rows(live, memory, "SELECT rowid FROM __memoturn_memories")
    assert (
        rows(live, memory, "SELECT * FROM __memoturn_memories_fts WHERE __memoturn_memories_fts MATCH 'stripe'") == []
    )
    assert [hit["summary"] for hit in memory.found(query="zebra")] == ["Zebra at the zoo"]


def test_item_110_where_nothing_has_expired_a_pass_writes_nothing(live, memory, store):
    memory.keep(task("To do", ttl=10))
    put(memory, "k", ttl=10)
    sync(memory)
    written = store.names()
    live.ambient.advance(seconds=9.999)
    for _ in range(3):
        sweep(live)
    assert (memory.txid, store.names()) == (2, written)


def test_item_110_a_pass_is_an_ordinary_commit_that_ships(live, memory, store):
    put_below_profile(memory, "k", ttl=1)
    live.ambient.advance(seconds=1)
    sweep(live)
    live.ambient.advance(seconds=1)
    live.node.engine.run_due()
    main = ref(live, memory)
    found = manifest(store, main)
    assert found is not None
    assert found.head_txid == 2
    connection = restored(store, main)
    assert connection.execute("SELECT count(*) FROM __memoturn_kv").get == 0
    connection.close()


def put_below_profile(memory: Memory, key: str, **query: Any) -> None:
    response = memory.http.request("PUT", f"{memory.path}/kv/n/{key}", params=query, content=b"value")
    assert response.status_code == 200, response.text


def test_item_110_at_most_500_rows_of_each_kind_go_in_one_pass_the_oldest_first(live, memory):
    memory.keep(*(task(f"Task {number}", ttl=number) for number in range(700)))
    put(memory, "k")

    def fill(transaction: Any) -> None:
        at = transaction.ambient.now_ms()
        transaction.connection.executemany(
            "INSERT INTO __memoturn_kv VALUES ('n', ?, ?, x'')", [(f"{n:04}", at + n) for n in range(1_100)]
        )

    live.node.engine.write(ref(live, memory), fill).result()
    live.ambient.advance(seconds=1_000)
    assert memory.txid == 3  # or the first pass would close it
    left = []
    for _ in range(4):
        sweep(live)
        left.append((len(rows(live, memory, KEYS)) - 1, len(rows(live, memory, SUMMARIES)), memory.txid))
        if left[-1][0]:
            assert rows(live, memory, KEYS)[0] == f"{1_100 - left[-1][0]:04}"
    assert left == [(600, 200, 4), (100, 0, 5), (0, 0, 6), (0, 0, 6)]


def test_item_110_a_database_that_sleeps_is_not_woken(live, memory):
    memory.keep(task("To do", ttl=1))
    live.ambient.advance(seconds=60)
    live.node.engine.run_due()
    assert not is_open(live, memory)
    sweep(live)
    assert not is_open(live, memory)
    assert memory.txid == 1
    assert rows(live, memory, SUMMARIES) == ["To do"]
    sweep(live)
    assert rows(live, memory, SUMMARIES) == []


def test_item_110_a_database_that_is_only_swept_goes_to_sleep_all_the_same(live, memory):
    memory.keep(*(task(f"Task {number}", ttl=number) for number in range(0, 90, 10)))
    for _ in range(5):
        live.ambient.advance(seconds=10)
        sweep(live)
        assert is_open(live, memory)
    live.ambient.advance(seconds=10)
    sweep(live)
    assert not is_open(live, memory)
    assert memory.txid == 6
    assert len(rows(live, memory, SUMMARIES)) == 3


def test_item_110_an_untouched_database_is_left_without_a_file(live, memory):
    assert memory.append("s", "user", "Hello").status_code == 201
    fork(memory, "b")
    assert on(memory, "b").found(query="anything") == []
    live.ambient.advance(seconds=1)
    sweep(live)
    assert memory.txid == on(memory, "b").txid == 1


def test_a_fork_and_its_parent_are_swept_each_for_itself(live, memory):
    memory.keep(task("To do", ttl=1))
    put(memory, "k", ttl=1)
    other = fork(memory, "b")
    live.ambient.advance(seconds=1)
    assert not is_open(live, memory, "b")
    sweep(live)
    assert memory.txid == 3
    assert other.txid == 2
    assert rows(live, memory, KEYS, "b") == ["k"]
    assert value(memory, "k", branch="b") is None
    sweep(live)
    assert (memory.txid, other.txid) == (3, 3)
    assert rows(live, memory, KEYS, "b") == rows(live, memory, SUMMARIES, "b") == []


def test_a_rewind_brings_swept_rows_back_expired_and_they_are_swept_again(live, memory):
    memory.keep(task("To do", ttl=1))
    put(memory, "k", ttl=1)
    checkpoint(memory, "c")
    live.ambient.advance(seconds=1)
    sweep(live)
    assert rows(live, memory, KEYS) == []
    rewind(memory, "c")
    assert rows(live, memory, KEYS) == ["k"]
    assert value(memory, "k") is None
    assert memory.found(query="do") == []
    sweep(live)
    assert rows(live, memory, KEYS) == rows(live, memory, SUMMARIES) == []
    assert memory.txid == 3


def test_a_key_that_was_put_again_is_not_swept_and_is_read_as_it_is(live, memory):
    put_below_profile(memory, "k", ttl=1)
    assert value(memory, "k") == b"value"
    live.ambient.advance(seconds=1)
    put(memory, "k", b"again")
    sweep(live)
    assert get(memory, "k").content == b"again"
    assert memory.txid == 2


def test_a_task_asserted_again_before_the_pass_is_active_and_stays(live, memory):
    memory.keep(task("To do", ttl=1))
    live.ambient.advance(seconds=1)
    [result] = memory.keep(task("To do", ttl=10))
    assert result["status"] == "revived"
    sweep(live)
    assert [hit["summary"] for hit in memory.found(query="do")] == ["To do"]
    live.ambient.advance(seconds=10)
    sweep(live)
    [result] = memory.keep(task("To do"))
    assert result["status"] == "created"


def test_the_passes_that_a_node_does_by_itself_sweep_too(tmp_path, ambient, store):
    with serve(tmp_path, ambient=ambient, store=store, limits=Limits(upkeep_s=0.02, ship_interval_s=0.0)) as live:
        memory = live.memory()
        put_below_profile(memory, "k", ttl=1)
        ambient.advance(seconds=1)
        main = ref(live, memory)
        store.wait_until(lambda: (found := manifest(store, main)) is not None and found.head_txid == 2)
        assert value(memory, "k") is None
        assert rows(live, memory, KEYS) == []
