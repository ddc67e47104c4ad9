"""Backup of a database's file and restore from it, by their routes: whole or not at all, whatever the file."""

from __future__ import annotations

import base64
import itertools
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.branches import KeptStore, fork, on, rewind, sync
from contract.live_node import Live, Memory, event, fact, serve
from contract.portability import (
    act,
    assert_refused,
    assert_sound,
    backed_up,
    digests,
    exported,
    killed,
    restore,
    sql,
    take_all,
    whole_episodes,
)
from memoturn_core.portability import images
from memoturn_core.tables import SCHEMA
from memoturn_storage.ambient import ManualAmbient

# --- backup --------------------------------------------------------------------------------------


def test_a_backup_is_exactly_one_transaction_while_a_writer_writes(live: Live, tmp_path: Path) -> None:
    memory = live.memory()
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count(1):
            sql(
                memory,
                "CREATE TABLE IF NOT EXISTS t (n)",
                f"INSERT INTO t VALUES ({number})",
                "CREATE TABLE IF NOT EXISTS u (n)",
                f"INSERT INTO u SELECT zeroblob(4000) || {number}",
            )
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    try:
        while not memory.exists:
            pass
        for number in range(12):
            data, txid = backed_up(memory)
            path = tmp_path / f"{number}.db"
            path.write_bytes(data)
            with images.opened(path) as connection:
                images.check(connection)
                found = connection.execute(
                    "SELECT (SELECT txid FROM __memoturn_txid), count(*), max(n) FROM t"
                ).fetchone()
                assert found == (txid, txid, txid)
                assert connection.execute("SELECT count(*) FROM u").get == txid
            seen.append(txid)
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


# --- restore -------------------------------------------------------------------------------------


