"""Manifests under races and lost answers: every change lands once, and nobody takes another's write for their own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest

from memoturn_schemas.errors import AlreadyExists, BranchNotFound, Internal, Unavailable
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.manifest import BranchRef, Manifest
from memoturn_storage.manifests import Held, Manifests
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectStore, StoreUnavailable
from objects.faulty import Faults, FaultyStore
from unit.histories import MAIN, Interrupted, manifest

T = TypeVar("T")
EVERYTHING = Faults(before=0.1, after=0.1, lost=0.2)


def world(faults: Faults, seed: int = 0) -> tuple[MemoryStore, FaultyStore, Manifests]:
    ambient = ManualAmbient()
    plain = MemoryStore(ambient)
    store = FaultyStore(plain, Random(seed), faults)
    return plain, store, Manifests(store, ambient)


def insist(call: Callable[[], T]) -> T:
    """Ask until the store answers, as a caller does that hears `Unavailable`."""
    while True:
        try:
            return call()
        except Unavailable:
            continue


def reader(store: ObjectStore) -> Manifests:
    return Manifests(store, ManualAmbient())


def named(name: str) -> Callable[[Manifest], Manifest]:
    return lambda current: current if name in current.checkpoints else current.with_checkpoint(name, 0)


@pytest.mark.parametrize("seed", range(6))
def test_of_eight_writers_no_change_is_lost_whatever_the_store_answers(seed: int) -> None:
    plain, _, manifests = world(EVERYTHING, seed)
    insist(lambda: manifests.create(manifest()))

    def add(writer: int) -> None:
        for number in range(8):
            insist(lambda number=number: manifests.update(MAIN, named(f"{writer} {number}")))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    found = reader(plain).require(MAIN).manifest
    assert set(found.checkpoints) == {f"{writer} {number}" for writer in range(8) for number in range(8)}


@pytest.mark.parametrize("seed", range(6))
def test_of_eight_creators_exactly_one_wins_and_knows_it(seed: int) -> None:
    plain, _, manifests = world(EVERYTHING, seed)

    def create(number: int) -> str | None:
        try:
            return insist(lambda: manifests.create(manifest(lineage=f"{number}"))).manifest.lineage
        except AlreadyExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [lineage for lineage in pool.map(create, range(8)) if lineage is not None]
    assert won == [reader(plain).require(MAIN).manifest.lineage]


def test_a_write_whose_answer_was_lost_is_recognised_as_our_own() -> None:
    plain, store, manifests = world(Faults(lost=1.0))
    created = manifests.create(manifest())
    assert created.manifest == reader(plain).require(MAIN).manifest
    calls = 0

    def change(current: Manifest) -> Manifest:
        nonlocal calls
        calls += 1
        return replace(current, epoch=current.epoch + 1)

    updated = manifests.update(created, change)
    assert (updated.manifest.epoch, calls) == (2, 1)
    assert store.fates["put_if_match", "lost"] == 1
    assert plain.get(MAIN.manifest_key).version == updated.version


def test_a_deletion_whose_answer_was_lost_is_a_deletion() -> None:
    _, _, manifests = world(Faults(lost=1.0))
    manifests.create(manifest())
    deleted = manifests.update(MAIN, lambda current: replace(current, deleted_at=7))
    assert deleted.manifest.deleted_at == 7
    with pytest.raises(BranchNotFound):
        manifests.require(MAIN)


def test_a_change_on_which_another_was_put_is_not_made_twice() -> None:
    ambient = ManualAmbient()
    plain = MemoryStore(ambient)
    store = FaultyStore(plain, Random(0), {"put_if_match": Faults(lost=1.0)})
    interrupted = Interrupted(store)
    manifests = Manifests(interrupted, ambient)
    held = manifests.create(manifest())
    with interrupted.interrupted(2, lambda: reader(plain).update(MAIN, named("theirs"))):  # between write and read
        manifests.update(held, named("ours"))
    assert set(reader(plain).require(MAIN).manifest.checkpoints) == {"ours", "theirs"}


def test_an_outcome_that_is_unknown_is_not_guessed() -> None:
    for faults, landed in ((Faults(before=1.0), False), (Faults(after=1.0), True)):
        plain, store, manifests = world(Faults())
        held = manifests.create(manifest())
        store._faults = {"put_if_match": faults}
        with pytest.raises(StoreUnavailable):
            manifests.update(held, named("ours"))
        assert ("ours" in reader(plain).require(MAIN).manifest.checkpoints) is landed


def test_a_change_that_hands_the_manifest_back_writes_nothing() -> None:
    _, store, manifests = world(Faults())
    held = manifests.create(manifest())
    assert manifests.update(held, lambda current: current) is held
    assert store.fates["put_if_match", "fine"] == 0


def test_a_change_from_an_old_manifest_is_made_on_the_newest() -> None:
    _, _, manifests = world(Faults())
    old = manifests.create(manifest())
    manifests.update(MAIN, named("first"))
    assert set(manifests.update(old, named("second")).manifest.checkpoints) == {"first", "second"}


def test_a_change_to_a_branch_that_is_deleted_meanwhile_is_not_made() -> None:
    _, _, manifests = world(Faults())
    old = manifests.create(manifest())
    manifests.update(MAIN, lambda current: replace(current, deleted_at=1))
    with pytest.raises(BranchNotFound):
        manifests.update(old, named("late"))


def test_writers_that_lose_every_race_are_told_to_try_again() -> None:
    plain, _, manifests = world(Faults())
    others = reader(plain)
    held = manifests.create(manifest())

    def outrun(current: Manifest) -> Manifest:
        others.update(MAIN, lambda theirs: replace(theirs, epoch=theirs.epoch + 1))
        return replace(current, lineage="ours")

    with pytest.raises(Unavailable, match="too many at once"):
        manifests.update(held, outrun)


def test_a_branch_is_made_over_a_deleted_one_and_not_over_one_that_is_being_removed() -> None:
    _, _, manifests = world(Faults())
    manifests.create(manifest())
    with pytest.raises(AlreadyExists):
        manifests.create(manifest(lineage="second"))
    deleted = manifests.update(MAIN, lambda current: replace(current, deleted_at=1))
    assert manifests.create(manifest(lineage="second")).manifest.deleted_at is None
    deleted = manifests.update(MAIN, lambda current: replace(current, deleted_at=2, collected_at=3))
    with pytest.raises(Unavailable, match="being removed"):
        manifests.create(manifest(lineage="third"))
    assert manifests.read(MAIN) == deleted


def test_the_branches_of_a_database_are_listed_with_the_deleted_and_without_those_of_others() -> None:
    _, _, manifests = world(Faults())
    assert manifests.branches(MAIN.uuid) == []
    for branch in ("main", "b", "a"):
        manifests.create(manifest(branch=branch))
    manifests.create(manifest(db_uuid="cd" * 16))
    manifests.update(BranchRef(MAIN.uuid, "b"), lambda current: replace(current, deleted_at=1))
    found: list[Held] = manifests.branches(MAIN.uuid)
    assert [(held.manifest.branch, held.manifest.deleted_at) for held in found] == [
        ("a", None),
        ("b", 1),
        ("main", None),
    ]


def test_a_damaged_manifest_is_an_error_wherever_it_is_met() -> None:
    plain, _, manifests = world(Faults())
    held = manifests.create(manifest())
    plain.put(MAIN.manifest_key, b"{")
    for use in (
        lambda: manifests.read(MAIN),
        lambda: manifests.branches(MAIN.uuid),
        lambda: manifests.create(manifest(lineage="second")),
        lambda: manifests.update(held, named("ours")),
    ):
        with pytest.raises(Internal, match=MAIN.manifest_key):
            use()
