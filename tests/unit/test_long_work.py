"""Work that may take long: what it holds up and what it does not, and what it sees meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from memoturn_schemas.errors import BranchNotFound, InvalidRequest, RequestTimeout
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.branching import Branching, Moment
from memoturn_storage.engine import Engine
from memoturn_storage.handle import Result, Snapshot, Transaction
from memoturn_storage.manifest import BranchRef
from unit.engines import RUNAWAY_SELECT, WAIT, Hurried, engine, inline_and_threaded, put, refuse, run, values

HERE, ELSEWHERE = BranchRef("a" * 32), BranchRef("b" * 32)


@dataclass
class Held:
    """A read aside that is in the middle of its transaction."""

    future: Future[Result[list[Any]]]
    released: threading.Event = field(default_factory=threading.Event)

    def finish(self) -> list[Any]:
        self.released.set()
        return self.future.result(WAIT).value


@contextmanager
def reading_aside(running: Engine, database: BranchRef) -> Iterator[Held]:
    """A read that has begun, and reads what there is once it may finish."""
    begun, released = threading.Event(), threading.Event()

    def work(snapshot: Snapshot) -> list[Any]:
        assert values(snapshot) is not None
        begun.set()
        assert released.wait(WAIT)
        return values(snapshot)

    held = Held(running.read_aside(database, work), released)
    assert begun.wait(WAIT)
    try:
        yield held
    finally:
        released.set()


def test_a_slice_ends_a_job_before_its_time_is_over(tmp_path: Path) -> None:
    with engine(tmp_path, threads=0, ambient=Hurried()) as running:
        for submit in (running.read, running.write):
            with pytest.raises(RequestTimeout):
                submit(HERE, run(RUNAWAY_SELECT), deadline=1e9, slice_s=50).result(WAIT)
        assert running.write(HERE, put(1), deadline=1e9, slice_s=50).result(WAIT).txid == 1


@inline_and_threaded
def test_long_work_does_what_the_same_work_does_elsewhere(tmp_path: Path, threads: int) -> None:
    with engine(tmp_path, threads=threads) as running:
        assert running.read_aside(HERE, values).result(WAIT) == Result([], 0)
        assert running.write_alone(HERE, put(1)).result(WAIT).txid == 1
        assert running.write(HERE, put(2)).result(WAIT).txid == 2
        assert running.write_alone(HERE, put(3), durable=True).result(WAIT).txid == 3
        assert running.read_aside(HERE, values).result(WAIT) == running.read(HERE, values).result(WAIT)
        assert running.read_aside(HERE, values).result(WAIT).value == [1, 2, 3]


@inline_and_threaded
def test_long_work_ends_with_its_time_and_changes_nothing(tmp_path: Path, threads: int) -> None:
    def runaway(transaction: Transaction) -> None:
        put("lost")(transaction)
        transaction.connection.execute(RUNAWAY_SELECT).fetchall()

    with engine(tmp_path, threads=threads, ambient=Hurried()) as running:
        running.write(HERE, put(1)).result(WAIT)
        with pytest.raises(RequestTimeout):
            running.read_aside(HERE, run(RUNAWAY_SELECT), deadline=500).result(WAIT)
        with pytest.raises(RequestTimeout):
            running.write_alone(HERE, runaway, deadline=1_000).result(WAIT)
        assert running.read(HERE, values).result(WAIT) == Result([1], 1)


def test_a_branch_that_cannot_wake_fails_long_work_too(tmp_path: Path) -> None:
    gone = BranchRef(HERE.uuid, "gone")
    with engine(tmp_path, threads=1) as running:
        for submit in (running.read_aside, running.write_alone):
            with pytest.raises(BranchNotFound):
                submit(gone, run("SELECT 1")).result(WAIT)


def test_a_read_aside_holds_up_nobody_and_sees_one_state(tmp_path: Path) -> None:
    with engine(tmp_path, threads=1) as running:
        running.write(HERE, put(1)).result(WAIT)
        with reading_aside(running, HERE) as reading:
            assert running.write(HERE, put(2)).result(WAIT).txid == 2
            assert running.write(ELSEWHERE, put(1)).result(WAIT).txid == 1
            assert running.read(HERE, values).result(WAIT).value == [1, 2]
            assert reading.finish() == [1]


def test_a_write_alone_holds_up_its_own_branch_only(tmp_path: Path) -> None:
    begun, released = threading.Event(), threading.Event()

    def long(transaction: Transaction) -> None:
        begun.set()
        assert released.wait(WAIT)
        put("long")(transaction)

    with engine(tmp_path, threads=1) as running:
        running.write(HERE, put(1)).result(WAIT)
        writing = running.write_alone(HERE, long)
        assert begun.wait(WAIT)
        waiting = running.write(HERE, put("after"))
        assert running.write(ELSEWHERE, put(1)).result(WAIT).txid == 1
        assert not waiting.done()
        released.set()
        assert (writing.result(WAIT).txid, waiting.result(WAIT).txid) == (2, 3)
        assert running.read(HERE, values).result(WAIT).value == [1, "long", "after"]


def test_more_long_work_than_there_are_threads_for_it_all_ends(tmp_path: Path) -> None:
    begun, released = threading.Event(), threading.Event()

    def long(transaction: Transaction) -> None:
        begun.set()
        assert released.wait(WAIT)
        put("long")(transaction)

    with engine(tmp_path, threads=1) as running:
        writing = [running.write_alone(BranchRef(f"{number:032x}"), long) for number in range(12)]
        assert begun.wait(WAIT)
        reading = [running.read_aside(BranchRef(f"{number:032x}"), values) for number in range(12)]
        released.set()
        assert [future.result(WAIT).txid for future in writing] == [1] * 12
        assert all(future.result(WAIT).value in ([], ["long"]) for future in reading)


def _rewind(running: Engine) -> None:
    Branching(running, SystemAmbient()).rewind(HERE, Moment(txid=1))


def _shut(running: Engine) -> None:
    running.exclusive(HERE, running.sleep).result(WAIT)


def _ship_and_cool(running: Engine) -> None:
    running.read(HERE, values, durable=True).result(WAIT)
    _shut(running)
    running.cool(HERE).result(WAIT)


@pytest.mark.parametrize("upheaval", [_rewind, _shut, _ship_and_cool])
def test_what_a_branch_goes_through_does_not_change_what_a_read_aside_sees(
    tmp_path: Path, upheaval: Callable[[Engine], None]
) -> None:
    with engine(tmp_path, threads=1, ship_interval_s=60) as running:
        for number in (1, 2, 3):
            running.write(HERE, put(number)).result(WAIT)
        with reading_aside(running, HERE) as reading:
            upheaval(running)
            written = running.write(HERE, put("new")).result(WAIT)
            assert reading.finish() == [1, 2, 3]
        now = [1, "new"] if upheaval is _rewind else [1, 2, 3, "new"]
        assert running.read(HERE, values).result(WAIT) == Result(now, written.txid)
        _ship_and_cool(running)
        assert running.read(HERE, values).result(WAIT) == Result(now, written.txid)


def test_the_last_reader_that_leaves_does_not_take_the_log_with_it(tmp_path: Path) -> None:
    with engine(tmp_path, threads=1, ship_interval_s=60) as running:
        running.write(HERE, put(1)).result(WAIT)
        with reading_aside(running, HERE) as reading:
            running.write(HERE, put(2)).result(WAIT)
            _shut(running)
            assert running.unshipped()[HERE].commits == 2
            assert reading.finish() == [1]
        assert running.read(HERE, values, durable=True).result(WAIT) == Result([1, 2], 2)


# --- peeking -------------------------------------------------------------------------------------


class Items(list[Any]):
    """The items, kept in memory beside the file."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> Items:
        return snapshot.cached(
            cls, lambda connection: cls(value for (value,) in connection.execute("SELECT value FROM items"))
        )


