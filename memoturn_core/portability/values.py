"""Values of a database's columns as JSON and back, without loss. Called by everything that tells or takes records.

What JSON has no word for is an object with one name:

- `{"$base64": …}`: bytes;
- `{"$text": …}`: text that is not valid UTF-8, as base64;
- `{"$real": "Infinity"}` or `"-Infinity"`;
- `{"$json": …}`: a JSON value by its text, where that is spelt otherwise than we spell it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from math import inf, isfinite
from typing import Any

import orjson
from pydantic_core import to_json

from memoturn_core.memory.identity import canonical_json

_BASE64, _TEXT, _REAL, _JSON = "$base64", "$text", "$real", "$json"
_REALS = {"Infinity": inf, "-Infinity": -inf}
_INTEGERS = range(-(2**63), 2**63)

Dump = Callable[[Any], str]


class Refused(Exception):
    """A record cannot be taken; the text says which field is wrong, and why."""


# --- scalars -------------------------------------------------------------------------------------


def outward(value: Any) -> Any:
    """A value of SQLite as JSON has it."""
    if isinstance(value, bytes):
        return {_BASE64: base64.b64encode(value).decode()}
    if isinstance(value, float) and not isfinite(value):
        return {_REAL: "Infinity" if value > 0 else "-Infinity"}
    return value


def outward_text(data: bytes) -> Any:
    """A text, from its bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {_TEXT: base64.b64encode(data).decode()}


def inward(name: str, value: Any) -> Any:
    """The value of SQLite that `value` stands for: None, a number, a text or bytes; but see `text_bytes`."""
    match value:
        case None | str():
            return value
        case bool():
            raise Refused(f"{name}: should be a number or a text, not {str(value).lower()}")
        case int():
            if value not in _INTEGERS:
                raise Refused(f"{name}: should be an integer of 64 bits")
            return value
        case float():
            return value
        case {"$base64": str() as encoded, **others} if not others:
            return _unbase64(name, encoded)
        case {"$real": str() as spelt, **others} if not others and spelt in _REALS:
            return _REALS[spelt]
    raise Refused(f"{name}: stands for no value of a column")


def text_bytes(name: str, value: Any) -> bytes | None:
    """The bytes of a text that is not valid UTF-8; None where `value` stands for something else."""
    match value:
        case {"$text": str() as encoded, **others} if not others:
            return _unbase64(name, encoded)
    return None


def _unbase64(name: str, encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise Refused(f"{name}: should be base64 with its padding") from None


# --- JSON ----------------------------------------------------------------------------------------


def compact(value: Any) -> str:
    """JSON as documents are kept: compact, in the order that it has."""
    return orjson.dumps(value).decode()


def canonical(value: Any) -> str:
    """JSON as memories are kept: compact, with sorted keys."""
    return canonical_json(value)


def ordered(value: Any) -> str:
    """JSON as episodes are kept: compact, in the order that it has."""
    return to_json(value).decode()


def outward_json(text: str, dump: Dump) -> Any:
    """The value of a JSON text such that `inward_json` gives back exactly that text."""
    try:
        value = orjson.loads(text)
        # As deep as it will be nested in a line, or it could not be written there.
        orjson.dumps([[value]])
        if dump(value) == text and not (isinstance(value, dict) and value.keys() == {_JSON}):
            return value
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError, ValueError):
        pass
    return {_JSON: text}


def inward_json(name: str, value: Any, dump: Dump) -> str:
    match value:
        case {"$json": str() as text, **others} if not others:
            try:
                orjson.loads(text)
            except orjson.JSONDecodeError:
                raise Refused(f"{name}.$json: should be the text of a JSON value") from None
            return text
    try:
        return dump(value)
    except (orjson.JSONEncodeError, RecursionError, ValueError):
        raise Refused(f"{name}: cannot be kept as JSON") from None


def inward_object(name: str, value: Any, dump: Dump) -> tuple[dict[str, Any], str]:
    """As `inward_json`, of an object; also its value."""
    text = inward_json(name, value, dump)
    found = orjson.loads(text)
    if not isinstance(found, dict):
        raise Refused(f"{name}: should be an object")
    return found, text
