"""`memoturn doctor` on what is sound, what is not there yet and what is broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from memoturn_core.code import guest_file
from memoturn_core.code.guest_file import GuestFile
from memoturn_mcp.cli import checks
from sandbox.built import built_guest
from surfaces.in_process import InProcess
from surfaces.shell import NOBODY_LISTENS, Done, RunningNode


def checks_of(done: Done) -> dict[str, dict[str, Any]]:
    return {check["check"]: check for check in json.loads(done.out)["checks"]}


def test_doctor_finds_nothing_wrong_where_nothing_is_and_leaves_no_trace(
    here: InProcess, beside: InProcess, node: RunningNode
) -> None:
    listen = node.url.removeprefix("http://")
    nothing_yet = here("doctor", MEMOTURN_LISTEN="127.0.0.1:1")
    in_use = beside("doctor", MEMOTURN_LISTEN=listen, MEMOTURN_URL=node.url)
    assert (nothing_yet.code, in_use.code) == (0, 0)
    assert (nothing_yet.err, in_use.err) == ("", "")
    assert not here.home.exists()
    assert {check["status"] for check in checks_of(nothing_yet).values()} <= {"ok", "warning"}
    assert "does not exist yet" in checks_of(nothing_yet)["data directory"]["found"]
    assert checks_of(nothing_yet)["catalogue"]["found"].startswith("none yet")
    assert "nothing answers on 127.0.0.1:1" in checks_of(nothing_yet)["node"]["found"]
    found = checks_of(in_use)
    assert re.fullmatch(r"opens; \d+ databases?", found["catalogue"]["found"])
    assert re.match(r"\d of \d checked and sound", found["database files"]["found"])
    assert re.fullmatch(r"3\.\d+\.\d+ with FTS5 and JSONB", found["SQLite"]["found"])
    for check in ("node", "MEMOTURN_URL"):
        assert re.match(r"Memoturn \S+ with SQLite 3\.\S+ answers at ", found[check]["found"])
    assert not list(node.shell.home.glob(".doctor-*"))


def test_doctor_says_whether_snippets_can_be_run_here(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(**variables: str) -> tuple[str, str]:
        check = checks_of(here("doctor", MEMOTURN_LISTEN="127.0.0.1:0", **variables))["sandbox"]
        return check["status"], check["found"]

    assert said()[1].startswith("not prepared yet")
    assert not here.home.exists()
    shutil.copytree(built_guest(), here.home / "sandbox")
    guest = GuestFile.fitting(here.home / "sandbox")
    guest.mark_tested([])
    assert said()[1].startswith("not prepared yet")
    guest.mark_tested(["it cannot read"])
    assert said() == ("ok", "built, and has refused on this machine all that it must")
    assert said(MEMOTURN_CODE="off")[1].startswith("MEMOTURN_CODE is off")
    guest.compiled.chmod(0o644)
    assert said()[0] == "warning"
    guest.stamp.unlink()
    guest.stamp.mkdir()
    assert said()[0] == "problem"
    monkeypatch.setattr(guest_file, "PARTS", ("not_there",))
    assert "pip install 'memoturn[code]'" in said()[1]


def test_doctor_prints_the_entry_that_starts_this_installation_on_these_memories(here: InProcess) -> None:
    done = here("doctor", "--format", "human", MEMOTURN_PROFILE="ada", MEMOTURN_TOKEN="secret")
    assert re.search(r"^ok +SQLite +3\.", done.out, re.M)
    entry = json.loads(done.out[done.out.index("{") :])["mcpServers"]["memoturn"]
    assert os.access(entry["command"], os.X_OK)
    assert Path(entry["command"]).is_absolute()
    assert entry["env"] == {"MEMOTURN_DATA_DIR": str(here.home), "MEMOTURN_PROFILE": "ada"}
    assert "secret" not in done.out


def test_doctor_names_a_damaged_file_which_the_next_use_restores(here: InProcess) -> None:
    assert here("memory", "ingest", "x").code == 0
    (file,) = here.home.glob("databases/*/*/main.db")
    image = bytearray(file.read_bytes())
    image[5_000:] = b"\xff" * len(image[5_000:])
    file.write_bytes(image)
    done = here("doctor", MEMOTURN_URL=NOBODY_LISTENS)
    assert done.code == 1
    assert json.loads(done.out)["problems"] == 2
    found = checks_of(done)
    assert found["database files"]["status"] == "problem"
    assert found["database files"]["found"].startswith("0 of 1 checked and sound; default--default in ")
    assert "restore" in found["database files"]["advice"]
    assert found["MEMOTURN_URL"]["status"] == "problem"
    assert file.read_bytes() == image

    recalled = here("memory", "recall", "x")
    assert recalled.code == 0
    assert json.loads(recalled.out)["memories"][0]["summary"] == "x"
    assert "a damaged file is replaced" in recalled.err


def test_a_database_that_cannot_be_restored_is_an_error_without_a_traceback(here: InProcess) -> None:
    assert here("memory", "ingest", "x").code == 0
    for damaged in (*here.home.glob("databases/*/*/main.db"), *here.home.rglob("*.ltx")):
        damaged.write_bytes(b"This is neither. " * 500)
    recalled = here("memory", "recall", "x")
    assert recalled.code == 1
    said = recalled.err.splitlines()[-1]
    assert re.match(r"memoturn: v1/[0-9a-f]{32}/snapshots/.*: has 8500 bytes, the manifest says", said)
    assert "Traceback" not in recalled.err
    assert str(here.home) not in recalled.err


def test_doctor_finds_what_is_no_directory_no_catalogue_no_node_no_setting_and_a_slow_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
        monkeypatch.delenv(name)
    (tmp_path / "file").touch()
    assert checks.data_directory(tmp_path / "file").status == "problem"
    (tmp_path / "catalog.db").write_bytes(b"not a database" * 200)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setattr(checks, "_ANSWERS_WITHIN_S", 0.1)
        monkeypatch.setenv("MEMOTURN_LISTEN", f"127.0.0.1:{mute.getsockname()[1]}")
        found = {finding.check: finding for finding in checks.examine(str(tmp_path))}
    assert found["catalogue"].status == "problem"
    assert found["node"].status == "warning"
    assert found["node"].found.startswith("another program answers on 127.0.0.1:")
    monkeypatch.setenv("MEMOTURN_DATADIR", "x")
    first, *others = checks.examine(str(tmp_path))
    assert (first.check, first.status) == ("configuration", "problem")
    assert "did you mean MEMOTURN_DATA_DIR?" in first.found
    assert {finding.check for finding in others} == {"SQLite", "clock"}, "what needs no configuration is checked"
    assert checks.clock([]).status == "ok"
    assert checks.clock([5_000_000_000_000]).status == "problem"
