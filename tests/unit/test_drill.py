"""The restore drill: what would come back is whole, or the result says what is wrong; it never raises for it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import apsw
import pytest

from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.connection import PAGE_SIZE
from memoturn_storage.drill import Drill
from memoturn_storage.formats.checksums import PageChecksums
from memoturn_storage.formats.ltx import encode
from memoturn_storage.manifest import MAIN as MAIN_BRANCH
from memoturn_storage.manifest import BranchRef, Position, Snapshot, snapshot_key
from memoturn_storage.manifests import Manifests
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectStore
from memoturn_storage.restore import Restorer
from memoturn_storage.tail import snapshot_file
from objects.faulty import Faults, FaultyStore
from unit.histories import MAIN, UUID, manifest

AMBIENT = ManualAmbient()
NOTES = """
    CREATE TABLE notes (id INTEGER PRIMARY KEY, text);
    CREATE VIRTUAL TABLE "the notes'" USING fts5(text, content='notes', content_rowid='id');
    CREATE VIRTUAL TABLE own USING "FTS5"(text);
    CREATE VIRTUAL TABLE boxes USING rtree(id, low, high);
    INSERT INTO notes (text) VALUES ('one two'), ('two three');
    INSERT INTO "the notes'" (rowid, text) SELECT id, text FROM notes;
    INSERT INTO own (text) VALUES ('four');
"""


def image(*statements: str) -> bytes:
    connection = apsw.Connection(":memory:")
    connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
    connection.execute(NOTES)
    for statement in statements:
        connection.execute(statement)
    return connection.serialize("main")


def stored(state: bytes) -> MemoryStore:
    """A store with a branch whose one snapshot is this file."""
    store = MemoryStore(AMBIENT)
    end = Position(1, 1, PageChecksums.of_image(state, PAGE_SIZE).rolling)
    data = encode(snapshot_file(state, PAGE_SIZE, end))
    snapshot = Snapshot(1, snapshot_key(UUID, 1, 1, "n"), len(data), 1, end.checksum)
    store.put(snapshot.key, data)
    Manifests(store, AMBIENT).create(manifest().rebased(snapshot, epoch=1, lineage="first"))
    return store


def drill(store: ObjectStore) -> Drill:
    return Drill(Manifests(store, AMBIENT), Restorer(store), AMBIENT)


def test_a_whole_database_passes_with_its_size_and_txid() -> None:
    state = image()
    result = drill(stored(state)).run(MAIN)
    assert (result.ok, result.problem, result.txid, result.bytes) == (True, None, 1, len(state))


def test_a_branch_that_nobody_wrote_to_passes() -> None:
    store = MemoryStore(AMBIENT)
    Manifests(store, AMBIENT).create(manifest())
    assert drill(store).run(MAIN).ok


def test_a_missing_or_damaged_object_is_a_failed_drill_that_names_it() -> None:
    for harm in (lambda store, key: store.delete(key), lambda store, key: store.put(key, b"x")):
        store = stored(image())
        held = Manifests(store, AMBIENT).require(MAIN)
        (key,) = held.manifest.keys()
        harm(store, key)
        result = drill(store).run(MAIN)
        assert result.ok is False
        assert key in str(result.problem)


def test_a_damaged_manifest_is_a_failed_drill() -> None:
    store = stored(image())
    store.put(MAIN.manifest_key, b"{")
    result = drill(store).run(MAIN)
    assert result.ok is False
    assert MAIN.manifest_key in str(result.problem)


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM own_data WHERE id > 10",
        "UPDATE own_data SET block = zeroblob(40) WHERE id > 10",
        'DELETE FROM "the notes\'_data" WHERE id > 10',
        "UPDATE own_docsize SET id = 9",
    ],
)
def test_a_full_text_index_that_does_not_hold_together_is_a_failed_drill(harm: str) -> None:
    result = drill(stored(image(harm))).run(MAIN)
    assert result.ok is False
    assert MAIN_BRANCH in str(result.problem)


def test_a_file_whose_pages_sqlite_cannot_read_is_a_failed_drill() -> None:
    state = image()
    for position in (0, PAGE_SIZE, 2 * PAGE_SIZE):
        harmed = state[:position] + b"\xff" * 64 + state[position + 64 :]
        result = drill(stored(harmed)).run(MAIN)
        assert result.ok is False
        assert "damaged" in str(result.problem)


def test_where_the_store_does_not_answer_or_the_branch_is_gone_nothing_is_found_out() -> None:
    store = stored(image())
    cases: list[Callable[[], Drill]] = [
        lambda: drill(FaultyStore(store, Random(0), Faults(before=1.0))),
        lambda: Drill(Manifests(store, AMBIENT), Restorer(FaultyStore(store, Random(0), Faults(after=1.0))), AMBIENT),
    ]
    for case in cases:
        result = case().run(MAIN)
        assert result.ok is None
        assert result.problem
    assert drill(store).run(BranchRef(UUID, "gone")).ok is None
