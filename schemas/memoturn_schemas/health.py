"""What a node says about its health. Every number is measured when it is asked for."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from memoturn_schemas.common import RequestModel


class HealthRequest(RequestModel):
    """Nothing."""


class HealthReason(TypedDict):
    """Something that does not work as it should: which part of the node, and what was measured."""

    part: Literal["object_store", "shipping", "upkeep", "restore_drills", "embedder", "language_model"]
    because: str


class HealthResponse(TypedDict):
    """`degraded` where `reasons` are given: requests are served, and not all of them as they should be.

    `uptime_s` in seconds; `databases`, `open_databases` and `waiting_jobs` are counts at this moment.
    """

    status: Literal["ok", "degraded"]
    reasons: list[HealthReason]
    version: str
    sqlite_version: str
    uptime_s: float
    databases: int
    open_databases: int
    waiting_jobs: int
    embedder: str | None
    language_model: str | None
