"""What a node measures about itself, in Prometheus' text format at `/metrics`.

`observe` is the observer that `invoke` tells of every operation; the gauges are read from the engine
when they are asked for.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

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
        open_databases = Gauge("memoturn_open_databases", "Database files held open.", registry=self._registry)
        open_databases.set_function(lambda: node.engine.stats().open_branches)
        waiting = Gauge("memoturn_waiting_jobs", "Reads and writes queued for the engine.", registry=self._registry)
        waiting.set_function(lambda: node.engine.stats().waiting_jobs)

    def observe(self, operation: str, outcome: str, seconds: float) -> None:
        self._seconds.labels(operation, outcome).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
