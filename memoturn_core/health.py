"""What a node says about itself: measured when asked, never assumed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import apsw

from memoturn_core.metrics import measured
from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_schemas.health import HealthReason, HealthRequest, HealthResponse
from memoturn_schemas.metrics import MetricsRequest, MetricsResponse
from memoturn_storage.engine import EngineStats

_BEHIND_AFTER_MS = 10_000
"""A commit is shipped within half a second, and where that fails tried again every five seconds at least."""


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
    reasons = list(_reasons(node, stats))
    return Reply(
        HealthResponse(
            status="degraded" if reasons else "ok",
            reasons=reasons,
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


@operation(
    name="get_metrics",
    title="Measure the node",
    target=Target.NODE,
    scope=Scope.NONE,
    toolset="health",
    request=MetricsRequest,
    response=MetricsResponse,
    rest=Rest("GET", "/metrics"),
    read_only=True,
    idempotent=True,
)
async def metrics(node: Node, request: MetricsRequest) -> Reply:
    """Measure memory, processor, queues, latencies, caches and the object store; call it when the node seems slow."""
    return Reply(measured(node))


def _reasons(node: Node, stats: EngineStats) -> Iterator[HealthReason]:
    """What does not work as it should, as far as this process has seen it."""
    store, upkeep = node.metered.failing, node.upkeep.stats
    if store is not None:
        failed = "the last call failed" if store.calls == 1 else f"the last {store.calls} calls failed"
        yield HealthReason(part="object_store", because=f"{failed}, at the end a {store.operation}")
    if stats.oldest_unshipped_ms is not None and stats.oldest_unshipped_ms > _BEHIND_AFTER_MS:
        behind = f"{stats.unshipped_transactions} transactions wait for the object store"
        yield HealthReason(
            part="shipping", because=f"{behind}, the oldest for {stats.oldest_unshipped_ms / 1_000:.0f} s"
        )
    for kind, problem in upkeep.failing.items():
        yield HealthReason(part="upkeep", because=f"the last {kind} failed: {problem}")
    if upkeep.drills_failed:
        drills = upkeep.drills_ok + upkeep.drills_failed
        yield HealthReason(
            part="restore_drills", because=f"{upkeep.drills_failed} of {drills} since the start found damage"
        )
    kept = "keeps failing and is left alone"
    if node.embedder is not None and node.embedder.failing:
        yield HealthReason(part="embedder", because=f"{node.embedder.model} {kept}")
    if node.language_model is not None and node.language_model.failing:
        yield HealthReason(part="language_model", because=f"{node.language_model.model} {kept}")
