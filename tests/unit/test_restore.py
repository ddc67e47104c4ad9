"""Restoring: every state comes back as it was, or an error names the object that is to blame."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from memoturn_schemas.errors import Conflict
from memoturn_storage.manifest import Manifest
from memoturn_storage.objects.store import StoreUnavailable
from memoturn_storage.restore import Damaged, Restorer
from objects.faulty import Faults, FaultyStore
from unit.histories import Histories


def shipped(objects: int = 6, transactions: int = 3) -> Histories:
    histories = Histories()
    histories.create()
    histories.ship()
    histories.ship(objects=objects, transactions=transactions)
    return histories


def test_every_state_comes_back_also_when_objects_are_read_side_by_side() -> None:
    histories = shipped()
    histories.assert_restores()
    with ThreadPoolExecutor(4) as pool:
        histories.restorer = Restorer(histories.store, pool)
        histories.assert_restores()
        assert histories.restorer.image(histories.manifest()) == histories.lines["main"].images[19]


@pytest.mark.parametrize("to", range(1, 20))
def test_what_a_rewind_left_in_an_object_never_comes_back(to: int) -> None:
    histories = shipped()
    histories.rewind("main", to)
    histories.assert_restores()
    for transactions in (1, 2, 5):
        histories.ship(objects=2, transactions=transactions)
        histories.assert_restores()


@settings(deadline=None)
@given(st.integers(0, 20_000))
def test_the_transaction_of_a_time_is_the_last_one_before_it(late_ms: int) -> None:
    histories = shipped(3, 1)
    for _ in range(4):
        histories.ship(transactions=4)
    line, current = histories.lines["main"], histories.manifest()
    at_ms = line.at[1] + late_ms
    expected = max(txid for txid, at in line.at.items() if at <= at_ms)
    assert histories.restorer.txid_at(current, at_ms) == expected
    with pytest.raises(Conflict, match="begins after"):
        histories.restorer.txid_at(current, line.at[1] - 1)


def test_a_time_within_an_object_is_found_there_and_not_beyond_a_cut() -> None:
    histories = Histories()
    histories.create()
    histories.ship()
    for _ in range(16):
        histories.ship()
    manifest = histories.manifest()
    histories.compactor.compact(manifest.ref)
    assert len(histories.manifest().segments) == 1
    line = dict(histories.lines["main"].at)
    for txid in range(1, 18):
        assert histories.restorer.txid_at(histories.manifest(), line[txid] + 500) == txid
        assert histories.restorer.position(histories.manifest(), txid).at == line[txid]
    histories.rewind("main", 9)
    assert histories.restorer.txid_at(histories.manifest(), line[17]) == 9


# --- damage --------------------------------------------------------------------------------------


def needed(manifest: Manifest) -> list[str]:
    plan = manifest.plan(manifest.head_txid)
    return [plan.snapshot.key, *(segment.key for segment in plan.segments)]


def attempt(histories: Histories, manifest: Manifest) -> tuple[bytearray | None, str]:
    try:
        return histories.restorer.image(manifest), ""
    except Damaged as error:
        return None, str(error)


def test_a_changed_byte_is_damage_in_the_named_object_and_never_another_state() -> None:
    histories = shipped(2, 2)
    manifest = histories.manifest()
    expected = histories.lines["main"].images[manifest.head_txid]
    random = Random(1)
    for key in needed(manifest):
        data = histories.store.get(key).data
        for position in {*range(0, len(data), 3), *range(100), *range(len(data) - 40, len(data))}:
            changed = bytearray(data)
            changed[position] ^= random.randint(1, 255)
            histories.store.put(key, bytes(changed))
            image, problem = attempt(histories, manifest)
            assert key in problem if image is None else image == expected, (key, position)
        histories.store.put(key, data)
    assert histories.restorer.image(manifest) == expected


def test_a_truncated_a_longer_and_a_missing_object_are_damage_that_is_named() -> None:
    histories = shipped(2, 2)
    manifest = histories.manifest()
    for key in needed(manifest):
        data = histories.store.get(key).data
        for other in (b"", data[:1], data[: len(data) // 2], data[:-1], data + b"\0", data + data):
            histories.store.put(key, other)
            with pytest.raises(Damaged, match=key):
                histories.restorer.image(manifest)
        histories.store.delete(key)
        with pytest.raises(Damaged, match=f"{key}.*missing"):
            histories.restorer.image(manifest)
        histories.store.put(key, data)


def test_an_object_in_the_place_of_another_is_damage_even_where_the_manifest_knows_its_length() -> None:
    histories = shipped(4, 1)
    other = shipped(0)
    manifest = histories.manifest()
    first, second = manifest.segments[1:3]
    moved = histories.store.get(second.key).data
    histories.store.put(first.key, moved)
    swapped = tuple(replace(entry, bytes=len(moved)) if entry == first else entry for entry in manifest.segments)
    with pytest.raises(Damaged, match=first.key):
        histories.restorer.image(replace(manifest, segments=swapped))
    base = manifest.snapshots[0]
    foreign = other.store.get(other.manifest().snapshots[0].key).data
    changed = foreign if len(foreign) != base.bytes else moved
    histories.store.put(base.key, changed)
    with pytest.raises(Damaged, match=base.key):
        histories.restorer.image(replace(manifest, snapshots=(replace(base, bytes=len(changed)),)))


def test_a_manifest_that_promises_another_state_than_its_objects_hold_is_damage() -> None:
    histories = shipped(2, 2)
    manifest = histories.manifest()
    last = manifest.segments[-1]
    for wrong in (replace(last, checksum=last.checksum ^ 1), replace(last, max=last.max + 1)):
        changed = replace(manifest, segments=(*manifest.segments[:-1], wrong), head_txid=wrong.max)
        with pytest.raises(Damaged, match=last.key):
            histories.restorer.image(changed)


def test_a_store_that_does_not_answer_is_not_taken_for_damage() -> None:
    histories = shipped(2, 2)
    faulty = FaultyStore(histories.store, Random(0), Faults(before=1.0))
    with pytest.raises(StoreUnavailable):
        Restorer(faulty).image(histories.manifest())
