"""Items 68, 69 and 82 beside a model: whatever is kept, through a branch's life and with little memory."""

from __future__ import annotations

import shutil
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contract.branches import KeptStore, act, create, on, remove
from contract.live_node import Live, Memory, event, serve
from contract.vectors import collections, delete, found, hits, put, upsert
from contract.vectors import used as used
from memoturn_core.vectors.budget import Budget
from memoturn_core.vectors.index import VectorIndex
from memoturn_storage.ambient import ManualAmbient

# --- against a model -----------------------------------------------------------------------------

Vectors = dict[str, list[float]]
numbers = st.integers(-8, 8).map(float)
embeddings = st.lists(numbers, min_size=4, max_size=4).filter(any)
ids = st.sampled_from([*"abcdefgh", "A", "a/b", "ü"])


def cosine_distances(model: Vectors, query: list[float]) -> dict[str, float]:
    """By the textbook, in float64."""
    wanted = np.array(query)
    return {
        id_: float(1 - np.array(vector) @ wanted / np.linalg.norm(vector) / np.linalg.norm(wanted))
        for id_, vector in model.items()
    }


def assert_nearest(given: list[tuple[str, float]], model: Vectors, query: list[float], k: int) -> None:
    expected = cosine_distances(model, query)
    assert len({id_ for id_, _ in given}) == len(given) == min(k, len(model))
    for id_, distance in given:
        assert distance == pytest.approx(expected[id_], abs=1e-5)
    assert [distance for _, distance in given] == sorted(distance for _, distance in given)
    assert [distance for _, distance in given] == pytest.approx(sorted(expected.values())[: len(given)], abs=1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(ids, st.none() | embeddings), min_size=1, max_size=30),
    st.lists(st.tuples(embeddings, st.integers(1, 12)), min_size=1, max_size=3),
)
def test_whatever_is_put_and_deleted_a_search_is_that_of_brute_force(
    live: Live, changes: list[tuple[str, list[float] | None]], queries: list[tuple[list[float], int]]
) -> None:
    memory = live.memory()
    memory.keep(event("Something"))
    model: Vectors = {}
    for id_, embedding in changes:
        if embedding is None:
            assert delete(memory, id_).status_code == 204
            model.pop(id_, None)
        else:
            assert upsert(memory, id=id_, embedding=embedding).status_code == 200
            model[id_] = embedding
        query, k = queries[len(model) % len(queries)]
        assert_nearest(hits(memory, query, k=k), model, query, k)


