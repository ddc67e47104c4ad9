"""Items 106 to 109: what maintenance removes from the object store, and what it leaves alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from contract.branches import (
    KeptStore,
    act,
    checkpoint,
    create,
    elsewhere,
    fork,
    manifest,
    ref,
    remove,
    rewind,
    shipped,
    storage,
    summaries,
    sync,
)
from contract.live_node import Live, Memory, event, serve
from memoturn_schemas.errors import Internal
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.manifest import Manifest

GRACE_S = 600.0
FINE_S = 100.0
SNAPSHOTS_S = 1_000.0


@contextlib.contextmanager
def tended(directory: Path, **limits: float) -> Iterator[tuple[Live, KeptStore, Memory]]:
    """A node of its own, whose maintenance runs only when the test says so, and a profile."""
    ambient = ManualAmbient()
    store = KeptStore(ambient)
    with serve(directory, ambient=ambient, store=store, limits=Limits(grace_s=GRACE_S, **limits)) as live:  # type: ignore[arg-type]
        yield live, store, live.memory()


def maintain(live: Live) -> None:
    """Both passes, after which a drill has found nothing wrong."""
    live.node.upkeep.light_pass()
    live.node.upkeep.heavy_pass()
    assert live.node.upkeep.stats.drills_failed == 0


def head(store: KeptStore, live: Live, memory: Memory, branch: str = "main") -> Manifest:
    found = manifest(store, ref(live, memory, branch))
    assert found is not None
    return found


def write(live: Live, memory: Memory, numbers: range, *, every_s: float = 0.0) -> None:
    """Note after note, each in an object of its own."""
    for number in numbers:
        memory.keep(event(f"note {number}"))
        sync(memory)
        live.ambient.advance(seconds=every_s)


def notes(last: int) -> set[str]:
    return {f"note {number}" for number in range(1, last + 1)}


def restorable(memory: Memory, last: int) -> set[int]:
    """The transactions whose state can still be seen, each of which is right."""
    found = set()
    for txid in range(last + 1):
        response = memory.recall(query="note", k=1_000, as_of=txid)
        assert response.status_code in (200, 409), response.text
        if response.status_code == 200:
            assert {hit["summary"] for hit in response.json()["memories"]} == notes(txid)
            found.add(txid)
    return found


# --- garbage -------------------------------------------------------------------------------------


def let_the_grace_pass(live: Live) -> None:
    """What became garbage before is old enough, is found so, and has been found so for long enough."""
    for _ in range(3):
        live.ambient.advance(seconds=GRACE_S + 1)
        maintain(live)


def test_item_106_what_a_rewind_dropped_goes_after_the_grace_period_and_not_before(tmp_path):
    with tended(tmp_path) as (live, store, memory):
        write(live, memory, range(1, 6))
        dropped = {segment.key for segment in head(store, live, memory).segments if segment.max > 2}
        assert len(dropped) == 3
        live.ambient.advance(seconds=10 * GRACE_S)
        rewind(memory, 2)
        for seconds in (0, GRACE_S / 2, GRACE_S / 2 - 1):
            live.ambient.advance(seconds=seconds)
            maintain(live)
            assert dropped <= store.names()
        let_the_grace_pass(live)
        assert not dropped & store.names()
        assert head(store, live, memory).keys() <= store.names()
        assert live.node.upkeep.stats.collected_objects == 3
        lost = store.copy()
    with serve(tmp_path / "fresh", ambient=live.ambient, store=lost) as fresh:
        assert summaries(elsewhere(memory, fresh)) == notes(2)


def test_item_106_objects_that_a_fork_shares_survive_its_parent_and_go_with_the_last_branch(tmp_path):
    with tended(tmp_path) as (live, store, memory):
        write(live, memory, range(1, 6))
        there = fork(memory, "x")
        shared = {segment.key for segment in head(store, live, memory, "x").segments}
        rewind(memory, 1)
        let_the_grace_pass(live)
        assert shared <= store.names()
        assert summaries(there) == notes(5)
        remove(memory, "x")
        maintain(live)
        assert shared <= store.names()
        let_the_grace_pass(live)
        assert not shared & store.names()
        assert ref(live, memory, "x").manifest_key not in store.names()
        assert summaries(memory) == notes(1)
        assert create(memory, "x").status_code == 201


def test_item_106_what_is_forked_again_within_the_grace_period_is_no_garbage(tmp_path):
    with tended(tmp_path) as (live, store, memory):
        write(live, memory, range(1, 6))
        fork(memory, "x")
        rewind(memory, 1)
        live.ambient.advance(seconds=GRACE_S + 1)
        maintain(live)
        there = fork(memory, "y", **{"from": "x"})
        remove(memory, "x")
        let_the_grace_pass(live)
        assert head(store, live, memory, "y").keys() <= store.names()
        assert summaries(there) == notes(5)


def test_item_106_an_orphan_goes_when_it_is_old_and_nobody_elses_object_with_it(tmp_path):
    with tended(tmp_path) as (live, store, memory):
        write(live, memory, range(1, 4))
        other = live.memory()
        write(live, other, range(1, 4))
        uuid = ref(live, memory).uuid
        orphans = {f"v1/{uuid}/ltx/0/orphan.ltx", f"v1/{uuid}/snapshots/orphan.ltx"}
        needed = store.names()
        for key in orphans:
            store.put(key, b"what a node put that died before it linked it")
        live.ambient.advance(seconds=GRACE_S - 1)
        maintain(live)
        assert orphans <= store.names()
        let_the_grace_pass(live)
        assert store.names() - marks(store) == needed
        young = f"v1/{uuid}/ltx/0/young.ltx"
        store.put(young, b"what a node may be about to link")
        maintain(live)
        assert store.names() - marks(store) == needed | {young}


def marks(store: KeptStore) -> set[str]:
    """The collector's own objects."""
    return {key for key in store.names() if key.endswith("/garbage.json")}


