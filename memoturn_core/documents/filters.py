"""Filters and sort orders, compiled to SQL over a collection's table with every value bound.

Equality and `$in` match a value, or an element where there is an array; `null` also matches what is
missing. Numbers, strings and booleans compare with their own kind alone, arrays and objects by value.
Called by `documents`; contract items 57 to 59.

A condition on a path is `<a scalar> OR <an array with such an element>`. Both sides are ranges of the
one index on the path's value, in which arrays lie above all scalars, so that SQLite searches it twice
rather than read the table. It needs to be told that a range is a small part of it: `unlikely`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from memoturn_core.documents import paths
from memoturn_core.documents.paths import Path
from memoturn_schemas.errors import InvalidRequest

DEPTH = 32
LIST_LIMIT = 1_000
CONDITION_LIMIT = 500
SORT_LIMIT = 32
SQL_LIMIT = 1 << 20
"""Characters; what SQLite is given to parse is part of the work that nobody can interrupt."""

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $not"

_NUMBER, _STRING, _BOOLEAN = "'integer', 'real'", "'text'", "'true', 'false'"
"""Kinds of scalars, each as the JSON types that it consists of."""
_ENDS = {_NUMBER: ("-1e999", "''"), _STRING: ("''", "x''"), _BOOLEAN: ("0", "''")}
"""Between which values SQLite orders all of a kind, the second not included."""


@dataclass(frozen=True, slots=True)
class Condition:
    """An SQL expression, and the values of its parameters `?1`, `?2`…"""

    sql: str
    parameters: tuple[Any, ...]


def compile_filter(filter_: dict[str, Any]) -> Condition:
    """The condition under which a document matches.

    Raises:
        InvalidRequest: names the part of the filter that is wrong.
    """
    compiler = _Compiler()
    sql = compiler.filter(filter_, "filter", DEPTH)
    if len(sql) > SQL_LIMIT:
        raise InvalidRequest("filter: is too large; ask for fewer or shorter paths")
    return Condition(sql, tuple(compiler.parameters))


def compile_sort(sort: dict[str, Any]) -> str:
    """The terms of ORDER BY; what is equal comes in the order of insertion.

    Raises:
        InvalidRequest
    """
    if len(sort) > SORT_LIMIT:
        raise InvalidRequest(f"sort: has at most {SORT_LIMIT} keys")
    terms = []
    for text, direction in sort.items():
        path = paths.parse(text, f"sort.{text}")
        if type(direction) is not int or direction not in (1, -1):
            raise InvalidRequest(f"sort.{text}: should be 1 (ascending) or -1 (descending)")
        terms.append(f"{path.value} {'ASC' if direction == 1 else 'DESC'}")
    return ", ".join([*terms, "seq"])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value is compared: at a path, or an element of the array there."""

    scalar: str
    type: str
    json: str
    """Of an array or object: JSON text or JSONB."""


_Test = Callable[[_Place], str]
"""The condition under which what is at a place is what is wanted."""

_ELEMENT = _Place("element.atom", "element.type", "element.value")


