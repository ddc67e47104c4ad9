"""The engine over real files: time budgets, the queue, threads, eviction, the write-ahead log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw
import pytest

from memoturn_schemas.errors import Overloaded, RequestTimeout, Unavailable
from memoturn_storage.ambient import ManualAmbient, SystemAmbient
from memoturn_storage.catalog import Catalog
from memoturn_storage.connection import BUSY_TIMEOUT_MS, CHECKPOINT_FRAMES
from memoturn_storage.handle import Transaction
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import StoredObject
from unit.engines import (
    ITEMS,
    RUNAWAY_INSERT,
    RUNAWAY_SELECT,
    WAIT,
    Hurried,
    engine,
    files,
    held,
    inline_and_threaded,
    put,
    run,
    values,
)

# --- time budgets, the queue ---------------------------------------------------------------------


@inline_and_threaded
def test_a_runaway_select_ends_and_the_engine_serves_on(tmp_path: Path, threads: int) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=threads, ambient=Hurried()) as running:
        running.write(database, put(1)).result(WAIT)
        with pytest.raises(RequestTimeout):
            running.read(database, run(RUNAWAY_SELECT), deadline=200).result(WAIT)
        with pytest.raises(RequestTimeout):
            running.write(database, run(RUNAWAY_SELECT), deadline=400).result(WAIT)
        with pytest.raises(RequestTimeout):
            running.read(BranchRef("unmade"), run(RUNAWAY_SELECT), deadline=600).result(WAIT)
        assert running.write(database, put(2)).result(WAIT).txid == 2
        assert running.read(database, values).result(WAIT).value == [1, 2]


@inline_and_threaded
def test_a_runaway_insert_ends_and_writes_nothing(tmp_path: Path, threads: int) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=threads, ambient=Hurried()) as running:
        with pytest.raises(RequestTimeout):
            running.write(database, run(RUNAWAY_INSERT), deadline=100).result(WAIT)
        assert running.write(database, put(2)).result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == [2]


def test_what_waited_past_its_deadline_is_not_run(tmp_path: Path) -> None:
    database = BranchRef("a")
    ambient = ManualAmbient()
    ran: list[str] = []
    with engine(tmp_path, threads=1, ambient=ambient) as running:
        with held(running, database):
            late_write = running.write(database, lambda _: ran.append("write"), deadline=5)
            late_read = running.read(database, lambda _: ran.append("read"), deadline=5)
            patient = running.write(database, put(1), deadline=60)
            ambient.advance(seconds=5)
        for late in (late_write, late_read):
            with pytest.raises(RequestTimeout, match="changed nothing"):
                late.result(WAIT)
        assert patient.result(WAIT).txid == 1
        assert ran == []


def test_a_full_queue_refuses_at_once_and_what_is_queued_still_lands(tmp_path: Path) -> None:
    database, neighbour = BranchRef("a"), BranchRef("b")
    with engine(tmp_path, threads=1, queue_depth=4) as running:
        with held(running, database):
            queued = [running.write(database, put(number)) for number in range(4)]
            for _ in range(3):
                with pytest.raises(Overloaded) as refused:
                    running.write(database, put("too many"))
                assert refused.value.retry_after_s == 1
            elsewhere = running.write(neighbour, put("elsewhere"))
            read = running.read(database, values)
        assert [future.result(WAIT).txid for future in queued] == [1, 1, 1, 1]
        assert elsewhere.result(WAIT).txid == 1
        assert read.result(WAIT).value == [0, 1, 2, 3]
        assert running.write(database, put(4)).result(WAIT).txid == 2


def test_a_job_that_is_cancelled_while_it_waits_does_not_run(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=1) as running:
        with held(running, database):
            first = running.write(database, put("first"))
            cancelled = running.write(database, put("cancelled"))
            read = running.read(database, values)
            assert cancelled.cancel()
            assert read.cancel()
            last = running.write(database, put("last"))
        assert first.result(WAIT).txid == last.result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == ["first", "last"]


def test_cancelled_writes_make_room_in_the_queue(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=1, queue_depth=3) as running:
        with held(running, database):
            given_up = [running.write(database, put("given up")) for _ in range(3)]
            assert all(future.cancel() for future in given_up)
            wanted = [running.write(database, put(number)) for number in range(3)]
            with pytest.raises(Overloaded):
                running.write(database, put("too many"))
        assert [future.result(WAIT).txid for future in wanted] == [1, 1, 1]
        assert running.read(database, values).result(WAIT).value == [0, 1, 2]


def test_a_write_that_runs_can_no_longer_be_cancelled_and_commits(tmp_path: Path) -> None:
    database = BranchRef("a")
    entered, released = threading.Event(), threading.Event()

    def slow(transaction: Transaction) -> None:
        entered.set()
        assert released.wait(WAIT)
        put("kept")(transaction)

    with engine(tmp_path, threads=1) as running:
        future = running.write(database, slow)
        assert entered.wait(WAIT)
        assert not future.cancel()
        released.set()
        assert future.result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == ["kept"]


def test_a_busy_database_does_not_keep_its_neighbour_waiting(tmp_path: Path) -> None:
    busy, neighbour = BranchRef("a"), BranchRef("b")
    order: list[str] = []

    def noted(name: str) -> Callable[[Transaction], None]:
        return lambda _: order.append(name)

    with engine(tmp_path, threads=1) as running:
        for each in (busy, neighbour):
            running.wake(each).result(WAIT)
        with held(running, BranchRef("both wait for")):
            futures = [running.write(busy, noted("busy")) for _ in range(130)]
            futures.append(running.write(neighbour, noted("neighbour")))
        for future in futures:
            future.result(WAIT)
    assert order.index("neighbour") == 64, "it came after one group of the busy one"


class SlowStore(MemoryStore):
    """Answers nothing about one database until it is let."""

    def __init__(self, slow: BranchRef) -> None:
        super().__init__(SystemAmbient())
        self._slow = slow
        self.asked, self.let = threading.Event(), threading.Event()

    def get(self, key: str) -> StoredObject:
        if key == self._slow.manifest_key:
            self.asked.set()
            assert self.let.wait(WAIT)
        return super().get(key)


def test_a_branch_that_waits_for_the_object_store_does_not_keep_its_neighbours_waiting(tmp_path: Path) -> None:
    slow, neighbour = BranchRef("a"), BranchRef("b")
    store = SlowStore(slow)
    with engine(tmp_path, store=store, threads=1) as running:
        waiting = running.write(slow, put("late"))
        assert store.asked.wait(WAIT)
        try:
            assert running.write(neighbour, put("at once")).result(WAIT).txid == 1
            assert running.read(neighbour, values).result(WAIT).value == ["at once"]
            assert not waiting.done()
        finally:
            store.let.set()
        assert waiting.result(WAIT).txid == 1


# --- threads and open files ----------------------------------------------------------------------


def test_a_database_always_has_the_same_thread(tmp_path: Path) -> None:
    threads: dict[str, set[int]] = {}
    with engine(tmp_path, threads=2) as running:
        futures = []
        for round_ in range(6):
            for number in range(20):
                seen = threads.setdefault(f"d{number}", set())
                database = BranchRef(f"d{number}")
                note = lambda state, seen=seen: seen.add(threading.get_ident())  # noqa: E731
                futures.append(running.write(database, note) if round_ % 2 else running.read(database, note))
        for future in futures:
            future.result(WAIT)
    assert all(len(seen) == 1 for seen in threads.values())
    assert len(set.union(*threads.values())) == 2
    assert threading.get_ident() not in set.union(*threads.values())


def test_inline_jobs_run_on_the_calling_thread_and_are_done_when_the_call_returns(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=0) as running:
        write = running.write(database, lambda _: threading.get_ident())
        read = running.read(database, lambda _: threading.get_ident())
        assert write.done()
        assert read.done()
        assert write.result().value == read.result().value == threading.get_ident()


@pytest.mark.parametrize("threads", [0, 1])
def test_more_databases_than_may_be_open_lose_nothing(tmp_path: Path, threads: int) -> None:
    databases = [BranchRef(f"d{number}") for number in range(12)]
    with engine(tmp_path, threads=threads, hot_cap=1) as running:
        futures = [running.write(database, put(round_)) for round_ in range(5) for database in databases]
        assert [future.result(WAIT).txid for future in futures[:12]] == [1] * 12
        for database in databases:
            result = running.read(database, values).result(WAIT)
            assert result.value == [0, 1, 2, 3, 4]
            assert running.stats().open_branches == 1
            assert running.write(database, put(5)).result(WAIT).txid == result.txid + 1
    with engine(tmp_path, threads=threads, hot_cap=1) as again:
        assert all(again.read(each, values).result(WAIT).value == [0, 1, 2, 3, 4, 5] for each in databases)


def test_however_many_wake_at_once_no_more_are_open_than_may_be(tmp_path: Path) -> None:
    databases = [BranchRef(f"d{number}") for number in range(100)]
    with engine(tmp_path, store=MemoryStore(SystemAmbient()), threads=1, hot_cap=4) as running:

        def note_open(transaction: Transaction) -> int:
            put("x")(transaction)
            return running.stats().open_branches

        futures = [running.write(database, note_open) for _ in range(2) for database in databases]
        results = [future.result(WAIT) for future in futures]
        assert max(result.value for result in results) <= 4
        assert [result.txid for result in results[:100]] == [1] * 100


def test_closing_finishes_what_is_queued_and_refuses_what_comes_later(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=1) as running:
        with held(running, database):
            futures = [running.write(database, put(number)) for number in range(200)]
            closer = threading.Thread(target=running.close)
            closer.start()
            while True:  # until the closer has come so far
                try:
                    running.read(database, values)
                except Unavailable:
                    break
        closer.join(WAIT)
        assert not closer.is_alive()
        assert [future.result(0).txid for future in futures] == [1 + number // 64 for number in range(200)]
        for submit in (running.write, running.read):
            with pytest.raises(Unavailable, match="shutting down"):
                submit(database, lambda _: None)
    assert not files(tmp_path, database).wal.exists(), "closing shipped everything, so the log is folded"
    with engine(tmp_path, threads=0) as again:
        assert again.read(database, values).result(WAIT).value == list(range(200))


def test_a_closed_inline_engine_refuses_jobs(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=0) as running:
        running.write(database, put(1)).result(WAIT)
        running.close()
        with pytest.raises(Unavailable, match="shutting down"):
            running.write(database, put(2))


# --- the write-ahead log -------------------------------------------------------------------------


def test_the_log_is_folded_into_the_file_once_it_is_long_and_not_before(tmp_path: Path) -> None:
    database = BranchRef("a")
    file, log = files(tmp_path, database).database, files(tmp_path, database).wal
    one_and_a_half = b"x" * (CHECKPOINT_FRAMES * 1_024 * 3 // 2)
    with engine(tmp_path, threads=0) as running:
        for number in range(50):
            running.write(database, put(number)).result(WAIT)
        assert file.stat().st_size == len(ITEMS.template)
        for count in range(1, 6):
            running.write(database, put(one_and_a_half)).result(WAIT)
            assert file.stat().st_size > count * len(one_and_a_half)
            assert log.stat().st_size == 0, "all of it is shipped and in the file"
        assert running.read(database, run("SELECT count(*) FROM items")).result(WAIT).value == [(55,)]


@contextmanager
def folded_elsewhere(file: Path) -> Iterator[None]:
    """Another process's checkpoint that does not end: it has SQLite's checkpoint lock, and waits for the writer.

    There must be a writer when this is entered.
    """
    waiting, ended = threading.Event(), threading.Event()

    def wait_for_the_writer(_: int) -> bool:
        waiting.set()
        return not ended.wait(WAIT)

    connection = apsw.Connection(str(file))
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    connection.set_busy_handler(wait_for_the_writer)

    def fold() -> None:
        with suppress(apsw.BusyError):
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)

    folder = threading.Thread(target=fold)
    folder.start()
    try:
        assert waiting.wait(WAIT)
        yield
    finally:
        ended.set()
        folder.join(WAIT)
        connection.close()


def test_a_fold_that_another_process_is_at_does_not_fail_the_reads_of_the_turn(tmp_path: Path) -> None:
    database = BranchRef("a")
    entered, released = threading.Event(), threading.Event()

    def long(transaction: Transaction) -> None:
        put(b"x" * (CHECKPOINT_FRAMES * 1_024 * 3 // 2))(transaction)
        entered.set()
        assert released.wait(WAIT)

    with engine(tmp_path, threads=1) as running:
        running.write(database, put("first")).result(WAIT)
        with held(running, database):
            write = running.write(database, long)
            read = running.read(database, run("SELECT count(*) FROM items"))
        assert entered.wait(WAIT)
        try:
            with folded_elsewhere(files(tmp_path, database).database):
                released.set()
                assert write.result(WAIT).txid == 2
                assert read.result(WAIT).value == [(2,)]
        finally:
            released.set()


def test_whoever_reads_the_file_from_outside_holds_up_no_write_and_the_log_is_folded_afterwards(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=0) as running:
        running.write(database, put("first")).result(WAIT)
        with closing(apsw.Connection(str(files(tmp_path, database).database))) as reader:
            reader.execute("BEGIN; SELECT count(*) FROM items").fetchall()
            began = time.monotonic()
            running.write(database, put(b"x" * (CHECKPOINT_FRAMES * 1_024 * 3 // 2))).result(WAIT)
            running.write(database, put("third")).result(WAIT)
            assert time.monotonic() - began < BUSY_TIMEOUT_MS / 1_000, "nobody waited for the reader"
            assert reader.execute("SELECT count(*) FROM items").get == 1
        assert files(tmp_path, database).wal.stat().st_size > 0
        running.write(database, put("fourth")).result(WAIT)
        assert files(tmp_path, database).wal.stat().st_size == 0


def test_a_fold_that_another_process_is_at_does_not_fail_a_creation_in_the_catalogue(tmp_path: Path) -> None:
    world = SystemAmbient()
    with closing(Catalog(tmp_path, MemoryStore(world), world)) as catalog:
        catalog.prepare()
        writer = apsw.Connection(str(tmp_path / "catalog.db"))
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("CREATE TABLE ballast (x)")
        writer.execute("INSERT INTO ballast VALUES (?)", (b"x" * (CHECKPOINT_FRAMES * 1_024 * 3 // 2),))
        writer.execute("BEGIN IMMEDIATE")
        with folded_elsewhere(tmp_path / "catalog.db"):
            writer.execute("ROLLBACK")
            entry = catalog.create("ns--profile")
            assert catalog.find("ns--profile") == entry
        writer.close()
