"""After the machine was started anew a local file is believed only if it is what the manifest says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.leases.memory import LeaseRegistry, MemoryLeases
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
from unit.engines import ITEMS, put, values

REF = BranchRef("ab" * 16)
PAGE = 1_024


class Machine:
    """A disk and an object store; `power_cut` leaves the disk as a killed process does, under another boot."""

    def __init__(self, directory: Path) -> None:
        self.ambient = ManualAmbient()
        self.store = MemoryStore(self.ambient)
        self.directory = directory / "0"

    def engine(self) -> Engine:
        leases = MemoryLeases(LeaseRegistry(), "here", self.ambient)
        limits = Limits(threads=0, ship_interval_s=3_600)
        return Engine(ITEMS, self.ambient, self.directory, self.store, leases, limits)

    def power_cut(self) -> LocalFiles:
        after = self.directory.with_name(str(int(self.directory.name) + 1))
        shutil.copytree(self.directory, after)
        self.directory = after
        self.ambient.start_again()
        return LocalFiles(after, REF)


def damage(path: Path, page: int) -> None:
    """Put back what was in the page before it was written: nothing."""
    content = bytearray(path.read_bytes())
    content[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    path.write_bytes(content)


def page_of_items(engine: Engine) -> int:
    root = engine.read(
        REF, lambda s: s.connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'items'").get
    )
    page = root.result().value
    assert isinstance(page, int)
    return page - 1


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_shipped_file_of_which_a_page_never_reached_the_disk_is_restored(machine: Machine) -> None:
    engine = machine.engine()
    engine.write(REF, put("shipped"), durable=True).result()
    page = page_of_items(engine)
    engine.close()
    files = machine.power_cut()
    damage(files.database, page)
    again = machine.engine()
    assert again.read(REF, values).result().value == ["shipped"]
    again.close()


def test_what_was_not_shipped_is_kept_where_the_file_below_it_is_whole(machine: Machine) -> None:
    engine = machine.engine()
    engine.write(REF, put("shipped"), durable=True).result()
    engine.write(REF, put("in the log")).result()
    machine.power_cut()
    again = machine.engine()
    assert again.read(REF, values).result().value == ["shipped", "in the log"]
    assert again.read(REF, values, durable=True).result().txid == 2
    again.close()


def test_what_was_not_shipped_goes_with_the_torn_file_below_it_and_nothing_else(machine: Machine) -> None:
    engine = machine.engine()
    engine.write(REF, put("shipped"), durable=True).result()
    page = page_of_items(engine)
    engine.close()  # folds the log
    engine = machine.engine()
    engine.write(REF, lambda transaction: transaction.connection.execute("CREATE TABLE other (x)").fetchall()).result()
    files = machine.power_cut()
    damage(files.database, page)
    again = machine.engine()
    assert again.read(REF, values).result().value == ["shipped"]
    again.write(REF, put("and on"), durable=True).result()
    again.close()
    shutil.rmtree(machine.directory)
    restored = machine.engine()
    assert restored.read(REF, values).result().value == ["shipped", "and on"]
    restored.close()


def test_a_file_that_is_whole_is_not_restored(machine: Machine) -> None:
    engine = machine.engine()
    engine.write(REF, put("shipped"), durable=True).result()
    engine.close()
    machine.power_cut()
    for info in list(machine.store.list(f"v1/{REF.uuid}/snapshots/")):
        machine.store.delete(info.key)
    again = machine.engine()
    assert again.read(REF, values).result().value == ["shipped"]
    again.close()


def test_a_file_of_which_nothing_was_shipped_is_kept_unless_it_cannot_be_read(machine: Machine) -> None:
    engine = machine.engine()
    engine.write(REF, put("only here")).result()
    machine.power_cut()
    again = machine.engine()
    assert again.read(REF, values).result().value == ["only here"]

    files = machine.power_cut()
    files.wal.unlink()
    damage(files.database, 0)
    emptied = machine.engine()
    assert emptied.read(REF, values).result().value == []
    assert emptied.write(REF, put("anew"), durable=True).result().txid == 1
    emptied.close()
