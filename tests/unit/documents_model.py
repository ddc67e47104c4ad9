"""What filters, sort orders and updates of documents mean, in plain Python; nothing here is taken from the program."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

MISSING: Any = object()


class Refused(Exception):
    """The update does not fit the document."""


def kind(value: Any) -> str:
    if value is MISSING or value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "string", list: "array", dict: "object"}[type(value)]


def same(one: Any, other: Any) -> bool:
    if kind(one) != kind(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return kind(one) == "null" or bool(one == other)


def at(document: Any, path: str) -> Any:
    for segment in path.split("."):
        if isinstance(document, dict):
            document = document.get(segment, MISSING)
        elif isinstance(document, list) and segment.isdigit() and int(segment) < len(document):
            document = document[int(segment)]
        else:
            return MISSING
    return document


def equals(found: Any, wanted: Any) -> bool:
    return same(found, wanted) or (isinstance(found, list) and any(same(element, wanted) for element in found))


def compares(found: Any, operator: str, bound: Any) -> bool:
    def holds(value: Any) -> bool:
        if kind(value) != kind(bound):
            return False
        return bool(
            {"$gt": value > bound, "$gte": value >= bound, "$lt": value < bound, "$lte": value <= bound}[operator]
        )

    return any(map(holds, found)) if isinstance(found, list) else holds(found)


def asked(found: Any, operand: Any) -> bool:
    if not (isinstance(operand, dict) and any(key.startswith("$") for key in operand)):
        return equals(found, operand)
    return all(_operator_holds(found, operator, wanted) for operator, wanted in operand.items())


def _operator_holds(found: Any, operator: str, wanted: Any) -> bool:
    match operator:
        case "$eq" | "$ne":
            return equals(found, wanted) == (operator == "$eq")
        case "$in" | "$nin":
            return any(equals(found, value) for value in wanted) == (operator == "$in")
        case "$exists":
            return (found is not MISSING) == wanted
        case "$not":
            return not asked(found, wanted)
    return compares(found, operator, wanted)


def matches(document: dict[str, Any], filter_: dict[str, Any]) -> bool:
    for key, operand in filter_.items():
        if key == "$and":
            holds = all(matches(document, part) for part in operand)
        elif key == "$or":
            holds = any(matches(document, part) for part in operand)
        elif key == "$not":
            holds = not matches(document, operand)
        else:
            holds = asked(at(document, key), operand)
        if not holds:
            return False
    return True


def sort_class(value: Any) -> tuple[int, Any]:
    """Where a value sorts; arrays and objects are among themselves in an order that is not told."""
    return {
        "null": lambda: (0, 0),
        "number": lambda: (1, value),
        "boolean": lambda: (1, int(value)),
        "string": lambda: (2, value),
    }.get(kind(value), lambda: (3, 0))()


def updated(document: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    for operator, changes in update.items():
        for path, operand in changes.items():
            document = changed(document, path.split("."), operator, operand)
    return document


def changed(inside: Any, segments: list[str], operator: str, operand: Any) -> Any:
    head, rest = segments[0], segments[1:]
    if isinstance(inside, dict):
        known: dict[Any, Any] = dict(inside)
        key: Any = head
    elif isinstance(inside, list):
        key = int(head) if head.isdigit() else None
        known = dict(enumerate(inside))
        if operator == "$unset" and key not in known:
            return inside
        if key is None or key > len(inside):
            raise Refused
    elif operator == "$unset":
        return inside
    else:
        raise Refused
    if operator == "$unset" and key not in known:
        return inside
    old = known.get(key, MISSING)
    if rest:
        known[key] = changed({} if old is MISSING else old, rest, operator, operand)
    elif operator == "$unset":
        if isinstance(inside, list):
            known[key] = None
        else:
            del known[key]
    elif operator == "$set":
        known[key] = operand
    elif operator == "$inc":
        if old is not MISSING and kind(old) != "number":
            raise Refused
        known[key] = (0 if old is MISSING else old) + operand
    else:
        if old is not MISSING and kind(old) != "array":
            raise Refused
        known[key] = [*([] if old is MISSING else old), operand]
    return list(known.values()) if isinstance(inside, list) else copy.copy(known)


# --- what to try ---------------------------------------------------------------------------------

# Few values, and such as are easily taken for one another, so that they meet.
_numbers = [0, 1, 1.0, 2, -1, 1.5, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), 0.1, 1e300, -0.0, 5e-324]
_texts = ["", "a", "b", "1", "true", "null", "[1]", "[]", '{"a":1}', "a\0b", "a\0c", "é", "🍵", "'\"\\"]
scalars = st.sampled_from([None, True, False, *_numbers, *_texts])
keys = st.sampled_from(["a", "b", "0", "1", "it's"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
documents = st.dictionaries(keys, values, max_size=4)
paths = st.lists(keys, min_size=1, max_size=3).map(".".join)
_bounds = scalars.filter(lambda value: value is not None)
_operators = st.deferred(
    lambda: st.fixed_dictionaries(
        {},
        optional={
            "$eq": values,
            "$ne": values,
            "$gt": _bounds,
            "$gte": _bounds,
            "$lt": _bounds,
            "$lte": _bounds,
            "$in": st.lists(values, max_size=4),
            "$nin": st.lists(values, max_size=4),
            "$exists": st.booleans(),
            "$not": _operators,
        },
    ).filter(bool)
)
filters = st.recursive(
    st.dictionaries(paths, values | _operators, max_size=2),
    lambda inner: (
        st.fixed_dictionaries(
            {},
            optional={"$and": st.lists(inner, min_size=1, max_size=3), "$or": st.lists(inner, min_size=1, max_size=3)},
        )
        | inner.map(lambda part: {"$not": part})
    ),
    max_leaves=5,
)
sorts = st.dictionaries(paths, st.sampled_from([1, -1]), max_size=3)
_increments = st.sampled_from([1, -1, 0, 0.5, 2.0])
updates = st.fixed_dictionaries(
    {},
    optional={
        "$set": st.dictionaries(paths, values, min_size=1, max_size=2),
        "$unset": st.dictionaries(paths, st.just(""), min_size=1, max_size=2),
        "$inc": st.dictionaries(paths, _increments, min_size=1, max_size=2),
        "$push": st.dictionaries(paths, values, min_size=1, max_size=2),
    },
).filter(bool)


def conflicts(update: dict[str, Any]) -> bool:
    told = [path.split(".") for changes in update.values() for path in changes]
    return any(one[: len(other)] == other for n, one in enumerate(told) for m, other in enumerate(told) if n != m)