def test_item_106_what_is_not_shipped_is_no_garbage(tmp_path):
    with tended(tmp_path) as (live, _, memory):
        write(live, memory, range(1, 3))
        memory.keep(event("note 3"))
        maintain(live)
        let_the_grace_pass(live)
        assert summaries(memory) == notes(3)
        assert sync(memory) == 3
        assert restorable(memory, 3) == {1, 2, 3}


def test_item_90_a_burners_objects_go_with_it_and_its_parents_stay(tmp_path):
    with tended(tmp_path) as (live, store, memory):
        write(live, memory, range(1, 4))
        there = fork(memory, "burner", ttl=60)
        there.keep(event("note of the burner"))
        sync(there)
        own = head(store, live, memory, "burner").keys() - head(store, live, memory).keys()
        assert own
        let_the_grace_pass(live)
        assert not own & store.names()
        assert restorable(memory, 3) == {1, 2, 3}


# --- retention -----------------------------------------------------------------------------------


def test_item_107_below_the_floor_only_snapshots_stay_and_then_they_go_and_the_head_never_moves(tmp_path):
    with tended(tmp_path, fine_s=FINE_S, snapshots_s=SNAPSHOTS_S) as (live, store, memory):
        write(live, memory, range(1, 81), every_s=10)
        maintain(live)
        before = head(store, live, memory)
        cutoff = live.ambient.now_ms() - FINE_S * 1000
        old = [snapshot.txid for snapshot in before.snapshots if snapshot.at < cutoff]
        floor = max(old)
        assert before.head_txid == 80
        assert restorable(memory, 80) == {*old, *range(floor, 81)}
        assert min(segment.min for segment in before.segments) >= floor
        assert set(range(71, 81)) <= restorable(memory, 80)

        written = before.write_id
        maintain(live)
        assert head(store, live, memory).write_id == written

        live.ambient.advance(seconds=2 * SNAPSHOTS_S)
        maintain(live)
        after = head(store, live, memory)
        assert after.head_txid == 80
        newest = after.snapshots[-1].txid
        assert [snapshot.txid for snapshot in after.snapshots] == [newest]
        assert restorable(memory, 80) == set(range(newest, 81))
        let_the_grace_pass(live)
        uuid = ref(live, memory).uuid
        assert store.names(f"v1/{uuid}/") - marks(store) == after.keys() | {ref(live, memory).manifest_key}
        lost = store.copy()
    with serve(tmp_path / "fresh", ambient=live.ambient, store=lost) as fresh:
        assert summaries(elsewhere(memory, fresh)) == notes(80)


