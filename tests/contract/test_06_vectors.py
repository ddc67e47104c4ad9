"""Items 68, 69 and 82: vectors in collections, through REST and MCP."""

from __future__ import annotations

import json
import math
from urllib.parse import quote

import pytest

from contract.bad_input import refusal, refused, where
from contract.branches import create, on, tool
from contract.live_node import event, message_of
from contract.vectors import collections, delete, found, hits, put, search, upsert
from contract.vectors import used as used

TOOLSETS = "all"


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


def test_item_82_a_fork_sees_what_was_there_and_neither_sees_what_the_other_writes(used):
    put(used, a=[1.0, 0.0], b=[0.0, 1.0])
    assert create(used, "fork").status_code == 201
    forked = on(used, "fork")
    upsert(used, id="mine", embedding=[1.0, 0.1])
    upsert(forked, id="a", embedding=[-1.0, 0.0])
    assert found(used, [1.0, 0.0]) == ["a", "mine", "b"]
    assert hits(forked, [1.0, 0.0]) == [("b", 1.0), ("a", 2.0)]
