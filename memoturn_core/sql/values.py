"""Values between JSON and SQLite: parameters on the way in, rows on the way out. Contract item 72.

Called by `query` and `run`.
"""

from __future__ import annotations

import base64
import binascii
from math import isfinite
from typing import Any

from pydantic_core import to_json

from memoturn_schemas.errors import InvalidRequest

BLOB = "$base64"

Parameters = tuple[Any, ...] | dict[str, Any] | None

_INTEGERS = range(-(2**63), 2**63)
_SCALARS = (int, type(None))


def parameters(given: list[Any] | dict[str, Any] | None, path: str) -> Parameters:
    """What to bind; `path` is where the request has it, for errors.

    Raises:
        InvalidRequest: an integer of more than 64 bits, or a blob that is not base64.
    """
    if given is None:
        return None
    if isinstance(given, list):
        return tuple(_inward(value, f"{path}[{index}]") for index, value in enumerate(given))
    return {name: _inward(value, f"{path}.{name}") for name, value in given.items()}


def _inward(value: Any, path: str) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and value not in _INTEGERS:
        raise InvalidRequest(f"{path}: should be an integer of 64 bits")
    if isinstance(value, dict) and value.keys() == {BLOB}:
        return _blob(value[BLOB], path)
    if isinstance(value, dict | list):
        return to_json(value).decode()
    return value


def _blob(encoded: Any, path: str) -> bytes:
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            pass
    raise InvalidRequest(f"{path}.{BLOB}: should be base64")


def outward(row: tuple[Any, ...]) -> tuple[list[Any], int]:
    """A row as JSON has it, and its size in bytes.

    Raises:
        InvalidRequest: JSON cannot carry an infinity.
    """
    values = list(row)
    size = 8 * len(values)
    for index, value in enumerate(values):
        if isinstance(value, str):
            size += len(value) if value.isascii() else len(value.encode())
        elif isinstance(value, bytes):
            size += len(value)
            values[index] = {BLOB: base64.b64encode(value).decode()}
        elif not isinstance(value, _SCALARS) and not isfinite(value):
            raise InvalidRequest(f"column {index + 1} holds an infinity, which JSON cannot carry; CAST it to TEXT")
    return values, size