@pytest.fixture
def few_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 100 vectors an index holds bits."""
    monkeypatch.setattr(VectorIndex, "exact_rows", 100)
    monkeypatch.setattr(VectorIndex, "cheap_bytes", 0)


def clustered(count: int, dimension: int = 24) -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng(count)
    centres = 2 * drawn.standard_normal((count // 20, dimension)) + 1
    return (centres[drawn.integers(0, len(centres), count)] + drawn.standard_normal((count, dimension))).round(4)


@pytest.mark.usefixtures("few_exact")
def test_a_big_collection_is_searched_by_bits_with_exact_distances_and_few_misses(used):
    drawn = clustered(2_540)
    queries, vectors = drawn[:40].tolist(), drawn[40:].tolist()
    model: Vectors = {}
    for start in range(0, 2_500, 500):
        part = {str(n): vectors[n] for n in range(start, start + 500)}
        put(used, **part)
        model |= part
        found(used, queries[0])
    for n in range(0, 2_500, 7):
        delete(used, str(n))
        del model[str(n)]
    put(used, **{str(n): vectors[-n] for n in range(1, 400, 5)})
    model |= {str(n): vectors[-n] for n in range(1, 400, 5)}
    right = 0
    for query in queries:
        expected = cosine_distances(model, query)
        nearest = hits(used, query)
        assert len(nearest) == 10
        assert all(distance == pytest.approx(expected[id_], abs=1e-5) for id_, distance in nearest)
        assert [distance for _, distance in nearest] == sorted(distance for _, distance in nearest)
        right += len({id_ for id_, _ in nearest} & set(sorted(expected, key=lambda id_: expected[id_])[:10]))
    assert right >= 0.95 * 10 * len(queries)


# --- a life --------------------------------------------------------------------------------------

MAIN = "main"
BRANCHES = ["b", "c"]


class Lives(RuleBasedStateMachine):
    """Two collections on branches that are forked, rewound and deleted, on a node that sleeps and loses its disk.

    An index is small enough here to go over to bits and to be thrown out of memory, but has fewer vectors than there
    are candidates, so that it finds what brute force finds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(VectorIndex, "exact_rows", 12)
        self.patch.setattr(VectorIndex, "cheap_bytes", 0)
        self.patch.setattr(VectorIndex, "budget", Budget(150_000))
        self.directory = Path(tempfile.mkdtemp())
        self.ambient = ManualAmbient()
        self.store = KeptStore(self.ambient)
        self.serving = ExitStack()
        self.live = self.start()
        self.states: dict[str, list[dict[str, Vectors]]] = {MAIN: []}

    def start(self) -> Live:
        return self.serving.enter_context(serve(self.directory, ambient=self.ambient, store=self.store))

    def teardown(self) -> None:
        self.serving.close()
        shutil.rmtree(self.directory)
        self.patch.undo()

    def at(self, branch: str) -> Memory:
        return on(Memory(self.live.http, "acme", "ann"), branch)

    def some(self, data: Any) -> str:
        branch: str = data.draw(st.sampled_from(sorted(self.states)))
        return branch

    def committed(self, branch: str, change: dict[str, Vectors]) -> None:
        states = self.states[branch]
        states.append({**(states[-1] if states else {}), **change})

    @initialize()
    def begin(self) -> None:
        self.at(MAIN).keep(event("Something"))
        self.committed(MAIN, {})

    @rule(data=st.data(), collection=st.sampled_from("xy"), given=st.dictionaries(ids, embeddings, min_size=1))
    def put(self, data: Any, collection: str, given: Vectors) -> None:
        branch = self.some(data)
        put(self.at(branch), collection, **given)
        self.committed(branch, {collection: {**self.states[branch][-1].get(collection, {}), **given}})

    @rule(data=st.data(), collection=st.sampled_from("xy"), seed=st.integers(0, 9))
    def put_many(self, data: Any, collection: str, seed: int) -> None:
        drawn = np.random.default_rng(seed).integers(1, 9, (40, 4)).astype(float).tolist()
        branch = self.some(data)
        given = {str(number): vector for number, vector in enumerate(drawn)}
        put(self.at(branch), collection, **given)
        self.committed(branch, {collection: {**self.states[branch][-1].get(collection, {}), **given}})

    @rule(data=st.data(), collection=st.sampled_from("xy"))
    def delete(self, data: Any, collection: str) -> None:
        branch = self.some(data)
        there = self.states[branch][-1].get(collection, {})
        id_ = data.draw(st.sampled_from([*sorted(there), "absent"]))
        assert delete(self.at(branch), id_, collection).status_code == 204
        if id_ in there:
            self.committed(branch, {collection: {other: there[other] for other in there if other != id_}})

    @rule(data=st.data(), name=st.sampled_from(BRANCHES))
    def fork(self, data: Any, name: str) -> None:
        parent = self.some(data)
        if name not in self.states:
            assert create(self.at(MAIN), name, **{"from": parent}).status_code == 201
            self.states[name] = list(self.states[parent])

    @rule(data=st.data())
    def rewind(self, data: Any) -> None:
        branch = self.some(data)
        to = data.draw(st.integers(1, len(self.states[branch])))
        assert act(self.at(MAIN), branch, "rewind", to=to).status_code == 200
        del self.states[branch][to:]

    @rule(name=st.sampled_from(BRANCHES))
    def forget(self, name: str) -> None:
        assert remove(self.at(MAIN), name).status_code == 204
        self.states.pop(name, None)

    @rule()
    def sleep(self) -> None:
        self.ambient.advance(seconds=61)
        self.live.node.upkeep.light_pass()

    @rule(lose_the_disk=st.booleans())
    def restart(self, lose_the_disk: bool) -> None:
        self.serving.close()
        if lose_the_disk:
            shutil.rmtree(self.directory)
        self.live = self.start()

    @rule(data=st.data(), query=embeddings, k=st.integers(1, 60))
    def look(self, data: Any, query: list[float], k: int) -> None:
        branch = self.some(data)
        for collection in "xy":
            model = self.states[branch][-1].get(collection, {})
            assert_nearest(hits(self.at(branch), query, collection, k=k), model, query, k)

    @invariant()
    def every_branch_has_its_own(self) -> None:
        for branch, states in self.states.items():
            model = states[-1] if states else {}
            assert collections(self.at(branch)) == [
                {"name": name, "dimension": 4, "count": len(model[name])} for name in sorted(model) if model[name]
            ]


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_indexes_that_do_not_fit_into_memory_together_are_thrown_out_and_every_search_is_right(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(60_000)
    monkeypatch.setattr(VectorIndex, "budget", budget)
    drawn = clustered(600)
    memories = [live.memory() for _ in range(6)]
    for number, memory in enumerate(memories):
        memory.keep(event("Something"))
        put(memory, **{str(n): drawn[100 * number + n].tolist() for n in range(100)})
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(12):
                at = (number + round_) % len(memories)
                vector = drawn[100 * at + round_].tolist()
                assert found(memories[at], vector, k=1) == [str(round_)]
                mine = f"{number}-{round_}"
                assert upsert(memories[at], id=mine, embedding=(-drawn[at] * (number + 2)).tolist()).status_code == 200
                assert delete(memories[at], mine).status_code == 204
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert 0 < budget.held <= budget.limit
