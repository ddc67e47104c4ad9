"""Collection: what a branch needs stays, whoever races; what none needs goes, and in the end nothing is left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from memoturn_schemas.errors import Internal, Unavailable
from memoturn_storage.collector import Collector
from memoturn_storage.manifest import BranchRef
from memoturn_storage.manifests import Manifests
from memoturn_storage.objects.store import StoreUnavailable
from objects.faulty import Faults, FaultyStore
from unit.histories import GRACE_MS, MAIN, UUID, Histories, Interrupted, manifest

GRACE_S = GRACE_MS / 1000
CHILD = BranchRef(UUID, "child")


def collector(histories: Histories) -> Collector:
    return Collector(histories.store, histories.manifests, histories.ambient)


def compacted() -> Histories:
    """A history whose sixteen first segments were joined into one, a grace period ago."""
    histories = Histories()
    histories.create()
    histories.ship(objects=17)
    assert histories.compactor.compact(MAIN)
    histories.ambient.advance(seconds=GRACE_S)
    return histories


def test_what_nothing_names_goes_a_grace_period_after_it_was_found_so() -> None:
    histories = compacted()
    collect = collector(histories).collect
    assert collect(UUID).objects == 0, "found, and marked"
    histories.ambient.advance(seconds=GRACE_S - 1)
    assert collect(UUID).objects == 0
    histories.ambient.advance(seconds=1)
    report = collect(UUID)
    assert (report.objects, report.kept, report.manifests) == (16, 3, 0)
    assert report.bytes > 0
    assert histories.objects() - {f"v1/{UUID}/garbage.json"} == histories.manifest().keys()
    histories.assert_restores()
    assert collect(UUID).objects == 0, "a pass over what is clean does nothing"
    assert f"v1/{UUID}/garbage.json" not in histories.objects()


def test_an_object_that_is_put_and_not_yet_linked_stays() -> None:
    histories = compacted()
    put = histories.put()
    for _ in range(3):
        histories.ambient.advance(seconds=GRACE_S / 6)
        collector(histories).collect(UUID)
    assert histories.link(put)
    histories.assert_restores()


def test_what_a_fork_shares_survives_its_parents_rewind_and_end() -> None:
    histories = compacted()
    histories.fork(histories.manifest(), histories.lines["main"], "child", 12)
    histories.rewind("main", 2)
    histories.delete("main")
    for _ in range(4):
        histories.ambient.advance(seconds=GRACE_S)
        collector(histories).collect(UUID)
    histories.assert_restores("child")
    held = histories.manifests.read(MAIN)
    assert held is not None, "main's manifest goes last"
    assert held.manifest.deleted_at is not None


def test_nothing_is_garbage_where_the_manifest_of_main_was_lost() -> None:
    histories = compacted()
    histories.fork(histories.manifest(), histories.lines["main"], "child", 12)
    histories.store.delete(MAIN.manifest_key)
    before = histories.objects()
    for _ in range(4):
        histories.ambient.advance(seconds=GRACE_S)
        assert collector(histories).collect(UUID).objects == 0
    assert histories.objects() == before


def test_a_fork_from_a_manifest_that_was_read_before_a_compaction_finds_its_objects() -> None:
    histories = Histories()
    histories.create()
    histories.ship(objects=17)
    histories.ambient.advance(seconds=GRACE_S)
    parent, line = histories.manifest(), histories.lines["main"]
    histories.compactor.compact(MAIN)
    collector(histories).collect(UUID)
    histories.ambient.advance(seconds=GRACE_S / 2)
    collector(histories).collect(UUID)
    histories.fork(parent, line, "child", 12)
    for _ in range(3):
        histories.ambient.advance(seconds=GRACE_S / 2)
        collector(histories).collect(UUID)
    histories.assert_restores("child")


def test_a_manifest_that_cannot_be_read_stops_the_pass_before_anything_is_removed() -> None:
    histories = compacted()
    collector(histories).collect(UUID)
    histories.ambient.advance(seconds=GRACE_S)
    before = histories.objects()
    for damage in (
        b"{",
        manifest(branch="other").encode(),
        manifest(branch="child").encode().replace(b": 1,", b": 9,"),
    ):
        histories.store.put(CHILD.manifest_key, damage)
        with pytest.raises((Internal, Unavailable), match=CHILD.manifest_key):
            collector(histories).collect(UUID)
        assert histories.objects() == before


@pytest.mark.parametrize("seed", range(8))
def test_a_pass_that_fails_anywhere_is_made_good_by_later_ones(seed: int) -> None:
    histories = compacted()
    histories.fork(histories.manifest(), histories.lines["main"], "child", 12)
    histories.delete("child")
    faulty = FaultyStore(histories.store, Random(seed), Faults(before=0.05, after=0.05, lost=0.3))
    failing = Collector(faulty, Manifests(faulty, histories.ambient, grace_ms=GRACE_MS), histories.ambient)
    for _ in range(60):
        histories.ambient.advance(seconds=GRACE_S / 3)
        try:
            failing.collect(UUID)
        except StoreUnavailable:
            continue
    histories.assert_restores()
    assert histories.manifests.read(CHILD) is None
    assert histories.objects() - {f"v1/{UUID}/garbage.json"} == histories.manifest().keys()


def test_collectors_at_once_remove_what_one_would() -> None:
    histories = compacted()
    histories.delete("main")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(collector(histories).collect, [UUID] * 8))
            histories.ambient.advance(seconds=GRACE_S)
    assert list(histories.store.list("")) == []


def test_a_new_branch_in_place_of_a_deleted_one_is_not_removed_whenever_it_comes() -> None:
    for call in range(1, 12):
        for action in ("create", "another collector, then create"):
            histories = Histories()
            histories.create()
            histories.create("child")
            histories.delete("child")
            histories.ambient.advance(seconds=GRACE_S)
            created = []

            def create(histories: Histories = histories, action: str = action, created: list[bool] = created) -> None:
                if action.startswith("another"):
                    collector(histories).collect(UUID)
                try:
                    histories.create("child")
                    created.append(True)
                except Unavailable:
                    pass

            with histories.store.interrupted(call, create):
                collector(histories).collect(UUID)
            assert (histories.manifests.read(CHILD) is not None) is bool(created), (call, action)
            if not created:
                histories.create("child")


def test_what_a_dead_collector_has_marked_is_removed_by_the_one_that_takes_over() -> None:
    histories = Histories()
    histories.create()
    histories.create("child")
    histories.delete("child")
    histories.ambient.advance(seconds=GRACE_S)
    faulty = FaultyStore(histories.store, Random(0), {"delete": Faults(before=1.0)})
    dying = Collector(faulty, Manifests(faulty, histories.ambient, grace_ms=GRACE_MS), histories.ambient)
    with pytest.raises(StoreUnavailable):
        dying.collect(UUID)
    assert collector(histories).collect(UUID).manifests == 0, "it may be about to be removed by who marked it"
    histories.ambient.advance(seconds=GRACE_S)
    assert collector(histories).collect(UUID).manifests == 1
    assert histories.manifests.read(CHILD) is None


def test_a_collector_that_was_held_up_after_its_mark_removes_no_manifest() -> None:
    histories = Histories()
    histories.create()
    histories.create("child")
    histories.delete("child")
    histories.ambient.advance(seconds=GRACE_S)

    class SlowToMark(Interrupted):
        def put_if_match(self, key: str, data: bytes, version: str) -> str:
            histories.ambient.advance(seconds=GRACE_S)
            return super().put_if_match(key, data, version)

    slow = SlowToMark(histories.store)
    held_up = Collector(slow, Manifests(slow, histories.ambient, grace_ms=GRACE_MS), histories.ambient)
    assert held_up.collect(UUID).manifests == 0
    assert histories.manifests.read(CHILD) is not None


def test_a_mark_does_not_outlast_a_branch_that_came_and_went_between_two_passes() -> None:
    histories = Histories()
    histories.create()
    histories.ship(objects=17)
    histories.ambient.advance(seconds=GRACE_S)
    collect = collector(histories).collect
    read, line = histories.manifest(), histories.lines["main"]
    histories.compactor.compact(MAIN)
    collect(UUID)  # marks what main has dropped
    histories.fork(read, line, "child", 12)  # and one that has read it before names it again
    histories.ambient.advance(seconds=GRACE_S - 1)
    read, line = histories.manifest("child"), histories.lines["child"]
    histories.rewind("child", 2)  # which drops it
    histories.ambient.advance(seconds=2)
    collect(UUID)
    histories.fork(read, line, "grandchild", 12)
    histories.assert_restores("grandchild")


def test_marks_that_are_damaged_count_as_none() -> None:
    histories = compacted()
    for damaged in (b"{", b"[]", b'{"v1/x": "soon"}', b"1"):
        histories.store.put(f"v1/{UUID}/garbage.json", damaged)
        assert collector(histories).collect(UUID).objects == 0  # marked anew, and not old enough
    histories.ambient.advance(seconds=GRACE_S)
    assert collector(histories).collect(UUID).objects > 0


def test_a_deleted_branch_is_replaced_without_harm_to_what_the_new_one_shares() -> None:
    histories = compacted()
    histories.fork(histories.manifest(), histories.lines["main"], "child", 12)
    histories.ship("child", objects=2)
    histories.delete("child")
    histories.fork(histories.manifest(), histories.lines["main"], "child", 9)
    for _ in range(4):
        histories.ambient.advance(seconds=GRACE_S)
        collector(histories).collect(UUID)
    histories.assert_restores("child")
    histories.assert_restores()
