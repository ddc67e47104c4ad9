"""The key-value store on the wire. Source: contract section 5.

Keys are compared and sorted by their UTF-8 bytes. `ttl` is seconds.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from memoturn_schemas.blob import Blob
from memoturn_schemas.common import Count, RequestModel

NAMESPACE_BYTES = 256
KEY_BYTES = 1_024
TTL_LIMIT_S = 10_000_000_000


def _at_most(limit: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        if len(value.encode()) > limit:
            raise ValueError(f"must be at most {limit} bytes of UTF-8")
        return value

    return check


KvNamespace = Annotated[str, Field(min_length=1), AfterValidator(_at_most(NAMESPACE_BYTES))]
KvKey = Annotated[str, Field(min_length=1), AfterValidator(_at_most(KEY_BYTES))]


def cursor_after(key: str) -> str:
    """The cursor of the page that begins after `key`."""
    return base64.urlsafe_b64encode(key.encode()).rstrip(b"=").decode()


def key_of(cursor: str) -> str:
    """The key after which the page of `cursor` begins; raises `ValueError` for what is no cursor."""
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        key = ""
    if not key or cursor_after(key) != cursor:
        raise ValueError("must be the next_cursor of an earlier answer")
    return key


def _check_cursor(value: str) -> str:
    key_of(value)
    return value


Cursor = Annotated[str, AfterValidator(_check_cursor)]

Consistency = Literal["primary", "cached"]


class KvKeyRequest(RequestModel):
    """One key."""

    ns: KvNamespace
    """The group of keys: any text up to 256 bytes."""
    key: KvKey
    """Any text up to 1024 bytes."""


class KvPutRequest(KvKeyRequest):
    """A value for a key; it replaces the one before, and its ttl."""

    value: Blob
    """Text, or other bytes as `{"$base64": …}`."""
    ttl: Annotated[int, Field(ge=0, le=TTL_LIMIT_S)] | None = None
    """Seconds until it expires; it stays if left out."""


class KvPutResponse(TypedDict):
    txid: int


class KvGetRequest(KvKeyRequest):
    consistency: Consistency = "cached"
    """`primary` always asks the owner of the database; `cached` may be a second behind it."""


class KvGetResponse(TypedDict):
    value: Blob


class KvDeleteResponse(TypedDict):
    """`deleted` is true: the key holds nothing, whether or not it did."""

    deleted: bool


class KvListRequest(RequestModel):
    """A page of the keys of a group."""

    ns: KvNamespace
    """The group of keys."""
    prefix: str = ""
    """Only the keys that begin with this text."""
    limit: Count = 100
    """How many keys at most; clamped to 1...1 000."""
    cursor: Cursor | None = None
    """Go on where the answer with this `next_cursor` ended."""
    consistency: Consistency = "cached"
    """`primary` always asks the owner of the database; `cached` may be a second behind it."""


class KvListResponse(TypedDict):
    """In order; `next_cursor` is there only where there are more."""

    keys: list[str]
    next_cursor: NotRequired[str]
