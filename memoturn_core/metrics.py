"""What a node measures about itself: read when it is asked for, each number from whoever counts it.

`measured` is the one source: agents and people get it by `memoturn_core.health`, Prometheus by `memoturn_mcp.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from memoturn_core.episodes.patterns.known import PatternIndex
from memoturn_core.kv.cache import KvCache
from memoturn_core.latencies import WINDOW_CALLS, WINDOW_S, percentile
from memoturn_core.memory.words import WordIndex
from memoturn_core.node import Node
from memoturn_core.vectors.index import VectorIndex
from memoturn_schemas.metrics import (
    CacheMetrics,
    EngineMetrics,
    MetricsResponse,
    OperationMetrics,
    ProcessMetrics,
    ShippingMetrics,
    StoreMetrics,
    UpkeepMetrics,
    WindowMetrics,
)
from memoturn_storage.ambient import SystemAmbient

T = TypeVar("T")


def measured(node: Node) -> MetricsResponse:
    """Everything, as of now. Called on the event loop."""
    unknown: dict[str, str] = {}
    uptime_s = node.ambient.monotonic() - node.started
    stats, upkeep = node.engine.stats(), node.upkeep.stats
    published = stats.published
    for path, value, reason in (
        ("shipping.oldest_unshipped_ms", stats.oldest_unshipped_ms, "everything is shipped"),
        ("shipping.last_lag_ms", published.last_lag_ms, "nothing was shipped yet"),
        ("upkeep.drill_seconds", upkeep.drill_seconds, "no restore was tried out yet"),
    ):
        if value is None:
            unknown[path] = reason
    return MetricsResponse(
        at=node.ambient.now_ms(),
        uptime_s=round(uptime_s, 3),
        process=_process(unknown),
        engine=EngineMetrics(
            open_databases=stats.open_branches, waiting_jobs=stats.waiting_jobs, longest_queue=stats.longest_queue
        ),
        shipping=ShippingMetrics(
            unshipped_transactions=stats.unshipped_transactions,
            unshipped_bytes=stats.unshipped_bytes,
            oldest_unshipped_ms=stats.oldest_unshipped_ms,
            last_lag_ms=published.last_lag_ms,
            objects=published.objects,
            bytes=published.bytes,
            transactions=published.transactions,
            failures=published.failures,
            fenced=published.fenced,
        ),
        upkeep=UpkeepMetrics(
            failures=upkeep.failures,
            collected_objects=upkeep.collected_objects,
            collected_bytes=upkeep.collected_bytes,
            cooled_branches=upkeep.cooled,
            drills_ok=upkeep.drills_ok,
            drills_failed=upkeep.drills_failed,
            drill_seconds=upkeep.drill_seconds,
        ),
        window=WindowMetrics(seconds=WINDOW_S, calls=WINDOW_CALLS),
        operations=[_operation(node, name) for name in node.latencies.ended()],
        caches=_caches(node, unknown),
        object_store=_object_store(node),
        unknown=unknown,
    )


def _process(unknown: dict[str, str]) -> ProcessMetrics:
    import psutil  # takes 30 ms to import, which no command should wait for

    process = psutil.Process()

    def told(name: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (psutil.Error, OSError, AttributeError, NotImplementedError) as error:
            unknown[f"process.{name}"] = f"this platform does not tell it ({type(error).__name__})"
            return None

    def cpu_seconds() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    def cpu_share() -> float:
        # The process began by the system's clock, whatever the node's own says.
        return cpu_seconds() / max(SystemAmbient().now_ms() / 1_000 - process.create_time(), 0.01)

    return ProcessMetrics(
        rss_bytes=told("rss_bytes", lambda: int(process.memory_info().rss)),
        cpu_seconds=told("cpu_seconds", lambda: round(cpu_seconds(), 3)),
        cpu_share=told("cpu_share", lambda: round(cpu_share(), 4)),
        threads=told("threads", lambda: process.num_threads()),
        open_descriptors=told("open_descriptors", lambda: process.num_fds()),
    )


def _operation(node: Node, name: str) -> OperationMetrics:
    recent = node.latencies.recent(name)

    def ms(share: float) -> float | None:
        seconds = percentile(recent, share)
        return None if seconds is None else round(1_000 * seconds, 3)

    return OperationMetrics(
        operation=name,
        outcomes=dict(node.latencies.outcomes(name)),
        recent=len(recent),
        p50_ms=ms(0.50),
        p95_ms=ms(0.95),
        p99_ms=ms(0.99),
    )


def _caches(node: Node, unknown: dict[str, str]) -> list[CacheMetrics]:
    unknown["caches.kv.bytes"] = "each open branch bounds its own, and nothing adds them up"
    counted = {
        "kv": (KvCache.lookups, None),
        "words": (WordIndex.lookups, WordIndex.budget.held),
        "patterns": (PatternIndex.lookups, PatternIndex.budget.held),
        "vectors": (VectorIndex.lookups, VectorIndex.budget.held),
        "past_states": (node.past.lookups, node.past.held),
    }
    return [
        CacheMetrics(cache=name, hits=lookups.counts[0], misses=lookups.counts[1], bytes=held)
        for name, (lookups, held) in counted.items()
    ]


def _object_store(node: Node) -> list[StoreMetrics]:
    calls = node.metered.calls()
    return [
        StoreMetrics(
            operation=name,
            ok=calls.get((name, "ok"), 0),
            missing=calls.get((name, "missing"), 0),
            precondition=calls.get((name, "precondition"), 0),
            error=calls.get((name, "error"), 0),
        )
        for name in sorted({name for name, _ in calls})
    ]
