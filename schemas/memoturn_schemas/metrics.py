"""What a node measures about itself. Counters are of this process since its start, everything else of this moment.

What cannot be told is null, and `unknown` of the answer says why.
"""

from __future__ import annotations

from typing_extensions import TypedDict

from memoturn_schemas.common import RequestModel


class MetricsRequest(RequestModel):
    """Nothing."""


class ProcessMetrics(TypedDict):
    rss_bytes: int | None
    """Memory that is resident."""
    cpu_seconds: float | None
    """Processor time used, by user and system."""
    cpu_share: float | None
    """The mean of processors kept busy since the process's start: 1 is one of them all the time."""
    threads: int | None
    open_descriptors: int | None


class EngineMetrics(TypedDict):
    open_databases: int
    """Branches that are open."""
    waiting_jobs: int
    """Reads and writes queued."""
    longest_queue: int
    """Those of the branch that has the most."""


class ShippingMetrics(TypedDict):
    """What is on its way to the object store, and what got there."""

    unshipped_transactions: int
    unshipped_bytes: int
    """Of write-ahead log."""
    oldest_unshipped_ms: int | None
    """The age of the oldest."""
    last_lag_ms: int | None
    """From commit to manifest, of the last object."""
    objects: int
    bytes: int
    transactions: int
    failures: int
    """Attempts that failed."""
    fenced: int
    """Branches that another owner had carried on."""


class UpkeepMetrics(TypedDict):
    failures: int
    """Parts of passes that failed, or were put off."""
    collected_objects: int
    collected_bytes: int
    cooled_branches: int
    """Whose local files were removed."""
    drills_ok: int
    drills_failed: int
    """Restores that were tried out, and found damage."""
    drill_seconds: float | None
    """How long the last one took."""


class WindowMetrics(TypedDict):
    """Which calls of an operation its percentiles are of: the last `calls` of those that ended within `seconds`."""

    seconds: int
    calls: int


class OperationMetrics(TypedDict):
    """`p50_ms`, `p95_ms` and `p99_ms` are of the window's calls, and null where `recent`, their number, is 0."""

    operation: str
    outcomes: dict[str, int]
    """How many calls ended how: `ok`, `cancelled` or the error's code."""
    recent: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class CacheMetrics(TypedDict):
    """A hit read nothing from the file, or for `past_states` from the object store."""

    cache: str
    """`kv`, `words`, `patterns`, `vectors` or `past_states`."""
    hits: int
    misses: int
    bytes: int | None
    """What it holds in memory."""


class StoreMetrics(TypedDict):
    """Calls to the object store by their outcome."""

    operation: str
    ok: int
    missing: int
    precondition: int
    error: int


class MetricsResponse(TypedDict):
    at: int
    """Unix milliseconds."""
    uptime_s: float
    process: ProcessMetrics
    engine: EngineMetrics
    shipping: ShippingMetrics
    upkeep: UpkeepMetrics
    window: WindowMetrics
    operations: list[OperationMetrics]
    """By name; those that were called."""
    caches: list[CacheMetrics]
    object_store: list[StoreMetrics]
    """By name; those that were called."""
    unknown: dict[str, str]
    """Why what is at this path is null."""
