"""What a node measures about itself, in Prometheus' text format at `/metrics`.

The numbers are those of `memoturn_core.metrics`; only durations by bucket are beside them. What is not known is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from memoturn_core.latencies import BUCKETS_S, Durations
from memoturn_core.metrics import measured
from memoturn_core.node import Node
from memoturn_schemas.metrics import MetricsResponse


class Metrics(Collector):
    """Those of one node; `text` is called on the event loop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        now = measured(self._node)
        for name, help_text, value in _gauges(now):
            if value is not None:
                yield GaugeMetricFamily(name, help_text, value)
        for name, help_text, value in _counters(now):
            if value is not None:
                yield CounterMetricFamily(name, help_text, value)
        yield _durations(self._node.latencies.ended())
        lookups = CounterMetricFamily(
            "memoturn_cache_lookups", "Lookups in a cache: hit or miss.", labels=["cache", "outcome"]
        )
        for cache in now["caches"]:
            lookups.add_metric([cache["cache"], "hit"], cache["hits"])
            lookups.add_metric([cache["cache"], "miss"], cache["misses"])
        yield lookups
        held = GaugeMetricFamily("memoturn_cache_bytes", "Memory that a cache holds.", labels=["cache"])
        for cache in now["caches"]:
            if cache["bytes"] is not None:
                held.add_metric([cache["cache"]], cache["bytes"])
        yield held
        calls = CounterMetricFamily(
            "memoturn_object_store_calls",
            "Calls to the object store by their outcome: ok, missing, precondition or error.",
            labels=["operation", "outcome"],
        )
        for each in now["object_store"]:
            for outcome in ("ok", "missing", "precondition", "error"):
                calls.add_metric([each["operation"], outcome], each[outcome])
        yield calls


Number = tuple[str, str, float | None]
"""A metric's name, what it is, and its value."""


def _gauges(now: MetricsResponse) -> Iterable[Number]:
    process, engine, shipping = now["process"], now["engine"], now["shipping"]
    return (
        ("process_resident_memory_bytes", "Resident memory.", process["rss_bytes"]),
        ("process_threads", "Threads.", process["threads"]),
        ("process_open_fds", "Open file descriptors.", process["open_descriptors"]),
        ("memoturn_uptime_seconds", "Since the node was opened.", now["uptime_s"]),
        ("memoturn_open_databases", "Branches held open.", engine["open_databases"]),
        ("memoturn_waiting_jobs", "Reads and writes queued for the engine.", engine["waiting_jobs"]),
        ("memoturn_longest_queue", "Those of the branch that has the most.", engine["longest_queue"]),
        (
            "memoturn_unshipped_transactions",
            "Committed here and not yet in object storage.",
            shipping["unshipped_transactions"],
        ),
        ("memoturn_unshipped_bytes", "Of write-ahead log that waits for object storage.", shipping["unshipped_bytes"]),
        (
            "memoturn_oldest_unshipped_seconds",
            "Age of the oldest; absent without.",
            _seconds(shipping["oldest_unshipped_ms"]),
        ),
        (
            "memoturn_publish_lag_seconds",
            "From commit to manifest, of the last object.",
            _seconds(shipping["last_lag_ms"]),
        ),
        (
            "memoturn_restore_drill_seconds",
            "How long the last drill took; absent before it.",
            now["upkeep"]["drill_seconds"],
        ),
    )


def _counters(now: MetricsResponse) -> Iterable[Number]:
    shipping, upkeep = now["shipping"], now["upkeep"]
    return (
        ("process_cpu_seconds", "Processor time, user and system.", now["process"]["cpu_seconds"]),
        ("memoturn_shipped_objects", "Objects put.", shipping["objects"]),
        ("memoturn_shipped_bytes", "Bytes put.", shipping["bytes"]),
        ("memoturn_shipped_transactions", "Transactions linked.", shipping["transactions"]),
        ("memoturn_ship_failures", "Attempts to ship that failed.", shipping["failures"]),
        ("memoturn_fenced", "Branches that another owner had carried on.", shipping["fenced"]),
        ("memoturn_upkeep_failures", "Parts of passes that failed, or were put off.", upkeep["failures"]),
        ("memoturn_collected_objects", "Objects that the collector removed.", upkeep["collected_objects"]),
        ("memoturn_collected_bytes", "Their bytes.", upkeep["collected_bytes"]),
        ("memoturn_cooled_branches", "Branches whose local files were removed.", upkeep["cooled_branches"]),
        ("memoturn_restore_drills_ok", "Drills that found everything right.", upkeep["drills_ok"]),
        ("memoturn_restore_drills_failed", "Drills that found damage.", upkeep["drills_failed"]),
    )


def _durations(ended: dict[str, dict[str, Durations]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "memoturn_operation_seconds",
        "Time an operation took, by its outcome: ok, cancelled or the error's code.",
        labels=["operation", "outcome"],
    )
    limits = [*(str(float(limit)) for limit in BUCKETS_S), "+Inf"]
    for operation, outcomes in ended.items():
        for outcome, durations in outcomes.items():
            buckets = list(zip(limits, accumulate(durations.buckets), strict=True))
            family.add_metric([operation, outcome], buckets, durations.seconds)
    return family


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1_000