def test_item_107_outside_the_window_a_rewind_is_409_and_changes_nothing(tmp_path):
    with tended(tmp_path, fine_s=FINE_S, snapshots_s=SNAPSHOTS_S) as (live, _store, memory):
        write(live, memory, range(1, 41), every_s=60)
        live.ambient.advance(seconds=2 * SNAPSHOTS_S)
        maintain(live)
        oldest = storage(memory)["oldest_txid"]
        assert oldest > 1
        response = act(memory, "main", "rewind", to=oldest - 1)
        assert (response.status_code, response.json()["code"]) == (409, "conflict")
        assert create(memory, "x", at=oldest - 1).status_code == 409
        assert summaries(memory) == notes(40)
        assert rewind(memory, oldest)["rewound_to"] == oldest
        assert summaries(memory) == notes(oldest)


def test_item_108_everything_inside_the_window_stays_as_it_is(tmp_path):
    with tended(tmp_path, fine_s=FINE_S, snapshots_s=SNAPSHOTS_S) as (live, _, memory):
        write(live, memory, range(1, 41), every_s=FINE_S / 41)
        maintain(live)
        assert restorable(memory, 40) == set(range(1, 41))


def test_item_108_a_named_checkpoint_can_be_restored_at_any_age(tmp_path):
    with tended(tmp_path, fine_s=FINE_S, snapshots_s=SNAPSHOTS_S) as (live, _store, memory):
        write(live, memory, range(1, 24), every_s=10)
        assert checkpoint(memory, "c") == 23
        write(live, memory, range(24, 60), every_s=10)
        for _ in range(3):
            live.ambient.advance(seconds=365 * 86_400)
            maintain(live)
        assert {23, 59} <= restorable(memory, 59)
        assert 22 not in restorable(memory, 59) or storage(memory)["oldest_txid"] <= 22
        assert len(storage(memory)["segments"]) < 59
        there = fork(memory, "x", checkpoint="c")
        assert summaries(there) == notes(23)
        assert rewind(memory, "c")["rewound_to"] == 23
        assert summaries(memory) == notes(23)
        memory.keep(event("note 24"))
        assert sync(memory) == 24


def test_item_108_a_checkpoint_that_moved_pins_its_old_place_no_more(tmp_path):
    with tended(tmp_path, fine_s=FINE_S, snapshots_s=SNAPSHOTS_S) as (live, _, memory):
        write(live, memory, range(1, 6), every_s=10)
        checkpoint(memory, "c")
        write(live, memory, range(6, 41), every_s=10)
        assert checkpoint(memory, "c") == 40
        for _ in range(2):
            live.ambient.advance(seconds=2 * SNAPSHOTS_S)
            maintain(live)
        assert 5 not in restorable(memory, 40)


def test_item_109_a_fine_window_of_0_forgets_nothing(tmp_path):
    with tended(tmp_path, fine_s=0.0) as (live, _store, memory):
        write(live, memory, range(1, 41), every_s=3_600)
        for _ in range(3):
            live.ambient.advance(seconds=365 * 86_400)
            maintain(live)
        assert restorable(memory, 40) == set(range(1, 41))


def test_maintenance_goes_on_where_one_database_is_damaged(tmp_path):
    with tended(tmp_path) as (live, store, memory):
        other = live.memory()
        for each in (memory, other):
            write(live, each, range(1, 6))
        damaged, whole = sorted((memory, other), key=lambda each: ref(live, each).uuid)
        store.put(ref(live, damaged).manifest_key, b"{")
        dropped = {segment.key for segment in head(store, live, whole).segments if segment.max > 1}
        rewind(whole, 1)
        for _ in range(3):
            live.ambient.advance(seconds=GRACE_S + 1)
            with contextlib.suppress(Internal):  # the drill may be of the damaged one
                live.node.upkeep.heavy_pass()
        assert not dropped & store.names()
        assert shipped(store, ref(live, whole)) == 1
        assert whole.keep(event("note 2"))[0]["status"] == "created"


def test_branches_are_tended_as_main_is(tmp_path):
    with tended(tmp_path, fine_s=FINE_S, snapshots_s=SNAPSHOTS_S) as (live, store, memory):
        write(live, memory, range(1, 4))
        there = fork(memory, "x")
        write(live, there, range(4, 41), every_s=10)
        live.ambient.advance(seconds=2 * SNAPSHOTS_S)
        maintain(live)
        found = head(store, live, memory, "x")
        assert len(found.chain) < 16
        assert found.snapshots[0].txid > 3
        assert summaries(there) == notes(40)
        assert summaries(memory) == notes(3)
