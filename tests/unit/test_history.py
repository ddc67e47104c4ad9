"""Compaction and retention: everything that must be restorable is, byte for byte, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from memoturn_schemas.errors import BranchNotFound, Unavailable
from memoturn_storage import history
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.connection import open_memory
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.history import Compactor, retained
from memoturn_storage.leases.memory import LeaseRegistry, MemoryLeases
from memoturn_storage.manifest import Manifest, Segment, Snapshot
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.restore import Damaged
from memoturn_storage.schema import Schema
from unit.histories import GRACE_MS, MAIN, UUID, Histories, Line, manifest

# --- compaction ----------------------------------------------------------------------------------


def test_twenty_one_syncs_leave_two_snapshots_and_a_chain_under_sixteen() -> None:
    histories = Histories()
    histories.create()
    for _ in range(21):
        histories.ship()
        histories.compactor.compact(MAIN)
    current = histories.manifest()
    assert [snapshot.txid for snapshot in current.snapshots] == [1, 17]
    assert [(segment.min, segment.max) for segment in current.chain] == [(17, 18), (18, 19), (19, 20), (20, 21)]
    histories.assert_restores()


def test_a_manifest_grows_with_the_logarithm_of_its_commits_and_every_commit_stays_restorable() -> None:
    histories = Histories()
    histories.create()
    histories.ship()
    for _ in range(130):
        histories.ship(objects=16)
        histories.compactor.compact(MAIN)
    current = histories.manifest()
    assert current.head_txid == 2081
    assert len(current.segments) < 48
    assert len(current.snapshots) < 48
    assert {segment.level for segment in current.segments} >= {1, 2}
    histories.assert_restores(txids=range(1, 2082, 29))


def test_a_large_state_is_not_written_anew_for_a_few_small_commits() -> None:
    histories = Histories()
    histories.create()
    line = Line()
    pages = {number: histories.random.randbytes(1024) for number in range(1, 1501)}
    state = histories.commit(line, 1, pages, 1500)
    key = f"v1/{UUID}/snapshots/base.ltx"
    data = history.encode(state)
    histories.store.put(key, data)
    first = Snapshot(1, key, len(data), line.at[1], state.post_apply)
    histories.manifests.update(MAIN, lambda current: current.rebased(first, epoch=1, lineage=current.lineage))
    histories.lines["main"] = line
    for _ in range(40):
        histories.ship(objects=4)
        histories.compactor.compact(MAIN)
        assert len(histories.manifest().chain) < 16 + 4
    current = histories.manifest()
    assert current.snapshots == (first,), "a new snapshot would cost more than what it saves"
    assert len(current.chain) < 16
    assert max(segment.level for segment in current.chain) > 1
    histories.assert_restores(txids=[1, 2, 17, 80, 161])


def test_no_object_is_joined_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "OBJECT_BYTES", 3_000)
    histories = Histories()
    histories.create()
    histories.ship()
    for _ in range(12):
        histories.ship(objects=16)
        histories.compactor.compact(MAIN)
    assert max(segment.bytes for segment in histories.manifest().segments) <= 3_000
    histories.assert_restores()


def test_an_entry_that_covers_a_part_of_its_object_is_joined_as_that_part() -> None:
    histories = Histories()
    histories.create()
    histories.ship()
    histories.ship(objects=3, transactions=10)
    histories.rewind("main", 15)
    histories.ship(objects=20, transactions=2)
    assert histories.compactor.compact(MAIN)
    assert not histories.compactor.compact(MAIN), "there is nothing left to do"
    assert histories.manifest().head_txid == 55
    histories.assert_restores()


def test_damage_is_not_compacted_away() -> None:
    histories = Histories()
    histories.create()
    histories.ship(objects=17)
    damaged = histories.manifest().segments[7]
    data = histories.store.get(damaged.key).data
    histories.store.put(damaged.key, data[:150] + bytes([data[150] ^ 1]) + data[151:])
    with pytest.raises(Damaged, match=damaged.key):
        histories.compactor.compact(MAIN)
    assert len(histories.manifest().snapshots) == 1


def interleaved(histories: Histories, name: str) -> Callable[[], object]:
    def rewind_within() -> None:
        histories.rewind("main", 9)

    return {
        "append": lambda: histories.ship(objects=2),
        "rewind": rewind_within,
        "rewind and the same transactions anew": lambda: (rewind_within(), histories.ship(objects=8)),
        "checkpoint": lambda: histories.checkpoint("main", "here", 12),
        "another compactor": lambda: histories.compactor.compact(MAIN),
        "fork": lambda: histories.fork(histories.manifest(), histories.lines["main"], "child", 13),
        "delete": lambda: histories.delete("main"),
        "too much time": lambda: histories.ambient.advance(seconds=GRACE_MS / 1000),
    }[name]


@pytest.mark.parametrize("call", range(1, 24))
@pytest.mark.parametrize(
    "meanwhile",
    [
        "append",
        "rewind",
        "rewind and the same transactions anew",
        "checkpoint",
        "another compactor",
        "fork",
        "delete",
        "too much time",
    ],
)
def test_whatever_happens_during_a_compaction_stands(meanwhile: str, call: int) -> None:
    histories = Histories()
    histories.create()
    histories.ship(objects=17)
    with histories.store.interrupted(call, interleaved(histories, meanwhile)):
        try:
            histories.compactor.compact(MAIN)
        except BranchNotFound:
            assert meanwhile == "delete"
        except Unavailable:
            assert meanwhile == "too much time"
    for branch in histories.lines:
        assert histories.manifest(branch).head_txid == histories.lines[branch].head
        histories.assert_restores(branch)
    if meanwhile == "checkpoint":
        assert histories.manifest().checkpoints == {"here": 12}


def test_the_owner_of_an_open_branch_goes_on_after_its_history_was_compacted(tmp_path: Path) -> None:
    ambient = ManualAmbient()
    store = MemoryStore(ambient)
    schema = Schema(("CREATE TABLE items (id INTEGER PRIMARY KEY, value TEXT)",))

    def engine(name: str) -> Engine:
        leases = MemoryLeases(LeaseRegistry(), name, ambient)
        return Engine(schema, ambient, tmp_path / name, store, leases, Limits(threads=0))

    running = engine("a")
    compactor = Compactor(store, running.manifests, running.restorer, ambient, running.update_manifest)
    values = []
    for number in range(60):
        values.append((f"{number}",))
        write = running.write(
            MAIN, lambda t, v=values[-1]: t.connection.execute("INSERT INTO items (value) VALUES (?)", v), durable=True
        )
        assert write.result().txid == number + 1
        compactor.compact(MAIN)
        assert len(running.manifests.require(MAIN).manifest.chain) < 16
    running.close()
    current = running.manifests.require(MAIN).manifest
    assert current.epoch == 1, "nobody took the owner for a stranger"
    for txid in range(1, 61):
        connection = open_memory(bytes(running.restorer.image(current, txid)))
        assert connection.execute("SELECT value FROM items").fetchall() == values[:txid]
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        connection.close()


# --- retention -----------------------------------------------------------------------------------


def dated(txids: list[int], segments: list[tuple[int, int]], **changes: object) -> Manifest:
    """A manifest with snapshots and segments whose transactions were committed at 1000 times their txid."""
    return manifest(
        head_txid=max([*txids, *(high for _, high in segments)]),
        snapshots=tuple(Snapshot(txid, f"snapshot {txid}", 1, txid * 1000, txid) for txid in txids),
        segments=tuple(Segment(low, high, f"segment {low}", 1, 0, high * 1000, high) for low, high in segments),
        **changes,
    )


def shape(left: Manifest) -> tuple[list[int], list[tuple[int, int]]]:
    return [entry.txid for entry in left.snapshots], [(entry.min, entry.max) for entry in left.segments]


def test_the_floor_is_the_newest_snapshot_from_before_the_fine_window() -> None:
    before = dated([1, 10, 20, 30], [(1, 10), (10, 20), (20, 30), (30, 35)])
    assert shape(retained(before, 35_000, 14_999, 100_000)) == ([1, 10, 20, 30], [(20, 30), (30, 35)])
    assert shape(retained(before, 35_000, 15_000, 100_000)) == ([1, 10, 20, 30], [(10, 20), (20, 30), (30, 35)])
    assert shape(retained(before, 35_000, 5_001, 26_000)) == ([10, 20, 30], [(20, 30), (30, 35)])


def test_the_floor_outlives_the_snapshot_window_and_the_head_never_moves() -> None:
    before = dated([1, 10, 20], [(1, 10), (10, 20)])
    left = retained(before, 10**9, 1, 1)
    assert shape(left) == ([20], [])
    assert left.head_txid == 20


def test_a_history_without_a_snapshot_before_the_window_is_left_as_it_is() -> None:
    before = dated([1, 10], [(1, 10), (10, 12)])
    assert retained(before, 12_000, 11_000, 11_000) is before
    assert retained(manifest(), 12_000, 1, 1).empty


def test_a_fine_window_of_zero_forgets_nothing() -> None:
    before = dated([1, 10, 20], [(1, 10), (10, 20)])
    assert retained(before, 10**9, 0, 1) is before


def test_a_checkpoint_keeps_what_its_state_is_restored_from_and_no_more() -> None:
    before = dated([1, 10, 20, 30], [(1, 10), (10, 12), (12, 17), (17, 20), (20, 30)], checkpoints={"kept": 14})
    left = retained(before, 10**9, 1, 1)
    assert shape(left) == ([10, 30], [(10, 12), (12, 17)])
    assert left.plan(14).snapshot.txid == 10
    assert retained(left, 10**9, 1, 1) is left


def test_a_checkpoint_on_a_snapshot_keeps_that_snapshot_alone() -> None:
    before = dated([1, 10, 20], [(1, 10), (10, 20)], checkpoints={"kept": 10})
    assert shape(retained(before, 10**9, 1, 1)) == ([10, 20], [])


def test_a_checkpoint_in_a_gap_of_the_history_keeps_nothing() -> None:
    before = dated([1, 10, 20], [(1, 5), (10, 20)], checkpoints={"lost": 7})
    assert shape(retained(before, 10**9, 1, 1)) == ([20], [])


@given(
    ends=st.lists(st.integers(1, 40), min_size=1, max_size=12, unique=True).map(sorted),
    snapshots=st.sets(st.integers(0, 11)),
    checkpoints=st.sets(st.integers(1, 40), max_size=3),
    now=st.integers(1, 60),
    fine=st.integers(0, 50),
    coarse=st.integers(0, 60),
)
def test_retention_keeps_the_window_the_checkpoints_and_the_head_and_is_idempotent(
    ends: list[int], snapshots: set[int], checkpoints: set[int], now: int, fine: int, coarse: int
) -> None:
    head = ends[-1]
    taken = sorted({1, *(ends[number] for number in snapshots if number < len(ends))})
    segments = [(low, high) for low, high in zip([1, *ends], ends, strict=False) if low < high]
    before = dated(taken, segments, checkpoints={str(txid): txid for txid in checkpoints if txid <= head})
    left = retained(before, now * 1000, fine * 1000, coarse * 1000)
    assert (left.head_txid, left.head) == (before.head_txid, before.head)
    assert retained(left, now * 1000, fine * 1000, coarse * 1000) is left
    for txid in {*range(max(1, now - fine - 1), head + 1), *before.checkpoints.values(), head} & set(
        range(1, head + 1)
    ):
        assert left.plan(txid)
    assert {entry.txid for entry in left.snapshots} >= {txid for txid in taken if txid >= now - coarse}
