"""Items 55 to 63 and, of documents, item 82; `tests/unit/test_documents_semantics.py` has what filters mean."""

from __future__ import annotations

import itertools
import re
from typing import Any

import httpx
import pytest

from contract.bad_input import refused
from contract.branches import checkpoint, create, execute, fork, on, ref, rewind, selected, tool
from contract.live_node import Memory, event, serve
from memoturn_storage.ambient import ManualAmbient

TOOLSETS = "docs"


class Docs:
    """A collection of a database, by its routes."""

    def __init__(self, memory: Memory, name: str = "things") -> None:
        self.memory = memory
        self.path = f"{memory.database}/docs/{name}"

    def post(self, what: str, **body: Any) -> httpx.Response:
        return self.memory.http.post(f"{self.path}/{what}", json=body)

    def insert(self, *docs: Any) -> list[str]:
        response = self.post("insert", docs=list(docs))
        assert response.status_code == 201, response.text
        ids: list[str] = response.json()["ids"]
        return ids

    def found(self, filter_: Any = None, **more: Any) -> list[dict[str, Any]]:
        """The documents of a find that is certainly right, without their ids."""
        asked = {} if filter_ is None else {"filter": filter_}
        response = self.post("find", **asked, **more)
        assert response.status_code == 200, response.text
        assert set(response.json()) == {"docs", "txid"}
        assert response.headers["Memoturn-Txid"] == str(response.json()["txid"])
        return [{key: value for key, value in doc.items() if key != "_id"} for doc in response.json()["docs"]]

    def changed(self, what: str, **body: Any) -> int:
        response = self.post(what, **body)
        assert response.status_code == 200, response.text
        [count] = set(response.json()) - {"txid"}
        assert count == {"update": "modified", "delete": "deleted"}[what]
        return int(response.json()[count])


@pytest.fixture
def docs(memory: Memory) -> Docs:
    memory.keep(event("Makes the database"))
    return Docs(memory)


def values(found: list[dict[str, Any]], key: str = "n") -> list[Any]:
    return [doc.get(key) for doc in found]


def nested(depth: int, inside: Any) -> Any:
    for _ in range(depth):
        inside = {"$not": inside}
    return inside


# --- insert --------------------------------------------------------------------------------------


def test_item_55_insert_is_201_with_the_ids_in_order_and_the_txid(docs):
    response = docs.post("insert", docs=[{"_id": "b"}, {"n": 1}, {"_id": "a"}])
    assert response.status_code == 201
    assert set(response.json()) == {"ids", "txid"}
    assert response.json()["txid"] == 2
    assert response.headers["Memoturn-Txid"] == "2"
    b, made, a = response.json()["ids"]
    assert (b, a) == ("b", "a")
    assert re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", made)


def test_item_55_a_missing_id_becomes_a_ulid_of_now(docs, live):
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    ids = docs.insert({}, {}, {})
    assert len(set(ids)) == 3
    for id_ in ids:
        time = 0
        for letter in id_[:10]:
            time = time * 32 + alphabet.index(letter)
        assert time == live.ambient.now_ms()
    assert docs.post("find", filter={"_id": ids[1]}).json()["docs"] == [{"_id": ids[1]}]


@pytest.mark.parametrize("doc", [1, "x", None, True, [], [{"a": 1}], {"_id": 1}, {"_id": None}, {"_id": {}}], ids=str)
def test_item_55_what_is_no_object_or_has_no_string_as_id_is_400(docs, doc):
    refused(docs.post("insert", docs=[{"_id": "fine"}, doc]), "docs[1]")
    assert docs.found() == []
    assert docs.memory.txid == 1


def test_item_55_a_taken_id_is_409_and_nothing_of_the_batch_is_kept(docs):
    docs.insert({"_id": "x", "n": 1})
    for batch in ([{"_id": "y"}, {"_id": "x"}], [{"_id": "y"}, {"_id": "y"}]):
        response = docs.post("insert", docs=batch)
        assert (response.status_code, response.json()["code"]) == (409, "already_exists")
        assert repr(batch[1]["_id"]) in response.json()["error"]
        assert response.json()["error"].startswith("docs[1]._id: ")
    assert docs.found() == [{"n": 1}]
    assert docs.memory.txid == 2


def test_item_55_a_document_is_kept_as_it_was_sent(docs):
    doc = {"z": 1, "a": 1.0, "big": 2**63 - 1, "low": -(2**63), "f": 0.1, "t": "é\0🍵'\"", "": {"a.b": [], "$x": None}}
    docs.insert(doc)
    [found] = docs.found()
    assert list(found) == list(doc)
    assert found == doc
    assert isinstance(found["a"], float)


