"""What is kept in memory of a key-value store: its bound, and that readers beside a writer see only what was so."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturn_core.kv import rows
from memoturn_core.kv.cache import CACHE_BYTES, LARGEST_VALUE, Entry, KvCache
from memoturn_core.sweeping import due
from memoturn_core.tables import SCHEMA
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.manifest import BranchRef
from unit.engines import WAIT, engine

DATABASE = BranchRef("a" * 32)


def entry(size: int) -> Entry:
    return Entry(bytes(size), None)


# --- the bound -----------------------------------------------------------------------------------


def test_many_small_values_and_many_absent_ones_stay_within_the_bound() -> None:
    cache = KvCache()
    for number in range(20_000):
        cache.keep("n", f"key {number}", entry(number % 50) if number % 2 else Entry(None, None))
        assert cache.size <= CACHE_BYTES
    assert cache.find("n", "key 19999") is not None
    assert cache.find("n", "key 0") is None


def test_the_bound_is_one_of_memory_that_is_really_taken() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        cache = KvCache(256 << 10)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(3_000):
            cache.keep("n" * 10, f"key {number}", entry(number % 300))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 * cache.size < after - before < 1.25 * cache.size


def test_what_is_looked_at_stays_while_what_is_not_goes() -> None:
    cache = KvCache(100_000)
    cache.keep("n", "hot", entry(100))
    for number in range(10_000):
        assert cache.find("n", "hot") is not None
        cache.keep("n", f"cold {number}", entry(100))
    cache.find("n", "cold 9999")
    for number in range(10_000):
        cache.keep("n", f"colder {number}", entry(100))
    assert cache.find("n", "hot") is None


def test_a_large_value_is_not_kept_nor_is_what_it_replaces() -> None:
    cache = KvCache()
    cache.keep("n", "k", entry(LARGEST_VALUE))
    assert cache.find("n", "k") is not None
    cache.keep("n", "k", entry(LARGEST_VALUE + 1))
    assert cache.find("n", "k") is None
    assert cache.size == 0


names = st.sampled_from("abcdef")


@given(
    st.lists(st.tuples(st.sampled_from(["keep", "keep", "drop", "find"]), names, st.integers(0, 1_200)), max_size=80),
    st.integers(0, 4_000),
)
def test_whatever_is_done_it_holds_what_was_kept_last_or_nothing(steps, capacity) -> None:
    cache = KvCache(capacity)
    kept: dict[str, Entry] = {}
    for what, key, size in steps:
        if what == "keep":
            kept[key] = entry(size)
            cache.keep("n", key, kept[key])
        elif what == "drop":
            kept.pop(key, None)
            cache.drop("n", key)
        else:
            assert cache.find("n", key) in (None, kept.get(key))
        assert 0 <= cache.size <= capacity
    for key in "abcdef":
        assert cache.find("n", key) in (None, kept.get(key))
        cache.drop("n", key)
    assert cache.size == 0


# --- readers beside a writer ---------------------------------------------------------------------


@contextmanager
def threads_that_alternate_often() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def test_readers_from_memory_see_each_transaction_whole_and_never_an_older_one_after_it(tmp_path: Path) -> None:
    written: list[tuple[int, bytes]] = []
    done = threading.Event()
    seen: list[list[tuple[int, bytes]]] = [[], [], []]

    def pair(cache: KvCache) -> tuple[Entry, Entry] | None:
        first, second = cache.find("n", "first"), cache.find("n", "second")
        return None if first is None or second is None else (first, second)

    with engine(tmp_path, schema=SCHEMA, threads=1) as running, ThreadPoolExecutor(4) as pool:

        def write(number: int) -> None:
            value = b"%d" % number

            def work(transaction: Transaction) -> None:
                rows.put(transaction, "n", "first", value, None)
                rows.put(transaction, "n", f"large {number}", bytes(LARGEST_VALUE), None)
                for other in range(100):  # so that the change takes its time
                    rows.put(transaction, "n", f"small {other}", value, None)
                rows.put(transaction, "n", "second", value, None)

            written.append((running.write(DATABASE, work).result(WAIT).txid, value))

        def read(records: list[tuple[int, bytes]]) -> None:
            while not done.is_set():
                found = running.peek(DATABASE, KvCache, pair)
                if found is None:
                    running.read(DATABASE, lambda snapshot: rows.find(snapshot, "n", "second")).result(WAIT)
                    running.read(DATABASE, lambda snapshot: rows.find(snapshot, "n", "first")).result(WAIT)
                    continue
                first, second = found.value
                assert first.value == second.value
                assert first.value is not None
                records.append((found.txid, first.value))

        write(0)
        with threads_that_alternate_often():
            reading = [pool.submit(read, records) for records in seen]
            try:
                for number in range(1, 100):
                    write(number)
            finally:
                done.set()
            for reader in reading:
                reader.result(WAIT)
    txids = [txid for txid, _ in written]
    for records in seen:
        assert records
        assert [txid for txid, _ in records] == sorted(txid for txid, _ in records)
        for txid, value in records:
            assert written[bisect_right(txids, txid) - 1][1] == value


# --- how the rows are found ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("SELECT key FROM __memoturn_kv WHERE ns = '' AND key BETWEEN '' AND '' ORDER BY key LIMIT 1", "PRIMARY KEY"),
        ("SELECT EXISTS (SELECT 1 FROM __memoturn_kv WHERE expires_at <= 1)", "COVERING INDEX __memoturn_kv_expiry"),
        ("SELECT ns FROM __memoturn_kv WHERE expires_at <= 1 ORDER BY expires_at LIMIT 1", "__memoturn_kv_expiry"),
        ("SELECT EXISTS (SELECT 1 FROM __memoturn_memories WHERE expires_at <= 1)", "__memoturn_memories_expiry"),
        (
            "SELECT summary FROM __memoturn_memories WHERE expires_at <= 1 ORDER BY expires_at LIMIT 1",
            "__memoturn_memories_expiry",
        ),
        (
            "SELECT count(*) FROM __memoturn_memories WHERE session_id = '' AND type = 'task' AND expires_at > 1",
            "__memoturn_memories_session",
        ),
    ],
)
def test_rows_are_found_by_their_index(sql: str, index: str) -> None:
    connection = SCHEMA.empty()
    plan = " ".join(str(detail) for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {sql}"))
    connection.close()
    assert index in plan
    assert "TEMP B-TREE" not in plan


def test_a_look_for_what_has_expired_finds_nothing_where_everything_stays_or_is_yet_to_come(tmp_path: Path) -> None:
    ambient = ManualAmbient()

    def put(key: str, expires_at: int | None):
        return lambda transaction: rows.put(transaction, "n", key, b"", expires_at)

    def is_due(snapshot: Snapshot) -> bool:
        return due(snapshot) is not None

    with engine(tmp_path, schema=SCHEMA, ambient=ambient, threads=0) as running:
        assert running.read(DATABASE, is_due).result().value is False
        running.write(DATABASE, put("stays", None)).result()
        running.write(DATABASE, put("goes", ambient.now_ms() + 1)).result()
        assert running.read(DATABASE, is_due).result().value is False
        ambient.advance(seconds=0.001)
        assert running.read(DATABASE, is_due).result().value is True
