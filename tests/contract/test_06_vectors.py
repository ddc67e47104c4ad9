"""Items 68, 69 and 82: vectors in collections, through REST and MCP, beside a model and through a branch's life."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contract.bad_input import refusal, refused, where
from contract.branches import KeptStore, act, create, on, remove, tool
from contract.live_node import Live, Memory, event, message_of, serve
from memoturn_core.vectors.budget import Budget
from memoturn_core.vectors.index import VectorIndex
from memoturn_storage.ambient import ManualAmbient

TOOLSETS = "all"


@pytest.fixture
def used(memory: Memory) -> Memory:
    """A profile that exists, at transaction 1."""
    memory.keep(event("Something"))
    return memory


def upsert(memory: Memory, collection: str = "c", **body: Any) -> httpx.Response:
    return memory.http.post(f"{memory.database}/vectors/{collection}", json=body)


def put(memory: Memory, collection: str = "c", **vectors: list[float]) -> None:
    items = [{"id": id_, "embedding": embedding} for id_, embedding in vectors.items()]
    response = upsert(memory, collection, vectors=items)
    assert response.status_code == 200, response.text


def search(memory: Memory, vector: list[float], collection: str = "c", **more: Any) -> httpx.Response:
    return memory.http.post(f"{memory.database}/vectors/{collection}/search", json={"vector": vector, **more})


def hits(memory: Memory, vector: list[float], collection: str = "c", **more: Any) -> list[tuple[str, float]]:
    response = search(memory, vector, collection, **more)
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"hits"}
    return [(hit["id"], hit["distance"]) for hit in response.json()["hits"]]


def found(memory: Memory, vector: list[float], collection: str = "c", **more: Any) -> list[str]:
    return [id_ for id_, _ in hits(memory, vector, collection, **more)]


def delete(memory: Memory, id_: str, collection: str = "c") -> httpx.Response:
    return memory.http.delete(f"{memory.database}/vectors/{collection}/{quote(id_, safe='')}")


def collections(memory: Memory) -> list[dict[str, Any]]:
    response = memory.http.get(f"{memory.database}/vectors")
    assert response.status_code == 200, response.text
    listed: list[dict[str, Any]] = response.json()["collections"]
    return listed


# --- item 68 -------------------------------------------------------------------------------------


def test_item_68_an_upsert_is_200_with_its_txid_in_body_and_header(used):
    for txid in (2, 3):
        response = upsert(used, id="a", embedding=[1.0, txid])
        assert (response.status_code, response.json()) == (200, {"txid": txid})
        assert response.headers["Memoturn-Txid"] == str(txid)


def test_item_68_an_id_that_is_there_gets_the_new_vector(used):
    put(used, a=[1.0, 0.0], b=[0.0, 1.0])
    assert found(used, [1.0, 0.1]) == ["a", "b"]
    upsert(used, id="a", embedding=[-1.0, 0.0])
    assert hits(used, [1.0, 0.0]) == [("b", 1.0), ("a", 2.0)]
    assert collections(used) == [{"name": "c", "dimension": 2, "count": 2}]


def test_item_68_the_first_vector_fixes_the_dimension_and_the_refusal_names_both(used):
    put(used, a=[1.0, 0.0])
    refused(upsert(used, id="b", embedding=[1.0, 0.0, 0.0]), "embedding")
    assert "3 numbers" in upsert(used, id="b", embedding=[1.0, 0.0, 0.0]).json()["error"]
    assert "have 2" in upsert(used, id="a", embedding=[1.0]).json()["error"]
    items = [{"id": "b", "embedding": [0.0, 1.0]}, {"id": "c", "embedding": [1.0]}]
    refused(upsert(used, vectors=items), "vectors[1].embedding")
    refused(upsert(used, "new", vectors=items), "vectors[1].embedding")
    assert found(used, [1.0, 0.0]) == ["a"]
    assert [entry["name"] for entry in collections(used)] == ["c"]
    assert used.txid == 2


def test_many_vectors_are_one_transaction_and_of_the_same_id_the_last_stays(used):
    items = [{"id": str(n % 900), "embedding": [math.cos(n / 1_000), math.sin(n / 1_000)]} for n in range(1_000)]
    assert upsert(used, vectors=items).json() == {"txid": 2}
    assert collections(used) == [{"name": "c", "dimension": 2, "count": 900}]
    assert found(used, [math.cos(0.999), math.sin(0.999)], k=1) == ["99"]
    assert found(used, [1.0, 0.0], k=1) == ["100"]


def test_collections_are_apart_and_their_names_are_case_sensitive(used):
    put(used, "notes", a=[1.0, 0.0])
    put(used, "Notes", a=[0.0, 1.0, 0.0])
    assert hits(used, [1.0, 0.0], "notes") == [("a", 0.0)]
    assert hits(used, [0.0, 1.0, 0.0], "Notes") == [("a", 0.0)]
    assert collections(used) == [
        {"name": "Notes", "dimension": 3, "count": 1},
        {"name": "notes", "dimension": 2, "count": 1},
    ]


@pytest.mark.parametrize("id_", ["x" * 1_024, "é" * 512, "a/b?c#d e", "%2F", "\u0000", "🍵", ".", "search"])
def test_an_id_is_any_text(used, id_):
    assert upsert(used, id=id_, embedding=[1.0]).status_code == 200
    assert found(used, [1.0]) == [id_]


@pytest.mark.parametrize("id_", ["x" * 1_024, "a/b?c#d e", "%2F", "🍵", "a"])
def test_a_vector_is_deleted_by_its_id(used, id_):
    put(used, **{id_: [1.0, 0.0], "other": [1.0, 0.1]})
    assert len(found(used, [1.0, 0.0])) == 2
    response = delete(used, id_)
    assert (response.status_code, response.content, response.headers["Memoturn-Txid"]) == (204, b"", "3")
    assert found(used, [1.0, 0.0]) == ["other"]


def test_deleting_what_is_absent_is_204_and_changes_nothing(used):
    put(used, a=[1.0])
    for id_, collection in (("b", "c"), ("a", "other")):
        response = delete(used, id_, collection)
        assert (response.status_code, response.headers["Memoturn-Txid"]) == (204, "2")
    assert collections(used) == [{"name": "c", "dimension": 1, "count": 1}]


def test_a_collection_goes_with_its_last_vector_and_its_dimension_is_free(used):
    put(used, a=[1.0, 0.0], b=[0.0, 1.0])
    assert found(used, [1.0, 0.0]) == ["a", "b"]
    delete(used, "a")
    delete(used, "b")
    assert collections(used) == []
    assert found(used, [1.0, 0.0]) == []
    put(used, z=[1.0, 0.0, 0.0])
    assert hits(used, [1.0, 0.0, 0.0]) == [("z", 0.0)]


# --- item 69 -------------------------------------------------------------------------------------


def test_item_69_hits_are_nearest_first_with_their_cosine_distance(used):
    put(used, east=[3.0, 0.0], north=[0.0, 0.5], west=[-1.0, 0.0], between=[1.0, 1.0])
    assert [(id_, round(distance, 6)) for id_, distance in hits(used, [2.0, 0.0])] == [
        ("east", 0.0),
        ("between", 0.292893),
        ("north", 1.0),
        ("west", 2.0),
    ]
    assert search(used, [2.0, 0.0]).headers["Memoturn-Txid"] == "2"


def test_item_69_k_is_10_by_default_and_1000_at_most(used):
    put(used, **{str(n): [1.0, n / 500] for n in range(1_000)})
    put(used, **{str(n): [1.0, n / 500] for n in range(1_000, 1_100)})
    assert found(used, [1.0, 0.0]) == [str(n) for n in range(10)]
    assert len(found(used, [1.0, 0.0], k=11)) == 11
    assert len(found(used, [1.0, 0.0], k=5_000)) == 1_000
    assert found(used, [1.0, 0.0], k=0) == ["0"]


def test_item_69_an_unknown_collection_is_empty(used):
    response = search(used, [1.0], "nothing")
    assert (response.status_code, response.json(), response.headers["Memoturn-Txid"]) == (200, {"hits": []}, "1")


def test_a_query_of_another_dimension_is_refused(used):
    put(used, a=[1.0, 0.0])
    refused(search(used, [1.0, 0.0, 0.0]), "vector")
    assert "have 2" in search(used, [1.0]).json()["error"]


def test_the_database_must_exist_on_rest(memory):
    for response in (
        upsert(memory, id="a", embedding=[1.0]),
        search(memory, [1.0]),
        delete(memory, "a"),
        memory.http.get(f"{memory.database}/vectors"),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    assert not memory.exists


def test_a_search_is_never_answered_from_before_min_txid(used):
    put(used, a=[1.0])
    path = f"{used.database}/vectors/c/search"
    assert used.http.post(path, json={"vector": [1.0]}, headers={"Memoturn-Min-Txid": "2"}).status_code == 200
    assert used.http.post(path, json={"vector": [1.0]}, headers={"Memoturn-Min-Txid": "3"}).status_code == 503


def test_the_tools_do_what_the_routes_do_and_a_first_upsert_makes_the_profile(memory, mcp):
    vectors = [{"id": "a", "embedding": [1, 0]}, {"id": "b", "embedding": [0, 1]}]
    assert tool(mcp, memory, "vector_upsert", collection="c", vectors=vectors) == {"txid": 1, "result": {}}
    assert tool(mcp, memory, "vector_upsert", collection="c", id="c", embedding=[-1, 0])["txid"] == 2
    answer = tool(mcp, memory, "vector_search", collection="c", vector=[1, 0], k=2)
    assert answer == {"txid": 2, "result": {"hits": [{"id": "a", "distance": 0.0}, {"id": "b", "distance": 1.0}]}}
    assert tool(mcp, memory, "vector_delete", collection="c", id="a") == {"txid": 3, "result": {"deleted": True}}
    assert tool(mcp, memory, "vector_delete", collection="c", id="a") == {"txid": 3, "result": {"deleted": False}}
    assert tool(mcp, memory, "vector_collections")["result"] == {
        "collections": [{"name": "c", "dimension": 2, "count": 2}]
    }
    assert found(memory, [1.0, 0.0]) == ["b", "c"]


# --- bad input -----------------------------------------------------------------------------------

NUMBER = '{"id": "a", "embedding": [1, %s]}'
BAD = [
    ('{"id": "a", "embedding": []}', "embedding"),
    ('{"id": "a", "embedding": 1}', "embedding"),
    ('{"id": "a", "embedding": null}', "embedding"),
    ('{"id": "a"}', "embedding"),
    ('{"embedding": [1]}', "id"),
    ("{}", "id"),
    ('{"id": "", "embedding": [1]}', "id"),
    ('{"id": 1, "embedding": [1]}', "id"),
    (json.dumps({"id": "x" * 1_025, "embedding": [1]}), "id"),
    (json.dumps({"id": "é" * 513, "embedding": [1]}), "id"),
    (NUMBER % '"1"', "embedding[1]"),
    (NUMBER % "true", "embedding[1]"),
    (NUMBER % "[1]", "embedding[1]"),
    (NUMBER % "1e39", "embedding[1]"),
    (NUMBER % "-3.5e38", "embedding[1]"),
    ('{"id": "a", "embedding": [0, 0.0, -0.0]}', "embedding"),
    ('{"id": "a", "embedding": [1e-46, 0]}', "embedding"),
    (json.dumps({"id": "a", "embedding": [1] * 65_537}), "embedding"),
    ('{"id": "a", "embedding": [1], "metadata": {}}', "metadata"),
    ('{"vectors": []}', "vectors"),
    ('{"vectors": [{"id": "a", "embedding": [1]}], "id": "b"}', "vectors"),
    ('{"vectors": [{"id": "a", "embedding": [1]}, {"id": "b", "embedding": [0]}]}', "vectors[1].embedding"),
    ('{"vectors": [{"id": "a", "embedding": [1]}, {"id": "b"}]}', "vectors[1].embedding"),
    ('{"vectors": [{"id": "a", "embedding": [1], "k": 1}]}', "vectors[0].k"),
    (json.dumps({"vectors": [{"id": str(n), "embedding": [1]} for n in range(1_001)]}), "vectors"),
]
BAD_SEARCHES = [
    ("{}", "vector"),
    ('{"vector": []}', "vector"),
    ('{"vector": [0, 0]}', "vector"),
    ('{"vector": [1, 1e39]}', "vector[1]"),
    ('{"vector": [1], "k": "ten"}', "k"),
    ('{"vector": [1], "k": 1.5}', "k"),
    ('{"vector": [1], "filter": {}}', "filter"),
]


@pytest.mark.parametrize(("path", "name", "body", "field"), [
    *(("", "vector_upsert", *case) for case in BAD),
    *(("/search", "vector_search", *case) for case in BAD_SEARCHES),
])  # fmt: skip
def test_bad_arguments_are_refused_by_name_and_change_nothing(memory, mcp, path, name, body, field):
    memory.keep(event("Something"))
    refused(memory.http.post(f"{memory.database}/vectors/c{path}", content=body), field)
    given = {**json.loads(body), **where(memory), "collection": "c"}
    envelope = refusal(message_of(mcp.call_text(name, json.dumps(given))))
    assert envelope["code"] == "invalid_request"
    assert f"{field}: " in envelope["error"]
    assert memory.txid == 1
    assert collections(memory) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused(used, number):
    response = used.http.post(f"{used.database}/vectors/c", content=NUMBER % number)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert used.txid == 1


@pytest.mark.parametrize("name", ["a b", "é", "x" * 65, "a.b", "a%2Fb", "%00", "'; DROP TABLE x"])
def test_a_bad_collection_name_is_refused(used, name):
    quoted = quote(name, safe="%")
    refused(used.http.post(f"{used.database}/vectors/{quoted}", json={"id": "a", "embedding": [1.0]}), "collection")
    refused(used.http.post(f"{used.database}/vectors/{quoted}/search", json={"vector": [1.0]}), "collection")
    refused(used.http.delete(f"{used.database}/vectors/{quoted}/a"), "collection")
    assert used.txid == 1


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


def test_item_82_a_fork_sees_what_was_there_and_neither_sees_what_the_other_writes(used):
    put(used, a=[1.0, 0.0], b=[0.0, 1.0])
    assert create(used, "fork").status_code == 201
    forked = on(used, "fork")
    upsert(used, id="mine", embedding=[1.0, 0.1])
    upsert(forked, id="a", embedding=[-1.0, 0.0])
    assert found(used, [1.0, 0.0]) == ["a", "mine", "b"]
    assert hits(forked, [1.0, 0.0]) == [("b", 1.0), ("a", 2.0)]


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
