"""The catalogue: names, their index on this machine, and what it learns of other machines."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier

import apsw
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_schemas.errors import AlreadyExists, Internal
from memoturn_storage.ambient import ManualAmbient, SystemAmbient
from memoturn_storage.catalog import LEARN_EVERY_S, Catalog
from memoturn_storage.catalog_index import SCHEMA
from memoturn_storage.entries import NAMES_PREFIX, Entry
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectStore, PreconditionFailed, StoreUnavailable
from memoturn_storage.schema import Schema
from objects.faulty import Faults, FaultyStore


@pytest.fixture
def ambient() -> ManualAmbient:
    return ManualAmbient()


@pytest.fixture
def store(ambient: ManualAmbient) -> MemoryStore:
    return MemoryStore(ambient)


@contextmanager
def machines(directory: Path, store: ObjectStore, ambient: ManualAmbient, count: int = 2) -> Iterator[list[Catalog]]:
    """Catalogues with indexes of their own on one object store."""
    made = [Catalog(directory / str(number), store, ambient) for number in range(count)]
    try:
        yield made
    finally:
        for catalog in made:
            catalog.close()


# --- one name ------------------------------------------------------------------------------------


def test_item_116_of_racing_creates_one_makes_it_and_all_have_one_uuid(tmp_path, ambient):
    store = FileStore(tmp_path / "objects", SystemAmbient(), sync=False)
    with machines(tmp_path, store, ambient, 4) as catalogs, ThreadPoolExecutor(16) as threads:
        for name in ("one", "two", "three"):
            together = Barrier(16)

            def create(catalog: Catalog, name: str = name, together: Barrier = together) -> str | None:
                together.wait(20)
                try:
                    return catalog.create_new(name).uuid
                except AlreadyExists:
                    return None

            made = [uuid for uuid in threads.map(create, catalogs * 4) if uuid is not None]
            assert len(made) == 1
            for catalog in catalogs:
                found = catalog.find(name)
                assert found is not None
                assert found.uuid == made[0]


def test_item_117_a_deleted_name_is_used_again_with_a_fresh_uuid_wherever_it_was_known(tmp_path, store, ambient):
    with machines(tmp_path, store, ambient) as (here, there):
        old = here.create("shop")
        assert there.find("shop") == old
        ambient.advance(seconds=10)
        deleted_at = ambient.now_ms()
        assert here.bury(old).deleted_at == deleted_at
        assert here.find("shop") is None
        assert there.known("shop") == old, "nobody has told it"
        ambient.advance(seconds=10)
        new = here.create_new("shop")
        assert (new.uuid != old.uuid, new.deleted_at) == (True, deleted_at)
        assert there.refresh("shop") == there.known("shop") == new
        assert there.deleted_at("shop") == here.deleted_at("shop") == deleted_at
        assert there.bury(old) == new, "to delete the old one again leaves the new one alone"


def test_item_136_when_a_name_was_deleted_is_known_on_a_fresh_disk_and_never_goes_back(tmp_path, store, ambient):
    with machines(tmp_path, store, ambient, 3) as (first, second, third):
        for catalog in (first, second):
            ambient.advance(seconds=100)
            catalog.bury(catalog.create("shop"))
        last = ambient.now_ms()
        assert third.deleted_at("shop") is None
        assert third.find("shop") is None
        assert third.deleted_at("shop") == last
        ambient._elapsed_ms -= 50_000  # a machine whose clock is behind
        first.refresh("shop")
        first.bury(first.create("shop"))
        assert first.deleted_at("shop") == last
    assert Entry.decode(store.get(f"{NAMES_PREFIX}shop").data, f"{NAMES_PREFIX}shop").deleted_at == last


def test_an_older_entry_never_replaces_a_newer_one(tmp_path, store, ambient):
    with machines(tmp_path, store, ambient, 1) as [catalog]:
        old = catalog.create("shop")
        catalog.bury(old)
        new = catalog.create("shop")
        assert catalog._adopt(old) == new
        assert catalog.known("shop") == new
        assert catalog.gone(old.uuid)
        assert not catalog.gone(new.uuid)


class Lost(MemoryStore):
    """A conditional write has its effect and says that it has none, and another machine acts before it is looked at."""

    def __init__(self, ambient: ManualAmbient) -> None:
        super().__init__(ambient)
        self.meanwhile = lambda: None

    def put_if_absent(self, key: str, data: bytes) -> str:
        super().put_if_absent(key, data)
        self.meanwhile()
        raise PreconditionFailed(key)


def test_a_creation_whose_answer_was_lost_is_ours(tmp_path, ambient):
    with machines(tmp_path, Lost(ambient), ambient) as (catalog, _):
        entry = catalog.create_new("shop")
        assert catalog.refresh("shop") == entry


def test_a_database_that_was_deleted_before_its_creation_was_answered_stays_deleted(tmp_path, ambient):
    store = Lost(ambient)
    with machines(tmp_path, store, ambient) as (here, there):
        store.meanwhile = lambda: there.bury(there.refresh("shop"))
        made = here.create_new("shop")
        assert not made.live
        assert here.refresh("shop") == there.refresh("shop") == made


def test_a_uuid_that_was_deleted_before_its_creation_was_answered_is_not_used_again(tmp_path, ambient):
    store = Lost(ambient)
    with machines(tmp_path, store, ambient) as (here, there):

        def deleted_used_and_deleted() -> None:
            store.meanwhile = lambda: None
            entry = there.refresh("shop")
            assert entry is not None
            used.append(entry.uuid)
            there.bury(entry)
            used.append(there.create("shop").uuid)
            there.bury(Entry("shop", used[-1], 0))

        used: list[str] = []
        store.meanwhile = deleted_used_and_deleted
        assert here.create_new("shop").uuid not in used


@pytest.mark.parametrize("seed", range(12))
def test_a_creation_or_deletion_that_fails_can_be_repeated_until_it_is_done(tmp_path, store, ambient, seed):
    faulty = FaultyStore(store, random.Random(seed), Faults(before=0.3, after=0.3, lost=0.3))
    with machines(tmp_path, faulty, ambient, 1) as [catalog]:

        def until_done(work):
            for _ in range(1_000):
                try:
                    return work()
                except (StoreUnavailable, AlreadyExists):
                    continue
            raise AssertionError

        for _ in range(4):
            entry = until_done(lambda: catalog.create("shop"))
            assert catalog.find("shop") == entry
            assert not until_done(lambda entry=entry: catalog.bury(entry)).live
            assert catalog.known("shop") is None


def test_a_name_of_which_the_store_has_no_object_is_never_taken_for_deleted(tmp_path, store, ambient):
    with machines(tmp_path, store, ambient, 1) as [catalog]:
        entry = catalog.create("shop")
        store.delete(f"{NAMES_PREFIX}shop")
        assert catalog.refresh("shop") == entry
        tombstone = catalog.bury(entry)
        assert not tombstone.live
        assert Entry.decode(store.get(f"{NAMES_PREFIX}shop").data, f"{NAMES_PREFIX}shop") == tombstone


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{}",
        b'{"name":"other","uuid":"' + b"0" * 32 + b'","created_at":1}',
        b'{"name":"shop","uuid":"' + b"0" * 32 + b'","created_at":1,"deleted_at":"yesterday"}',
        b'{"name":"shop","uuid":"' + b"0" * 32 + b'","created_at":1,"live":"yes"}',
        b'{"name":"shop","uuid":"' + b"0" * 32 + b'","created_at":1,"durability":"eternal"}',
        b'{"name":"shop","uuid":"' + b"0" * 32 + b'","created_at":1,"of a newer program":1}',
    ],
)
def test_a_damaged_entry_is_an_error_that_names_it_and_is_not_written_over(tmp_path, store, ambient, damage):
    store.put(f"{NAMES_PREFIX}shop", damage)
    with machines(tmp_path, store, ambient, 1) as [catalog]:
        for ask in (catalog.find, catalog.create, catalog.create_new):
            with pytest.raises(Internal, match=f"{NAMES_PREFIX}shop"):
                ask("shop")
    assert store.get(f"{NAMES_PREFIX}shop").data == damage


def test_a_damaged_entry_is_left_out_of_lists_and_stops_nothing_else(tmp_path, store, ambient):
    with machines(tmp_path, store, ambient) as (here, there):
        kept, harmed = here.create("kept"), here.create("harmed")
        store.put(f"{NAMES_PREFIX}harmed", b"{")
        assert there.page("", 9) == [kept]
        assert here.page("", 9) == [harmed, kept], "what is known stays known"
        with pytest.raises(Internal, match="harmed"):
            there.find("harmed")


def test_an_entry_of_an_older_program_is_read(tmp_path, store, ambient):
    body = {"name": "shop", "uuid": "0" * 32, "created_at": 5}
    store.put(f"{NAMES_PREFIX}shop", orjson.dumps(body))
    with machines(tmp_path, store, ambient, 1) as [catalog]:
        entry = catalog.find("shop")
        assert entry == Entry("shop", "0" * 32, 5)
        assert not catalog.bury(entry).live


# --- expiry --------------------------------------------------------------------------------------


def test_a_database_is_not_found_from_its_end_on_and_is_then_due(tmp_path, store, ambient):
    with machines(tmp_path, store, ambient) as (here, there):
        entry = here.create_new("shop", ttl_ms=5_000)
        assert there.find("shop") == entry
        ambient.advance(seconds=4.999)
        for catalog in (here, there):
            assert catalog.find("shop") == entry
            assert catalog.page("", 9) == [entry]
            assert catalog.due() == []
        ambient.advance(seconds=0.001)
        for catalog in (here, there):
            assert catalog.known("shop") is None
            assert catalog.find("shop") is None
            assert catalog.page("", 9) == catalog.with_prefix("") == []
            assert catalog.due() == [entry]
        with pytest.raises(AlreadyExists):
            here.create_new("shop")  # whoever wants to must delete it first
        here.bury(entry)
        assert here.due() == []


# --- many names ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pages_neither_skip_nor_repeat_what_stays_whatever_comes_and_goes(data):
    ambient = ManualAmbient()
    names = st.text("ab0_", min_size=1, max_size=3)
    pages = st.integers(1, 4)
    with TemporaryDirectory() as directory, closing(Catalog(Path(directory), MemoryStore(ambient), ambient)) as catalog:
        staying = data.draw(st.sets(names, max_size=12))
        for name in staying:
            catalog.create(name)
        passing: set[str] = set()
        found, after = [], ""
        while page := catalog.page(after, data.draw(pages)):
            found += [entry.name for entry in page]
            after = page[-1].name
            for name in data.draw(st.sets(names, max_size=3)) - staying:
                if name in passing:
                    catalog.bury(catalog.create(name))
                else:
                    catalog.create(name)
                passing ^= {name}
        assert found == sorted(set(found))
        assert staying <= set(found)


def test_what_other_machines_make_and_delete_is_learnt_by_the_next_listing(tmp_path, store, ambient):
    with machines(tmp_path, store, ambient) as (here, there):
        made = [there.create(f"shop{number:03}") for number in range(40)]
        assert here.page("", 100) == made, "a fresh index asks"
        there.bury(made[0])
        again = there.create(made[0].name)
        there.bury(made[1])
        new = there.create("another")
        here.learn()
        assert here.page("", 100) == made, "not before some seconds have gone by"
        ambient.advance(seconds=LEARN_EVERY_S)
        here.learn()
        assert here.page("", 100) == [new, again, *made[2:]]
        assert here.deleted_at(made[1].name) is not None


def test_a_listing_reads_only_the_names_that_have_changed(tmp_path, ambient):
    reads: list[str] = []

    class Counting(MemoryStore):
        def get(self, key):
            reads.append(key)
            return super().get(key)

    with machines(tmp_path, Counting(ambient), ambient) as (here, there):
        for number in range(30):
            there.create(f"shop{number}")
        for _ in range(2):  # changes of the last seconds cannot be told from those that follow
            ambient.advance(seconds=LEARN_EVERY_S)
            here.learn()
        reads.clear()
        ambient.advance(seconds=LEARN_EVERY_S)
        here.learn()
        assert reads == []
        there.bury(there.create("shop7"))
        reads.clear()
        ambient.advance(seconds=LEARN_EVERY_S)
        here.learn()
        assert reads == [f"{NAMES_PREFIX}shop7"]
        assert here.known("shop7") is None


def test_a_listing_that_breaks_off_is_taken_up_again(tmp_path, store, ambient):
    with machines(tmp_path, store, ambient, 1) as [there]:
        names = {there.create(f"shop{number}").name for number in range(20)}
    faulty = FaultyStore(store, random.Random(1), {"list": Faults(after=1.0)})
    with closing(Catalog(tmp_path / "new", faulty, ambient)) as here:
        with pytest.raises(StoreUnavailable):
            here.page("", 100)
        faulty._faults = Faults()
        assert {entry.name for entry in here.page("", 100)} == names


@pytest.mark.parametrize("harm", ["removed", "emptied"])
def test_item_105_the_index_is_rebuilt_from_the_object_store(tmp_path, store, ambient, harm):
    with machines(tmp_path, store, ambient, 1) as [catalog]:
        kept, deleted = catalog.create("kept"), catalog.create("deleted")
        ttl = catalog.create_new("ttl", ttl_ms=9_000, durability="durable")
        tombstone = catalog.bury(deleted)
    index = tmp_path / "0" / "catalog.db"
    for path in (index, index.with_name("catalog.db-wal"), index.with_name("catalog.db-shm")):
        path.unlink(missing_ok=True)
    if harm == "emptied":
        SCHEMA.create(index, ambient)
    with machines(tmp_path, store, ambient, 1) as [catalog]:
        assert catalog.page("", 9) == [kept, ttl]
        assert catalog.deleted_at("deleted") == tombstone.deleted_at
        ambient.advance(seconds=9)
        assert catalog.due() == [ttl]


def test_an_index_of_an_older_program_is_taken_over_by_whoever_opens_it_first(tmp_path, store, ambient):
    old = Schema(SCHEMA.migrations[:2])
    old.create(tmp_path / "catalog.db", ambient)
    with closing(apsw.Connection(str(tmp_path / "catalog.db"))) as index:
        index.execute("INSERT INTO databases VALUES ('shop', ?, 5)", ("0" * 32,))
    together = Barrier(8)

    def opened(_: int) -> Entry | None:
        together.wait(20)
        with closing(Catalog(tmp_path, store, ambient)) as catalog:
            return catalog.known("shop")

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(opened, range(8))) == {Entry("shop", "0" * 32, 5)}
    with closing(Catalog(tmp_path, store, ambient)) as catalog:
        assert catalog.page("", 9) == [Entry("shop", "0" * 32, 5)]
    assert store.get(f"{NAMES_PREFIX}shop"), "and tells the store of what only it knew"
