"""The engine and a node where a file is damaged, of another kind or of a later version, or a place cannot be used."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memoturn_core.node import Node
from memoturn_schemas.errors import Internal, Unavailable
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.schema import Schema
from unit.engines import ITEMS, WAIT, engine, files, inline_and_threaded, put, run, values


@contextmanager
def read_only_directory() -> Iterator[Path]:
    """A directory in which this process may read but not write, also where it runs as root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if user == 0:
            os.chown(directory, 65534, 65534)
            os.seteuid(65534)
        directory.chmod(0o500)
        try:
            yield directory
        finally:
            directory.chmod(0o700)
            os.seteuid(user)


@inline_and_threaded
def test_a_file_that_is_no_database_fails_alone_and_recovers_when_replaced(tmp_path: Path, threads: int) -> None:
    good, bad = BranchRef("good"), BranchRef("bad")
    file = files(tmp_path, bad).database
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database at all, " * 500)
    with engine(tmp_path, threads=threads) as running:
        running.write(good, put("fine")).result(WAIT)
        for _ in range(2):
            for future in (running.read(bad, values), running.write(bad, put("lost"))):
                with pytest.raises(Internal) as raised:
                    future.result(WAIT)
                assert str(tmp_path) not in str(raised.value)
        assert running.write(good, put("still fine")).result(WAIT).txid == 2
        assert file.read_bytes().startswith(b"no database at all")
        file.unlink()
        assert running.write(bad, put("new")).result(WAIT).txid == 1
        assert running.read(good, values).result(WAIT).value == ["fine", "still fine"]


@inline_and_threaded
def test_a_damaged_database_is_reported_and_others_go_on(tmp_path: Path, threads: int) -> None:
    good, bad = BranchRef("good"), BranchRef("bad")
    with engine(tmp_path, threads=0) as running:
        for number in range(100):
            running.write(bad, put(f"{number} " * 100)).result(WAIT)
    file = files(tmp_path, bad).database
    image = file.read_bytes()
    file.write_bytes(image[:2_048] + b"\xff" * (len(image) - 2_048))
    with engine(tmp_path, threads=threads) as running:
        with pytest.raises(Internal, match="corrupt"):
            running.read(bad, values).result(WAIT)
        with pytest.raises(Internal, match="corrupt"):
            running.write(bad, run("DELETE FROM items")).result(WAIT)
        assert running.write(good, put("fine")).result(WAIT).txid == 1
        assert running.read(good, values).result(WAIT).value == ["fine"]


def test_a_file_of_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = BranchRef("a")
    newer = Schema((*ITEMS.migrations, "CREATE TABLE future (x);"))
    with engine(tmp_path, schema=newer, threads=0) as running:
        running.write(database, put(1)).result(WAIT)
    image = files(tmp_path, database).database.read_bytes()
    with engine(tmp_path, threads=0) as running:
        for future in (running.read(database, values), running.write(database, put(2))):
            with pytest.raises(Unavailable, match=r"schema version 2, newer than this program's 1; upgrade"):
                future.result(WAIT)
    assert files(tmp_path, database).database.read_bytes() == image


def test_a_directory_that_cannot_be_written_is_reported_without_its_path() -> None:
    store = MemoryStore(SystemAmbient())
    with read_only_directory() as directory, engine(directory, store=store, threads=1) as running:
        database = BranchRef("aa")
        for future in (running.write(database, put(1)), running.read(database, values)):
            with pytest.raises(Unavailable) as raised:
                future.result(WAIT)
            assert str(directory) not in str(raised.value)
        assert list(directory.iterdir()) == []
        directory.chmod(0o700)
        assert running.write(database, put(1)).result(WAIT).txid == 1


def test_a_place_that_is_a_file_is_reported(tmp_path: Path) -> None:
    blocked, free = BranchRef("taken"), BranchRef("main")
    (tmp_path / "databases" / blocked.uuid[:2]).mkdir(parents=True)
    (tmp_path / "databases" / blocked.uuid[:2] / blocked.uuid).write_text("a file where the directory should be")
    with engine(tmp_path, threads=0) as running:
        with pytest.raises(Unavailable):
            running.write(blocked, put(1)).result(WAIT)
        assert running.write(free, put(1)).result(WAIT).txid == 1


def test_a_node_on_a_directory_that_cannot_be_used_ends_and_leaves_no_threads() -> None:
    before = set(threading.enumerate())
    with read_only_directory() as directory, pytest.raises(Unavailable):
        Node.open(directory / "data")
    assert set(threading.enumerate()) == before