class _Compiler:
    def __init__(self) -> None:
        self.parameters: list[Any] = []
        self._conditions = 0

    def filter(self, filter_: Any, where: str, depth: int) -> str:
        if not isinstance(filter_, dict):
            raise InvalidRequest(f"{where}: should be an object")
        if depth < 0:
            raise InvalidRequest(f"filter: should not be nested deeper than {DEPTH} levels")
        return _all([self._part(key, operand, f"{where}.{key}", depth) for key, operand in filter_.items()])

    def _part(self, key: str, operand: Any, where: str, depth: int) -> str:
        if key == "$not":
            return _not(self.filter(operand, where, depth - 1))
        if key in ("$and", "$or"):
            if not isinstance(operand, list) or not operand:
                raise InvalidRequest(f"{where}: should be a list of filters, one at least")
            parts = [self.filter(part, f"{where}[{index}]", depth - 1) for index, part in enumerate(operand)]
            return _all(parts) if key == "$and" else _any(parts)
        if key.startswith("$"):
            raise InvalidRequest(
                f"{where}: unknown operator; there are $and, $or, $not, and beside a path {_OPERATORS}"
            )
        path = paths.parse(key, where)
        if isinstance(operand, dict) and any(name.startswith("$") for name in operand):
            return self._operators(path, operand, where, depth)
        return self._among(path, [operand])

    def _operators(self, path: Path, operators: dict[str, Any], where: str, depth: int) -> str:
        if depth < 0:
            raise InvalidRequest(f"filter: should not be nested deeper than {DEPTH} levels")
        parts = []
        ranges = []
        for name, operand in operators.items():
            inside = f"{where}.{name}"
            if name in _RANGES:
                ranges.append((_RANGES[name], operand, inside))
            elif name in ("$eq", "$ne"):
                equal = self._among(path, [operand])
                parts.append(equal if name == "$eq" else _not(equal))
            elif name in ("$in", "$nin"):
                if not isinstance(operand, list) or len(operand) > LIST_LIMIT:
                    raise InvalidRequest(f"{inside}: should be a list of at most {LIST_LIMIT} values")
                among = self._among(path, operand)
                parts.append(among if name == "$in" else _not(among))
            elif name == "$exists":
                if not isinstance(operand, bool):
                    raise InvalidRequest(f"{inside}: should be true or false")
                self._count()
                parts.append(
                    f"{path.type} IS {'NOT ' if operand else ''}NULL" if not path.is_id else _constant(operand)
                )
            elif name == "$not":
                if not isinstance(operand, dict) or not any(each.startswith("$") for each in operand):
                    raise InvalidRequest(f"{inside}: should be an object of operators, such as {{'$gt': 5}}")
                parts.append(_not(self._operators(path, operand, inside, depth - 1)))
            elif name.startswith("$"):
                raise InvalidRequest(f"{inside}: unknown operator; there are {_OPERATORS}")
            else:
                raise InvalidRequest(f"{inside}: operators and other keys cannot be mixed")
        if ranges:
            parts.append(self._between(path, ranges))
        return _all(parts)

    # --- conditions on one path ------------------------------------------------------------------

    def _among(self, path: Path, values: Sequence[Any]) -> str:
        """The value, or one of an array's elements, is among `values`."""
        scalars: list[_Test] = []
        for kind in (_NUMBER, _STRING, _BOOLEAN):
            of_kind = [value for value in values if _kind(value) == kind]
            if of_kind:
                scalars.append(self._scalar_among(kind, of_kind))
        if any(value is None for value in values):
            scalars.append(lambda place: f"{place.type} = 'null'" if place is _ELEMENT else f"{place.scalar} IS NULL")
        structures = [self._same_structure(value) for value in values if isinstance(value, (dict, list))]
        self._count(len(scalars) + len(structures))
        at_path = _Place(path.value, path.type, path.value)
        element = [test(_ELEMENT) for test in [*scalars, *structures]]
        within = [test(at_path) for test in structures] + ([_some_element(path, _any(element))] if element else [])
        return _any([*(test(at_path) for test in scalars), *_structures(path, within)])

    def _scalar_among(self, kind: str, scalars: list[Any]) -> _Test:
        if len(scalars) == 1:
            comparison = f"= {self._bind(scalars[0])}"
        else:
            comparison = f"IN (SELECT atom FROM json_each({self._bind(orjson.dumps(scalars).decode())}))"
        return lambda place: f"({place.scalar} {comparison} AND {place.type} IN ({kind}))"

    def _same_structure(self, value: Any) -> _Test:
        """The same leaves at the same places, wherever their keys stand; 1 and 1.0 are the same."""
        type_ = "'array'" if isinstance(value, list) else "'object'"
        wanted = self._bind(orjson.dumps(value).decode())
        size = self._bind(_size(value))
        columns = "fullkey, replace(type, 'real', 'integer'), atom"

        def test(place: _Place) -> str:
            json = f"CASE {place.type} WHEN {type_} THEN {place.json} END"
            return (
                f"({place.type} = {type_} AND (SELECT count(*) FROM json_tree({json})) = {size} AND NOT EXISTS"
                f" (SELECT {columns} FROM json_tree({json}) EXCEPT SELECT {columns} FROM json_tree({wanted})))"
            )

        return test

    def _between(self, path: Path, ranges: list[tuple[str, Any, str]]) -> str:
        """The value lies in all of the ranges, or an array has an element in each of them."""
        scalar: list[str] = []
        elements: list[str] = []
        ends: dict[str, set[str]] = {}
        for comparison, operand, where in ranges:
            kind = _kind(operand)
            if kind is None:
                raise InvalidRequest(f"{where}: should be a number, a string or a boolean")
            self._count()
            bound = self._bind(operand)
            scalar.append(f"unlikely({path.value} {comparison} {bound})")
            elements.append(f"({_ELEMENT.scalar} {comparison} {bound} AND {_ELEMENT.type} IN ({kind}))")
            ends.setdefault(kind, set()).add(comparison[0])
        for kind, given in ends.items():
            # Where the filter leaves an end open, that of the kind, so that nothing beyond it is searched. Beside an
            # end that is given it would do harm: SQLite takes but one of them.
            low, high = _ENDS[kind]
            if ">" not in given:
                scalar.append(f"unlikely({path.value} >= {low})")
            if "<" not in given:
                scalar.append(f"unlikely({path.value} < {high})")
            scalar.append(f"{path.type} IN ({kind})")
        within = [_all([_some_element(path, element) for element in elements])]
        return _any([_all(scalar), *_structures(path, within)])

    def _bind(self, value: Any) -> str:
        self.parameters.append(value)
        return f"+?{len(self.parameters)}"  # without the plus, SQLite plans anew for each value that is bound

    def _count(self, conditions: int = 1) -> None:
        self._conditions += conditions
        if self._conditions > CONDITION_LIMIT:
            raise InvalidRequest(f"filter: has more than {CONDITION_LIMIT} conditions; use $in for many values")


def _some_element(path: Path, condition: str) -> str:
    array = f"CASE {path.type} WHEN 'array' THEN {path.value} END"
    return f"EXISTS (SELECT 1 FROM json_each({array}) AS element WHERE {condition})"


def _structures(path: Path, conditions: list[str]) -> list[str]:
    """The alternative that there is an array or an object for which one of the conditions holds."""
    return [] if path.is_id or not conditions else [f"(unlikely({path.value} >= x'') AND {_any(conditions)})"]


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return _BOOLEAN
    if isinstance(value, (int, float)):
        return _NUMBER
    return _STRING if isinstance(value, str) else None


def _size(value: Any) -> int:
    """How many values there are in it, itself included."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(_size(part) for part in parts)


def _constant(holds: bool) -> str:
    return "1" if holds else "0"


def _not(condition: str) -> str:
    return f"(({condition}) IS NOT TRUE)"


def _all(conditions: list[str]) -> str:
    return _joined(" AND ", conditions) if conditions else _constant(True)


def _any(conditions: list[str]) -> str:
    return _joined(" OR ", conditions) if conditions else _constant(False)


def _joined(operator: str, conditions: list[str]) -> str:
    """Joined as a balanced tree, for SQLite limits how deep an expression is."""
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    return f"({_joined(operator, conditions[:middle])}{operator}{_joined(operator, conditions[middle:])})"
