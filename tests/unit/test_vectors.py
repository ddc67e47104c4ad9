"""The vector index against brute force, and the cached one against the file, whatever happens to it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_core.memory.vectors import MemoryVectors, TurnVectors, Vector, VectorIndex, as_vector
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import Ambient, ManualAmbient, SystemAmbient
from memoturn_storage.connection import open_database
from memoturn_storage.engine import Engine
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
from unit.engines import WAIT, Hurried, engine, files, held

BOUNDED = settings(max_examples=150, deadline=None)

Rows = dict[int, Sequence[float]]
floats = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, 1.0, -1.0, 1e38, -1e38, 1e-38, -1e-38, 1e-45]
)
vectors = st.lists(floats, min_size=3, max_size=3)
AXES = {"x": (1.0, 0.0, 0.0), "X": (7.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "-": (-1.0, 0.0, 0.0), "0": (0.0, 0.0, 0.0)}
axes = st.sampled_from(list(AXES.values()))


def as_stored(values: Sequence[float]) -> Vector:
    return as_vector(values)


def index_of(rows: Rows) -> VectorIndex:
    matrix = np.array([as_stored(values) for values in rows.values()], "<f4")
    return VectorIndex(list(rows), matrix if rows else np.empty((0, 0), "<f4"))


def cosines(rows: Rows, query: Sequence[float]) -> dict[int, float]:
    """By the textbook, in float64, over float32 inputs; rows of zeros have none."""
    wanted = as_stored(query).astype(np.float64)
    result = {}
    for rowid, values in rows.items():
        vector = as_stored(values).astype(np.float64)
        lengths = np.sqrt(vector @ vector) * np.sqrt(wanted @ wanted)
        if lengths > 0:
            result[rowid] = float(vector @ wanted / lengths)
    return result


def assert_nearest(found: list[tuple[int, float]], rows: Rows, query: Sequence[float], wanted: int, kept: Any) -> None:
    """`found` is what brute force gives, up to the rounding of float32."""
    expected = {rowid: cosine for rowid, cosine in cosines(rows, query).items() if kept(rowid)}
    rowids = [rowid for rowid, _ in found]
    assert len(set(rowids)) == len(rowids), "no row is found twice"
    assert set(rowids) <= set(expected)
    assert len(found) == min(wanted, len(expected))
    for rowid, cosine in found:
        assert cosine == pytest.approx(expected[rowid], abs=1e-5)
    best = sorted(expected.values(), reverse=True)[: len(found)]
    assert [cosine for _, cosine in found] == pytest.approx(best, abs=1e-5)
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)


# --- the index alone -----------------------------------------------------------------------------


@BOUNDED
@given(st.lists(vectors, max_size=40), vectors, st.integers(1, 50), st.integers(1, 5))
def test_the_nearest_are_those_of_brute_force(
    stored: list[list[float]], query: list[float], wanted: int, every: int
) -> None:
    rows: Rows = dict(enumerate(stored, start=1))
    kept = lambda rowid: rowid % every == 0  # noqa: E731
    found = index_of(rows).nearest(as_stored(query), wanted, lambda rowids: {row for row in rowids if kept(row)})
    assert_nearest(found, rows, query, wanted, kept)


@BOUNDED
@given(st.integers(1, 400), st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(1, 40))
def test_a_filter_never_starves_the_search(count: int, seed: int, wanted: int, every: int) -> None:
    drawn = np.random.default_rng(seed).standard_normal((count + 1, 4)).astype("<f4")
    rows: Rows = {rowid: drawn[rowid].tolist() for rowid in range(1, count + 1)}
    kept = lambda rowid: rowid % every == 0  # noqa: E731
    found = index_of(rows).nearest(drawn[0], wanted, lambda rowids: {row for row in rowids if kept(row)})
    assert_nearest(found, rows, drawn[0].tolist(), wanted, kept)


@BOUNDED
@given(st.text("xXy-0", min_size=60, max_size=400), st.integers(1, 120), st.integers(1, 40))
def test_among_equals_the_newer_row_comes_first_and_none_is_missed_or_found_twice(
    stored: str, wanted: int, every: int
) -> None:
    rows: Rows = {rowid: AXES[axis] for rowid, axis in enumerate(stored, start=1)}
    expected = {rowid: cosine for rowid, cosine in cosines(rows, (1.0, 0.0, 0.0)).items() if rowid % every == 0}
    found = index_of(rows).nearest(
        as_stored((1.0, 0.0, 0.0)), wanted, lambda rowids: {row for row in rowids if row % every == 0}
    )
    assert found == sorted(expected.items(), key=lambda item: (-item[1], -item[0]))[:wanted]


def test_three_hundred_equal_vectors_are_all_found_newest_first() -> None:
    index = index_of(dict.fromkeys(range(300), (0.0, 3.0)))

    def found(wanted: int, every: int) -> list[int]:
        nearest = index.nearest(
            as_stored((0.0, 1.0)), wanted, lambda rowids: {row for row in rowids if row % every == 0}
        )
        return [rowid for rowid, _ in nearest]

    assert found(5, 1) == [299, 298, 297, 296, 295]
    assert found(10, 20) == list(range(280, 80, -20))
    assert found(300, 3) == list(range(297, -1, -3))


@pytest.mark.parametrize("every", [1, 3, 7, 11, 13])
def test_a_filtered_search_among_many_equals_finds_each_row_once(every: int) -> None:
    drawn = np.random.default_rng(0)
    matrix = np.concatenate([np.tile([[1.0, 0.0]], (200, 1)), drawn.standard_normal((200, 2))])
    index = VectorIndex(list(range(400)), drawn.permutation(matrix).astype("<f4"))
    kept = set(range(0, 400, every))
    found = [rowid for rowid, _ in index.nearest(as_stored((1.0, 0.0)), len(kept), lambda rowids: kept & set(rowids))]
    assert sorted(found) == sorted(kept)


@pytest.mark.parametrize("scale", [1e38, 1e-38, 1e-45, 1.0])
def test_neither_huge_nor_tiny_vectors_overflow(scale: float) -> None:
    rows: Rows = {1: (scale, scale, 0.0), 2: (-scale, scale, 0.0), 3: (0.0, 0.0, scale), 4: (0.0, 0.0, 0.0)}
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        index = index_of(rows)
        for other in (1e38, 1e-38, 1.0):
            found = index.nearest(as_stored((other, other, 0.0)), 9, set)
            assert [rowid for rowid, _ in found] == [1, 3, 2]
            assert [cosine for _, cosine in found] == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_zeros_match_nothing_and_nothing_matches_zeros() -> None:
    index = index_of({1: (0.0, 0.0), 2: (1.0, 0.0), 3: (-0.0, 0.0)})
    assert [rowid for rowid, _ in index.nearest(as_stored((-1.0, 0.0)), 9, set)] == [2]
    assert index.nearest(as_stored((0.0, 0.0)), 9, set) == []
    assert index_of({1: (0.0, 0.0)}).nearest(as_stored((1.0, 0.0)), 9, set) == []


def test_a_query_of_another_dimension_or_an_empty_index_finds_nothing() -> None:
    index = index_of({1: (1.0, 0.0)})
    assert index.nearest(as_stored((1.0, 0.0, 0.0)), 9, set) == []
    assert index.nearest(as_stored(()), 9, set) == []
    assert VectorIndex([], np.empty((0, 0), "<f4")).nearest(as_stored((1.0,)), 9, set) == []


# --- kept in step by the engine ------------------------------------------------------------------

Change = tuple[str, int, Sequence[float]]
changes = st.tuples(st.sampled_from(["put", "put", "remove", "replace"]), st.integers(1, 30), vectors | axes)
jobs = st.tuples(st.sampled_from(["ok", "ok", "ok", "fail"]), st.lists(changes, min_size=1, max_size=8))


def apply(transaction: Transaction, changed: Sequence[Change]) -> None:
    """Put where there is nothing, remove, or replace; memory and turn vectors alike."""
    present = {row for (row,) in transaction.connection.execute(f"SELECT rowid FROM {MemoryVectors.table}")}
    for what, rowid, values in changed:
        for kind in (MemoryVectors, TurnVectors):
            if what == "remove" or (what == "replace" and rowid in present):
                kind.delete(transaction, [rowid])
            if what == "replace" or (what == "put" and rowid not in present):
                kind.insert(transaction, rowid, as_stored(values))
        present = present - {rowid} if what == "remove" else present | {rowid}


def apply_to_model(rows: Rows, changed: Sequence[Change]) -> None:
    for what, rowid, values in changed:
        if what == "remove":
            rows.pop(rowid, None)
        elif what == "replace" or rowid not in rows:
            rows[rowid] = values


def work(outcome: str, changed: Sequence[Change]) -> Any:
    def run(transaction: Transaction) -> None:
        apply(transaction, changed)
        if outcome == "fail":
            raise InvalidRequest("rolled back")

    return run


DATABASE = BranchRef("a")


@contextmanager
def engines(count: int = 1, *, threads: int = 0, ambient: Ambient | None = None) -> Iterator[tuple[list[Engine], Path]]:
    """Engines on one data directory and one object store, and the path of the database's file."""
    world = ambient or SystemAmbient()
    store = MemoryStore(world)
    with tempfile.TemporaryDirectory() as name, ExitStack() as closing:
        directory = Path(name)
        running = [
            closing.enter_context(engine(directory, schema=SCHEMA, ambient=world, store=store, threads=threads))
            for _ in range(count)
        ]
        yield running, files(directory, DATABASE).database


