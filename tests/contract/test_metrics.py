"""What a node measures about itself, at `/v1/metrics` and `/metrics`, and when it says that it is degraded."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.branches import WAIT, KeptStore
from contract.live_node import Live, Memory, RawMcp, event, serve
from memoturn_core.latencies import BUCKETS_S, WINDOW_CALLS, WINDOW_S, Latencies, percentile
from memoturn_core.providers.embedding import OpenAIEmbedder
from memoturn_core.providers.http import FAILURES_TO_OPEN, Endpoint
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.store import ObjectMissing, StoreUnavailable
from objects.faulty import Faults, FaultyStore

TOOLSETS = "all"


def metrics(live: Live) -> dict[str, Any]:
    response = live.http.get("/v1/metrics")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def operation(live: Live, name: str) -> dict[str, Any]:
    return next(each for each in metrics(live)["operations"] if each["operation"] == name)


def lookups(live: Live, cache: str) -> tuple[int, int]:
    """Hits and misses."""
    each = next(each for each in metrics(live)["caches"] if each["cache"] == cache)
    return each["hits"], each["misses"]


def prometheus(live: Live) -> dict[str, float]:
    """Every line of `/metrics` by its name and labels."""
    lines = [line for line in live.http.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def nulls(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from nulls(below, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for below in value:
            name = below.get("cache") or below["operation"]
            yield from nulls(below, f"{path}.{name}")
    elif value is None:
        yield path


# --- what is measured ----------------------------------------------------------------------------


def test_every_call_is_counted_by_how_it_ended_at_whichever_door(live: Live, memory: Memory, mcp: RawMcp) -> None:
    path = f"{memory.path}/kv/cache"
    for _ in range(3):
        assert live.http.put(f"{path}/a", content=b"1").status_code == 200
    assert live.http.get(f"{path}/none").status_code == 404
    before = operation(live, "kv_get")["outcomes"]
    assert live.http.get(f"{path}/a").content == b"1"
    assert live.http.get(f"{path}/none").status_code == 404
    answer = mcp.call("kv_get", namespace=memory.namespace, profile=memory.profile, ns="cache", key="a")
    assert not answer["isError"]
    after = operation(live, "kv_get")["outcomes"]
    assert after["ok"] == before.get("ok", 0) + 2
    assert after["not_found"] == before["not_found"] + 1


def test_both_renderings_say_the_same(live: Live, memory: Memory) -> None:
    memory.keep(event("note"))
    said, lines = metrics(live), prometheus(live)
    for each in said["operations"]:
        if each["operation"] == "get_metrics":
            continue  # the first question is part of the second answer
        for outcome, count in each["outcomes"].items():
            labels = f'operation="{each["operation"]}",outcome="{outcome}"'
            assert lines[f"memoturn_operation_seconds_count{{{labels}}}"] == count
            assert lines[f'memoturn_operation_seconds_bucket{{le="+Inf",{labels}}}'] == count
    for each in said["caches"]:
        assert lines[f'memoturn_cache_lookups_total{{cache="{each["cache"]}",outcome="hit"}}'] == each["hits"]
        assert lines[f'memoturn_cache_lookups_total{{cache="{each["cache"]}",outcome="miss"}}'] == each["misses"]
    assert lines["memoturn_open_databases"] == said["engine"]["open_databases"] > 0
    assert lines["process_threads"] == said["process"]["threads"]
    assert all(re.fullmatch(r"(memoturn|process)_[a-z_]+(\{.*\})?", name) for name in lines)


def test_percentiles_are_of_the_window_and_counts_of_all_time(tmp_path: Path, ambient: ManualAmbient) -> None:
    with serve(tmp_path, ambient=ambient) as live:
        live.http.get("/v1/health")
        assert operation(live, "health_check") == {
            "operation": "health_check",
            "outcomes": {"ok": 1},
            "recent": 1,
            "p50_ms": 0.0,
            "p95_ms": 0.0,
            "p99_ms": 0.0,
        }
        ambient.advance(seconds=WINDOW_S + 1)
        later = operation(live, "health_check")
        assert later["outcomes"] == {"ok": 1}
        assert (later["recent"], later["p50_ms"], later["p99_ms"]) == (0, None, None)
        assert metrics(live)["uptime_s"] == WINDOW_S + 1


@given(st.lists(st.floats(0, 60), max_size=2 * WINDOW_CALLS // 100), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(seconds: list[float], share: float) -> None:
    latencies = Latencies(ManualAmbient())
    for each in seconds:
        latencies.note("work", "ok", each)
    recent = latencies.recent("work")
    assert recent == sorted(seconds)
    found = percentile(recent, share)
    if not seconds:
        assert found is None
    else:
        covers = [value for value in seconds if sum(other <= value for other in seconds) >= ceil(share * len(seconds))]
        assert found == min(covers)
        durations = latencies.ended()["work"]["ok"]
        for place, limit in enumerate(BUCKETS_S):
            assert sum(durations.buckets[: place + 1]) == sum(each <= limit for each in seconds)


def test_only_the_last_calls_are_remembered() -> None:
    latencies = Latencies(ManualAmbient())
    for number in range(WINDOW_CALLS + 500):
        latencies.note("work", "ok", float(number))
    assert latencies.recent("work") == [float(number) for number in range(500, WINDOW_CALLS + 500)]
    assert latencies.outcomes("work") == {"ok": WINDOW_CALLS + 500}


def test_the_process_is_measured_as_the_system_sees_it(live: Live, tmp_path: Path) -> None:
    said, process = metrics(live)["process"], psutil.Process()
    assert said["rss_bytes"] == pytest.approx(process.memory_info().rss, rel=0.2)
    assert 0 < said["cpu_seconds"] <= round(sum(process.cpu_times()[:2]), 3)
    assert said["cpu_share"] > 0
    opened = [(tmp_path / str(number)).open("w") for number in range(50)]
    more = metrics(live)["process"]["open_descriptors"]
    for file in opened:
        file.close()
    assert more - said["open_descriptors"] == pytest.approx(50, abs=10)
    idle = threading.Event()
    waiting = [threading.Thread(target=idle.wait) for _ in range(20)]
    for thread in waiting:
        thread.start()
    assert metrics(live)["process"]["threads"] >= said["threads"] + 10
    idle.set()
    for thread in waiting:
        thread.join()


def test_what_the_platform_does_not_tell_is_null_with_a_reason(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: psutil.Process) -> int:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "num_fds", refused)
    monkeypatch.delattr(psutil.Process, "num_threads")
    said = metrics(live)
    assert said["process"]["open_descriptors"] is said["process"]["threads"] is None
    assert said["process"]["rss_bytes"] > 0
    assert "AccessDenied" in said["unknown"]["process.open_descriptors"]
    assert "AttributeError" in said["unknown"]["process.threads"]
    assert "process_open_fds" not in prometheus(live)


def test_every_null_has_its_reason_and_nothing_else_has_one(tmp_path: Path, ambient: ManualAmbient) -> None:
    with serve(tmp_path, ambient=ambient) as live:
        for said in (metrics(live), metrics(live)):
            assert set(nulls(said)) == set(said["unknown"])


def test_caches_count_what_they_had_and_what_they_had_not(live: Live, memory: Memory) -> None:
    path = f"{memory.path}/kv/cache/a"
    assert live.http.put(path, content=b"1").status_code == 200
    hits, misses = lookups(live, "kv")
    for _ in range(4):
        assert live.http.get(path).status_code == 200
    assert sum(lookups(live, "kv")) == hits + misses + 4
    assert lookups(live, "kv")[0] >= hits + 3

    memory.keep(event("a red house", embedding=[1.0, 0.0]))
    before = {cache: lookups(live, cache) for cache in ("words", "vectors")}
    for _ in range(3):
        assert memory.found(query="red", embedding=[1.0, 0.0])
    for cache, (had, had_not) in before.items():
        assert lookups(live, cache) == (had + 2, had_not + 1)
    held = {each["cache"]: each["bytes"] for each in metrics(live)["caches"]}
    assert held["words"] > 0
    assert held["vectors"] > 0


def test_jobs_that_wait_are_counted_and_the_longest_queue_is_that_of_one_branch(live: Live) -> None:
    busy, idle = live.memory(), live.memory()
    for memory in (busy, idle):
        memory.keep(event("note"))
    begun, go_on = threading.Event(), threading.Event()
    entry = live.node.catalog.find(f"{busy.namespace}--{busy.profile}")
    assert entry is not None
    ref = BranchRef(entry.uuid)

    def hold(_: object) -> None:
        begun.set()
        assert go_on.wait(WAIT)

    held = live.node.engine.write(ref, hold)
    assert begun.wait(WAIT)
    behind = [live.node.engine.write(ref, lambda _: None) for _ in range(3)]
    said = metrics(live)["engine"]
    go_on.set()
    for future in (held, *behind):
        future.result(WAIT)
    assert (said["waiting_jobs"], said["longest_queue"]) == (3, 3)
    assert metrics(live)["engine"]["longest_queue"] == 0


# --- degraded ------------------------------------------------------------------------------------


def health(live: Live) -> dict[str, Any]:
    response = live.http.get("/v1/health")
    assert response.status_code == 200, response.text
    said: dict[str, Any] = response.json()
    assert said["status"] == ("degraded" if said["reasons"] else "ok")
    return {reason["part"]: reason["because"] for reason in said["reasons"]}


def test_a_node_is_degraded_while_its_store_fails_and_the_backlog_grows(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    faulty = FaultyStore(store, Random(1), Faults())
    with serve(tmp_path, ambient=ambient, store=faulty) as live:
        memory = live.memory()
        memory.keep(event("note"))
        assert live.http.post(f"{memory.database}/sync").status_code == 200
        assert health(live) == {}
        faulty.down = True
        memory.keep(event("another note"))
        assert live.http.post(f"{memory.database}/sync").status_code == 503
        assert set(health(live)) == {"object_store"}
        assert re.fullmatch(r"the last( \d+)? calls? failed, at the end a \w+", health(live)["object_store"])
        ambient.advance(seconds=20)
        assert health(live)["shipping"] == "1 transactions wait for the object store, the oldest for 20 s"
        assert any(each["error"] for each in metrics(live)["object_store"])
        assert metrics(live)["shipping"]["oldest_unshipped_ms"] == 20_000
        faulty.down = False
        assert live.http.post(f"{memory.database}/sync").status_code == 200
        assert health(live) == {}
        assert metrics(live)["unknown"]["shipping.oldest_unshipped_ms"] == "everything is shipped"


def test_a_failed_pass_of_the_upkeep_degrades_the_node_until_one_succeeds(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    faulty = FaultyStore(store, Random(1), Faults())
    with serve(tmp_path, ambient=ambient, store=faulty) as live:
        live.memory().keep(event("note"))
        upkeep = live.node.upkeep
        faulty.down = True
        upkeep.do("heavy pass", upkeep.heavy_pass)
        assert health(live)["upkeep"].startswith("the last heavy pass failed: ")
        failures = metrics(live)["upkeep"]["failures"]
        assert failures > 0
        upkeep.do("light pass", upkeep.light_pass)
        assert health(live)["upkeep"].startswith("the last heavy pass failed"), "a light pass is no heavy one"
        faulty.down = False
        upkeep.do("heavy pass", upkeep.heavy_pass)
        assert "upkeep" not in health(live)
        assert metrics(live)["upkeep"]["failures"] == failures
        assert prometheus(live)["memoturn_upkeep_failures_total"] == failures


def test_damage_that_a_drill_has_found_degrades_the_node(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    with serve(tmp_path, ambient=ambient, store=store) as live:
        memory = live.memory()
        memory.keep(event("note"))
        assert live.http.post(f"{memory.database}/sync").status_code == 200
        [key] = [name for name in store.names() if "/snapshots/" in name]
        right = store.get(key).data
        store.put(key, right[:-1] + bytes([right[-1] ^ 1]))
        live.node.upkeep.try_a_restore()
        assert health(live) == {"restore_drills": "1 of 1 since the start found damage"}


def test_an_embedder_that_is_left_alone_degrades_the_node(tmp_path: Path, ambient: ManualAmbient) -> None:
    nobody = Endpoint("openai", base_url="http://127.0.0.1:1", model="ant", budget_s=5.0)
    with serve(tmp_path, ambient=ambient, embedder=OpenAIEmbedder(nobody, ambient)) as live:
        memory = live.memory()
        assert health(live) == {}
        for number in range(FAILURES_TO_OPEN):
            memory.keep(event(f"note {number}"))
        assert health(live) == {"embedder": "ant keeps failing and is left alone"}


def test_what_is_missing_or_taken_is_no_failure_of_the_store(tmp_path: Path, store: KeptStore) -> None:
    faulty = FaultyStore(store, Random(1), Faults())
    with serve(tmp_path, store=faulty) as live:
        with pytest.raises(ObjectMissing):
            live.node.metered.get("v1/none")
        assert health(live) == {}
        faulty.down = True
        with pytest.raises(StoreUnavailable):
            live.node.metered.get("v1/none")
        assert "object_store" in health(live)
        faulty.down = False
