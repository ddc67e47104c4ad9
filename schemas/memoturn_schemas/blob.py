"""Bytes as a field of JSON: the text whose UTF-8 they are, or `{"$base64": …}` where they are no text.

REST carries such a field as the body itself; this is how surfaces that speak JSON carry it. Used by the
wire models, by `memoturn_core.door` and by `memoturn_mcp.tools`.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_BASE64 = "$base64"


def from_json(value: Any) -> bytes:
    """The bytes that a value of JSON stands for; bytes are themselves.

    Raises:
        ValueError: it stands for none; the text may be shown to a caller.
    """
    match value:
        case bytes():
            return value
        case str():
            try:
                return value.encode()
            except UnicodeEncodeError:
                raise ValueError("must be valid Unicode") from None
        case {"$base64": str() as encoded, **others} if not others:
            try:
                return base64.b64decode(encoded, validate=True)
            except ValueError:
                raise ValueError(f"{_BASE64}: must be base64 with its padding") from None
    raise ValueError(f'must be text or {{"{_BASE64}": …}}')


def to_json(value: bytes) -> str | dict[str, str]:
    """The bytes as a value of JSON."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {_BASE64: base64.b64encode(value).decode()}


_ENCODED = {
    "type": "object",
    "properties": {_BASE64: {"type": "string"}},
    "required": [_BASE64],
    "additionalProperties": False,
}

Blob = Annotated[bytes, BeforeValidator(from_json), WithJsonSchema({"anyOf": [{"type": "string"}, _ENCODED]})]
