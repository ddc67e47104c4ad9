"""A memory's id: what makes two memories the same one. Pure functions; contract section 1, item 9."""

from __future__ import annotations

import hashlib
import json
from typing import Any

PREFIX = "mem_"
ID_BYTES = 16


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys, not escaped: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def memory_key(type_: str, topic_key: str | None, content_json: str) -> bytes:
    """The 16 bytes behind an id; `content_json` is canonical."""
    identity = "\0".join((type_, topic_key or "", content_json))
    return hashlib.sha256(identity.encode()).digest()[:ID_BYTES]


def format_id(key: bytes) -> str:
    return PREFIX + key.hex()


def parse_id(text: str) -> bytes | None:
    """The 16 bytes, or None for text that is no memory's id."""
    digits = text.removeprefix(PREFIX)
    if digits == text or len(digits) != 2 * ID_BYTES or digits != digits.lower():
        return None
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None