def add(value: object) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        put(value)(transaction)
        transaction.maintain(Items, lambda items: items.append(value))

    return work


@inline_and_threaded
def test_a_peek_sees_what_the_newest_commit_left_or_nothing(tmp_path: Path, threads: int) -> None:
    with engine(tmp_path, threads=threads) as running:

        def peeked() -> Result[list[Any]] | None:
            return running.peek(HERE, Items, list)

        assert peeked() is None
        running.write(HERE, add(1)).result(WAIT)
        assert peeked() is None
        running.read(HERE, Items.of).result(WAIT)
        assert peeked() == Result([1], 1)
        running.write(HERE, add(2)).result(WAIT)
        assert peeked() == Result([1, 2], 2)
        with pytest.raises(InvalidRequest):
            running.write(HERE, lambda transaction: (add(3)(transaction), refuse(transaction))).result(WAIT)
        assert peeked() == Result([1, 2], 2)
        _rewind(running)
        assert peeked() is None
        running.read(HERE, Items.of).result(WAIT)
        assert peeked() == Result([1], 1)
        _shut(running)
        assert peeked() is None


def test_a_peek_beside_a_writer_never_sees_a_state_that_was_not_committed(tmp_path: Path) -> None:
    """Each commit adds two items, so that an odd number of them is a state in between."""

    def add_two(transaction: Transaction) -> None:
        add(1)(transaction)
        add(1)(transaction)

    with engine(tmp_path, threads=1) as running:
        running.write(HERE, add_two).result(WAIT)
        running.read(HERE, Items.of).result(WAIT)
        seen, stop = [Result(0, 0)], threading.Event()

        def look() -> None:
            while not stop.is_set():
                found = running.peek(HERE, Items, len)
                if found is not None:
                    seen.append(found)

        looking = threading.Thread(target=look)
        looking.start()
        for _ in range(80):
            running.write(HERE, add_two).result(WAIT)
        stop.set()
        looking.join(WAIT)
        assert all(found.value == 2 * found.txid for found in seen)
        assert [found.txid for found in seen] == sorted(found.txid for found in seen)
        assert len({found.txid for found in seen}) > 2
