"""`memoturn storage`, and what doctor says of the object store: getting a branch back, beside whoever uses it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from memoturn_core.address import Address
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.cli import object_checks, rescue, tables
from memoturn_mcp.opening import open_door
from memoturn_mcp.settings import Settings
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.formats.ltx import apply_to_image, decode
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.memory import MemoryStore
from surfaces.in_process import InProcess, in_process
from surfaces.shell import NOBODY_LISTENS, RunningNode, as_error

DOCUMENT = Path(__file__).parents[2] / "docs" / "storage.md"


def write(home: Path, *summaries: str) -> None:
    """A transaction each, shipped together when the node closes."""

    async def ingest() -> None:
        door = open_door(Settings(data_dir=home, limits=Limits(threads=0)))
        for summary in summaries:
            memory = {"type": "fact", "topic_key": "city", "summary": summary, "content": {"about": summary * 40}}
            await door.call(
                OPERATIONS["memory_ingest"], Address.of_profile("default", "default"), {"memories": [memory]}
            )
        await door.close()

    asyncio.run(ingest())


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def cities(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute("SELECT summary FROM __memoturn_memories ORDER BY rowid")]


# --- restore ------------------------------------------------------------------------------------


def test_every_moment_comes_back_from_the_object_store_alone(here: InProcess, tmp_path: Path) -> None:
    write(here.home, "Paris")
    here("branch", "checkpoint", "first")
    write(here.home, "Rome", "Oslo", "Bern")
    here("branch", "create", "tried", "--at", "2")
    objects = tmp_path / "elsewhere"
    (here.home / "objects").rename(objects)
    shutil.rmtree(here.home)
    before = contents(objects / "v1")
    named = ["Paris", "Rome", "Oslo", "Bern"]
    for number, (flags, count) in enumerate(
        {(): 4, ("--at", "3"): 3, ("--at", "first"): 1, ("--branch", "tried"): 2}.items()
    ):
        out = tmp_path / f"{number}.db"
        done = here("storage", "restore", "--out", str(out), *flags, MEMOTURN_OBJECT_STORE=objects.as_uri())
        assert done.err == f"txid {count}\n"
        assert (done.json["txid"], done.json["bytes"]) == (count, out.stat().st_size)
        assert cities(out) == named[:count]
        assert out.stat().st_mode & 0o077 == 0, "nobody else may read memories"
    assert not here.home.exists()
    assert contents(objects / "v1") == before


def test_it_works_beside_the_owner_who_does_not_notice(node: RunningNode, tmp_path: Path) -> None:
    with in_process(node.shell.home) as here:
        assert here("sync", "--url", node.url).code == 0
        before = contents(node.shell.home / "objects" / "v1"), contents(node.shell.home / "databases")
        assert here("storage", "restore", "--out", str(tmp_path / "x.db")).code == 0
        assert here("storage", "segments", "--out", str(tmp_path / "x")).code == 0
        assert (contents(node.shell.home / "objects" / "v1"), contents(node.shell.home / "databases")) == before
        assert "lives in Rome" in cities(tmp_path / "x.db")
        found = object_checks.processes(node.shell.home)
        assert (found.status, found.found) == ("ok", "one uses the data directory now")


def test_a_file_is_replaced_only_by_force_and_with_what_lay_beside_it(here: InProcess, tmp_path: Path) -> None:
    write(here.home, "Paris")
    out = tmp_path / "out.db"
    log = tmp_path / "out.db-wal"
    restore = ("storage", "restore", "--out", str(out))
    for taken in (log, out):
        taken.write_bytes(b"of another time")
        refused = here(*restore)
        assert (refused.code, as_error(refused)) == (
            4,
            f"memoturn: --out: {taken} exists\n"
            "hint: --force replaces it; a program that has it open must be stopped before\n",
        )
    assert here(*restore, "--force").code == 0
    assert (cities(out), sorted(path.name for path in tmp_path.glob("*out.db*"))) == (["Paris"], ["out.db"])


def test_a_disk_that_fails_leaves_the_old_file_and_no_half_of_the_new(
    here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here.home, "Paris")
    out = tmp_path / "out.db"
    out.write_bytes(b"of another time")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(rescue.os, "fsync", full)
        done = here("storage", "restore", "--out", str(out), "--force")
    assert (done.code, "No space left on device" in as_error(done)) == (6, True)
    assert [path.name for path in tmp_path.glob("*out.db*")] == ["out.db"]
    assert out.read_bytes() == b"of another time"


def test_what_cannot_be_restored_says_why_and_makes_no_file(here: InProcess, tmp_path: Path) -> None:
    write(here.home, "Paris")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    out = ("--out", str(tmp_path / "out.db"))
    expected: dict[tuple[str, ...], tuple[int, str]] = {
        ("restore", *out, "--url", NOBODY_LISTENS): (2, "--url: this reads the object store itself"),
        ("segments", *out, "--url", NOBODY_LISTENS): (2, "--url: this reads the object store itself"),
        ("restore", *out, "-p", "nobody"): (3, "the object store has no database default--nobody"),
        ("restore", *out, "--branch", "nope"): (3, "default--default has no branch nope in the object store"),
        ("restore", *out, "--at", "9"): (4, "transaction 9 is above the head of main, 1"),
        ("restore", *out, "--at", "nope"): (3, "main has no checkpoint nope"),
        ("restore", *out, "--at", "2000-01-01T00:00"): (4, "the history of main begins after that time"),
        ("restore", "--out", str(tmp_path / "no" / "x")): (2, f"--out: {tmp_path / 'no' / 'x'} cannot be written: No"),
        ("restore", "--out", str(tmp_path)): (2, f"--out: {tmp_path} is a directory"),
        ("segments", "--out", str(tmp_path / "full")): (4, f"--out: {tmp_path / 'full'} is not empty"),
        ("segments", "--out", str(tmp_path / "full" / "x")): (4, f"--out: {tmp_path / 'full' / 'x'} exists"),
    }
    for command, (code, said) in expected.items():
        done = here("storage", *command)
        assert (done.code, as_error(done).startswith(f"memoturn: {said}")) == (code, True), (command, done.err)
    elsewhere = here("storage", "restore", *out, MEMOTURN_URL=NOBODY_LISTENS)
    assert (elsewhere.code, as_error(elsewhere).startswith("memoturn: MEMOTURN_URL: this reads")) == (2, True)
    wrong = here("memory", "recall", "x", MEMOTURN_OBJECT_STORE="s3://!")
    assert (wrong.code, as_error(wrong).startswith("memoturn: MEMOTURN_OBJECT_STORE: the url of")) == (2, True)
    assert not (tmp_path / "out.db").exists()


# --- segments -----------------------------------------------------------------------------------


def test_the_files_lead_one_after_the_other_to_the_restored_database(here: InProcess, tmp_path: Path) -> None:
    write(here.home, "Paris")
    write(here.home, "Rome", "Oslo", "Bern", "Kyiv")
    assert here("branch", "rewind", "3").json["rewound_to"] == 3, "in the middle of an object"
    write(here.home, "Riga", "Baku")
    (manifest,) = here.home.glob("objects/v1/*/branches/main/manifest.json")
    uuid = manifest.parts[-4]
    assert here("storage", "restore", "--out", str(tmp_path / "whole.db")).code == 0
    cut = here("storage", "segments", "--out", str(tmp_path / "ours"))
    assert (cut.json["files"], cut.json["snapshot_txid"], cut.json["txid"]) == (5, 1, 5)
    image = bytearray()
    paths = sorted((tmp_path / "ours").iterdir())
    for path in paths:
        file, end = decode(path.read_bytes())
        assert end == path.stat().st_size, "one file, and nothing behind it"
        assert path.name == f"{file.min_txid:016x}-{file.max_txid:016x}.ltx"
        apply_to_image(image, file)
    assert image == (tmp_path / "whole.db").read_bytes()
    assert cities(tmp_path / "whole.db") == ["Paris", "Rome", "Oslo", "Riga", "Baku"]

    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    subprocess.run(
        [sys.executable, "-c", script, here.home / "objects", uuid, "main", tmp_path / "theirs"], check=True, timeout=60
    )
    assert contents(tmp_path / "theirs") == contents(tmp_path / "ours"), "the document cuts them as the command does"


def test_a_damaged_object_is_named_and_what_comes_before_it_is_saved(here: InProcess, tmp_path: Path) -> None:
    write(here.home, "Paris")
    write(here.home, "Rome", "Oslo")
    write(here.home, "Bern")
    *_, last = sorted(here.home.glob("objects/v1/*/ltx/0/*.ltx"))
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(damaged)
    refused = here("storage", "restore", "--out", str(tmp_path / "out.db"))
    assert (refused.code, last.name in as_error(refused)) == (1, True)
    assert not list(tmp_path.glob("*out.db*"))
    cut = here("storage", "segments", "--out", str(tmp_path / "saved"))
    assert (cut.code, last.name in cut.err) == (1, True)
    assert cut.err.endswith("hint: the files up to transaction 3 are written, and sound\n")
    assert len(contents(tmp_path / "saved")) == 3
    assert here("storage", "restore", "--out", str(tmp_path / "out.db"), "--at", "3").code == 0


def test_all_begins_at_the_oldest_snapshot_from_which_nothing_is_missing(here: InProcess, tmp_path: Path) -> None:
    for number in range(20):  # more objects than a chain may have, so that they are folded into a snapshot
        write(here.home, f"city {number}")
    *_, snapshot = here("storage", "inspect").json["snapshots"]
    assert 1 < snapshot["txid"] < 20
    newest, whole = (
        here("storage", "segments", "--out", str(tmp_path / name), *flags)
        for name, flags in (("newest", ()), ("whole", ("--all",)))
    )
    assert (newest.json["snapshot_txid"], newest.json["files"]) == (snapshot["txid"], 21 - snapshot["txid"])
    assert (whole.json["snapshot_txid"], whole.json["files"]) == (1, 20)
    states = []
    for name in ("newest", "whole"):
        image = bytearray()
        for path in sorted((tmp_path / name).iterdir()):
            apply_to_image(image, decode(path.read_bytes())[0])
        states.append(image)
    assert states[0] == states[1]


# --- tables and doctor --------------------------------------------------------------------------


def test_the_storage_of_a_branch_is_shown_in_the_order_of_its_transactions(here: InProcess) -> None:
    write(here.home, "Paris")
    here("branch", "checkpoint", "first")
    write(here.home, "Rome", "Oslo")
    shown = here("storage", "inspect", "--format", "human").out
    assert re.search(r"^history +transactions 1 to 3 *$", shown, re.M)
    assert re.search(r"^checkpoints +first is transaction 1 *$", shown, re.M)
    assert re.search(r"^all at 1 +snapshot .*snapshots/0{15}1-", shown, re.M)
    assert re.search(r"^2 to 3 +0 .*ltx/0/0{15}2-", shown, re.M)
    assert shown.index("all at 1") < shown.index("2 to 3")
    nothing = here("storage", "inspect").json | {"oldest_txid": None, "snapshots": [], "segments": []}
    assert "nothing was written yet" in tables.render(tables.of("storage_inspect", nothing))
    restored = {"database": "n--p", "branch": "b", "txid": 3, "at": 0, "bytes": 3_000, "seconds": 0.5}
    assert re.sub(r"\s+", " ", tables.render(tables.of("storage_restore", restored))).endswith(
        "3 KiB in 0.500 s, sound "
    )
    cut = {**restored, "snapshot_txid": 1, "files": 3}
    assert "3 files from the snapshot at 1" in re.sub(r"\s+", " ", tables.render(tables.of("storage_segments", cut)))


def test_doctor_tries_the_object_store_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    missing = object_checks.object_store(None, tmp_path / "none")
    assert (missing.status, "does not exist yet" in missing.found) == ("ok", True)
    assert not (tmp_path / "none").exists()
    FileStore(tmp_path / "objects", SystemAmbient()).close()
    found = object_checks.object_store(None, tmp_path)
    assert (found.status, "keeps and removes objects" in found.found) == ("ok", True)
    assert not list((tmp_path / "objects").glob("v1*"))
    wrong = object_checks.object_store("s3://!", tmp_path)
    assert (wrong.status, "MEMOTURN_OBJECT_STORE: the url of" in wrong.found) == ("problem", True)


def test_doctor_finds_a_store_that_ignores_conditions_or_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> str:
            self.put(key, data)
            return self.get(key).version

    careless = Careless(SystemAmbient())
    monkeypatch.setattr(object_checks, "open_objects", lambda _url, _ambient: careless)
    found = object_checks.object_store("mem://", tmp_path)
    assert (found.status, "it overwrites an object" in found.found) == ("problem", True)
    assert not list(careless.list("")), "the probe is removed all the same"
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY_LISTENS)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    down = object_checks.object_store("s3://bucket", tmp_path)
    assert (down.status, down.found.startswith("s3://bucket: ")) == ("problem", True)
    assert "\n" not in down.found


def test_doctor_finds_a_directory_for_sockets_that_others_may_enter(tmp_path: Path) -> None:
    assert object_checks.processes(tmp_path).found == "no other has used the data directory yet"
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(run / "stale.sock"))
    assert object_checks.processes(tmp_path).found == "none uses the data directory now"
    run.chmod(0o755)
    assert object_checks.processes(tmp_path).status == "problem"
