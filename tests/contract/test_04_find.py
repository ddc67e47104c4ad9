"""Items 56 to 59 and 62: filters and orders of a find; `tests/unit/test_documents_semantics.py` has what they mean."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from contract.bad_input import refused
from contract.documents import docs as docs
from contract.documents import values


def nested(depth: int, inside: Any) -> Any:
    for _ in range(depth):
        inside = {"$not": inside}
    return inside


# --- find ----------------------------------------------------------------------------------------


def test_item_56_limit_is_100_by_default_and_clamps_to_1000(docs):
    for start in (0, 1_000):
        docs.insert(*({"n": n} for n in range(start, start + 1_000)))
    assert values(docs.found()) == list(range(100))
    assert values(docs.found(limit=5_000)) == list(range(1_000))
    assert values(docs.found(limit=0)) == [0]
    assert values(docs.found(limit=2, skip=1_500)) == [1_500, 1_501]
    assert docs.found(skip=2**63 - 1) == []


def test_item_56_an_unknown_collection_is_empty_and_stays_unknown(docs):
    response = docs.post("find", filter={"a": 1})
    assert (response.status_code, response.json()) == (200, {"docs": [], "txid": 1})
    assert docs.memory.http.get(f"{docs.memory.database}/docs").json()["collections"] == []


def test_an_answer_that_is_too_large_is_413_and_says_what_helps(docs):
    docs.insert({"t": "x" * (15 << 20)})
    docs.insert({"t": "y" * (15 << 20)})
    docs.insert({"t": "z" * (15 << 20)})
    response = docs.post("find")
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    assert "limit" in response.json()["error"]
    assert docs.found(limit=1, skip=2)[0]["t"][0] == "z"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"$eq": 2}, [1]),
        ({"$ne": 2}, [0, 2, 3, 4]),
        ({"$gt": 1}, [1, 2]),
        ({"$gte": 2}, [1, 2]),
        ({"$lt": 2}, [0]),
        ({"$lte": 2}, [0, 1]),
        ({"$in": [1, "x"]}, [0, 3]),
        ({"$nin": [1, "x"]}, [1, 2, 4]),
        ({"$exists": True}, [0, 1, 2, 3]),
        ({"$exists": False}, [4]),
        ({"$not": {"$gt": 1}}, [0, 3, 4]),
        (None, [4]),
        (1.0, [0]),
        (True, []),
        ({"$gt": 1, "$ne": 3}, [1]),
        ({"$gte": "a"}, [3]),
    ],
    ids=str,
)
def test_item_57_operators(docs, asked, expected):
    docs.insert(*({"at": at, "a": {"b": b}} for at, b in enumerate([1, 2, 3, "x"])), {"at": 4})
    for _ in range(2):
        assert values(docs.found({"a.b": asked}), "at") == expected
        docs.post("indexes", path="a.b")


def test_item_57_and_or_not(docs):
    docs.insert(*({"n": n} for n in range(6)))
    assert values(docs.found({"$and": [{"n": {"$gt": 1}}, {"n": {"$lt": 4}}]})) == [2, 3]
    assert values(docs.found({"$or": [{"n": 0}, {"n": {"$gte": 5}}], "n": {"$ne": 5}})) == [0]
    assert values(docs.found({"$not": {"$or": [{"n": 0}, {"n": {"$gte": 3}}]}})) == [1, 2]
    assert values(docs.found({})) == list(range(6))


def test_item_57_arrays_and_objects_by_value_and_arrays_by_an_element(docs):
    docs.insert(
        {"n": 0, "v": [1, "x"]},
        {"n": 1, "v": {"a": 1, "b": [2]}},
        {"n": 2, "v": [[1, "x"], None]},
        {"n": 3, "v": "[1]"},
    )
    for _ in range(2):
        assert values(docs.found({"v": [1, "x"]})) == [0, 2]
        assert values(docs.found({"v": ["x", 1]})) == []
        assert values(docs.found({"v": {"b": [2.0], "a": 1}})) == [1]
        assert values(docs.found({"v": {"a": 1}})) == []
        assert values(docs.found({"v": "x"})) == [0]
        assert values(docs.found({"v": None})) == [2]
        assert values(docs.found({"v": [1]})) == []
        docs.post("indexes", path="v")


@pytest.mark.parametrize(
    ("filter_", "field"),
    [
        ({"a": {"$foo": 1}}, "filter.a.$foo"),
        ({"$nor": [{"a": 1}]}, "filter.$nor"),
        ({"$or": [{"a": 1}, {"b": {"$regex": "x"}}]}, "filter.$or[1].b.$regex"),
        ({"a": {"$gt": 1, "b": 2}}, "filter.a.b"),
        ({"a": {"$gt": None}}, "filter.a.$gt"),
        ({"a": {"$lt": [1]}}, "filter.a.$lt"),
        ({"a": {"$in": 1}}, "filter.a.$in"),
        ({"a": {"$exists": 1}}, "filter.a.$exists"),
        ({"a": {"$not": 1}}, "filter.a.$not"),
        ({"a": {"$not": {}}}, "filter.a.$not"),
        ({"$not": [{"a": 1}]}, "filter.$not"),
        ({"$and": []}, "filter.$and"),
        ({"$or": {}}, "filter.$or"),
        ({"$or": [1]}, "filter.$or[0]"),
        ({"a..b": 1}, "filter.a..b"),
        ({"": 1}, "filter."),
        ({"a.$b": 1}, "filter.a.$b"),
        ({".".join("a" * 33): 1}, f"filter.{'.'.join('a' * 33)}"),
        ({"0.1.2.3": 1}, "filter.0.1.2.3"),
        ({"a": 2**63}, "filter"),
        ([], "filter"),
        ("a = 1", "filter"),
        ({"$or": [{"a": n} for n in range(501)]}, "filter"),
        ({"$or": [{".".join(["x" * 100, "0.1.2", "'" * 390]): n} for n in range(400)]}, "filter"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_item_57_a_filter_that_means_nothing_is_400_and_names_its_part(docs, filter_, field):
    docs.insert({"a": 1})
    refused(docs.post("find", filter=filter_), field)
    refused(docs.post("delete", filter=filter_, multi=True), field)
    refused(docs.post("update", filter=filter_, update={"$set": {"a": 2}}, multi=True), field)
    assert docs.found() == [{"a": 1}]
    assert docs.memory.txid == 2


@pytest.mark.parametrize(
    "shape", [lambda inside: {"a": inside}, lambda inside: inside], ids=["of a path", "of filters"]
)
def test_item_58_not_is_nested_32_deep_at_most(docs, shape):
    docs.insert({"a": 1, "$gt": 0})
    inside = {"$gt": 0} if "a" in shape({}) else {"a": {"$gt": 0}}
    assert len(docs.found(shape(nested(32, inside)))) == 1
    assert len(docs.found(shape(nested(31, inside)))) == 0
    refused(docs.post("find", filter=shape(nested(33, inside))), "filter")
    refused(docs.post("find", filter=shape(nested(60, inside))), "filter")


def test_item_58_and_or_are_nested_32_deep_at_most(docs):
    docs.insert({"a": 1})
    deep: Any = {"a": 1}
    for operator, _ in zip(itertools.cycle(["$and", "$or"]), range(32), strict=False):
        deep = {operator: [deep, {"b": None}]}
    assert len(docs.found(deep)) == 1
    refused(docs.post("find", filter={"$and": [deep]}), "filter")


@pytest.mark.parametrize("operator", ["$in", "$nin"])
def test_item_58_1000_values_are_allowed_and_1001_are_not(docs, operator):
    docs.insert({"n": 1}, {"n": 5_000})
    kept = 1 if operator == "$in" else 5_000
    assert values(docs.found({"n": {operator: list(range(1_000))}})) == [kept]
    refused(docs.post("find", filter={"n": {operator: list(range(1_001))}}), f"filter.n.{operator}")


def test_item_59_sort_keys_apply_in_the_order_given(docs):
    rows = [(1, "b"), (0, "b"), (1, "a"), (0, "a"), (1, "b")]
    docs.insert(*({"n": n, "a": a, "z": z} for n, (a, z) in enumerate(rows)))
    for _ in range(2):
        assert values(docs.found(sort={"a": 1, "z": -1})) == [1, 3, 0, 4, 2]
        assert values(docs.found(sort={"z": -1, "a": 1})) == [1, 0, 4, 3, 2]
        assert values(docs.found(sort={"a": -1})) == [0, 2, 4, 1, 3]
        docs.post("indexes", path="a")


def test_item_59_null_and_missing_then_numbers_then_strings_then_the_rest(docs):
    order = [None, -1, False, 0.5, True, 2, "", "10", "9", "a", [1]]
    docs.insert(*({"n": n, "v": v} for n, v in reversed(list(enumerate(order)))))
    assert values(docs.found(sort={"v": 1})) == list(range(len(order)))
    assert values(docs.found(sort={"v": -1})) == list(reversed(range(len(order))))


@pytest.mark.parametrize("direction", [0, 2, "asc", "1", True, 1.0, None, [1], {"$meta": 1}], ids=str)
def test_item_59_other_directions_are_400(docs, direction):
    refused(docs.post("find", sort={"a": 1, "b": direction}), "sort.b")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"sort": ["a"]}, "sort"),
        ({"sort": {"a..b": 1}}, "sort.a..b"),
        ({"sort": {f"k{n}": 1 for n in range(33)}}, "sort"),
        ({"skip": -1}, "skip"),
        ({"skip": 2**63}, "skip"),
        ({"skip": "1"}, "skip"),
        ({"limit": "1"}, "limit"),
        ({"filters": {}}, "filters"),
        ({"filter": None}, "filter"),
    ],
    ids=str,
)
def test_a_find_of_the_wrong_shape_is_400(docs, body, field):
    refused(docs.post("find", **body), field)


def test_item_59_an_empty_in_matches_nothing_and_an_empty_nin_everything(docs):
    docs.insert({"n": 1}, {"n": None}, {})
    for _ in range(2):
        assert docs.found({"n": {"$in": []}}) == []
        assert len(docs.found({"n": {"$nin": []}})) == 3
        assert docs.found({"n": {"$in": [], "$exists": True}}) == []
        assert values(docs.found({"n": {"$nin": [], "$gt": 0}})) == [1]
        docs.post("indexes", path="n")


# --- indexes -------------------------------------------------------------------------------------


def test_item_62_an_index_is_201_and_changes_no_result(docs):
    docs.insert(*({"a": {"b": n % 3}} for n in range(9)))
    asked = {"a.b": {"$gte": 1}}
    before = docs.found(asked, sort={"a.b": -1})
    for _ in range(2):
        response = docs.post("indexes", path="a.b")
        assert (response.status_code, response.json()) == (201, {"indexed": "a.b"})
        assert docs.found(asked, sort={"a.b": -1}) == before
    assert docs.post("indexes", path="_id").json() == {"indexed": "_id"}
    listed = docs.memory.http.get(f"{docs.memory.database}/docs")
    assert listed.json() == {"collections": [{"name": "things", "documents": 9, "indexes": ["a.b"]}], "txid": 3}
    assert listed.headers["Memoturn-Txid"] == "3"


def test_item_62_an_index_may_come_before_the_documents(docs):
    assert docs.post("indexes", path="n").status_code == 201
    docs.insert({"n": 1}, {"n": [1, 2]}, {"n": "1"})
    assert values(docs.found({"n": 1})) == [1, [1, 2]]


@pytest.mark.parametrize("path", ["", ".", "a.", "$a", "a.$b", "0.1.2.3", "x" * 513, 1, None, ["a"]], ids=str)
def test_item_62_a_path_that_cannot_be_indexed_is_400(docs, path):
    refused(docs.post("indexes", path=path), "path")
    assert docs.memory.txid == 1


def test_item_62_a_collection_has_64_indexes_at_most(docs):
    for n in range(64):
        assert docs.post("indexes", path=f"k{n}").status_code == 201
    response = docs.post("indexes", path="one.more")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert docs.post("indexes", path="k5").status_code == 201