def search(kind: type[VectorIndex], query: Sequence[float]) -> Callable[[Snapshot], list[Any]]:
    def work(snapshot: Snapshot) -> list[Any]:
        index = kind.of(snapshot)
        assert kind.of(snapshot) is index
        return [len(index), *index.nearest(as_stored(query), 1_000, set)]

    return work


def assert_in_step(running: Engine, file: Path, rows: Rows, query: Sequence[float]) -> None:
    for kind in (MemoryVectors, TurnVectors):
        result = running.read(DATABASE, search(kind, query)).result(WAIT)
        count, *found = result.value
        with closing(open_database(file)) as connection:
            fresh = Snapshot(connection, result.txid, SystemAmbient(), {})
            built_count, *built = search(kind, query)(fresh)
        assert count == built_count == len(rows)
        assert {rowid for rowid, _ in found} == {rowid for rowid, _ in built}
        assert_nearest(found, rows, query, 1_000, lambda _: True)


@settings(max_examples=50, deadline=None)
@given(st.lists(jobs, min_size=1, max_size=8), vectors)
def test_after_every_write_and_every_rollback_the_cached_index_is_that_of_the_file(
    scenario: list[tuple[str, list[Change]]], query: list[float]
) -> None:
    rows: Rows = {}
    with engines() as ((running,), file):
        for outcome, changed in scenario:
            future = running.write(DATABASE, work(outcome, changed))
            if outcome == "ok":
                future.result(WAIT)
                apply_to_model(rows, changed)
            else:
                assert isinstance(future.exception(WAIT), InvalidRequest)
            assert_in_step(running, file, rows, query)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(jobs, min_size=1, max_size=6), min_size=1, max_size=4), vectors)
