"""An object store that is away, fails, forgets what it has answered, or holds what it should not.

Nodes are processes where the store is a directory that can be taken from them, and run in the test where every
fault has to come at its moment.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import httpx
import pytest

from contract.branches import KeptStore, manifest, on, ref, restored
from contract.live_node import Live, Memory, event, fact, serve
from e2e.nodes import (
    DURABLE,
    WAIT,
    Launcher,
    act,
    assert_whole,
    fork,
    shipped,
    summaries,
    sync,
    turns,
    uuid_of,
    wait_until,
)
from memoturn_storage.ambient import ManualAmbient, SystemAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.objects.file import FileStore
from objects.faulty import Faults, FaultyStore

BOUND_S = 10
"""After which a request that needs a store which is away has been answered."""


class Disk:
    """A `file://` store that can be taken away from the nodes on it and be brought back."""

    def __init__(self, directory: Path) -> None:
        self.there = directory / "store"
        self._away = directory / "away"
        self.url = f"file://{self.there}"
        self.objects = FileStore(self.there, SystemAmbient())

    def take_away(self) -> None:
        self.there.rename(self._away)

    def bring_back(self) -> None:
        self._away.rename(self.there)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def unavailable(calls: list[Callable[[], httpx.Response]]) -> None:
    """Every one of them is refused with 503, in time."""

    def ask(call: Callable[[], httpx.Response]) -> httpx.Response:
        began = time.monotonic()
        response = call()
        assert time.monotonic() - began < BOUND_S
        return response

    with ThreadPoolExecutor(4) as pool:
        for response in pool.map(ask, calls):
            assert response.status_code == 503, f"{response.request.url}: {response.text}"


# --- away ----------------------------------------------------------------------------------------


def test_while_the_store_is_away_what_is_hot_goes_on_and_everything_is_shipped_when_it_is_back(
    launch: Launcher, disk: Disk, tmp_path: Path
) -> None:
    before = launch(tmp_path / "before", disk.url)
    before.memory("cold").keep(event("note that is cold"))
    before.memory("hot").keep(event("note 0"))
    before.stop()
    node = launch(tmp_path / "home", disk.url)
    hot, cold, unknown = node.memory("hot"), node.memory("cold"), node.memory("unknown")
    assert summaries(hot) == {"note 0"}
    assert fork(hot, "x").status_code == 201
    there = {"branch": "x"}
    on_branch = f"{hot.path}/memories"
    assert node.http.post(on_branch, json={"memories": [event("note of x")]}, params=there).status_code == 201
    disk.take_away()
    for number in range(1, 6):
        hot.keep(event(f"note {number}"))
        hot.append("s", "user", f"turn {number}")
    unavailable(
        [
            lambda: hot.ingest(event("note 6"), headers=DURABLE),
            lambda: sync(hot),
            lambda: act(hot, "checkpoint", name="c"),
            lambda: act(hot, "rewind", to=1),
            lambda: fork(hot, "y"),
            lambda: cold.recall(query="note"),
            lambda: cold.get("mem_" + "0" * 32),
            lambda: cold.ingest(event("note")),
            lambda: cold.sessions(),
            lambda: unknown.recall(query="note"),
            lambda: unknown.ingest(event("note")),
            lambda: unknown.get("mem_" + "0" * 32),
        ]
    )
    # A branch whose manifest cannot be found must not take what is only here for something that was deleted.
    assert summaries(hot) == {f"note {number}" for number in range(7)}
    assert node.http.post(f"{hot.path}/recall", json={"query": "note"}, params=there).json()["memories"]
    backlog = node.metrics()
    assert backlog["unshipped_transactions"] >= 11
    assert backlog["unshipped_bytes"] > 0
    assert backlog["oldest_unshipped_seconds"] > 0
    assert backlog["ship_failures_total"] > 0
    disk.bring_back()
    wait_until(lambda: node.unshipped() == 0, "the backlog is shipped")
    after = node.metrics()
    assert (after["unshipped_bytes"], "oldest_unshipped_seconds" in after) == (0, False)
    assert summaries(cold) == {"note that is cold"}
    assert summaries(unknown) == set()
    node.kill()
    shutil.rmtree(tmp_path / "home")
    fresh = launch(tmp_path / "fresh", disk.url)
    assert summaries(fresh.memory("hot")) == {f"note {number}" for number in range(7)}
    assert turns(fresh.memory("hot")) == [(number, f"turn {number}") for number in range(1, 6)]
    seen = fresh.http.post(f"{hot.path}/recall", json={"query": "note", "k": 9}, params=there).json()["memories"]
    assert {hit["summary"] for hit in seen} == {"note 0", "note of x"}


def test_a_backlog_at_its_bound_refuses_writes_until_the_store_is_back(
    launch: Launcher, disk: Disk, tmp_path: Path
) -> None:
    node = launch(tmp_path / "home", disk.url, BACKLOG_BYTES=str(1 << 20))
    memory = node.memory("alice")
    memory.keep(event("note 0"))
    wait_until(lambda: node.unshipped() == 0, "the first write is shipped")
    disk.take_away()
    kept, grown = {"note 0"}, [0.0]
    for number in range(1, 200):
        response = memory.ingest(event(f"note {number}", keywords="word " * 4_000))
        if response.status_code == 503:
            break
        kept.add(f"note {number}")
        grown.append(node.metrics()["unshipped_bytes"])
    assert response.status_code == 503
    assert "object store" in response.json()["error"]
    assert grown == sorted(grown)
    assert grown[-2] <= 1 << 20 < grown[-1], "the last write that was taken is the one that goes over the bound"
    assert summaries(memory) == kept
    disk.bring_back()
    wait_until(lambda: node.unshipped() == 0, "the backlog is shipped")
    memory.keep(event("note at last"))
    assert sync(memory).status_code == 200
    node.kill()
    assert summaries(launch(tmp_path / "fresh", disk.url).memory("alice")) == kept | {"note at last"}


@pytest.fixture
def ambient() -> ManualAmbient:
    return ManualAmbient()


@pytest.fixture
def store(ambient: ManualAmbient) -> KeptStore:
    return KeptStore(ambient)


def unshipped(live: Live) -> int:
    return live.node.engine.stats().unshipped_transactions


def wait_while_time_passes(ambient: ManualAmbient, holds: Callable[[], bool], what: str) -> None:
    def later() -> bool:
        ambient.advance(seconds=0.1)
        return holds()

    wait_until(later, what)


@pytest.mark.parametrize("how", ["idle", "crowded out"])
def test_what_sleeps_unshipped_is_in_the_metrics_and_is_shipped_when_the_store_is_back(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore, how: str
) -> None:
    faulty = FaultyStore(store, Random(0), Faults())
    limits = Limits(threads=1, hot_cap=1 if how == "crowded out" else 256)
    with serve(tmp_path, ambient=ambient, store=faulty, limits=limits) as live:
        other, memory = live.memory(), live.memory()
        for each in (other, memory):
            each.keep(event("note 0"))
            sync(each)
        faulty.down = True
        memory.keep(event("note 1"))
        if how == "idle":
            ambient.advance(seconds=3_600)
            live.node.upkeep.light_pass()
            assert live.node.engine.cool(ref(live, memory)).result(WAIT) is False
            assert not live.node.engine.is_open(ref(live, memory))
        else:
            assert other.recall(query="note").status_code == 503
        assert unshipped(live) == 1
        faulty.down = False
        live.node.upkeep.light_pass()
        branch = ref(live, memory)
        wait_while_time_passes(ambient, lambda: shipped(store, branch) == 2 and unshipped(live) == 0, "it is shipped")


def test_a_log_that_was_lost_while_the_store_was_away_is_made_up_for_when_it_is_back(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    faulty = FaultyStore(store, Random(0), Faults())
    with serve(tmp_path, ambient=ambient, store=faulty, limits=Limits(upkeep_s=3_600)) as live:
        memory = live.memory()
        memory.keep(event("note 1"))
        sync(memory)
        shutil.rmtree(tmp_path / "databases")
        faulty.down = True
        memory.keep(event("note 2"))
        published = live.node.engine.publisher.stats
        wait_while_time_passes(ambient, lambda: published.failures > 0, "the node has tried")
        faulty.down = False
        memory.keep(event("note 3"))
        branch = ref(live, memory)
        wait_while_time_passes(ambient, lambda: shipped(store, branch) > 1 and unshipped(live) == 0, "it is shipped")
        with closing(restored(store, branch)) as state:
            assert_whole(state)
            rows = {row for (row,) in state.execute("SELECT summary FROM __memoturn_memories")}
        assert rows == summaries(memory) == {"note 1", "note 2", "note 3"}


def test_what_a_killed_node_left_is_shipped_also_when_the_store_was_away_at_the_next_start(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    with serve(tmp_path / "a", ambient=ambient, store=store) as live:
        memories = [live.memory() for _ in range(3)]
        for memory in memories:
            memory.keep(event("note 1"))
        branches = [ref(live, memory) for memory in memories]
        killed = store.copy()
        shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("run", "objects"))
    faulty = FaultyStore(killed, Random(0), Faults())
    faulty.down = True
    with serve(tmp_path / "b", ambient=ambient, store=faulty, limits=Limits(upkeep_s=0.05)) as live:
        wait_until(lambda: faulty.fates["get", "before"] > 0, "the node has tried")
        faulty.down = False
        heads = [1, 1, 1]
        wait_while_time_passes(
            ambient, lambda: [shipped(killed, branch) for branch in branches] == heads, "all is shipped"
        )


def test_a_leftover_that_is_damaged_does_not_keep_the_others_from_being_shipped(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    with serve(tmp_path / "a", ambient=ambient, store=store) as live:
        memories = [live.memory() for _ in range(4)]
        for memory in memories:
            memory.keep(event("note 1"))
            sync(memory)
            memory.keep(event("note 2"))
        branches = sorted((ref(live, memory) for memory in memories), key=lambda branch: branch.uuid)
        killed = store.copy()
        shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("run", "objects"))
    for branch in branches[::2]:
        killed.put(branch.manifest_key, b"{")
    with serve(tmp_path / "b", ambient=ambient, store=killed):
        others = branches[1::2]
        wait_while_time_passes(
            ambient, lambda: [shipped(killed, branch) for branch in others] == [2, 2], "the others are shipped"
        )


# --- failing, and forgetting what it answered ----------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_over_a_store_that_fails_and_loses_answers_everything_acknowledged_is_there_once(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore, seed: int
) -> None:
    faulty = FaultyStore(store, Random(seed), Faults(before=0.1, after=0.15, lost=0.15))
    random = Random(seed)
    with serve(tmp_path, ambient=ambient, store=faulty) as live:
        memory = live.memory()
        wait_until(lambda: memory.ingest(event("note")).status_code == 201, "the profile is made")
        appended, acknowledged, checkpoints, forks = [], set(), {}, {}
        for number in range(30):
            durable = DURABLE if random.random() < 0.5 else {}
            response = memory.ingest(event(f"note {number}"), fact("topic", f"note of {number}"), headers=durable)
            assert response.status_code == 201 or durable, response.text
            if response.status_code == 201:
                acknowledged |= {f"note {number}", f"note of {number}"}
            assert memory.append("s", "user", f"turn {number}").status_code == 201
            appended.append(f"turn {number}")
            if number % 5 == 0:
                response = act(memory, "checkpoint", name=f"c{number}")
                if response.status_code == 200:
                    checkpoints[f"c{number}"] = response.json()["txid"]
                response = fork(memory, f"x{number}")
                if response.status_code == 201:
                    forks[f"x{number}"] = response.json()["fork_txid"]
        faulty._faults = Faults()
        ambient.advance(seconds=60)
        assert sync(memory).status_code == 200
        held = manifest(store, ref(live, memory))
        assert held is not None
        assert checkpoints.items() <= held.checkpoints.items()
        ends = [held.snapshots[0].txid, *(segment.max for segment in held.segments)]
        assert [segment.min for segment in held.segments] == ends[:-1], "the history has no gap and no overlap"
        assert held.head_txid == ends[-1] == memory.txid
        for branch, txid in forks.items():
            copy = manifest(store, ref(live, memory, branch))
            assert copy is not None
            assert copy.head_txid == txid
            assert summaries(on(memory, branch)) <= summaries(memory, include_superseded=True)
        here = summaries(memory, include_superseded=True)
        with closing(restored(store, ref(live, memory))) as state:
            assert_whole(state)
            rows = Counter(row for (row,) in state.execute("SELECT summary FROM __memoturn_memories"))
            said = [row for (row,) in state.execute("SELECT content FROM __memoturn_turns ORDER BY seq")]
        assert set(rows) == here >= acknowledged
        assert set(rows.values()) == {1}
        assert said == appended


# --- holding what it should not ------------------------------------------------------------------

KINDS = ("snapshot", "segment", "manifest", "name")
DAMAGES = ("changed", "cut", "emptied", "swapped", "missing")


def damage(path: Path, how: str, other: Path) -> None:
    data = bytearray(path.read_bytes())
    match how:
        case "changed":
            data[len(data) // 2] ^= 0x40
        case "cut":
            del data[len(data) // 2 :]
        case "emptied":
            data.clear()
        case "swapped":
            data[:] = other.read_bytes()
    path.unlink() if how == "missing" else path.write_bytes(data)


def objects_of(disk: Disk, memory: Memory) -> dict[str, Path]:
    """Where the object of each kind lies."""
    uuid = uuid_of(disk.objects, memory)
    [snapshot] = (disk.there / "v1" / uuid / "snapshots").iterdir()
    [segment] = (disk.there / "v1" / uuid / "ltx" / "0").iterdir()
    name = disk.there / "v1/_catalog/names" / f"{memory.namespace}--{memory.profile}"
    return {
        "snapshot": snapshot,
        "segment": segment,
        "manifest": disk.there / "v1" / uuid / "branches/main/manifest.json",
        "name": name,
    }


def test_what_the_store_holds_wrongly_is_an_error_that_names_it_until_it_is_repaired(
    launch: Launcher, disk: Disk, tmp_path: Path
) -> None:
    cases = [(kind, how) for kind in KINDS for how in DAMAGES]
    # A profile whose name or first manifest is gone is one that was never written to, as far as a store can tell; and
    # a byte of JSON that is changed may be one of a number that nothing sums up.
    cases = [(kind, how) for kind, how in cases if kind in ("snapshot", "segment") or how not in ("missing", "changed")]
    names = ["whole", "other", *(f"{kind}-{how}" for kind, how in cases)]
    before = launch(tmp_path / "before", disk.url)

    def make(name: str) -> None:
        memory = before.memory(name)
        for number in (1, 2):
            memory.keep(event(f"note {number} of {name}"))
            assert sync(memory).status_code == 200

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, names))
    before.kill()
    others = objects_of(disk, before.memory("other"))
    right = {}
    for kind, how in cases:
        path = objects_of(disk, before.memory(f"{kind}-{how}"))[kind]
        right[kind, how] = (path, path.read_bytes())
        damage(path, how, others[kind])
    node = launch(tmp_path / "home", disk.url)

    def asked(name: str) -> list[httpx.Response]:
        memory = node.memory(name)
        return [memory.recall(query="note"), memory.ingest(event("note 3"))]

    for kind, how in cases:
        for response in asked(f"{kind}-{how}"):
            assert (response.status_code, response.json().get("code")) == (500, "internal"), (kind, how, response.text)
            key = str(right[kind, how][0].relative_to(disk.there))
            assert key in response.json()["error"], (kind, how)
    for name in ("whole", "other"):
        assert summaries(node.memory(name)) == {f"note 1 of {name}", f"note 2 of {name}"}
    for (kind, how), (path, data) in right.items():
        path.write_bytes(data)
        name = f"{kind}-{how}"
        assert summaries(node.memory(name)) == {f"note 1 of {name}", f"note 2 of {name}"}
        assert node.memory(name).ingest(event("note 3"), headers=DURABLE).status_code == 201


def test_a_drill_that_meets_damage_is_counted_and_one_after_the_repair_too(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    def drills(live: Live) -> tuple[float, ...]:
        lines = dict(line.rsplit(" ", 1) for line in live.http.get("/metrics").text.splitlines())
        return tuple(float(lines[f"memoturn_restore_drills_{how}_total"]) for how in ("ok", "failed"))

    with serve(tmp_path, ambient=ambient, store=store) as live:
        memory = live.memory()
        memory.keep(event("note"))
        sync(memory)
        live.node.upkeep.heavy_pass()
        assert drills(live) == (1, 0)
        [key] = store.names(f"v1/{ref(live, memory).uuid}/snapshots/")
        right = store.get(key).data
        store.put(key, right[:-1] + bytes([right[-1] ^ 1]))
        live.node.upkeep.heavy_pass()
        assert drills(live) == (1, 1)
        assert summaries(memory) == {"note"}, "what is on this machine's disk is whole"
        store.put(key, right)
        live.node.upkeep.heavy_pass()
        assert drills(live) == (2, 1)
