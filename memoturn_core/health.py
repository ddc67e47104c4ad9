"""What a node says about itself: measured when asked, never assumed."""

from __future__ import annotations

from importlib.metadata import version

import apsw

from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_schemas.health import HealthRequest, HealthResponse


@operation(
    name="health_check",
    title="Check the node's health",
    target=Target.NODE,
    scope=Scope.NONE,
    toolset="health",
    default_tool=True,
    request=HealthRequest,
    response=HealthResponse,
    rest=Rest("GET", "/health"),
    read_only=True,
    idempotent=True,
)
async def health(node: Node, request: HealthRequest) -> Reply:
    """See whether the memory works and what it has at hand; call it when something seems wrong."""
    stats = node.engine.stats()
    return Reply(
        HealthResponse(
            status="ok",
            version=version("memoturn"),
            sqlite_version=apsw.sqlite_lib_version(),
            uptime_s=round(node.ambient.monotonic() - node.started, 3),
            databases=node.catalog.count(),
            open_databases=stats.open_branches,
            waiting_jobs=stats.waiting_jobs,
            embedder=None if node.embedder is None else node.embedder.model,
            language_model=None if node.language_model is None else node.language_model.model,
        )
    )
