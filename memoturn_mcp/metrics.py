"""What a node measures about itself, in Prometheus' text format at `/metrics`.

`observe` is the observer that `invoke` tells of every operation; the gauges are read from the engine
when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from memoturn_core.node import Node

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    def __init__(self, node: Node) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "memoturn_operation_seconds",
            "Time an operation took, by its outcome: ok, cancelled or the error's code.",
            ["operation", "outcome"],
            registry=self._registry,
            buckets=_BUCKETS_S,
        )
        self._registry.register(_Storage(node))

    def observe(self, operation: str, outcome: str, seconds: float) -> None:
        self._seconds.labels(operation, outcome).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Storage(Collector):
    """What the engine and its upkeep count, read when it is asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        stats = self._node.engine.stats()
        published, upkeep = stats.published, self._node.upkeep.stats
        gauges = {
            "open_databases": ("Branches held open.", stats.open_branches),
            "waiting_jobs": ("Reads and writes queued for the engine.", stats.waiting_jobs),
            "unshipped_transactions": ("Committed here and not yet in object storage.", stats.unshipped_transactions),
            "unshipped_bytes": ("Of write-ahead log that waits for object storage.", stats.unshipped_bytes),
            "oldest_unshipped_seconds": (
                "Age of the oldest; absent without.",
                stats.oldest_unshipped_ms,
            ),
            "publish_lag_seconds": (
                "From commit to manifest, of the last object.",
                published.last_lag_ms,
            ),
            "restore_drill_seconds": ("How long the last drill took; absent before it.", upkeep.drill_seconds),
        }
        for name, (help_text, value) in gauges.items():
            if value is not None:
                in_ms = name in ("oldest_unshipped_seconds", "publish_lag_seconds")
                yield GaugeMetricFamily(f"memoturn_{name}", help_text, value / 1000 if in_ms else value)
        counters = {
            "shipped_objects": ("Objects put.", published.objects),
            "shipped_bytes": ("Bytes put.", published.bytes),
            "shipped_transactions": ("Transactions linked.", published.transactions),
            "ship_failures": ("Attempts to ship that failed.", published.failures),
            "fenced": ("Branches that another owner had carried on.", published.fenced),
            "collected_objects": ("Objects that the collector removed.", upkeep.collected_objects),
            "collected_bytes": ("Their bytes.", upkeep.collected_bytes),
            "cooled_branches": ("Branches whose local files were removed.", upkeep.cooled),
            "restore_drills_ok": ("Drills that found everything right.", upkeep.drills_ok),
            "restore_drills_failed": ("Drills that found damage.", upkeep.drills_failed),
        }
        for name, (help_text, value) in counters.items():
            yield CounterMetricFamily(f"memoturn_{name}", help_text, value)
        calls = CounterMetricFamily(
            "memoturn_object_store_calls",
            "Calls to the object store by their outcome: ok, missing, precondition or error.",
            labels=["operation", "outcome"],
        )
        for (operation, outcome), count in self._node.metered.calls().items():
            calls.add_metric([operation, outcome], count)
        yield calls