def test_a_document_has_bounds_that_are_told(docs):
    for doc, told in (
        ({"a": [0, {"b": 2**63}]}, "docs[0]: must not hold integers beyond 64 bits (at a[1].b)"),
        ({"_id": "x" * 1_025}, "docs[0]: must have an _id of at most 1024 bytes of UTF-8"),
    ):
        response = docs.post("insert", docs=[doc])
        assert (response.status_code, response.json()["error"]) == (400, told)
    refused(docs.post("insert", docs=[{}] * 1_001), "docs")
    too_large = docs.post("insert", docs=[{"a": "x" * (17 << 20)}])
    assert (too_large.status_code, too_large.json()["code"]) == (413, "payload_too_large")
    assert docs.found() == []
    assert len(docs.insert(*[{}] * 1_000)) == 1_000


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


# --- update --------------------------------------------------------------------------------------


def test_item_60_update_is_200_with_the_number_of_changed_documents_and_the_txid(docs):
    docs.insert({"n": 1}, {"n": 1}, {"n": 2})
    response = docs.post("update", filter={"n": 1}, update={"$set": {"n": 5}})
    assert (response.status_code, response.json()) == (200, {"modified": 1, "txid": 3})
    assert response.headers["Memoturn-Txid"] == "3"
    assert values(docs.found()) == [5, 1, 2]
    assert docs.changed("update", filter={}, update={"$set": {"n": 5}}, multi=True) == 2
    assert docs.changed("update", filter={}, update={"$set": {"n": 5}}, multi=True) == 0
    assert docs.memory.txid == 4


def test_item_60_set_unset_inc_push(docs):
    docs.insert({"a": 1, "b": {"c": 1}, "l": [1]})
    update = {
        "$set": {"b.d": {"x": []}, "new.deep": True},
        "$unset": {"b.c": "", "nothing.there": ""},
        "$inc": {"a": 2.5, "count.n": 3},
        "$push": {"l": [2], "m": "first"},
    }
    assert docs.changed("update", filter={}, update=update) == 1
    assert docs.found() == [
        {"a": 3.5, "b": {"d": {"x": []}}, "l": [1, [2]], "new": {"deep": True}, "count": {"n": 3}, "m": ["first"]}
    ]


