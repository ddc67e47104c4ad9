"""The engine over real files: groups, failures inside them, bounds, eviction, bad files and bad disks."""

from __future__ import annotations

import os
import resource
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from memoturn_core.node import Node
from memoturn_schemas.errors import Internal, InvalidRequest, MemoturnError, Overloaded, RequestTimeout, Unavailable
from memoturn_storage.ambient import ManualAmbient, SystemAmbient
from memoturn_storage.catalog import Catalog
from memoturn_storage.engine import Engine
from memoturn_storage.handle import CHECKPOINT_FRAMES, Snapshot, Transaction
from memoturn_storage.schema import Schema
from memoturn_storage.worker import Database

ITEMS = Schema(("CREATE TABLE items (id INTEGER PRIMARY KEY, value);",))
WAIT = 20
"""Seconds after which something that should have happened counts as hung."""

RUNAWAY_SELECT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
RUNAWAY_INSERT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO items (value) SELECT i FROM n"
)

inline_and_threaded = pytest.mark.parametrize("threads", [0, 1, 2])


class Hurried(ManualAmbient):
    """A clock that moves on by a second whenever it is looked at, so that no budget outlasts a runaway."""

    def monotonic(self) -> float:
        self.advance(seconds=1)
        return super().monotonic()


def engine(**options: Any) -> closing[Engine]:
    return closing(Engine(options.pop("schema", ITEMS), options.pop("ambient", SystemAmbient()), **options))


def put(value: object) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        transaction.connection.execute("INSERT INTO items (value) VALUES (?)", (value,))

    return work


def run(sql: str) -> Callable[[Transaction | Snapshot], list[Any]]:
    return lambda state: state.connection.execute(sql).fetchall()


def refuse(transaction: Transaction) -> None:
    put("refused")(transaction)
    raise InvalidRequest("this one never passes")


def values(snapshot: Snapshot) -> list[Any]:
    return [value for (value,) in snapshot.connection.execute("SELECT value FROM items ORDER BY id")]