def test_participants_of_a_group_change_the_cached_index_only_where_they_land(
    groups: list[list[tuple[str, list[Change]]]], query: list[float]
) -> None:
    rows: Rows = {}
    with engines(threads=1) as ((running,), file):
        for group in groups:
            with held(running, DATABASE):
                futures = [running.write(DATABASE, work(outcome, changed)) for outcome, changed in group]
            for (outcome, changed), future in zip(group, futures, strict=True):
                assert (future.exception(WAIT) is None) == (outcome == "ok")
                if outcome == "ok":
                    apply_to_model(rows, changed)
            assert_in_step(running, file, rows, query)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), jobs), min_size=1, max_size=8), vectors)
def test_what_another_program_writes_into_the_open_file_is_noticed(
    scenario: list[tuple[bool, bool, tuple[str, list[Change]]]], query: list[float]
) -> None:
    rows: Rows = {}
    with engines() as ((running,), file):
        running.write(DATABASE, lambda _: None).result(WAIT)
        for outside, read_in_between, (outcome, changed) in scenario:
            if not outside:
                running.write(DATABASE, work(outcome, changed)).exception(WAIT)
            elif outcome == "ok":
                with closing(open_database(file)) as connection, connection:
                    apply(Transaction(connection, SystemAmbient()), changed)
                    connection.execute("UPDATE __memoturn_txid SET txid = txid + 1")
            if outcome == "ok":
                apply_to_model(rows, changed)
            if read_in_between:
                assert_in_step(running, file, rows, query)
        assert_in_step(running, file, rows, query)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.booleans(), jobs), min_size=1, max_size=8), vectors)
def test_whoever_takes_a_database_over_has_the_index_of_what_the_others_wrote(
    scenario: list[tuple[int, bool, tuple[str, list[Change]]]], query: list[float]
) -> None:
    rows: Rows = {}
    ambient = ManualAmbient()

    def hand_over(from_: Engine) -> None:
        ambient.advance(seconds=60)
        from_.run_due()

    with engines(2, ambient=ambient) as (both, file):
        for writer, read_in_between, (outcome, changed) in scenario:
            hand_over(both[1 - writer])
            failure = both[writer].write(DATABASE, work(outcome, changed)).exception(WAIT)
            assert failure is None if outcome == "ok" else isinstance(failure, InvalidRequest)
            if outcome == "ok":
                apply_to_model(rows, changed)
            if read_in_between:
                assert_in_step(both[writer], file, rows, query)
        for reader in (0, 1):
            hand_over(both[1 - reader])
            assert_in_step(both[reader], file, rows, query)


def test_an_interrupted_write_in_the_group_leaves_the_cached_index_right() -> None:
    runaway = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " INSERT INTO __memoturn_turn_vectors SELECT 1000 + i, 'x' FROM n"
    )
    with engines(threads=1, ambient=Hurried()) as ((running,), file):
        running.write(DATABASE, work("ok", [("put", 1, (1.0, 0.0, 0.0))])).result(WAIT)
        assert_in_step(running, file, {1: (1.0, 0.0, 0.0)}, (1.0, 0.0, 0.0))
        with held(running, DATABASE):
            first = running.write(DATABASE, work("ok", [("put", 2, (0.0, 1.0, 0.0))]))
            late = running.write(DATABASE, lambda it: it.connection.execute(runaway).fetchall(), deadline=1_000)
            last = running.write(DATABASE, work("ok", [("replace", 1, (0.0, 0.0, 1.0))]))
        assert late.exception(WAIT) is not None
        assert first.result(WAIT).txid == last.result(WAIT).txid == 2
        assert_in_step(running, file, {1: (0.0, 0.0, 1.0), 2: (0.0, 1.0, 0.0)}, (0.0, 0.0, 1.0))
