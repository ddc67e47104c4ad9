"""Answers of the HTTP surface: JSON bodies, the error envelope, the headers every answer carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from memoturn_schemas.errors import MemoturnError

TXID = "Memoturn-Txid"
REQUEST_ID = "Memoturn-Request-Id"


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(value), status, headers, media_type="application/json")


def error_response(error: MemoturnError) -> Response:
    """The envelope, with `Retry-After` where the error says when to come back."""
    headers = None if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return json_response(error.envelope(), error.status, headers)