@contextmanager
def held(running: Engine, database: Database) -> Iterator[None]:
    """Keep the thread of `database` busy, so that what is queued meanwhile is there together."""
    entered, released = threading.Event(), threading.Event()

    def hold(_: Snapshot) -> None:
        entered.set()
        assert released.wait(WAIT)

    holding = running.read(database, hold)
    assert entered.wait(WAIT)
    try:
        yield
    finally:
        released.set()
        holding.result(WAIT)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: every write past it fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only_directory() -> Iterator[Path]:
    """A directory in which this process may read but not write, also where it runs as root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if user == 0:
            os.chown(directory, 65534, 65534)
            os.seteuid(65534)
        directory.chmod(0o500)
        try:
            yield directory
        finally:
            directory.chmod(0o700)
            os.seteuid(user)


# --- group commit --------------------------------------------------------------------------------


def test_writes_that_wait_together_commit_in_groups_of_64(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=1) as running:
        with held(running, database):
            futures = [running.write(database, put(number)) for number in range(200)]
        assert [future.result(WAIT).txid for future in futures] == [1 + number // 64 for number in range(200)]
        assert running.read(database, values).result(WAIT).value == list(range(200))


def test_a_failing_participant_rolls_back_alone_with_its_own_error(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=1) as running:
        with held(running, database):
            before = running.write(database, put("before"))
            failing = running.write(database, refuse)
            violating = running.write(database, run("INSERT INTO items (id, value) VALUES (1, 'taken')"))
            after = running.write(database, put("after"))
        with pytest.raises(InvalidRequest, match="this one never passes"):
            failing.result(WAIT)
        with pytest.raises(MemoturnError) as violation:
            violating.result(WAIT)
        assert violation.value.code == "conflict"
        assert before.result(WAIT).txid == after.result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == ["before", "after"]


def test_a_group_of_nothing_but_failures_commits_nothing(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=1) as running:
        with held(running, database):
            futures = [running.write(database, refuse) for _ in range(3)]
        assert all(isinstance(future.exception(WAIT), InvalidRequest) for future in futures)
        result = running.read(database, values).result(WAIT)
        assert (result.value, result.txid) == ([], 0)


def test_an_interrupted_write_makes_the_others_of_its_group_run_again_and_land(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    runs: list[str] = []

    def counted(name: str) -> Callable[[Transaction], None]:
        def work(transaction: Transaction) -> None:
            runs.append(name)
            put(name)(transaction)

        return work

    with engine(threads=1, ambient=Hurried()) as running:
        with held(running, database):
            before = running.write(database, counted("before"))
            runaway = running.write(database, run(RUNAWAY_INSERT), deadline=30)
            after = running.write(database, counted("after"))
        with pytest.raises(RequestTimeout):
            runaway.result(WAIT)
        assert before.result(WAIT).txid == after.result(WAIT).txid == 1
        assert runs == ["before", "before", "after"], "SQLite rolled the first attempt back as a whole"
        assert running.read(database, values).result(WAIT).value == ["before", "after"]


def test_several_interrupted_writes_in_one_group_leave_the_rest_whole(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=1, ambient=Hurried()) as running:
        with held(running, database):
            futures = [
                running.write(database, run(RUNAWAY_INSERT), deadline=30 + 60 * number)
                if number % 3 == 1
                else running.write(database, put(number))
                for number in range(12)
            ]
        failures = [number for number, future in enumerate(futures) if future.exception(WAIT) is not None]
        assert failures == [1, 4, 7, 10]
        assert {future.result(WAIT).txid for number, future in enumerate(futures) if number not in failures} == {1}
        expected = [number for number in range(12) if number not in failures]
        assert running.read(database, values).result(WAIT).value == expected


@inline_and_threaded
def test_a_write_that_meets_a_full_database_fails_and_the_next_one_lands(tmp_path: Path, threads: int) -> None:
    database = Database("a", tmp_path)
    with engine(threads=threads) as running:
        running.write(database, put("first")).result(WAIT)
        running.write(database, run("PRAGMA max_page_count = 12")).result(WAIT)
        with pytest.raises(Unavailable, match="full"):
            running.write(database, put(b"x" * 100_000)).result(WAIT)
        assert running.write(database, put("small")).result(WAIT).txid == 2
        assert running.read(database, values).result(WAIT).value == ["first", "small"]


def test_a_participant_for_which_there_is_no_space_does_not_take_its_group_along(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=1) as running:
        running.write(database, run("PRAGMA max_page_count = 12")).result(WAIT)
        with held(running, database):
            before = running.write(database, put("before"))
            large = running.write(database, put(b"x" * 100_000))
            after = running.write(database, put("after"))
        assert isinstance(large.exception(WAIT), Unavailable)
        assert before.result(WAIT).txid == after.result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == ["before", "after"]


def test_a_commit_that_the_disk_refuses_fails_the_whole_group_and_the_next_one_lands(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=1) as running:
        running.write(database, put("first")).result(WAIT)
        with file_size_limit((tmp_path / "a.db-wal").stat().st_size):
            with held(running, database):
                futures = [running.write(database, put(f"lost {number}")) for number in range(3)]
            for future in futures:
                with pytest.raises(Unavailable, match="nothing was written"):
                    future.result(WAIT)
            seen = running.read(database, values).result(WAIT)
            assert (seen.value, seen.txid) == (["first"], 1)
        assert running.write(database, put("second")).result(WAIT).txid == 2
        assert running.read(database, values).result(WAIT).value == ["first", "second"]
    with engine(threads=0) as again:
        assert again.read(database, values).result(WAIT).value == ["first", "second"]


# --- txid ----------------------------------------------------------------------------------------


@inline_and_threaded
def test_only_writes_that_change_something_move_the_txid(tmp_path: Path, threads: int) -> None:
    database = Database("a", tmp_path)
    with engine(threads=threads) as running:
        assert running.write(database, lambda _: "nothing").result(WAIT).txid == 0
        assert running.write(database, put(1)).result(WAIT).txid == 1
        for unchanging in (
            "SELECT * FROM items",
            "UPDATE items SET value = 2 WHERE value = 3",
            "DELETE FROM items WHERE value = 3",
            "INSERT INTO items (id, value) VALUES (1, 9) ON CONFLICT DO NOTHING",
        ):
            assert running.write(database, run(unchanging)).result(WAIT).txid == 1, unchanging
            assert running.read(database, run("SELECT 1")).result(WAIT).txid == 1
        assert running.write(database, put(2)).result(WAIT).txid == 2


def test_a_write_that_only_changes_the_schema_is_kept(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=0) as running:
        running.write(database, put(1)).result(WAIT)
        created = running.write(database, run("CREATE TABLE notes (text)")).result(WAIT)
        tables = running.read(database, run("SELECT name FROM sqlite_master WHERE name = 'notes'")).result(WAIT)
        assert tables.value == [("notes",)], "the write was acknowledged"
        assert tables.txid == created.txid == 2


@inline_and_threaded
def test_a_read_that_writes_leaves_nothing_behind(tmp_path: Path, threads: int) -> None:
    database = Database("a", tmp_path)
    with engine(threads=threads) as running:
        running.write(database, put(1)).result(WAIT)
        running.read(database, run("INSERT INTO items (value) VALUES (2)")).result(WAIT)
        result = running.read(database, values).result(WAIT)
        assert (result.value, result.txid) == ([1], 1)


@inline_and_threaded
def test_a_read_after_a_write_sees_it(tmp_path: Path, threads: int) -> None:
    database = Database("a", tmp_path)
    with engine(threads=threads) as running:
        pairs = [(running.write(database, put(number)), running.read(database, values), number) for number in range(40)]
        for write, read, number in pairs:
            assert number in read.result(WAIT).value
            assert read.result(WAIT).txid >= write.result(WAIT).txid


@inline_and_threaded
def test_a_database_that_nobody_wrote_to_reads_as_empty_and_stays_unmade(tmp_path: Path, threads: int) -> None:
    database = Database("aa/bb/main", tmp_path)
    with engine(threads=threads) as running:
        for _ in range(2):
            result = running.read(database, values).result(WAIT)
            assert (result.value, result.txid) == ([], 0)
        with pytest.raises(MemoturnError):
            running.read(database, run("SELECT * FROM no_such_table")).result(WAIT)
        assert list(tmp_path.iterdir()) == []
        assert running.stats().open_handles == 0
        assert running.write(database, put(1)).result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == [1]


# --- time budgets, the queue ---------------------------------------------------------------------


@inline_and_threaded
def test_a_runaway_select_ends_and_the_engine_serves_on(tmp_path: Path, threads: int) -> None:
    database = Database("a", tmp_path)
    with engine(threads=threads, ambient=Hurried()) as running:
        running.write(database, put(1)).result(WAIT)
        with pytest.raises(RequestTimeout):
            running.read(database, run(RUNAWAY_SELECT), deadline=200).result(WAIT)
        with pytest.raises(RequestTimeout):
            running.write(database, run(RUNAWAY_SELECT), deadline=400).result(WAIT)
        with pytest.raises(RequestTimeout):
            running.read(Database("unmade", tmp_path), run(RUNAWAY_SELECT), deadline=600).result(WAIT)
        assert running.write(database, put(2)).result(WAIT).txid == 2
        assert running.read(database, values).result(WAIT).value == [1, 2]


@inline_and_threaded
def test_a_runaway_insert_ends_and_writes_nothing(tmp_path: Path, threads: int) -> None:
    database = Database("a", tmp_path)
    with engine(threads=threads, ambient=Hurried()) as running:
        with pytest.raises(RequestTimeout):
            running.write(database, run(RUNAWAY_INSERT), deadline=100).result(WAIT)
        assert running.write(database, put(2)).result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == [2]


def test_what_waited_past_its_deadline_is_not_run(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    ambient = ManualAmbient()
    ran: list[str] = []
    with engine(threads=1, ambient=ambient) as running:
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
    database, neighbour = Database("a", tmp_path), Database("b", tmp_path)
    with engine(threads=1, queue_depth=4) as running:
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
    database = Database("a", tmp_path)
    with engine(threads=1) as running:
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
    database = Database("a", tmp_path)
    with engine(threads=1, queue_depth=3) as running:
        with held(running, database):
            given_up = [running.write(database, put("given up")) for _ in range(3)]
            assert all(future.cancel() for future in given_up)
            wanted = [running.write(database, put(number)) for number in range(3)]
            with pytest.raises(Overloaded):
                running.write(database, put("too many"))
        assert [future.result(WAIT).txid for future in wanted] == [1, 1, 1]
        assert running.read(database, values).result(WAIT).value == [0, 1, 2]


def test_a_write_that_runs_can_no_longer_be_cancelled_and_commits(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    entered, released = threading.Event(), threading.Event()

    def slow(transaction: Transaction) -> None:
        entered.set()
        assert released.wait(WAIT)
        put("kept")(transaction)

    with engine(threads=1) as running:
        future = running.write(database, slow)
        assert entered.wait(WAIT)
        assert not future.cancel()
        released.set()
        assert future.result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == ["kept"]


def test_a_busy_database_does_not_keep_its_neighbour_waiting(tmp_path: Path) -> None:
    busy, neighbour = Database("a", tmp_path), Database("b", tmp_path)
    order: list[str] = []

    def noted(name: str) -> Callable[[Transaction], None]:
        return lambda _: order.append(name)

    with engine(threads=1) as running:
        with held(running, busy):
            futures = [running.write(busy, noted("busy")) for _ in range(130)]
            futures.append(running.write(neighbour, noted("neighbour")))
        for future in futures:
            future.result(WAIT)
    assert order.index("neighbour") == 64, "it came after one group of the busy one"


# --- threads and open files ----------------------------------------------------------------------


def test_a_database_always_has_the_same_thread(tmp_path: Path) -> None:
    threads: dict[str, set[int]] = {}
    with engine(threads=2) as running:
        futures = []
        for round_ in range(6):
            for number in range(20):
                seen = threads.setdefault(f"d{number}", set())
                database = Database(f"d{number}", tmp_path)
                note = lambda state, seen=seen: seen.add(threading.get_ident())  # noqa: E731
                futures.append(running.write(database, note) if round_ % 2 else running.read(database, note))
        for future in futures:
            future.result(WAIT)
    assert all(len(seen) == 1 for seen in threads.values())
    assert len(set.union(*threads.values())) == 2
    assert threading.get_ident() not in set.union(*threads.values())


def test_inline_jobs_run_on_the_calling_thread_and_are_done_when_the_call_returns(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=0) as running:
        write = running.write(database, lambda _: threading.get_ident())
        read = running.read(database, lambda _: threading.get_ident())
        assert write.done()
        assert read.done()
        assert write.result().value == read.result().value == threading.get_ident()


@pytest.mark.parametrize("threads", [0, 1])
def test_more_databases_than_may_be_open_lose_nothing(tmp_path: Path, threads: int) -> None:
    databases = [Database(f"d{number}", tmp_path) for number in range(12)]
    with engine(threads=threads, hot_cap=1) as running:
        futures = [running.write(database, put(round_)) for round_ in range(5) for database in databases]
        assert [future.result(WAIT).txid for future in futures[:12]] == [1] * 12
        for database in databases:
            result = running.read(database, values).result(WAIT)
            assert result.value == [0, 1, 2, 3, 4]
            assert running.stats().open_handles == 1
            assert running.write(database, put(5)).result(WAIT).txid == result.txid + 1
    with engine(threads=threads, hot_cap=1) as again:
        assert all(again.read(each, values).result(WAIT).value == [0, 1, 2, 3, 4, 5] for each in databases)


def test_closing_finishes_what_is_queued_and_refuses_what_comes_later(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=1) as running:
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
    assert not (tmp_path / "a.db-wal").exists()
    with engine(threads=0) as again:
        assert again.read(database, values).result(WAIT).value == list(range(200))


def test_a_closed_inline_engine_refuses_jobs(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    with engine(threads=0) as running:
        running.write(database, put(1)).result(WAIT)
        running.close()
        with pytest.raises(Unavailable, match="shutting down"):
            running.write(database, put(2))


# --- the write-ahead log -------------------------------------------------------------------------


def test_the_log_is_folded_into_the_file_once_it_is_long_and_not_before(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    file, log = tmp_path / "a.db", tmp_path / "a.db-wal"
    one_and_a_half = b"x" * (CHECKPOINT_FRAMES * 1_024 * 3 // 2)
    with engine(threads=0) as running:
        for number in range(50):
            running.write(database, put(number)).result(WAIT)
        assert file.stat().st_size == len(ITEMS.template)
        running.write(database, put(one_and_a_half)).result(WAIT)
        assert file.stat().st_size > len(one_and_a_half)
        length = log.stat().st_size
        for _ in range(4):
            running.write(database, put(one_and_a_half)).result(WAIT)
        assert log.stat().st_size < 2 * length, "the log starts over each time"
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
    database = Database("a", tmp_path)
    entered, released = threading.Event(), threading.Event()

    def long(transaction: Transaction) -> None:
        put(b"x" * (CHECKPOINT_FRAMES * 1_024 * 3 // 2))(transaction)
        entered.set()
        assert released.wait(WAIT)

    with engine(threads=1) as running:
        running.write(database, put("first")).result(WAIT)
        with held(running, database):
            write = running.write(database, long)
            read = running.read(database, run("SELECT count(*) FROM items"))
        assert entered.wait(WAIT)
        try:
            with folded_elsewhere(database.path):
                released.set()
                assert write.result(WAIT).txid == 2
                assert read.result(WAIT).value == [(2,)]
        finally:
            released.set()


def test_a_fold_that_another_process_is_at_does_not_fail_a_creation_in_the_catalogue(tmp_path: Path) -> None:
    with closing(Catalog(tmp_path, SystemAmbient())) as catalog:
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


# --- bad files and bad places --------------------------------------------------------------------


@inline_and_threaded
def test_a_file_that_is_no_database_fails_alone_and_recovers_when_replaced(tmp_path: Path, threads: int) -> None:
    good, bad = Database("good", tmp_path), Database("bad", tmp_path)
    bad.path.write_bytes(b"no database at all, " * 500)
    with engine(threads=threads) as running:
        running.write(good, put("fine")).result(WAIT)
        for _ in range(2):
            for future in (running.read(bad, values), running.write(bad, put("lost"))):
                with pytest.raises(Internal) as raised:
                    future.result(WAIT)
                assert str(tmp_path) not in str(raised.value)
        assert running.write(good, put("still fine")).result(WAIT).txid == 2
        assert bad.path.read_bytes().startswith(b"no database at all")
        bad.path.unlink()
        assert running.write(bad, put("new")).result(WAIT).txid == 1
        assert running.read(good, values).result(WAIT).value == ["fine", "still fine"]


@inline_and_threaded
def test_a_damaged_database_is_reported_and_others_go_on(tmp_path: Path, threads: int) -> None:
    good, bad = Database("good", tmp_path), Database("bad", tmp_path)
    with engine(threads=0) as running:
        for number in range(100):
            running.write(bad, put(f"{number} " * 100)).result(WAIT)
    image = bad.path.read_bytes()
    bad.path.write_bytes(image[:2_048] + b"\xff" * (len(image) - 2_048))
    with engine(threads=threads) as running:
        with pytest.raises(Internal, match="corrupt"):
            running.read(bad, values).result(WAIT)
        with pytest.raises(Internal, match="corrupt"):
            running.write(bad, run("DELETE FROM items")).result(WAIT)
        assert running.write(good, put("fine")).result(WAIT).txid == 1
        assert running.read(good, values).result(WAIT).value == ["fine"]


def test_a_file_of_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = Database("a", tmp_path)
    newer = Schema((*ITEMS.migrations, "CREATE TABLE future (x);"))
    with engine(schema=newer, threads=0) as running:
        running.write(database, put(1)).result(WAIT)
    image = database.path.read_bytes()
    with engine(threads=0) as running:
        for future in (running.read(database, values), running.write(database, put(2))):
            with pytest.raises(Unavailable, match=r"schema version 2, newer than this program's 1; upgrade"):
                future.result(WAIT)
    assert database.path.read_bytes() == image


def test_a_directory_that_cannot_be_written_is_reported_without_its_path() -> None:
    with read_only_directory() as directory, engine(threads=1) as running:
        database = Database("aa/main", directory)
        assert running.read(database, values).result(WAIT).value == []
        for _ in range(2):
            with pytest.raises(Unavailable) as raised:
                running.write(database, put(1)).result(WAIT)
            assert str(directory) not in str(raised.value)
        assert list(directory.iterdir()) == []
        directory.chmod(0o700)
        assert running.write(database, put(1)).result(WAIT).txid == 1


def test_a_place_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the directory should be")
    with engine(threads=0) as running:
        with pytest.raises(Unavailable):
            running.write(Database("main", tmp_path / "taken"), put(1)).result(WAIT)
        assert running.write(Database("main", tmp_path), put(1)).result(WAIT).txid == 1


def test_a_node_on_a_directory_that_cannot_be_used_ends_and_leaves_no_threads() -> None:
    before = set(threading.enumerate())
    with read_only_directory() as directory, pytest.raises(Unavailable):
        Node.open(directory / "data")
    assert set(threading.enumerate()) == before
