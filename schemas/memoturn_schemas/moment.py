"""A moment of a branch's history as a field of requests: a transaction, a checkpoint, or a time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from memoturn_schemas.names import check_branch


def parse_time(text: str) -> int:
    """An RFC 3339 time with an offset as Unix milliseconds; raises `ValueError`, whose text a caller may read."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a transaction number, a checkpoint's name or an RFC 3339 time") from None
    if time.tzinfo is None:
        raise ValueError("must have an offset where it is a time, such as Z or +02:00")
    return int(time.timestamp() * 1000)


def _check_moment(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a transaction number, a checkpoint's name or a time")  # noqa: TRY004 - pydantic's way
    if isinstance(value, int) and not 0 <= value < 2**63:
        raise ValueError("must be a transaction number or Unix milliseconds, not negative")
    if isinstance(value, str):
        if ":" in value:
            parse_time(value)
        elif check_branch(value).isdigit() and int(value) >= 2**63:
            raise ValueError("must be a transaction number or Unix milliseconds")
    return value


Moment = Annotated[
    Any,
    AfterValidator(_check_moment),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}]}),
    Field(
        description="A moment of the history: a checkpoint's name, a transaction number, or a time"
        " (RFC 3339 with an offset, or Unix milliseconds)."
    ),
]
"""Integers from 10^11 on are Unix milliseconds, smaller ones are transactions."""
