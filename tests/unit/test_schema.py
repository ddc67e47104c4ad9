"""How a file gets its tables: born whole, read under a newer program, migrated by its first write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from memoturn_core.tables import SCHEMA as PROFILE
from memoturn_schemas.errors import Internal, InvalidRequest, Unavailable
from memoturn_storage.ambient import Ambient, ManualAmbient, SystemAmbient
from memoturn_storage.branching import Branching, Moment
from memoturn_storage.connection import PAGE_SIZE, open_database
from memoturn_storage.engine import Engine
from memoturn_storage.handle import Transaction
from memoturn_storage.leases.lease import OwnedElsewhere
from memoturn_storage.manifest import BranchRef
from memoturn_storage.schema import APPLICATION_ID, Schema
from unit.engines import WAIT, engine, files, put, run

V1 = Schema(("CREATE TABLE items (id INTEGER PRIMARY KEY, value);",))
V2 = Schema(
    (
        *V1.migrations,
        "ALTER TABLE items ADD COLUMN kind TEXT NOT NULL DEFAULT 'old'; CREATE INDEX items_kind ON items (kind);",
    )
)
V3 = Schema((*V2.migrations, "CREATE TABLE notes (text); INSERT INTO notes SELECT value || '!' FROM items;"))

CREATE_AND_WRITE = """
import sys
from pathlib import Path
from memoturn_storage.leases.lease import OwnedElsewhere
from memoturn_storage.manifest import BranchRef
from unit.engines import ITEMS, engine, put

with engine(Path(sys.argv[1]), schema=ITEMS, threads=0) as running:
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        try:
            running.write(BranchRef("aa"), put(sys.argv[2])).result()
            break
        except OwnedElsewhere:
            continue
