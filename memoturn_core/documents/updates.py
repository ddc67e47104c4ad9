"""Updates: `$set`, `$unset`, `$inc` and `$push`, applied to a document in memory.

Pure functions over parsed JSON. Paths that are missing are made of objects; a position may be one that
an array has, or its end. Called by `documents`; contract item 60.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from memoturn_core.documents import paths
from memoturn_schemas.documents import INTEGER_MAX, INTEGER_MIN, check_value
from memoturn_schemas.errors import InvalidRequest

PATH_LIMIT = 1_000

_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class _Change:
    operator: str
    path: str
    segments: tuple[str, ...]
    operand: Any

    def refuse(self, document: dict[str, Any], problem: str) -> InvalidRequest:
        return InvalidRequest(f"update.{self.operator}.{self.path}: {problem}, in document {document['_id']!r}")


@dataclass(frozen=True, slots=True)
class Update:
    changes: tuple[_Change, ...]

    def apply(self, document: dict[str, Any]) -> None:
        """Change the document, in the order in which the update is written.

        Raises:
            InvalidRequest: it does not fit this document, which is then changed in part.
        """
        for change in self.changes:
            _apply(change, document)
        try:
            check_value(document)
        except ValueError as error:
            raise InvalidRequest(f"update: with it, document {document['_id']!r} {error}") from None


def parse_update(update: dict[str, Any]) -> Update:
    """The update as it was sent.

    Raises:
        InvalidRequest: names the part that is wrong.
    """
    if not update:
        raise InvalidRequest(f"update: is empty; there are {', '.join(_OPERATORS)}")
    changes = []
    for operator, fields in update.items():
        where = f"update.{operator}"
        if operator not in _OPERATORS:
            raise InvalidRequest(f"{where}: unknown operator; there are {', '.join(_OPERATORS)}")
        if not isinstance(fields, dict) or not fields:
            raise InvalidRequest(f"{where}: should be an object of paths and values, one at least")
        for path, operand in fields.items():
            inside = f"{where}.{path}"
            segments = paths.parse(path, inside).segments
            if segments[0] == "_id":
                raise InvalidRequest(f"{inside}: a document's _id cannot be changed")
            if operator == "$inc" and (isinstance(operand, bool) or not isinstance(operand, (int, float))):
                raise InvalidRequest(f"{inside}: should be a number")
            if operator == "$push" and isinstance(operand, dict):
                modifier = next((key for key in operand if key.startswith("$")), None)
                if modifier is not None:
                    raise InvalidRequest(f"{inside}.{modifier}: unknown operator; $push adds the value as it is")
            changes.append(_Change(operator, path, segments, operand))
    if len(changes) > PATH_LIMIT:
        raise InvalidRequest(f"update: has more than {PATH_LIMIT} paths")
    _require_apart(changes)
    return Update(tuple(changes))


def _require_apart(changes: Sequence[_Change]) -> None:
    """Refuse paths of which one leads to or through another: which change is made first would matter."""
    ordered = sorted(changes, key=lambda change: change.segments)
    for one, other in pairwise(ordered):
        if other.segments[: len(one.segments)] == one.segments:
            raise InvalidRequest(f"update.{other.operator}.{other.path}: conflicts with {one.operator}.{one.path}")


def _apply(change: _Change, document: dict[str, Any]) -> None:
    inside: Any = document
    for segment in change.segments[:-1]:
        below = _get(inside, segment)
        if below is _MISSING:
            if change.operator == "$unset":
                return
            below = {}
            _put(change, document, inside, segment, below)
        inside = below
    _OPERATORS[change.operator](change, document, inside)


def _set(change: _Change, document: dict[str, Any], inside: Any) -> None:
    _put(change, document, inside, change.segments[-1], change.operand)


def _unset(change: _Change, _document: dict[str, Any], inside: Any) -> None:
    key = change.segments[-1]
    if isinstance(inside, dict):
        inside.pop(key, None)
    elif _get(inside, key) is not _MISSING:
        inside[int(key)] = None  # the others keep their positions


def _increment(change: _Change, document: dict[str, Any], inside: Any) -> None:
    key = change.segments[-1]
    value = _get(inside, key)
    if value is _MISSING:
        value = 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise change.refuse(document, f"there is {_described(value)}, not a number")
    total = value + change.operand
    if isinstance(total, int) and not INTEGER_MIN <= total <= INTEGER_MAX:
        raise change.refuse(document, "the sum does not fit into 64 bits")
    if isinstance(total, float) and not math.isfinite(total):
        raise change.refuse(document, "the sum is larger than any number")
    _put(change, document, inside, key, total)


def _push(change: _Change, document: dict[str, Any], inside: Any) -> None:
    key = change.segments[-1]
    array = _get(inside, key)
    if array is _MISSING:
        _put(change, document, inside, key, [change.operand])
    elif isinstance(array, list):
        array.append(change.operand)
    else:
        raise change.refuse(document, f"there is {_described(array)}, not an array")


_OPERATORS: dict[str, Callable[[_Change, dict[str, Any], Any], None]] = {
    "$set": _set,
    "$unset": _unset,
    "$inc": _increment,
    "$push": _push,
}


def _get(inside: Any, segment: str) -> Any:
    """What is there; `_MISSING` also where nothing can be."""
    if isinstance(inside, dict):
        return inside.get(segment, _MISSING)
    if isinstance(inside, list) and paths.is_position(segment) and int(segment) < len(inside):
        return inside[int(segment)]
    return _MISSING


def _put(change: _Change, document: dict[str, Any], inside: Any, segment: str, value: Any) -> None:
    if isinstance(inside, dict):
        inside[segment] = value
        return
    if not isinstance(inside, list):
        raise change.refuse(document, f"{segment} cannot be inside {_described(inside)}")
    if not paths.is_position(segment):
        raise change.refuse(document, f"{segment} is no position in an array")
    position = int(segment)
    if position > len(inside):
        raise change.refuse(document, f"the array has {len(inside)} elements, so {segment} is beyond its end")
    inside[position : position + 1] = [value]


def _described(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return kinds[type(value)]
