"""Items 55, 60, 61, 63 and, of documents, item 82: inserted, changed and deleted, in collections that branch."""

from __future__ import annotations

import re
from typing import Any

import pytest

from contract.bad_input import refused
from contract.branches import checkpoint, create, execute, fork, on, ref, rewind, selected, tool
from contract.documents import Docs, values
from contract.documents import docs as docs
from contract.live_node import event, serve
from memoturn_storage.ambient import ManualAmbient

TOOLSETS = "docs"


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
