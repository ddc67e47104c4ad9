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

from examples import examples
from memoturn_core.memory.vectors import MemoryVectors, TurnVectors, accept
from memoturn_core.tables import SCHEMA
from memoturn_core.vectors import vector as reading
from memoturn_core.vectors.budget import Budget
from memoturn_core.vectors.index import VectorIndex, VectorSearch
from memoturn_core.vectors.rows import Collection, CollectionVectors
from memoturn_core.vectors.rows import delete as delete_vector
from memoturn_core.vectors.rows import put as put_vectors
from memoturn_core.vectors.vector import Vector, as_vector
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import Ambient, ManualAmbient, SystemAmbient
from memoturn_storage.connection import open_database
from memoturn_storage.engine import Engine
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
from unit.engines import WAIT, Hurried, engine, files, held

BOUNDED = settings(max_examples=examples(60), deadline=None)

Rows = dict[int, Sequence[float]]
floats = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, 1.0, -1.0, 1e38, -1e38, 1e-38, -1e-38, 1e-45]
)
vectors = st.lists(floats, min_size=3, max_size=3)
AXES = {"x": (1.0, 0.0, 0.0), "X": (7.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "-": (-1.0, 0.0, 0.0), "0": (0.0, 0.0, 0.0)}
axes = st.sampled_from(list(AXES.values()))
FIRST_SPACE = range(1 << 40)


def as_stored(values: Sequence[float]) -> Vector:
    return as_vector(values)


def index_of(rows: Rows) -> VectorSearch:
    connection = SCHEMA.empty()
    connection.executemany(
        f"INSERT INTO {MemoryVectors.table} VALUES (?, ?)",
        [(rowid, as_stored(values).tobytes()) for rowid, values in rows.items()],
    )
    return MemoryVectors.of(Snapshot(connection, 1, SystemAmbient(), {}))


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


@pytest.fixture(scope="module", autouse=True, params=["exact", "bits"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything holds of either form; there are fewer rows here than bits make candidates."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "bits":
            patch.setattr(VectorIndex, "exact_rows", 4)
            patch.setattr(VectorIndex, "cheap_bytes", 0)
        yield request.param


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
    index = index_of(dict(enumerate(drawn.permutation(matrix).tolist())))
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
    assert index_of({}).nearest(as_stored((1.0,)), 9, set) == []


# --- kept in step by the engine ------------------------------------------------------------------

Change = tuple[str, int, Sequence[float]]
changes = st.tuples(st.sampled_from(["put", "put", "remove", "replace"]), st.integers(1, 30), vectors | axes)
jobs = st.tuples(st.sampled_from(["ok", "ok", "ok", "fail"]), st.lists(changes, min_size=1, max_size=8))


def apply(transaction: Transaction, changed: Sequence[Change]) -> None:
    """Put where there is nothing, remove, or replace; memory and turn vectors alike."""
    present = {row for (row,) in transaction.connection.execute(f"SELECT rowid FROM {MemoryVectors.table}")}
    space = accept(transaction.connection, as_stored((0.0, 0.0, 0.0)), model=None)
    assert space == FIRST_SPACE
    for what, rowid, values in changed:
        for kind in (MemoryVectors, TurnVectors):
            if what == "remove" or (what == "replace" and rowid in present):
                kind.delete(transaction, [rowid])
            if what == "replace" or (what == "put" and rowid not in present):
                kind.insert(transaction, rowid, as_stored(values), space)
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


def search(kind: type[MemoryVectors | TurnVectors], query: Sequence[float]) -> Callable[[Snapshot], list[Any]]:
    def work(snapshot: Snapshot) -> list[Any]:
        index = kind.of(snapshot, FIRST_SPACE)
        assert kind.of(snapshot, FIRST_SPACE).mirror is index.mirror
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


# --- in parts, and within a budget ---------------------------------------------------------------

given_vectors = st.dictionaries(st.sampled_from("abcdefghijklmnop"), vectors.filter(any) | axes, min_size=1, max_size=9)
steps = st.one_of(
    st.tuples(st.just("put"), given_vectors),
    st.tuples(st.just("delete"), st.sampled_from("abcdefghijklmnop")),
    st.tuples(st.just("read a part"), st.none()),
    st.tuples(st.just("let go"), st.none()),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=4, max_size=30), vectors)
def test_an_index_that_is_built_in_parts_is_that_of_the_file_whatever_is_committed_meanwhile(
    scenario: list[tuple[str, Any]], query: list[float]
) -> None:
    model: dict[str, Sequence[float]] = {}
    parts: list[VectorIndex] = []

    def part(snapshot: Snapshot) -> tuple[dict[int, str], list[tuple[int, float]], int] | None:
        collection = Collection.named(snapshot.connection, "c")
        if collection is None:
            return {}, [], 0
        span = collection.rowids
        parts[:] = [snapshot.cached(CollectionVectors, lambda _: CollectionVectors(span), of=span)]
        search = CollectionVectors.begun(snapshot, span)
        if search is None:
            return None
        names: Any = snapshot.connection.execute("SELECT rowid, id FROM __memoturn_vectors").fetchall()
        return dict(names), search.nearest(as_stored(query), 1_000, set), len(search)

    with pytest.MonkeyPatch.context() as patch, engines() as ((running,), _):
        patch.setattr(reading, "_AT_ONCE", 24)
        for what, value in [*scenario, ("read all", None)]:
            if what == "put":
                items = [("", id_, as_stored(values)) for id_, values in value.items()]
                running.write(DATABASE, lambda it, items=items: put_vectors(it, "c", items)).result(WAIT)
                model |= value
            elif what == "delete":
                running.write(DATABASE, lambda it, id_=value: delete_vector(it, "c", id_)).result(WAIT)
                model.pop(value, None)
            elif what == "let go":
                for index in parts:
                    index.let_go()
            found = running.read(DATABASE, part).result(WAIT).value if what.startswith("read") else None
            while what == "read all" and found is None:
                found = running.read(DATABASE, part).result(WAIT).value
            if found is not None:
                names, nearest, count = found
                assert count == len(model)
                by_row = {rowid: model[id_] for rowid, id_ in names.items()}
                assert_nearest(nearest, by_row, query, 1_000, lambda _: True)


def test_those_searched_longest_ago_let_go_and_the_one_that_grows_never_does() -> None:
    budget = Budget(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VectorIndex, "budget", budget)
        connection = SCHEMA.empty()
        for collection in "abcd":
            items = [("", str(n), as_stored([1.0, n])) for n in range(4)]
            put_vectors(Transaction(connection, SystemAmbient()), collection, items)
        snapshot = Snapshot(connection, 1, SystemAmbient(), {})
        spans = [range(number << 40, (number + 1) << 40) for number in range(1, 5)]

        def index(number: int) -> VectorIndex:
            return snapshot.cached(CollectionVectors, lambda _: CollectionVectors(spans[number]), of=spans[number])

        CollectionVectors.of(snapshot, spans[0])
        one = budget.held
        budget.limit = 3 * one
        for number in (1, 2, 0):
            CollectionVectors.of(snapshot, spans[number])
        assert [index(number).complete for number in range(3)] == [True, True, True]
        CollectionVectors.of(snapshot, spans[3])
        assert [index(number).complete for number in range(4)] == [True, False, True, True]
        assert budget.held == budget.limit
        budget.limit = 0
        search = CollectionVectors.of(snapshot, spans[1])
        assert [index(number).complete for number in range(4)] == [False, True, False, False]
        index(1).let_go()
        assert len(search.nearest(as_stored([1.0, 0.0]), 9, set)) == 4


def test_two_that_are_built_in_turn_with_room_for_neither_both_get_there() -> None:
    with pytest.MonkeyPatch.context() as patch:
        budget = Budget(0)
        patch.setattr(VectorIndex, "budget", budget)
        patch.setattr(reading, "_AT_ONCE", 8)
        connection = SCHEMA.empty()
        for collection in "ab":
            items = [("", str(n), as_stored([1.0, n])) for n in range(9)]
            put_vectors(Transaction(connection, SystemAmbient()), collection, items)
        snapshot = Snapshot(connection, 1, SystemAmbient(), {})
        waiting = [range(number << 40, (number + 1) << 40) for number in (1, 2)]
        for _ in range(100):
            waiting = [span for span in waiting if CollectionVectors.begun(snapshot, span) is None]
        assert waiting == []
        indexes = [snapshot.cached(CollectionVectors, CollectionVectors, of=span) for span in
                   (range(1 << 40, 2 << 40), range(2 << 40, 3 << 40))]  # fmt: skip
        assert [index.complete for index in indexes] == [False, True]
