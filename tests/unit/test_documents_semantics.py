"""Filters, sort orders and updates do what the model says, with indexes and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from examples import examples
from memoturn_core.documents import paths, rows
from memoturn_core.documents.filters import compile_filter, compile_sort
from memoturn_core.documents.updates import parse_update
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Transaction
from unit import documents_model as model

many = settings(max_examples=examples(60), deadline=None)
some = settings(max_examples=40, deadline=None)
batches = st.lists(model.documents, min_size=1, max_size=6)


class Kept:
    """One collection, in a database of its own."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self.connection = SCHEMA.empty()
        self.collection = rows.find_or_make(self.connection, "c")
        self.documents = [{"_id": f"d{number}", **document} for number, document in enumerate(documents)]
        rows.insert(Transaction(self.connection, ManualAmbient()), self.collection, self.documents)

    def find(self, filter_: dict[str, Any], sort: dict[str, Any] | None = None, skip: int = 0) -> list[dict[str, Any]]:
        order = compile_sort(sort or {})
        return rows.select(self.connection, self.collection, compile_filter(filter_), order, 1_000, skip)

    def ids(self, filter_: dict[str, Any], sort: dict[str, Any] | None = None) -> list[str]:
        return [document["_id"] for document in self.find(filter_, sort)]

    def index(self, *texts: str) -> None:
        for text in texts:
            rows.index(self.connection, self.collection, paths.parse(text, "path"))

    def update(self, filter_: dict[str, Any], update: dict[str, Any], *, multi: bool) -> int:
        change = parse_update(update)
        return rows.update(self.connection, self.collection, compile_filter(filter_), change, multi=multi)


@contextmanager
def kept(documents: list[dict[str, Any]]) -> Iterator[Kept]:
    collection = Kept(documents)
    try:
        yield collection
    finally:
        collection.connection.close()


