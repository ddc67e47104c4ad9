"""How a file gets its tables: born whole, read under a newer program, migrated by its first write."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from memoturn_core.memory.tables import SCHEMA as PROFILE
from memoturn_schemas.errors import Internal, InvalidRequest
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import PAGE_SIZE, open_database
from memoturn_storage.engine import Engine
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.manifest import BranchRef
from memoturn_storage.schema import APPLICATION_ID, Schema

V1 = Schema(("CREATE TABLE items (id INTEGER PRIMARY KEY, value);",))
V2 = Schema(
    (
        *V1.migrations,
        "ALTER TABLE items ADD COLUMN kind TEXT NOT NULL DEFAULT 'old'; CREATE INDEX items_kind ON items (kind);",
    )
)
V3 = Schema((*V2.migrations, "CREATE TABLE notes (text); INSERT INTO notes SELECT value || '!' FROM items;"))
WAIT = 20

CREATE_AND_WRITE = """
import sys
from pathlib import Path
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.engine import Engine
from memoturn_storage.schema import Schema

schema = Schema(("CREATE TABLE items (id INTEGER PRIMARY KEY, value);",))
engine = Engine(schema, SystemAmbient(), threads=0)
print("ready", flush=True)
sys.stdin.readline()
def put(transaction):
    transaction.connection.execute("INSERT INTO items (value) VALUES (?)", (sys.argv[2],))

