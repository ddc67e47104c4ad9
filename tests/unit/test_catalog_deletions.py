"""A deletion that stops between two of its effects: what is left is coherent, and whoever comes next finishes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from memoturn_core.address import Address
from memoturn_schemas.errors import AlreadyExists, BranchNotFound, DatabaseNotFound, Unavailable
from memoturn_storage import deletion
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Transaction
from memoturn_storage.manifest import MAIN, BranchRef, Manifest
from memoturn_storage.objects.store import PreconditionFailed, StoreUnavailable
from unit.machines import GRACE_S, Machine, SharedStore, tidy

T = TypeVar("T")

LONG_AGO_MS = 4_000_000_000_000
"""After the files, whose age is that of real ones."""


class Killed(BaseException):
    """The process is no more."""


class Breaking(SharedStore):
    """Counts the writes, and at one of them fails before or after the effect, or loses the answer, or kills.

    While it is `down`, all of them fail.
    """

    def __init__(self, ambient: ManualAmbient) -> None:
        super().__init__(ambient)
        self.at = 0
        self.how = ""
        self.writes = 0
        self.down = False

    def break_at(self, write: int, how: str) -> None:
        self.at, self.how, self.writes = write, how, 0

    def put(self, key: str, data: bytes) -> None:
        self._broken(lambda: super(Breaking, self).put(key, data), key)

    def put_if_absent(self, key: str, data: bytes) -> str:
        return self._broken(lambda: super(Breaking, self).put_if_absent(key, data), key, conditional=True)

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        return self._broken(lambda: super(Breaking, self).put_if_match(key, data, version), key, conditional=True)

    def delete(self, key: str) -> None:
        self._broken(lambda: super(Breaking, self).delete(key), key)

    def _broken(self, write: Callable[[], T], key: str, *, conditional: bool = False) -> T:
        self.writes += 1
        if self.down:
            raise StoreUnavailable(key)
        if self.writes != self.at:
            return write()
        if self.how == "before":
            raise StoreUnavailable(key)
        if self.how == "killed before":
            raise Killed
        result = write()
        if self.how == "after":
            raise StoreUnavailable(key)
        if self.how == "killed after":
            raise Killed
        if self.how == "lost" and conditional:
            raise PreconditionFailed(key)
        return result


@pytest.fixture
def ambient() -> ManualAmbient:
    return ManualAmbient(now_ms=LONG_AGO_MS)


@pytest.fixture
def store(ambient: ManualAmbient) -> Breaking:
    return Breaking(ambient)


@pytest.fixture
def two(store: Breaking, ambient: ManualAmbient) -> Iterator[tuple[Machine, Machine]]:
    machines = Machine(store, ambient), Machine(store, ambient)
    yield machines
    for machine in machines:
        machine.close()


NAME = "acme--ann"
ADDRESS = Address.of_database(NAME)


def populated(here: Machine, there: Machine) -> str:
    """A profile with two branches, which both machines know; its uuid."""
    here.write(NAME, "old")
    here.call("branch_create", ADDRESS, name="x")
    here.call("branch_create", ADDRESS, name="y")
    assert there.texts(NAME) == ["old"]
    entry = here.node.catalog.known(NAME)
    assert entry is not None
    return entry.uuid


WRITES = 5
"""Of a deletion of a database with two branches: the mark, the fence, the name, the branches."""


def test_a_deletion_is_these_effects_in_this_order(two, store):
    here, there = two
    uuid = populated(here, there)
    put: list[str] = []
    before = {key: store.get(key).version for key in store.names()}
    real = store._write

    def noted(key: str, data: bytes) -> str:
        put.append(key)
        return real(key, data)

    store._write = noted
    here.delete(NAME)
    assert put == [
        f"v1/_catalog/deleted/{uuid}",
        BranchRef(uuid).manifest_key,
        f"v1/_catalog/names/{NAME}",
        BranchRef(uuid, "x").manifest_key,
        BranchRef(uuid, "y").manifest_key,
    ]
    assert store.names() - before.keys() == {f"v1/_catalog/deleted/{uuid}"}, "and nothing is removed at once"


@pytest.mark.parametrize("how", ["before", "after", "lost", "killed after"])
@pytest.mark.parametrize("write", range(1, WRITES + 1))
@pytest.mark.parametrize("then", ["repeat", "use", "upkeep"])
def test_item_94_a_deletion_that_stops_anywhere_has_happened_or_not_and_is_finished(
    two, store, ambient, how, write, then
):
    here, there = two
    uuid = populated(here, there)
    store.break_at(write, how)
    try:
        here.delete(NAME)
    except (StoreUnavailable, Unavailable, Killed):
        told = False
    else:
        told = True
    assert told == (how == "lost")
    store.break_at(0, "")
    if how.startswith("killed"):
        here.restart()
    fenced = told or write > 2 or (write == 2 and how.endswith("after"))
    if then == "repeat":
        try:
            there.delete(NAME)
        except DatabaseNotFound:
            assert fenced
        fenced = True
        with pytest.raises(DatabaseNotFound):
            here.delete(NAME)
    if then == "upkeep":
        there.upkeep()
    for machine in (there, here):
        if fenced:
            with pytest.raises(DatabaseNotFound):
                machine.texts(NAME)
            assert machine.deleted_at(NAME) == ambient.now_ms()
        else:
            assert machine.texts(NAME) == ["old"]
    if fenced:
        there.write(NAME, "new")
        for machine in (here, there):
            assert machine.texts(NAME) == ["new"]
            with pytest.raises(BranchNotFound):
                machine.call("memory_window", Address.of_database(f"{NAME}@x"), session="s")

    def done() -> bool:
        return not store.names("v1/_catalog/deleted/") or not fenced

    assert tidy(store, ambient, here, done)
    assert (uuid in store.uuids()) == (not fenced)
    for machine in two:
        machine.upkeep()
        machine.rest()
        assert machine.texts(NAME) == ["new" if fenced else "old"]
        files = {path.parent.name for path in machine.directory.glob("databases/*/*/*.db*")}
        assert (uuid in files) <= (not fenced)


@pytest.mark.parametrize("write", range(1, 5))
@pytest.mark.parametrize("how", ["after", "lost", "killed before"])
def test_item_94_the_clearing_away_may_stop_anywhere_too(two, store, ambient, how, write):
    here, there = two
    uuid = populated(here, there)
    here.delete(NAME)
    for _ in range(8):
        ambient.advance(seconds=GRACE_S + 1)
        store.break_at(write, how)
        try:
            there.upkeep()
        except (StoreUnavailable, Killed):
            there.restart()
        store.break_at(0, "")
    assert tidy(store, ambient, there, lambda: not store.names("v1/_catalog/deleted/"))
    assert uuid not in store.uuids()
    with pytest.raises(DatabaseNotFound):
        there.texts(NAME)


def test_item_117_a_machine_that_slept_until_nothing_was_left_finds_out_when_it_wakes(two, store, ambient):
    here, there = two
    uuid = populated(here, there)
    there.delete(NAME)
    assert tidy(store, ambient, there, lambda: uuid not in store.uuids())
    assert here.node.catalog.known(NAME) is not None, "it was told nothing"
    here.write(NAME, "new")
    assert here.texts(NAME) == there.texts(NAME) == ["new"]
    assert uuid not in store.uuids()
    here.upkeep()
    assert not list(here.directory.glob(f"databases/*/{uuid}/*.db*"))


def test_item_117_what_a_machine_has_not_shipped_of_a_deleted_database_does_not_bring_it_back(two, store, ambient):
    here, there = two
    uuid = populated(here, there)
    store.down = True
    with pytest.raises(Unavailable):
        here.write(NAME, "not shipped")
    store.down = False
    assert here.node.engine.unshipped()
    there.delete(NAME)
    assert tidy(store, ambient, there, lambda: uuid not in store.uuids())
    here.restart()
    here.upkeep()
    here.rest()
    assert uuid not in store.uuids()
    there.write(NAME, "new")
    assert here.texts(NAME) == ["new"]
    assert not list(here.directory.glob(f"databases/*/{uuid}/*.db*"))


def test_the_files_of_what_was_deleted_leave_the_disks_of_machines_that_do_not_use_it(two, store, ambient):
    here, there = two
    uuid = populated(here, there)
    there.delete(NAME)
    assert tidy(store, ambient, there, lambda: uuid not in store.uuids())
    assert list(here.directory.glob(f"databases/*/{uuid}/*.db"))
    here.upkeep()
    assert not list(here.directory.glob(f"databases/*/{uuid}/*.db*"))


def test_a_database_that_was_never_used_is_fenced_too_so_that_nobody_begins_it(two, store):
    here, there = two
    uuid = here.create("shop")["uuid"]
    assert there.node.catalog.find("shop") is not None
    here.delete("shop")
    with pytest.raises(DatabaseNotFound):
        there.write("shop", "too late")
    assert store.uuids() == {uuid}, "the tombstone of its main"
    assert here.create("shop")["uuid"] != uuid
    there.write("shop", "new")
    assert here.texts("shop") == ["new"]


def test_a_deletion_that_took_too_long_over_its_first_steps_gives_up_before_anything_has_happened(two, store, ambient):
    here, there = two
    populated(here, there)
    entry = here.node.catalog.known(NAME)
    began = here.node.catalog.mark(entry)
    ambient.advance(seconds=GRACE_S)
    with pytest.raises(Unavailable):
        here.node.branching.fence(entry.uuid, began)
    assert there.texts(NAME) == ["old"]


def test_the_fence_stays_until_the_name_is_free(two, store, ambient):
    here, there = two
    uuid = here.create("shop")["uuid"]
    here.write("shop", "old")
    assert there.texts("shop") == ["old"]
    store.break_at(2, "after")
    with pytest.raises(Unavailable):
        here.delete("shop")
    store.break_at(0, "")
    name = "v1/_catalog/names/shop"
    live = store.get(name).data
    store.put(name, b"{")  # so that nobody can go on
    for _ in range(5):
        ambient.advance(seconds=GRACE_S + 1)
        there.upkeep()
    store.put(name, live)
    assert BranchRef(uuid).manifest_key in store.names()
    with pytest.raises(DatabaseNotFound):
        there.texts("shop")
    assert tidy(store, ambient, there, lambda: uuid not in store.uuids())


def test_an_abandoned_deletion_is_left_alone_by_the_upkeep(two, store, ambient):
    here, there = two
    uuid = populated(here, there)
    here.node.catalog.mark(here.node.catalog.known(NAME))
    for _ in range(6):
        ambient.advance(seconds=GRACE_S + 1)
        there.upkeep()
        there.rest()
    assert here.texts(NAME) == ["old"]
    here.delete(NAME)
    assert tidy(store, ambient, there, lambda: uuid not in store.uuids())
    assert tidy(store, ambient, there, lambda: not store.names("v1/_catalog/deleted/"))


# --- expiry --------------------------------------------------------------------------------------


def test_what_has_expired_is_deleted_by_the_upkeep_of_who_knows_it(two, store, ambient):
    here, there = two
    made = here.create("shop", ttl=3_600)
    assert made["ttl_at"] == ambient.now_ms() + 3_600_000
    here.write("shop", "old")
    ambient.advance(seconds=3_600)
    for machine in two:
        with pytest.raises(DatabaseNotFound):
            machine.texts("shop")
    assert here.listed() == there.listed() == []
    assert not store.names("v1/_catalog/deleted/")
    there.upkeep()
    assert store.names("v1/_catalog/deleted/") == {f"v1/_catalog/deleted/{made['uuid']}"}
    assert here.node.catalog.refresh("shop").deleted_at == ambient.now_ms()
    assert tidy(store, ambient, there, lambda: made["uuid"] not in store.uuids())


def test_a_name_whose_time_has_run_out_can_be_used_again_at_once(two, ambient):
    here, there = two
    made = here.create("shop", ttl=10)
    here.write("shop", "old")
    with pytest.raises(AlreadyExists):
        there.create("shop")
    ambient.advance(seconds=10)
    with pytest.raises(DatabaseNotFound):
        here.delete("shop")
    again = there.create("shop")
    assert again["uuid"] != made["uuid"]
    assert "ttl_at" not in again
    there.write("shop", "new")
    assert here.texts("shop") == ["new"]
    here.upkeep()
    assert here.texts("shop") == ["new"]


def test_moved_on_is_said_only_of_what_was_deleted(two, store):
    here, there = two
    populated(here, there)
    entry, manifests = there.node.catalog.known(NAME), there.node.engine.manifests
    assert not deletion.moved_on(there.node.catalog, manifests, entry)
    here.delete(NAME)
    assert deletion.moved_on(there.node.catalog, manifests, entry)
    assert there.node.catalog.known(NAME) is None


def test_who_saw_no_manifest_before_the_fence_cannot_put_one_over_it(two):
    here, there = two
    uuid = here.create("shop")["uuid"]
    first = Manifest(
        db_uuid=uuid, branch=MAIN, epoch=1, head_txid=0, lineage="of there", write_id="", created_at=0, checkpoints={}
    )
    here.delete("shop")
    with pytest.raises(Unavailable):
        there.node.engine.manifests.create(first)


def a_turn(transaction: Transaction) -> None:
    transaction.connection.execute(
        "INSERT INTO __memoturn_turns (session_id, seq, role, content, created_at) VALUES ('s', 1, 'user', 'late', 0)"
    )


def test_an_owner_who_has_it_open_unwritten_cannot_begin_it_after_its_deletion(two, store):
    here, there = two
    ref = BranchRef(here.create("shop")["uuid"])
    there.node.engine.wake(ref).result()
    here.delete("shop")
    writing = there.node.engine.write(ref, a_turn, durable=True)
    with pytest.raises(Unavailable):
        writing.result()
    held = there.node.engine.manifests.read(ref)
    assert held is not None
    assert held.manifest.deleted_at is not None
    there.rest()
    with pytest.raises(DatabaseNotFound):
        there.texts("shop")
