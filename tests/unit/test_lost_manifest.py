"""A manifest that was lost is damage, not a database that nobody has written to."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.leases.memory import LeaseRegistry, MemoryLeases
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
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