engine.write(Database("aa/main", Path(sys.argv[1])), put).result()
engine.close()
"""


def inline(schema: Schema, **options: Any) -> closing[Engine]:
    return closing(Engine(schema, SystemAmbient(), threads=0, **options))


def put(value: object) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        transaction.connection.execute("INSERT INTO items (value) VALUES (?)", (value,))

    return work


def run(sql: str) -> Callable[[Transaction | Snapshot], list[Any]]:
    return lambda state: state.connection.execute(sql).fetchall()


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


def v1_file(directory: Path, *written: object) -> Database:
    database = BranchRef("a")
    with inline(V1, tmp_path) as engine:
        for value in written:
            engine.write(database, put(value)).result()
    return database


# --- an older file under a newer program ---------------------------------------------------------


def test_an_older_file_is_read_in_the_newer_schema_without_being_written(tmp_path: Path) -> None:
    database = v1_file(tmp_path, "one", "two")
    image = database.path.read_bytes()
    with inline(V3, tmp_path) as engine:
        for _ in range(2):
            result = engine.read(database, run("SELECT value, kind FROM items")).result()
            assert (result.value, result.txid) == ([("one", "old"), ("two", "old")], 2)
        assert engine.read(database, run("SELECT text FROM notes")).result().value == [("one!",), ("two!",)]
        assert database.path.read_bytes() == image
        log = tmp_path / "a.db-wal"
        assert not log.exists() or log.stat().st_size == 0
    assert database.path.read_bytes() == image
    assert version(database.path) == 1


def test_what_an_older_file_still_has_in_its_log_is_read_too(tmp_path: Path) -> None:
    database = BranchRef("a")
    with inline(V1, tmp_path) as older, inline(V2, tmp_path) as newer:
        older.write(database, put("one")).result()
        log = (tmp_path / "a.db-wal").read_bytes()
        assert len(log) > 0
        assert newer.read(database, run("SELECT value, kind FROM items")).result().value == [("one", "old")]
        older.write(database, put("two")).result()
        result = newer.read(database, run("SELECT value, kind FROM items")).result()
        assert (result.value, result.txid) == ([("one", "old"), ("two", "old")], 2)
        assert (tmp_path / "a.db-wal").read_bytes()[: len(log)] == log


def test_the_first_write_migrates_inside_its_transaction(tmp_path: Path) -> None:
    database = v1_file(tmp_path, "one")
    with inline(V3, tmp_path) as engine:
        assert engine.read(database, run("SELECT kind FROM items")).result().value == [("old",)]
        written = engine.write(database, run("INSERT INTO items (value, kind) VALUES ('two', 'new')")).result()
        assert written.txid == 2
        result = engine.read(database, run("SELECT value, kind FROM items")).result()
        assert (result.value, result.txid) == ([("one", "old"), ("two", "new")], 2)
        assert engine.read(database, run("SELECT text FROM notes")).result().value == [("one!",)]
    assert version(database.path) == 3


def test_a_first_write_that_fails_leaves_the_old_version(tmp_path: Path) -> None:
    database = v1_file(tmp_path, "one")
    image = database.path.read_bytes()

    def refuse(transaction: Transaction) -> None:
        transaction.connection.execute("INSERT INTO items (value, kind) VALUES ('two', 'new')")
        raise InvalidRequest("refused")

    with inline(V2, tmp_path) as engine:
        with pytest.raises(InvalidRequest, match="refused"):
            engine.write(database, refuse).result()
        assert engine.write(database, run("DELETE FROM items WHERE id = 99")).result().txid == 1
        assert engine.read(database, run("SELECT value, kind FROM items")).result().value == [("one", "old")]
    assert database.path.read_bytes() == image
    with inline(V1, tmp_path) as older:
        assert older.read(database, run("SELECT * FROM items")).result().value == [(1, "one")]


def test_a_migration_that_fails_changes_nothing_and_is_told_as_a_fault_of_ours(tmp_path: Path) -> None:
    database = v1_file(tmp_path, "one")
    image = database.path.read_bytes()
    broken = Schema((*V1.migrations, "CREATE TABLE half (x); INSERT INTO no_such_table VALUES (1);"))
    with inline(broken, tmp_path) as engine:
        for future in (engine.read(database, run("SELECT * FROM items")), engine.write(database, put("two"))):
            with pytest.raises(Internal):
                future.result()
    assert database.path.read_bytes() == image


def test_a_file_that_a_rewind_made_old_again_is_read_and_migrated_again(tmp_path: Path) -> None:
    database, other = v1_file(tmp_path, "one"), BranchRef("other")
    old_image = database.path.read_bytes()
    with inline(V2, tmp_path, hot_cap=1) as engine:
        for kind in ("first time", "second time"):
            assert engine.read(database, run("SELECT value, kind FROM items")).result().value == [("one", "old")]
            engine.write(database, run(f"INSERT INTO items (value, kind) VALUES ('two', '{kind}')")).result()
            rows = engine.read(database, run("SELECT value, kind FROM items")).result()
            assert (rows.value, rows.txid) == ([("one", "old"), ("two", kind)], 2)
            engine.write(other, put("takes the only place, so that the file is closed")).result()
            assert version(database.path) == 2
            database.path.write_bytes(old_image)
        assert version(database.path) == 1
        assert engine.write(database, put("three")).result().txid == 2
        assert engine.read(database, run("SELECT value FROM items")).result().value == [("one",), ("three",)]


def test_a_newer_program_migrates_under_an_older_one_which_then_refuses(tmp_path: Path) -> None:
    database = v1_file(tmp_path, "one")
    with inline(V1, tmp_path) as older, inline(V2, tmp_path) as newer:
        assert older.read(database, run("SELECT value FROM items")).result().value == [("one",)]
        newer.write(database, put("two")).result()
        for future in (older.read(database, run("SELECT value FROM items")), older.write(database, put("three"))):
            assert getattr(future.exception(), "code", None) == "unavailable"
        assert newer.read(database, run("SELECT value FROM items")).result().value == [("one",), ("two",)]


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
    database = v1_file(tmp_path, "one")
    image = database.path.read_bytes()
    V1.create(database.path, SystemAmbient())
    assert database.path.read_bytes() == image
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.db"]


def test_processes_that_race_to_make_a_file_all_write_into_the_same_one(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE_AND_WRITE, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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
    assert [entry.name for entry in (tmp_path / "aa").iterdir()] == ["main.db"]


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
    database = v1_file(tmp_path, "one")
    with inline(V3, tmp_path) as engine:
        engine.write(database, put("two")).result()
    V3.create(tmp_path / "new.db", SystemAmbient())
    assert look(database.path, objects) == look(tmp_path / "new.db", objects)
    assert version(database.path) == version(tmp_path / "new.db") == 3


def test_a_file_without_a_transaction_id_is_refused_as_not_ours(tmp_path: Path) -> None:
    database = v1_file(tmp_path, "one")
    look(database.path, lambda connection: connection.execute("DELETE FROM __memoturn_txid"))
    with inline(V1, tmp_path) as engine:
        for future in (engine.read(database, run("SELECT 1")), engine.write(database, put("two"))):
            with pytest.raises(Internal, match="not made by Memoturn"):
                future.result()
    assert look(database.path, lambda connection: connection.execute("SELECT value FROM items").fetchall()) == [
        ("one",)
    ]
