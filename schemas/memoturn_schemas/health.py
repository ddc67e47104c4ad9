"""What a node says about itself. Every number is measured when it is asked for."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from memoturn_schemas.common import RequestModel


class HealthRequest(RequestModel):
    """Nothing."""


class HealthResponse(TypedDict):
    """`uptime_s` in seconds; `databases`, `open_databases` and `waiting_jobs` are counts at this moment."""

    status: Literal["ok"]
    version: str
    sqlite_version: str
    uptime_s: float
    databases: int
    open_databases: int
    waiting_jobs: int
    embedder: str | None
    language_model: str | None
