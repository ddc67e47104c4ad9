"""A memory's id: what makes two memories the same one. Pure functions; contract section 1, item 9."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

PREFIX = "mem_"
ID_BYTES = 16

_ID = re.compile(rf"{PREFIX}[0-9a-f]{{{2 * ID_BYTES}}}")


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
    return bytes.fromhex(text[len(PREFIX) :]) if _ID.fullmatch(text) else None