def test_what_is_there_is_replaced_only_when_asked_and_can_be_gone_back_to(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    memory.keep(event("kept"), fact("user.city", "Lives in Oslo", embedding=[1.0, 2.0]))
    whole_episodes(memory)
    sql(
        memory,
        "CREATE TABLE t (a)",
        "INSERT INTO t VALUES (1)",
        "CREATE INDEX i ON t (a)",
        "CREATE VIEW v AS SELECT a FROM t",
    )
    act(memory, "POST", "/docs/c/insert", {"docs": [{"x": 1}]})
    act(memory, "POST", "/docs/c/indexes", {"path": "x"})
    data, _ = backed_up(memory)
    other.keep(event("before"))
    sql(
        other,
        "CREATE TABLE t (b)",
        "CREATE TABLE gone (id INTEGER PRIMARY KEY REFERENCES t (b))",
        "CREATE VIEW v AS SELECT b FROM t",
    )
    act(other, "POST", "/docs/d/insert", {"docs": [{"y": 1}]})
    before, txid = digests(live, other), other.txid
    refusal = restore(other, data)
    assert (refusal.status_code, refusal.json()["code"]) == (409, "already_exists")
    assert (digests(live, other), other.txid) == (before, txid)
    done = restore(other, data, part=10_000, replace=True)
    assert done.status_code == 200, done.text
    assert done.json()["txid"] == txid + 1
    assert done.json()["rows"]["t"] == 1
    assert digests(live, other) == digests(live, memory)
    assert exported(other) == exported(memory)
    assert_sound(live, other)
    other.keep(event("afterwards"))
    rewind(other, txid)
    assert digests(live, other) == before
    assert list((live.node.directory / "copies").glob("*")) == []


def test_a_restored_database_is_in_the_object_store_and_opens_on_another_machine(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    with serve(tmp_path / "one", ambient=ambient, store=store) as one:
        memory = Memory(one.http, "acme", "ann")
        memory.keep(*(event(f"memory {number}", embedding=[float(number), 1.0]) for number in range(300)))
        data, _ = backed_up(memory)
        other = Memory(one.http, "acme", "bob")
        other.keep(event("before"))
        restore(other, data, replace=True)
        sync(other)
        wanted = digests(one, other)
        assert wanted == digests(one, memory)
    with serve(tmp_path / "two", ambient=ambient, store=store) as two:
        elsewhere = Memory(two.http, "acme", "bob")
        assert Counter(each["kind"] for each in exported(elsewhere)) == {"setting": 1, "space": 1, "memory": 300}
        assert digests(two, elsewhere) == wanted
        assert_sound(two, elsewhere)


def test_a_branch_is_exported_and_restored_by_itself(live: Live) -> None:
    memory = live.memory()
    memory.keep(event("on main"))
    fork(memory, "tried")
    tried = on(memory, "tried")
    data, _ = backed_up(memory)
    tried.keep(event("on the branch"))
    assert len(exported(tried)) == 2
    assert restore(tried, data, replace=True).status_code == 200
    assert len(exported(tried)) == len(exported(memory)) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_version_is_restored_as_one_of_this(live: Live, memory: Memory, version: int) -> None:
    file = Path(__file__).parents[1] / "formats" / f"profile-v{version}.db"
    assert restore(memory, file.read_bytes()).status_code == 200
    kinds = Counter(each["kind"] for each in exported(memory))
    assert kinds["memory"] > 0
    assert kinds["turn"] > 0
    assert_sound(live, memory)
    other = live.memory()
    take_all(other, exported(memory))
    assert exported(other) == exported(memory)


def test_parts_that_are_missing_or_wrong_restore_nothing(live: Live, memory: Memory) -> None:
    source = live.memory()
    source.keep(event("kept"))
    data, _ = backed_up(source)

    def post(**body: Any) -> Any:
        return memory.http.post(f"{memory.path}/restore", json=body)

    half = base64.b64encode(data[:1000]).decode()
    for body in ({}, {"data": "!"}, {"data": "A"}, {"data": half, "sha256": "x"}, {"data": half, "cursor": "1"}):
        assert_refused(post(**body))
    first = post(data=half).json()
    assert first["received"] == 1_000
    assert_refused(post(data=half, cursor=first["next_cursor"], sha256="0" * 64))
    assert post(data=half, cursor=first["next_cursor"]).status_code == 409, "it is gone with the failure"
    other = post(data=half).json()["next_cursor"]
    assert_refused(post(data=half, cursor=other.replace(".1000", ".2000")))
    for wrong in (b"", b"no database" * 200, data[:-1024], data[:100] + b"\xff" * 900 + data[1000:]):
        assert_refused(restore(memory, wrong))
    older = apsw.Connection(":memory:")
    older.execute("CREATE TABLE t (a)")
    assert_refused(restore(memory, older.serialize("main")))
    newer = apsw.Connection(":memory:")
    newer.deserialize("main", data)
    newer.pragma("user_version", SCHEMA.version + 1)
    assert restore(memory, newer.serialize("main")).status_code == 503
    assert not memory.exists


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_any_bytes_changed_is_refused_or_is_what_it_says(live: Live, data: Any) -> None:
    """Its checksum is right, for it was made so: nothing is half restored all the same."""
    memory = live.memory()
    image = bytearray(damaged_source(live))
    for _ in range(data.draw(st.integers(1, 3))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    memory.keep(event("before"))
    before = digests(live, memory)
    response = restore(memory, bytes(image), replace=True)
    assert response.status_code in (200, 400, 503), response.text
    if response.status_code != 200:
        assert digests(live, memory) == before
    assert_sound(live, memory)
    memory.keep(event("after"))


_IMAGES: dict[str, bytes] = {}


def damaged_source(live: Live) -> bytes:
    if live.url not in _IMAGES:
        memory = live.memory()
        memory.keep(event("one"), fact("a", "two"))
        sql(memory, "CREATE TABLE t (a UNIQUE)", "INSERT INTO t VALUES ('x')")
        _IMAGES[live.url] = backed_up(memory)[0]
    return _IMAGES[live.url]


def test_a_file_that_hides_what_no_user_may_make_is_refused(live: Live, memory: Memory) -> None:
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", damaged_source(live))
    for made in (
        "CREATE TABLE __memoturn_more (a); INSERT INTO __memoturn_more VALUES (1)",
        "CREATE VIEW v AS SELECT value FROM __memoturn_kv",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM __memoturn_memories; END",
    ):
        connection.execute("SAVEPOINT one")
        connection.execute(made)
        connection.execute("RELEASE one")
        assert_refused(restore(memory, connection.serialize("main"), replace=True))
        connection.deserialize("main", damaged_source(live))


# --- kill -9 -------------------------------------------------------------------------------------


def test_a_restore_that_is_killed_has_happened_or_has_not(live: Live, tmp_path: Path) -> None:
    given = tmp_path / "images"
    given.mkdir()
    wanted = []
    for number in range(2):
        source = live.memory()
        source.keep(*(event(f"{number} of {each}", embedding=[1.0, float(each)]) for each in range(400)))
        (given / str(number)).write_bytes(backed_up(source)[0])
        wanted.append(digests(live, source))
    for lines in (1, 2, 4):
        said = killed(tmp_path / "data", "restore", given, lines)
        with serve(tmp_path / "data") as node:
            memory = Memory(node.http, "acme", "killed")
            last = len(said) - 1
            assert digests(node, memory) in (wanted[last % 2], wanted[(last + 1) % 2])
            assert_sound(node, memory)