def paths_of(filter_: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for key, operand in filter_.items():
        if key in ("$and", "$or"):
            found.update(*(paths_of(part) for part in operand))
        elif key == "$not":
            found |= paths_of(operand)
        else:
            found.add(key)
    return found


def text(value: Any) -> str:
    """Tells 1 from 1.0 and true, which Python's equality does not."""
    return json.dumps(value)


# --- filters -------------------------------------------------------------------------------------


@many
@given(batches, model.filters)
@example([{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": [1]}, {"a": [[1]]}], {"a": 1})
@example([{"a": "[1]"}, {"a": [1]}, {"a": [1.0]}, {"a": [True]}, {"a": [[1]]}], {"a": [1]})
@example([{"a": None}, {}, {"a": [None]}, {"a": []}, {"a": 0}], {"a": None})
@example([{"a": [1, 5]}, {"a": 3}, {"a": [0, 9]}], {"a": {"$gt": 2, "$lt": 4}})
@example([{"a": {"0": "x"}}, {"a": ["x"]}, {"a": {"0": ["x"]}}], {"a.0": "x"})
@example([{"a": {"a": 1, "b": [0]}}, {"a": {"b": [0.0], "a": 1}}], {"a": {"b": [-0.0], "a": 1}})
@example([{"a": 2**53 + 1}, {"a": 2**53}, {"a": float(2**53)}], {"a": {"$gt": float(2**53)}})
def test_a_filter_finds_what_the_model_finds_with_indexes_and_without(documents, filter_):
    with kept(documents) as collection:
        expected = [document["_id"] for document in collection.documents if model.matches(document, filter_)]
        assert collection.ids(filter_) == expected
        collection.index(*paths_of(filter_))
        assert collection.ids(filter_) == expected


@many
@given(batches, model.paths, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), model.scalars)
def test_a_range_searches_its_own_kind_alone(documents, path, operator, bound):
    assume(bound is not None)
    with kept(documents) as collection:
        collection.index(path)
        expected = [
            document["_id"]
            for document in collection.documents
            if model.compares(model.at(document, path), operator, bound)
        ]
        assert collection.ids({path: {operator: bound}}) == expected


@some
@given(batches)
def test_a_document_comes_back_as_it_was(documents):
    with kept(documents) as collection:
        assert text(collection.find({})) == text(collection.documents)


@some
@given(model.documents, st.data())
def test_a_document_is_found_by_each_of_its_fields(document, data):
    with kept([document, {}]) as collection:
        for key, value in document.items():
            assert "d0" in collection.ids({key: value})
            assert "d0" in collection.ids({key: {"$in": [value]}})
            assert "d0" not in collection.ids({key: {"$ne": value}})


@many
@given(
    st.lists(
        st.text(min_size=1, max_size=8).filter(lambda key: "." not in key and key[0] != "$"), min_size=1, max_size=3
    )
)
@example(["') --"])
@example(["a'b", 'c"d', "e\\f"])
@example(["a[0]", "[0]", "#-1"])
@example(["\0", "a\0b", "\x7f\x80"])
@example(["?1", ":x", "@y"])
@example([" ", "\n", "🍵"])
def test_any_key_is_addressed_literally(keys):
    try:
        for key in keys:
            key.encode()
    except UnicodeEncodeError:
        assume(False)
    path = ".".join(keys)
    document: Any = "here"
    for key in reversed(keys):
        document = {key: document}
    assume("_id" not in document)
    with kept([{}, document, {keys[0]: "elsewhere"}, {"other": document}]) as collection:
        for _ in range(2):
            assert collection.ids({path: "here"}) == ["d1"]
            assert collection.ids({path: {"$gt": "h", "$lt": "i"}}) == ["d1"]
            assert collection.ids({path: {"$exists": True}}) == (["d1"] if len(keys) > 1 else ["d1", "d2"])
            collection.index(path)
        assert collection.update({path: "here"}, {"$set": {path: "moved"}}, multi=True) == 1
        assert collection.ids({path: "moved"}) == ["d1"]


# --- sort ----------------------------------------------------------------------------------------


@many
@given(batches, model.filters, model.sorts)
def test_documents_come_in_the_order_that_is_asked_for(documents, filter_, sort):
    with kept(documents) as collection:
        unindexed = collection.find(filter_, sort)
        assert {document["_id"] for document in unindexed} == set(collection.ids(filter_))
        values = [[model.at(document, path) for path in sort] for document in unindexed]
        for one, other, before, after in zip(values, values[1:], unindexed, unindexed[1:], strict=False):
            for left, right, direction in zip(one, other, sort.values(), strict=True):
                low, high = (left, right) if direction == 1 else (right, left)
                assert model.sort_class(low) <= model.sort_class(high)
                if model.sort_class(low) != model.sort_class(high):
                    break
                if model.kind(left) in ("array", "object"):
                    break  # their order is not told
            else:
                assert before["_id"] < after["_id"]
        collection.index(*sort)
        assert collection.find(filter_, sort) == unindexed
        assert collection.find(filter_, sort, skip=2) == unindexed[2:]


# --- updates -------------------------------------------------------------------------------------


@many
@given(batches, model.filters, model.updates, st.booleans())
@example([{"a": 1}], {}, {"$set": {"a": True}}, False)
@example([{"a": [1, 2]}], {}, {"$set": {"a.2": 3}, "$unset": {"a.0": ""}}, False)
@example([{"a": 1}, {"a": "x"}], {}, {"$inc": {"a": 1}}, True)
def test_an_update_changes_what_the_model_changes_or_nothing(documents, filter_, update, multi):
    assume(not model.conflicts(update))
    with kept(documents) as collection:
        collection.index("a", "b")
        before = collection.find({})
        matching = [document["_id"] for document in before if model.matches(document, filter_)]
        chosen = set(matching if multi else matching[:1])
        try:
            expected = [model.updated(each, update) if each["_id"] in chosen else each for each in before]
        except model.Refused:
            collection.connection.execute("SAVEPOINT job")
            with pytest.raises(InvalidRequest, match=r"^update\.\$(set|inc|push)\..*: .*in document 'd\d'$"):
                collection.update(filter_, update, multi=multi)
            collection.connection.execute("ROLLBACK TO job")
            assert text(collection.find({})) == text(before)
            return
        if any(number > 2**62 for number in numbers(expected) if isinstance(number, int)):
            return
        modified = collection.update(filter_, update, multi=multi)
        assert text(collection.find({})) == text(expected)
        assert modified == sum(text(one) != text(other) for one, other in zip(before, expected, strict=True))
        for path in ("a", "b"):
            for value in (model.at(document, path) for document in expected):
                wanted = None if value is model.MISSING else value
                assert collection.ids({path: {"$eq": wanted}}) == [
                    document["_id"] for document in expected if model.equals(model.at(document, path), wanted)
                ]


def numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, (int, float)):
        yield value


@some
@given(model.updates)
def test_paths_that_lead_through_one_another_are_refused(update):
    if model.conflicts(update):
        with pytest.raises(InvalidRequest, match="conflicts with"):
            parse_update(update)
    else:
        parse_update(update)


# --- plans ---------------------------------------------------------------------------------------


def plan(collection: Kept, filter_: dict[str, Any], sort: dict[str, Any] | None = None) -> str:
    condition = compile_filter(filter_)
    explained = collection.connection.execute(
        f"EXPLAIN QUERY PLAN SELECT json(body) FROM {collection.collection.table} WHERE {condition.sql}"
        f" ORDER BY {compile_sort(sort or {})} LIMIT +? OFFSET +?",
        (*condition.parameters, 100, 0),
    ).fetchall()
    return "\n".join(str(row[3]) for row in explained)


@pytest.mark.parametrize("count", [0, 1_000])
@pytest.mark.parametrize("made", ["before the documents", "after them"])
@pytest.mark.parametrize(
    "asked",
    [1, "x", True, None, [1], {"a": 1}, {"$eq": 5}, {"$in": [1, "x", None, True, [1]]}, {"$in": list(range(1_000))}]
    + [{operator: bound} for operator in ("$gt", "$gte", "$lt", "$lte") for bound in (5, "m", True)]
    + [{"$gte": 5, "$lt": 9}, {"$gt": "a", "$lt": "b", "$ne": "aa"}],
    ids=str,
)
def test_an_indexed_path_is_searched_by_its_index(count, made, asked):
    with kept([]) as collection:
        if made == "before the documents":
            collection.index("n.m")
        documents = [{"_id": str(number), "n": {"m": number}} for number in range(count)]
        rows.insert(Transaction(collection.connection, ManualAmbient()), collection.collection, documents)
        if made == "after them":
            collection.index("n.m")
        for filter_ in ({"n.m": asked}, {"n.m": asked, "other": 5}, {"$and": [{"other": {"$ne": 1}}, {"n.m": asked}]}):
            for sort in ({}, {"other": -1}):
                told = plan(collection, filter_, sort)
                searched = [line for line in told.splitlines() if "__memoturn_docs_" in line]
                assert searched
                assert all(line.startswith("SEARCH") and "_by_1 (<expr>" in line for line in searched), told


def test_a_range_with_two_ends_is_searched_between_them():
    with kept([]) as collection:
        collection.index("n")
        for asked in ({"$gte": 1, "$lt": 2}, {"$gt": "a", "$lte": "b"}, {"$gt": 5}, {"$lt": "m"}):
            assert "(<expr>>? AND <expr><?)" in plan(collection, {"n": asked})


@pytest.mark.parametrize("asked", ["x", {"$in": ["x", "y"]}, {"$gt": "x"}, {"$lte": "x"}], ids=str)
def test_the_id_is_searched_by_its_unique_index(asked):
    with kept([{}, {}]) as collection:
        assert "sqlite_autoindex___memoturn_docs_1_1 (_id" in plan(collection, {"_id": asked})


def test_sorting_by_an_indexed_path_reads_its_index_in_order():
    with kept([{"n": number} for number in range(50)]) as collection:
        collection.index("n")
        for direction in (1, -1):
            assert "SCAN __memoturn_docs_1 USING INDEX __memoturn_docs_1_by_1" in plan(collection, {}, {"n": direction})
        assert "B-TREE" not in plan(collection, {}, {"n": 1})
        assert "B-TREE" not in plan(collection, {}, {"_id": -1, "n": 1})


def test_a_filter_is_planned_once_whatever_values_are_asked_for():
    seen: list[Any] = []

    def watch(*what: Any) -> int:
        seen.append(what)
        return apsw.SQLITE_OK

    with kept([{"n": number, "m": [number]} for number in range(50)]) as collection:
        collection.index("n", "m")
        collection.connection.authorizer = watch
        assert collection.ids({"n": 0, "m": 0}) == ["d0"]
        assert seen
        seen.clear()
        for number in range(1, 5):
            assert collection.ids({"n": number, "m": number}) == [f"d{number}"]
        assert seen == []
        collection.connection.authorizer = None
