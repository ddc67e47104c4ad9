"""What a node says about itself, its storage and its settings, for people, as `tables` shows memories.

Called by `tables` and `node`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memoturn_mcp.cli.tables import plain, size, table

_BUSIEST = 12
"""Operations that `monitor` lists."""

_STYLES = {"ok": "green", "degraded": "bold yellow", "damaged": "bold red", "unknown": "bold yellow"}


def _fields(fields: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        if value is not None:
            grid.add_row(Text(name, "bold"), value if isinstance(value, Text) else plain(value))
    return grid


def _health(value: Mapping[str, Any], _: int) -> RenderableType:
    reasons = "\n".join(f"{reason['part']}: {reason['because']}" for reason in value["reasons"])
    return _fields(
        {
            "status": Text(value["status"], _STYLES[value["status"]]),
            "because": reasons or None,
            "version": f"{value['version']} with SQLite {value['sqlite_version']}",
            "up": _duration(value["uptime_s"]),
            "databases": f"{value['databases']}, {value['open_databases']} open",
            "waiting": value["waiting_jobs"] or None,
            "embedder": value["embedder"],
            "language model": value["language_model"],
        }
    )


# --- metrics -------------------------------------------------------------------------------------


def monitored(now: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> RenderableType:
    """A sample of `get_metrics`; rates are those since the one before."""
    process, engine, shipping = now["process"], now["engine"], now["shipping"]
    oldest = shipping["oldest_unshipped_ms"]
    fields = _fields(
        {
            "up": _duration(now["uptime_s"]),
            "process": f"{_known(process['rss_bytes'], size)}, {_cpu(now, earlier)} of a processor,"
            f" {_known(process['threads'])} threads, {_known(process['open_descriptors'])} descriptors",
            "engine": f"{engine['open_databases']} open, {engine['waiting_jobs']} jobs wait,"
            f" {engine['longest_queue']} for one branch",
            "shipping": f"{shipping['unshipped_transactions']} transactions wait ({size(shipping['unshipped_bytes'])})"
            + ("" if oldest is None else f", the oldest for {oldest / 1_000:.1f} s")
            + f"; {shipping['failures']} failures",
            "caches": ", ".join(f"{each['cache']} {_hits(each)}" for each in now["caches"]),
            "object store": f"{_rate(_store_calls, now, earlier)}; {_store_errors(now)} errors",
        }
    )
    listed = table("operation", "calls", "a second", "failed", "p50 ms", "p95 ms", "p99 ms")
    busiest = sorted(now["operations"], key=lambda each: (-each["recent"], each["operation"]))
    for each in busiest[:_BUSIEST]:
        calls = sum(each["outcomes"].values())
        listed.add_row(
            plain(each["operation"]),
            plain(calls),
            plain(_rate(lambda of, name=each["operation"]: _calls(of, name), now, earlier, unit="")),  # type: ignore[misc]
            plain(calls - each["outcomes"].get("ok", 0)),
            *(plain(_known(each[name], lambda ms: f"{ms:.2f}")) for name in ("p50_ms", "p95_ms", "p99_ms")),
        )
    return Group(fields, plain(""), listed)


def line(now: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> str:
    """The same as one line, for a pipe."""
    process, engine, shipping = now["process"], now["engine"], now["shipping"]
    at = datetime.fromtimestamp(now["at"] / 1_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    slowest = max((each["p95_ms"] or 0 for each in now["operations"]), default=0)
    return (
        f"{at} rss {_known(process['rss_bytes'], size)} cpu {_cpu(now, earlier)} open {engine['open_databases']}"
        f" waiting {engine['waiting_jobs']} unshipped {shipping['unshipped_transactions']}"
        f" calls {_rate(_calls, now, earlier)} slowest p95 {slowest:.2f} ms"
    )


def _calls(sample: Mapping[str, Any], name: str | None = None) -> int:
    return sum(
        sum(each["outcomes"].values()) for each in sample["operations"] if name is None or each["operation"] == name
    )


def _store_calls(sample: Mapping[str, Any]) -> int:
    return sum(each[how] for each in sample["object_store"] for how in ("ok", "missing", "precondition", "error"))


def _store_errors(sample: Mapping[str, Any]) -> int:
    return sum(each["error"] for each in sample["object_store"])


def _rate(
    count: Callable[[Mapping[str, Any]], int],
    now: Mapping[str, Any],
    earlier: Mapping[str, Any] | None,
    unit: str = "/s",
) -> str:
    """How many a second there were since `earlier`; nothing is known of it at first."""
    if earlier is None or now["at"] <= earlier["at"]:
        return "-"
    return f"{max(0, count(now) - count(earlier)) * 1_000 / (now['at'] - earlier['at']):.1f}{unit}"


def _cpu(now: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> str:
    used = now["process"]["cpu_seconds"]
    share = now["process"]["cpu_share"]
    before = None if earlier is None else earlier["process"]["cpu_seconds"]
    if used is not None and before is not None and earlier is not None and now["at"] > earlier["at"]:
        share = (used - before) * 1_000 / (now["at"] - earlier["at"])
    return _known(share, lambda known: f"{100 * known:.0f} %")


def _hits(cache: Mapping[str, Any]) -> str:
    asked = cache["hits"] + cache["misses"]
    return f"{100 * cache['hits'] / asked:.0f} % of {asked}" if asked else "unused"


def _known(value: Any, show: Callable[[Any], str] = str) -> str:
    return "?" if value is None else show(value)


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds) // 60, int(seconds) // 3_600
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


# --- storage and settings ------------------------------------------------------------------------


def _storage_stats(value: Mapping[str, Any], _: int) -> RenderableType:
    oldest = value["oldest_txid"]
    return _fields(
        {
            "database": f"{value['database']}@{value['branch']}",
            "history": "nothing was written yet"
            if oldest is None
            else f"transactions {oldest} to {value['head_txid']}",
            "snapshots": f"{value['snapshots']['objects']} ({size(value['snapshots']['bytes'])})",
            **{
                f"level {each['level']}": f"{each['objects']} segments ({size(each['bytes'])})"
                for each in value["segments"]
            },
            "in all": size(value["bytes"]),
            "checkpoints": value["checkpoints"],
        }
    )


def _vacuumed(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain(f"{size(value['bytes_before'])} before, {size(value['bytes_after'])} now")


def _storage_health(value: Mapping[str, Any], _: int) -> RenderableType:
    return _fields(
        {
            "database": f"{value['database']}@{value['branch']}",
            "status": Text(value["status"], _STYLES[value["status"]]),
            "because": value["problem"],
            "restored": f"transaction {value['txid']}, {size(value['bytes'])} in {value['seconds']:.3f} s",
        }
    )


def _settings(value: Mapping[str, Any], _: int) -> RenderableType:
    listed = table("setting", "value", "from")
    for each in value["settings"]:
        style = "dim" if each["source"] == "default" else ""
        listed.add_row(plain(each["name"], style), plain(each["value"], style), plain(each["source"], style))
    return listed


def _valid(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain(f"sound: {', '.join(value['set'])}" if value["set"] else "sound: nothing is set, all defaults")


TABLES: dict[str, Callable[[Mapping[str, Any], int], RenderableType]] = {
    "health_check": _health,
    "storage_stats": _storage_stats,
    "storage_health": _storage_health,
    "storage_vacuum": _vacuumed,
    "config_show": _settings,
    "config_validate": _valid,
}
