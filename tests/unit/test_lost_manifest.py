"""A manifest that was lost is damage, not a database that nobody has written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.leases.memory import LeaseRegistry, MemoryLeases
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectInfo
from memoturn_storage.restore import Damaged
from objects.faulty import Faults, FaultyStore
from unit.engines import ITEMS, put, values

REF = BranchRef("ab" * 16)


def engine(directory: Path, store: MemoryStore | FaultyStore, ambient: ManualAmbient) -> Engine:
    leases = MemoryLeases(LeaseRegistry(), "here", ambient)
    return Engine(ITEMS, ambient, directory, store, leases, Limits(threads=0))


def test_a_database_whose_manifest_was_lost_is_damaged_and_not_empty(tmp_path: Path) -> None:
    ambient = ManualAmbient()
    store = MemoryStore(ambient)
    first = engine(tmp_path / "first", store, ambient)
    for value in range(4):
        first.write(REF, put(value), durable=True).result()
    first.close()
    store.delete(REF.manifest_key)
    second = engine(tmp_path / "second", store, ambient)
    with pytest.raises(Damaged, match=REF.manifest_key):
        second.read(REF, values).result()
    with pytest.raises(Damaged):
        second.write(REF, put("lost for good")).result()
    second.close()


def test_a_first_shipment_that_was_never_linked_leaves_a_database_that_works(tmp_path: Path) -> None:
    ambient = ManualAmbient()
    store = MemoryStore(ambient)
    faulty = FaultyStore(store, Random(0), {"put_if_absent": Faults(before=1.0)})
    first = engine(tmp_path / "first", faulty, ambient)
    for value in range(3):
        first.write(REF, put(value)).result()
    first.close()  # puts, and cannot link
    assert [info.key for info in store.list(f"v1/{REF.uuid}/")] != []
    second = engine(tmp_path / "second", store, ambient)  # and its disk is lost
    assert second.read(REF, values).result().value == []
    assert second.write(REF, put("anew"), durable=True).result().txid == 1
    second.close()


def test_a_database_that_another_owner_begins_while_it_wakes_is_not_damaged(tmp_path: Path) -> None:
    ambient = ManualAmbient()
    store = MemoryStore(ambient)

    class BegunMeanwhile(FaultyStore):
        """The other owner writes between the reading of the manifest and the listing."""

        begun = False

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            if not self.begun:
                self.begun = True
                for value in range(3):  # each waking raises the epoch
                    other = engine(tmp_path / "other", store, ambient)
                    other.write(REF, put(value), durable=True).result()
                    other.close()
            return super().list(prefix)

    waking = engine(tmp_path / "waking", BegunMeanwhile(store, Random(0), {}), ambient)
    assert waking.read(REF, values).result().value == [0, 1, 2]
    waking.close()
