"""`memoturn export`, `import` and `backup`: a profile in files, and back."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.live_node import event, serve
from memoturn_core.address import Address
from memoturn_core.portability import archive
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.opening import open_door
from memoturn_mcp.settings import Settings
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.engine import Limits
from surfaces.in_process import InProcess, in_process
from surfaces.shell import NOBODY_LISTENS, as_error

FILES = (archive.MANIFEST, archive.DATABASE, archive.RECORDS)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[InProcess]:
    with in_process(tmp_path / "data") as made:
        yield made


def fill(home: Path, profile: str = "default", count: int = 3) -> None:
    async def ingest() -> None:
        door = open_door(Settings(data_dir=home, limits=Limits(threads=0)))
        address = Address.of_profile("default", profile)
        memories = [event(f"memory {number} of {profile}") for number in range(count)]
        await door.call(OPERATIONS["memory_ingest"], address, {"memories": memories})
        await door.call(OPERATIONS["kv_put"], address, {"ns": "n", "key": "k", "value": b"\xff"})
        await door.call(
            OPERATIONS["query"], address, {"stmts": [{"q": "CREATE TABLE t (a)"}, {"q": "INSERT INTO t VALUES (1e22)"}]}
        )
        await door.close()

    asyncio.run(ingest())


def made(here: InProcess, *arguments: str) -> dict[str, Any]:
    [backup] = here("backup", "create", *arguments).json["backups"]
    return backup


def exported(here: InProcess, *flags: str, **variables: str) -> str:
    done = here("export", *flags, **variables)
    assert done.code == 0, done.err
    return done.out


# --- export and import ---------------------------------------------------------------------------


def test_an_export_goes_to_stdout_or_a_file_and_comes_back_the_same(here: InProcess, tmp_path: Path) -> None:
    fill(here.home)
    text = exported(here)
    kinds = [json.loads(line)["kind"] for line in text.splitlines()]
    assert kinds == ["header", *["memory"] * 3, "kv", "table", "row", "end"]
    out = tmp_path / "export.jsonl"
    assert here("export", "-o", str(out)).json == {"records": 6, "bytes": len(text)}
    assert out.read_text() == text
    assert out.stat().st_mode & 0o777 == 0o600
    assert "exists" in as_error(here("export", "-o", str(out)))
    assert here("export", "-o", str(out), "--force").code == 0
    assert exported(here, "--as-of", "1").count("\n") == 5
    imported = here("import", str(out), "-p", "other").json
    counts = {"memory": 3, "kv": 1, "table": 1, "row": 1}
    assert imported == {"imported": counts, "unchanged": {}, "refused": [], "complete": True}
    assert exported(here, "-p", "other") == text
    assert here("import", str(out), "-p", "other").json["unchanged"] == counts
    assert "imported" in here("import", str(out), "--format", "human").out


def test_a_node_elsewhere_exports_imports_and_is_backed_up_the_same(here: InProcess, tmp_path: Path) -> None:
    with serve(tmp_path / "node") as node:
        memory = node.http
        memory.post("/v1/memory/default/default/memories", json={"memories": [event("far away")]})
        for number in range(3):
            memory.put(f"/v1/memory/default/default/kv/n/{number}", content=bytes([number]) * 700_000)
        url = {"MEMOTURN_URL": node.url, "NO_PROXY": "127.0.0.1"}
        out = tmp_path / "export.jsonl"
        assert here("export", "-o", str(out), **url).json["records"] == 4
        assert here("import", str(out), "-p", "other", **url).json["imported"] == {"memory": 1, "kv": 3}
        assert exported(here, "-p", "other", **url) == out.read_text()
        # Here, from there.
        assert here("import", str(out)).json["complete"] is True
        assert exported(here) == out.read_text()
        backups = here("backup", "create", "--all", **url).json["backups"]
        assert [each["database"] for each in backups] == ["default--default", "default--other"]
        restored = here("backup", "restore", backups[0]["name"], "--into", "acme/ann", **url)
        assert restored.json["rows"] == {"__memoturn_kv": 3, "__memoturn_memories": 1}
        assert exported(here, "-n", "acme", "-p", "ann", **url) == out.read_text()
    assert "cannot be reached" in as_error(here("export", "--url", NOBODY_LISTENS))


def test_a_database_that_another_process_has_open_is_backed_up_and_restored_by_it(here: InProcess) -> None:
    with serve(here.home) as node:
        path = "/v1/memory/default/default"
        node.http.post(f"{path}/memories", json={"memories": [event("of the node")]})
        backup = made(here)
        node.http.post(f"{path}/memories", json={"memories": [event("of the node, later")]})
        assert here("backup", "restore", backup["name"], "--replace").json["txid"] == 3
        recalled = node.http.post(f"{path}/recall", json={"query": "node"}).json()
        assert [hit["summary"] for hit in recalled["memories"]] == ["of the node"]


def test_lines_that_are_wrong_are_named_and_the_rest_is_imported(here: InProcess, tmp_path: Path) -> None:
    fill(here.home, count=600)
    lines = exported(here).splitlines()
    file = tmp_path / "export.jsonl"
    lines[300] = '{"kind": "memory", "id": "mem_1"}'
    lines[400] = lines[400][:-9]
    lines[500] = "[]"
    file.write_text("\n".join([*lines[:-1], ""]))
    done = here("import", str(file), "-p", "other")
    assert done.code == 1
    answer = json.loads(done.out)
    assert [(each["line"], each["reason"].partition(":")[0]) for each in answer["refused"]] == [
        (301, "id"),
        (401, "is not valid JSON"),
        (501, "should be an object"),
    ]
    assert answer["complete"] is False
    assert answer["imported"]["memory"] == 597
    shown = here("import", str(file), "-p", "other", "--format", "human")
    assert shown.code == 1
    assert "cut off" in shown.out
    assert "301" in shown.out


def test_what_is_no_export_is_refused_before_anything_is_made(
    here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("hello", '{"kind": "memory"}\n', '{"kind": "header", "format": 2}\n'):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        as_error(here("import", "-"))
    assert "cannot read" in as_error(here("import", str(tmp_path / "none")))
    as_error(here("export"))
    as_error(here("backup", "create"))
    assert not here.home.exists() or list(here.home.rglob("*.db")) == []
    as_error(here("export", "--format", "json"))


# --- backup --------------------------------------------------------------------------------------


def test_a_backup_is_listed_verified_and_restored(here: InProcess, tmp_path: Path) -> None:
    fill(here.home)
    text = exported(here)
    backup = made(here)
    assert backup["database"] == "default--default"
    assert backup["rows"] == {"__memoturn_kv": 1, "__memoturn_memories": 3, "t": 1}
    assert here("backup", "list").json["backups"] == [backup]
    assert here("bak", "verify", "--all").json["backups"] == [backup]
    directory = here.home / "backups" / backup["name"]
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert (directory / archive.RECORDS).read_text() == text
    with closing(sqlite3.connect(directory / archive.DATABASE)) as connection:
        assert connection.execute("SELECT count(*) FROM __memoturn_memories").fetchone() == (3,)
    # Into itself only when asked to, and as it was.
    fill(here.home, "later")
    here("kv", "put", "n", "k", "changed")
    changed = exported(here)
    refusal = as_error(here("backup", "restore", backup["name"]))
    assert "--replace" in refusal
    assert exported(here) == changed
    assert here("backup", "restore", backup["name"], "--replace").json["txid"] == 5
    assert exported(here) == text
    here("branch", "rewind", "4", "--yes")
    assert exported(here) == changed
    # Into another, from another place.
    elsewhere = tmp_path / "elsewhere"
    shutil.move(directory, elsewhere)
    restored = here("backup", "restore", str(elsewhere), "--into", "acme/ann")
    assert restored.json["rows"] == backup["rows"]
    assert exported(here, "-n", "acme", "-p", "ann") == text


def test_several_are_backed_up_at_once_and_as_of_a_moment(here: InProcess, tmp_path: Path) -> None:
    fill(here.home)
    fill(here.home, "other", 5)
    to = str(tmp_path / "kept")
    names = [each["database"] for each in here("backup", "create", "--all", "--to", to).json["backups"]]
    assert names == ["default--default", "default--other"]
    assert made(here, "default/other", "--as-of", "1")["rows"] == {"__memoturn_memories": 5}
    listed = here("backup", "list", "--dir", to, "--format", "human").out
    assert "default--other" in listed
    assert "sound" in here("backup", "verify", "--all", "--dir", to, "--format", "human").out
    for wrong in (("--all", "default/other"), ("default/other", "-p", "x"), ("default/none",)):
        as_error(here("backup", "create", *wrong))
    as_error(here("backup", "verify"))
    as_error(here("backup", "restore", "none"))
    assert [path for path in (here.home / "backups").iterdir() if path.name.startswith(".")] == []


def test_a_damaged_backup_is_refused_by_name_and_nothing_is_changed(here: InProcess) -> None:
    fill(here.home)
    backup = made(here)
    directory = here.home / "backups" / backup["name"]
    here("kv", "put", "n", "k", "changed")
    before = exported(here)
    for name in FILES:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
        for command in (("verify",), ("restore", "--replace")):
            refusal = as_error(here("backup", *command, backup["name"]))
            assert f"{backup['name']}: {name}: " in refusal
        (directory / name).write_bytes(data)
    listed = json.loads(here("backup", "list").out)["backups"]
    assert listed == [backup]
    assert exported(here) == before
    (directory / archive.MANIFEST).write_bytes(b"{}")
    assert "damaged" in here("backup", "list").json["backups"][0]


def test_any_damage_anywhere_is_found(here: InProcess) -> None:
    fill(here.home)
    directory = here.home / "backups" / made(here)["name"]
    whole = {name: (directory / name).read_bytes() for name in FILES}
    archive.verify(directory)

    def assert_found(name: str, data: bytes | None) -> None:
        path = directory / name
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        with pytest.raises(InvalidRequest, match=name):
            archive.verify(directory)
        path.write_bytes(whole[name])

    for name, data in whole.items():
        for place in range(0, len(data), max(1, len(data) // 150)):
            assert_found(name, data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :])
        for wrong in (b"", data[:-1], data + b"\n", data[1:], None):
            assert_found(name, wrong)
    # Two that fit each other and not the third.
    manifest = archive.Manifest.read(directory)
    data = (directory / archive.RECORDS).read_bytes()
    assert manifest.records == data.count(b"\n") - 2
    archive.verify(directory)