"""


def inline(schema: Schema, directory: Path, ambient: Ambient | None = None) -> closing[Engine]:
    return engine(directory, schema=schema, ambient=ambient, threads=0)


def objects(connection: apsw.Connection) -> list[Any]:
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def look(path: Path, inspect: Callable[[apsw.Connection], Any]) -> Any:
    connection = apsw.Connection(str(path))
    try:
        return inspect(connection)
    finally:
        connection.close()


def version(path: Path) -> int:
    return look(path, lambda connection: connection.execute("PRAGMA user_version").get)


DATABASE = BranchRef("a")


def v1_file(directory: Path, *written: object) -> Path:
    """The file of `DATABASE` as an older program leaves it when it closes."""
    with inline(V1, directory) as engine:
        for value in written:
            engine.write(DATABASE, put(value)).result()
    return files(directory, DATABASE).database


def copied(directory: Path) -> Path:
    """A data directory as it would be found had the process that has it open been killed now."""
    copy = directory.with_name(f"{directory.name}-copy-{len(list(directory.parent.iterdir()))}")
    shutil.copytree(directory, copy)
    return copy


# --- an older file under a newer program ---------------------------------------------------------


def test_an_older_file_is_read_in_the_newer_schema_without_being_written(tmp_path: Path) -> None:
    path = v1_file(tmp_path, "one", "two")
    image = path.read_bytes()
    with inline(V3, tmp_path) as engine:
        for _ in range(2):
            result = engine.read(DATABASE, run("SELECT value, kind FROM items")).result()
            assert (result.value, result.txid) == ([("one", "old"), ("two", "old")], 2)
        assert engine.read(DATABASE, run("SELECT text FROM notes")).result().value == [("one!",), ("two!",)]
        assert path.read_bytes() == image
        log = files(tmp_path, DATABASE).wal
        assert not log.exists() or log.stat().st_size == 0
    assert path.read_bytes() == image
    assert version(path) == 1


def test_what_an_older_file_still_has_in_its_log_is_read_too(tmp_path: Path) -> None:
    with inline(V1, tmp_path / "data") as older:
        for number, value in enumerate(("one", "two"), 1):
            older.write(DATABASE, put(value)).result()
            copy = copied(tmp_path / "data")
            log = files(copy, DATABASE).wal
            image = log.read_bytes()
            assert len(image) > 0
            with inline(V2, copy) as newer:
                result = newer.read(DATABASE, run("SELECT value, kind FROM items")).result()
                assert (result.value, result.txid) == ([("one", "old"), ("two", "old")][:number], number)
                assert log.read_bytes() == image


def test_the_first_write_migrates_inside_its_transaction(tmp_path: Path) -> None:
    path = v1_file(tmp_path, "one")
    with inline(V3, tmp_path) as engine:
        assert engine.read(DATABASE, run("SELECT kind FROM items")).result().value == [("old",)]
        written = engine.write(DATABASE, run("INSERT INTO items (value, kind) VALUES ('two', 'new')")).result()
        assert written.txid == 2
        result = engine.read(DATABASE, run("SELECT value, kind FROM items")).result()
        assert (result.value, result.txid) == ([("one", "old"), ("two", "new")], 2)
        assert engine.read(DATABASE, run("SELECT text FROM notes")).result().value == [("one!",)]
    assert version(path) == 3


def test_a_first_write_that_fails_leaves_the_old_version(tmp_path: Path) -> None:
    path = v1_file(tmp_path, "one")
    image = path.read_bytes()

    def refuse(transaction: Transaction) -> None:
        transaction.connection.execute("INSERT INTO items (value, kind) VALUES ('two', 'new')")
        raise InvalidRequest("refused")

    with inline(V2, tmp_path) as engine:
        with pytest.raises(InvalidRequest, match="refused"):
            engine.write(DATABASE, refuse).result()
        assert engine.write(DATABASE, run("DELETE FROM items WHERE id = 99")).result().txid == 1
        assert engine.read(DATABASE, run("SELECT value, kind FROM items")).result().value == [("one", "old")]
    assert path.read_bytes() == image
    with inline(V1, tmp_path) as older:
        assert older.read(DATABASE, run("SELECT * FROM items")).result().value == [(1, "one")]


def test_a_migration_that_fails_changes_nothing_and_is_told_as_a_fault_of_ours(tmp_path: Path) -> None:
    path = v1_file(tmp_path, "one")
    image = path.read_bytes()
    broken = Schema((*V1.migrations, "CREATE TABLE half (x); INSERT INTO no_such_table VALUES (1);"))
    with inline(broken, tmp_path) as engine:
        for future in (engine.read(DATABASE, run("SELECT * FROM items")), engine.write(DATABASE, put("two"))):
            with pytest.raises(Internal):
                future.result()
    assert path.read_bytes() == image


def test_a_file_that_a_rewind_made_old_again_is_read_and_migrated_again(tmp_path: Path) -> None:
    path = v1_file(tmp_path, "one")
    with inline(V2, tmp_path) as engine:
        for kind in ("first time", "second time"):
            assert engine.read(DATABASE, run("SELECT value, kind FROM items")).result().value == [("one", "old")]
            engine.write(DATABASE, run(f"INSERT INTO items (value, kind) VALUES ('two', '{kind}')")).result()
            rows = engine.read(DATABASE, run("SELECT value, kind FROM items")).result()
            assert (rows.value, rows.txid) == ([("one", "old"), ("two", kind)], 2)
            assert version(path) == 2
            Branching(engine, SystemAmbient()).rewind(DATABASE, Moment(txid=1))
        assert engine.read(DATABASE, run("SELECT value, kind FROM items")).result().value == [("one", "old")]
        assert version(path) == 1
        assert engine.write(DATABASE, put("three")).result().txid == 2
        assert engine.read(DATABASE, run("SELECT value FROM items")).result().value == [("one",), ("three",)]
        assert version(path) == 2


def test_an_older_program_gets_back_a_file_that_a_newer_one_migrated_and_refuses_it(tmp_path: Path) -> None:
    v1_file(tmp_path, "one")
    ambient = ManualAmbient()
    with inline(V1, tmp_path, ambient) as older:
        assert older.read(DATABASE, run("SELECT value FROM items")).result().value == [("one",)]
        with inline(V2, tmp_path) as newer:
            assert isinstance(newer.write(DATABASE, put("two")).exception(), OwnedElsewhere)
            ambient.advance(seconds=60)
            older.run_due()
            assert newer.write(DATABASE, put("two")).result().txid == 2
        for future in (older.read(DATABASE, run("SELECT value FROM items")), older.write(DATABASE, put("three"))):
            with pytest.raises(Unavailable, match="upgrade Memoturn"):
                future.result()
        with inline(V2, copied(tmp_path)) as newer:
            assert newer.read(DATABASE, run("SELECT value FROM items")).result().value == [("one",), ("two",)]


# --- birth ---------------------------------------------------------------------------------------


def test_threads_that_race_to_make_a_file_leave_one_whole_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "aa" / "main.db"
    count = 8
    start = threading.Barrier(count)
    failures: list[BaseException] = []

    def make() -> None:
        start.wait(WAIT)
        try:
            V2.create(path, SystemAmbient())
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert failures == []
    assert [entry.name for entry in path.parent.iterdir()] == ["main.db"]
    assert path.read_bytes() == V2.template


def test_a_file_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    path = v1_file(tmp_path, "one")
    image = path.read_bytes()
    V1.create(path, SystemAmbient())
    assert path.read_bytes() == image
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["lease", "main.db", "main.json"]


def test_processes_that_race_to_make_a_file_all_write_into_the_same_one(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE_AND_WRITE, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        for number in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        _, complaint = racer.communicate(timeout=WAIT)
        assert (racer.returncode, complaint) == (0, "")
    with inline(V1, tmp_path) as engine:
        result = engine.read(BranchRef("aa"), run("SELECT value FROM items ORDER BY value")).result()
    assert (result.value, result.txid) == ([("0",), ("1",), ("2",), ("3",)], 4)
    assert [path.name for path in tmp_path.rglob("*.db*")] == ["main.db"]


@pytest.mark.parametrize("schema", [V1, V2, V3, PROFILE], ids=["v1", "v2", "v3", "profile"])
def test_a_new_file_says_what_it_is_and_is_in_wal_mode_with_small_pages(tmp_path: Path, schema: Schema) -> None:
    path = tmp_path / "main.db"
    schema.create(path, SystemAmbient())
    image = path.read_bytes()
    assert image[18:20] == b"\x02\x02", "born in WAL mode: no statement is needed to switch it over"
    connection = open_database(path)
    try:
        expected = {
            "application_id": APPLICATION_ID,
            "page_size": PAGE_SIZE,
            "journal_mode": "wal",
            "user_version": schema.version,
            "wal_autocheckpoint": 0,
            "integrity_check": "ok",
        }
        assert {name: connection.execute(f"PRAGMA {name}").get for name in expected} == expected
        assert connection.execute("SELECT txid FROM __memoturn_txid").fetchall() == [(0,)]
    finally:
        connection.close()
    assert path.read_bytes() == image
    assert (APPLICATION_ID.to_bytes(4, "big"), PAGE_SIZE) == (b"MTRN", 1_024)


def test_a_migrated_file_has_the_same_objects_as_a_new_one(tmp_path: Path) -> None:
    path = v1_file(tmp_path, "one")
    with inline(V3, tmp_path) as engine:
        engine.write(DATABASE, put("two")).result()
    V3.create(tmp_path / "new.db", SystemAmbient())
    assert look(path, objects) == look(tmp_path / "new.db", objects)
    assert version(path) == version(tmp_path / "new.db") == 3


def test_a_file_without_a_transaction_id_is_refused_as_not_ours(tmp_path: Path) -> None:
    path = v1_file(tmp_path, "one")
    look(path, lambda connection: connection.execute("DELETE FROM __memoturn_txid"))
    with inline(V1, tmp_path) as engine:
        for future in (engine.read(DATABASE, run("SELECT 1")), engine.write(DATABASE, put("two"))):
            with pytest.raises(Internal, match="not made by Memoturn"):
                future.result()
    assert look(path, lambda connection: connection.execute("SELECT value FROM items").fetchall()) == [("one",)]
