"""Dot paths into documents, and what SQLite has to compute to follow one.

`a.b.0` leads through objects by key; where a segment is a number it is a position in an array, or a key
of that name in an object. A path does not spread over the elements of an array. Called by `filters`,
`updates` and `rows`.

A path becomes part of a statement's text, for an index is used only where the query has the indexed
expression itself: each segment as a JSON string, the whole as an SQL string literal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import orjson

from memoturn_schemas.errors import InvalidRequest

DEPTH = 32
"""Segments at most."""

_LENGTH = 512
"""Bytes of UTF-8 at most."""

_POSITIONS = 3
"""Numbers at most: every one of them doubles what has to be looked for."""

_POSITION = re.compile("0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Path:
    text: str
    segments: tuple[str, ...]
    value: str
    """SQL of what is there, ordered by SQLite as NULL (null or missing) < numbers < texts < JSONB (arrays, objects);
    false and true are 0 and 1."""
    type: str
    """SQL of its JSON type as SQLite names it; NULL where it is missing."""

    @property
    def is_id(self) -> bool:
        return self.text == "_id"


ID = Path("_id", ("_id",), "_id", "'text'")
"""Has a column with a unique index of its own."""


def parse(text: str, where: str) -> Path:
    """The path that `text` is; `where` names it in errors.

    Raises:
        InvalidRequest: it cannot be followed.
    """
    try:
        return _parse(text)
    except ValueError as error:
        raise InvalidRequest(f"{where}: {error}") from None


@lru_cache(512)
def _parse(text: str) -> Path:
    if text == "_id":
        return ID
    segments = tuple(text.split("."))
    if "" in segments:
        raise ValueError("should be a path such as a.b.c, of keys that are not empty")
    if len(segments) > DEPTH or len(text.encode()) > _LENGTH:
        raise ValueError(f"a path has at most {DEPTH} segments and {_LENGTH} bytes")
    if any(segment.startswith("$") for segment in segments):
        raise ValueError("a key in a path cannot begin with $")
    if sum(is_position(segment) for segment in segments) > _POSITIONS:
        raise ValueError(f"a path has at most {_POSITIONS} numbers")
    literals = _literals(segments)
    return Path(
        text,
        segments,
        _first_of([f"jsonb_extract(body, {literal})" for literal in literals]),
        _first_of([f"json_type(body, {literal})" for literal in literals]),
    )


def is_position(segment: str) -> bool:
    return _POSITION.fullmatch(segment) is not None


def _literals(segments: tuple[str, ...]) -> list[str]:
    """The paths as SQLite has them, as SQL literals: a document has what is at one of them at most."""
    choices = []
    for segment in segments:
        key = "." + orjson.dumps(segment).decode()
        choices.append([key, f"[{segment}]"] if is_position(segment) else [key])
    return ["'$" + "".join(steps).replace("'", "''") + "'" for steps in product(*choices)]


def _first_of(expressions: list[str]) -> str:
    return expressions[0] if len(expressions) == 1 else f"coalesce({', '.join(expressions)})"
