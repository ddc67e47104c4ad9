"""Writes over real files: groups, failures inside them, full disks, and what moves the txid."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memoturn_schemas.errors import InvalidRequest, MemoturnError, RequestTimeout, Unavailable
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.handle import Transaction
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
from unit.engines import (
    RUNAWAY_INSERT,
    WAIT,
    Hurried,
    engine,
    files,
    held,
    inline_and_threaded,
    put,
    refuse,
    run,
    values,
)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: every write past it fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- group commit --------------------------------------------------------------------------------


def test_writes_that_wait_together_commit_in_groups_of_64(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=1) as running:
        with held(running, database):
            futures = [running.write(database, put(number)) for number in range(200)]
        assert [future.result(WAIT).txid for future in futures] == [1 + number // 64 for number in range(200)]
        assert running.read(database, values).result(WAIT).value == list(range(200))


def test_a_failing_participant_rolls_back_alone_with_its_own_error(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=1) as running:
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
    database = BranchRef("a")
    with engine(tmp_path, threads=1) as running:
        with held(running, database):
            futures = [running.write(database, refuse) for _ in range(3)]
        assert all(isinstance(future.exception(WAIT), InvalidRequest) for future in futures)
        result = running.read(database, values).result(WAIT)
        assert (result.value, result.txid) == ([], 0)


def test_an_interrupted_write_makes_the_others_of_its_group_run_again_and_land(tmp_path: Path) -> None:
    database = BranchRef("a")
    runs: list[str] = []

    def counted(name: str) -> Callable[[Transaction], None]:
        def work(transaction: Transaction) -> None:
            runs.append(name)
            put(name)(transaction)

        return work

    with engine(tmp_path, threads=1, ambient=Hurried()) as running:
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
    database = BranchRef("a")
    with engine(tmp_path, threads=1, ambient=Hurried()) as running:
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
    database = BranchRef("a")
    with engine(tmp_path, threads=threads) as running:
        running.write(database, put("first")).result(WAIT)
        running.write(database, run("PRAGMA max_page_count = 12")).result(WAIT)
        with pytest.raises(Unavailable, match="full"):
            running.write(database, put(b"x" * 100_000)).result(WAIT)
        assert running.write(database, put("small")).result(WAIT).txid == 2
        assert running.read(database, values).result(WAIT).value == ["first", "small"]


def test_a_participant_for_which_there_is_no_space_does_not_take_its_group_along(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=1) as running:
        running.write(database, run("PRAGMA max_page_count = 12")).result(WAIT)
        with held(running, database):
            before = running.write(database, put("before"))
            large = running.write(database, put(b"x" * 100_000))
            after = running.write(database, put("after"))
        assert isinstance(large.exception(WAIT), Unavailable)
        assert before.result(WAIT).txid == after.result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == ["before", "after"]


def test_a_commit_that_the_disk_refuses_fails_the_whole_group_and_the_next_one_lands(tmp_path: Path) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=1) as running:
        running.write(database, put("first")).result(WAIT)
        with file_size_limit(files(tmp_path, database).wal.stat().st_size):
            with held(running, database):
                futures = [running.write(database, put(f"lost {number}")) for number in range(3)]
            for future in futures:
                with pytest.raises(Unavailable, match="nothing was written"):
                    future.result(WAIT)
            seen = running.read(database, values).result(WAIT)
            assert (seen.value, seen.txid) == (["first"], 1)
        assert running.write(database, put("second")).result(WAIT).txid == 2
        assert running.read(database, values).result(WAIT).value == ["first", "second"]
    with engine(tmp_path, threads=0) as again:
        assert again.read(database, values).result(WAIT).value == ["first", "second"]


# --- txid ----------------------------------------------------------------------------------------


@inline_and_threaded
def test_only_writes_that_change_something_move_the_txid(tmp_path: Path, threads: int) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=threads) as running:
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
    database = BranchRef("a")
    with engine(tmp_path, threads=0) as running:
        running.write(database, put(1)).result(WAIT)
        created = running.write(database, run("CREATE TABLE notes (text)")).result(WAIT)
        tables = running.read(database, run("SELECT name FROM sqlite_master WHERE name = 'notes'")).result(WAIT)
        assert tables.value == [("notes",)], "the write was acknowledged"
        assert tables.txid == created.txid == 2


@inline_and_threaded
def test_a_read_that_writes_leaves_nothing_behind(tmp_path: Path, threads: int) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=threads) as running:
        running.write(database, put(1)).result(WAIT)
        running.read(database, run("INSERT INTO items (value) VALUES (2)")).result(WAIT)
        result = running.read(database, values).result(WAIT)
        assert (result.value, result.txid) == ([1], 1)


@inline_and_threaded
def test_a_read_after_a_write_sees_it(tmp_path: Path, threads: int) -> None:
    database = BranchRef("a")
    with engine(tmp_path, threads=threads) as running:
        pairs = [(running.write(database, put(number)), running.read(database, values), number) for number in range(40)]
        for write, read, number in pairs:
            assert number in read.result(WAIT).value
            assert read.result(WAIT).txid >= write.result(WAIT).txid


@inline_and_threaded
def test_a_database_that_nobody_wrote_to_reads_as_empty_and_stays_unmade(tmp_path: Path, threads: int) -> None:
    database = BranchRef("aa")
    store = MemoryStore(SystemAmbient())
    with engine(tmp_path, store=store, threads=threads) as running:
        for _ in range(2):
            result = running.read(database, values).result(WAIT)
            assert (result.value, result.txid) == ([], 0)
        with pytest.raises(MemoturnError):
            running.read(database, run("SELECT * FROM no_such_table")).result(WAIT)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lease"]
        assert list(store.list("v1/")) == []
        assert running.stats().unshipped_transactions == 0
        assert running.write(database, put(1)).result(WAIT).txid == 1
        assert running.read(database, values).result(WAIT).value == [1]