@pytest.mark.parametrize(
    ("update", "field"),
    [
        ({"a": 1}, "update.a"),
        ({}, "update"),
        ({"$set": {"a": 2}, "b": 1}, "update.b"),
        ({"$rename": {"a": "b"}}, "update.$rename"),
        ({"$set": {}}, "update.$set"),
        ({"$set": [1]}, "update.$set"),
        ({"$set": {"_id": "y"}}, "update.$set._id"),
        ({"$unset": {"_id": ""}}, "update.$unset._id"),
        ({"$push": {"_id.x": 1}}, "update.$push._id.x"),
        ({"$inc": {"a": "1"}}, "update.$inc.a"),
        ({"$inc": {"a": True}}, "update.$inc.a"),
        ({"$inc": {"s": 1}}, "update.$inc.s"),
        ({"$inc": {"null": 1}}, "update.$inc.null"),
        ({"$inc": {"big": 1}}, "update.$inc.big"),
        ({"$inc": {"huge": 1e308}}, "update.$inc.huge"),
        ({"$push": {"a": 1}}, "update.$push.a"),
        ({"$push": {"l": {"$each": [1]}}}, "update.$push.l.$each"),
        ({"$set": {"a.b": 1}}, "update.$set.a.b"),
        ({"$set": {"null.b": 1}}, "update.$set.null.b"),
        ({"$set": {"l.x": 1}}, "update.$set.l.x"),
        ({"$set": {"l.2": 1}}, "update.$set.l.2"),
        ({"$set": {"b": 1}, "$inc": {"b": 1}}, "update.$inc.b"),
        ({"$set": {"b.c": 1, "b": 1}}, "update.$set.b.c"),
        ({"$set": {"a..b": 1}}, "update.$set.a..b"),
        ({"$set": {"a": 2**63}}, "update"),
        ({"$set": {f"k{n}": 1 for n in range(1_001)}}, "update"),
        ([], "update"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_item_60_an_update_that_cannot_be_made_is_400_and_changes_nothing(docs, update, field):
    before = [{"first": 1}, {"a": 1, "s": "x", "null": None, "l": [1], "big": 2**63 - 1, "huge": 1e308}]
    docs.insert(*before)
    refused(docs.post("update", filter={"a": 1}, update=update, multi=True), field)
    assert docs.found() == before
    assert docs.memory.txid == 2


def test_item_60_one_document_that_does_not_fit_leaves_all_as_they_were(docs):
    docs.insert({"n": 1}, {"_id": "this one", "n": "x"}, {"n": 3})
    response = docs.post("update", filter={}, update={"$inc": {"n": 1}}, multi=True)
    refused(response, "update.$inc.n")
    assert "'this one'" in response.json()["error"]
    assert values(docs.found()) == [1, "x", 3]


def test_an_update_cannot_make_a_document_that_could_not_be_inserted(docs):
    deep: Any = 1
    for _ in range(80):
        deep = [deep]
    docs.insert({"_id": "x"})
    refused(docs.post("update", filter={}, update={"$set": {".".join("a" * 32): deep}}), "update")
    docs.insert({"_id": "y", "t": "x" * (15 << 20)})
    large = docs.post("update", filter={"_id": "y"}, update={"$set": {"u": "x" * (2 << 20)}})
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")
    assert docs.found({"_id": {"$ne": "y"}}) == [{}]


# --- delete --------------------------------------------------------------------------------------


def test_item_61_delete_takes_the_first_that_matches_or_all(docs):
    docs.insert(*({"n": n % 2} for n in range(5)))
    response = docs.post("delete", filter={"n": 0})
    assert (response.status_code, response.json()) == (200, {"deleted": 1, "txid": 3})
    assert values(docs.found()) == [1, 0, 1, 0]
    assert docs.changed("delete", filter={"n": 0}, multi=True) == 2
    assert docs.changed("delete", filter={"n": 0}, multi=True) == 0
    assert docs.changed("delete", filter={}, multi=True) == 2
    assert docs.found() == []
    assert docs.insert({"_id": "again"}) == ["again"]


def test_item_61_update_and_delete_of_an_unknown_collection_are_0(docs):
    for multi in (False, True):
        assert docs.changed("update", filter={}, update={"$set": {"a": 1}}, multi=multi) == 0
        assert docs.changed("delete", filter={}, multi=multi) == 0
    assert docs.memory.txid == 1


def test_what_is_to_be_changed_or_deleted_must_be_said(docs):
    docs.insert({"n": 1})
    refused(docs.post("delete", multi=True), "filter")
    refused(docs.post("update", update={"$set": {"n": 2}}), "filter")
    refused(docs.post("update", filter={}), "update")
    assert docs.found() == [{"n": 1}]


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


# --- collections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.b", "a%20b", "%22", "a%2Fb", "x" * 65, "é", "a%00", "a%3B--"])
def test_item_63_other_names_are_400(docs, name):
    elsewhere = Docs(docs.memory, name)
    refused(elsewhere.post("insert", docs=[{}]), "collection")
    refused(elsewhere.post("find"), "collection")
    refused(elsewhere.post("update", filter={}, update={"$set": {"a": 1}}), "collection")
    refused(elsewhere.post("delete", filter={}), "collection")
    refused(elsewhere.post("indexes", path="a"), "collection")
    assert docs.memory.txid == 1


def test_item_63_names_that_differ_are_collections_that_differ(docs, live):
    names = ["a-b", "a_b", "A-B", "a--b", "-", "_", "1", "01", "x" * 64, "x" * 63, "__memoturn_docs_1"]
    for name in names:
        Docs(docs.memory, name).insert({"_id": "same", "n": name})
    for name in names:
        assert values(Docs(docs.memory, name).found({"_id": "same"})) == [name]
    tables = selected(
        live, ref(live, docs.memory), "SELECT name FROM sqlite_schema WHERE name GLOB '__memoturn_docs_*'"
    )
    assert len(tables) == len(names)
    assert Docs(docs.memory, "a-b").changed("delete", filter={}, multi=True) == 1
    assert values(Docs(docs.memory, "a_b").found()) == ["a_b"]


def test_the_database_must_exist(memory):
    unknown = Docs(memory)
    for response in (
        unknown.post("insert", docs=[{}]),
        unknown.post("find"),
        unknown.post("update", filter={}, update={"$set": {"a": 1}}),
        unknown.post("delete", filter={}),
        unknown.post("indexes", path="a"),
        memory.http.get(f"{memory.database}/docs"),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    assert not memory.exists


def test_agents_keep_and_find_documents_in_a_profile_that_the_first_makes(mcp, memory):
    made = tool(mcp, memory, "docs_insert", collection="trips", docs=[{"_id": "t1", "to": "Oslo", "days": 3}])
    assert made == {"txid": 1, "result": {"ids": ["t1"]}}
    tool(mcp, memory, "docs_index", collection="trips", path="to")
    changed = tool(mcp, memory, "docs_update", collection="trips", filter={"to": "Oslo"}, update={"$inc": {"days": 1}})
    assert changed["result"] == {"modified": 1}
    found = tool(mcp, memory, "docs_find", collection="trips", filter={"days": {"$gt": 3}})
    assert found == {"txid": 3, "result": {"docs": [{"_id": "t1", "to": "Oslo", "days": 4}]}}
    assert tool(mcp, memory, "docs_delete", collection="trips", filter={})["result"] == {"deleted": 1}
    listed = tool(mcp, memory, "docs_collections")["result"]["collections"]
    assert listed == [{"name": "trips", "documents": 0, "indexes": ["to"]}]


# --- branches ------------------------------------------------------------------------------------


def test_item_82_a_fork_has_the_collections_and_neither_sees_the_others_writes(docs):
    docs.insert({"n": 1})
    docs.post("indexes", path="n")
    there = Docs(fork(docs.memory, "try"))
    assert values(there.found({"n": {"$gt": 0}})) == [1]
    there.insert({"n": 2})
    docs.insert({"n": 3})
    there.changed("update", filter={"n": 1}, update={"$set": {"n": 10}})
    assert values(docs.found({"n": {"$gt": 0}})) == [1, 3]
    assert values(there.found({"n": {"$gt": 0}})) == [10, 2]


def test_item_82_collections_made_on_each_side_of_a_fork_are_its_own(docs):
    memory = docs.memory
    assert create(memory, "try").status_code == 201
    branch = on(memory, "try")
    Docs(branch, "there").insert({"n": "there"})
    assert Docs(memory, "there").found() == []
    Docs(memory, "here").insert({"n": "here"})  # in what is, on the branch, the table of the other
    assert Docs(branch, "here").found() == []
    assert values(Docs(branch, "there").found()) == ["there"]
    assert values(Docs(memory, "here").found()) == ["here"]


def test_item_82_a_rewind_takes_a_collection_away_and_it_can_be_made_again(docs):
    checkpoint(docs.memory, "before")
    docs.insert({"_id": "x", "n": 1})
    docs.post("indexes", path="n")
    assert values(docs.found({"n": 1})) == [1]
    rewind(docs.memory, "before")
    assert docs.found({"n": 1}) == []
    assert docs.memory.http.get(f"{docs.memory.database}/docs").json()["collections"] == []
    Docs(docs.memory, "another").insert({"_id": "x", "n": 2})
    docs.insert({"_id": "x", "n": 3})
    docs.post("indexes", path="n")
    assert values(docs.found({"n": {"$gt": 0}})) == [3]
    assert values(Docs(docs.memory, "another").found()) == [2]


def test_a_collection_is_found_as_it_was(docs):
    docs.insert({"n": 1})
    docs.changed("update", filter={}, update={"$set": {"n": 2}})
    assert values(docs.found(as_of=2)) == [1]
    assert values(docs.found()) == [2]


# --- what takes long -----------------------------------------------------------------------------


class Hurried(ManualAmbient):
    """A clock on which a moment is over after some looks at it."""

    def monotonic(self) -> float:
        self.advance(seconds=0.005)
        return super().monotonic()


def test_what_takes_longer_than_a_moment_is_done_all_the_same(tmp_path):
    with serve(tmp_path, ambient=Hurried()) as slow:
        memory = slow.memory()
        memory.keep(event("Makes the database"))
        docs = Docs(memory)
        docs.insert({"n": 0})
        execute(
            slow,
            ref(slow, memory),
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
            " INSERT INTO __memoturn_docs_1 (_id, body) SELECT 'd' || i, jsonb_object('_id', 'd' || i, 'n', i) FROM n",
        )
        asked = {"n": {"$gt": 19_998}, "missing": {"$nin": [1, "x", [1], {"a": 1}]}}
        assert docs.found(asked) == [{"n": 19_999}, {"n": 20_000}]
        assert docs.changed("update", filter={"n": {"$gt": 10_000}}, update={"$inc": {"n": 1}}, multi=True) == 10_000
        assert docs.changed("delete", filter={"n": {"$lt": 20_000}}, multi=True) == 19_999
        assert docs.post("indexes", path="n").status_code == 201
        assert docs.found() == [{"n": 20_000}, {"n": 20_001}]
