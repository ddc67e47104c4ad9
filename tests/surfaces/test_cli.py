"""The command line as a shell sees it: how it starts, serves and ends, and what it prints where."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from contract.live_node import INITIALIZE
from memoturn_mcp.cli import tables
from memoturn_mcp.cli.flags import Kind, as_unix_ms
from memoturn_mcp.cli.printable import one_line, printable
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.memory import MemoryType
from surfaces.shell import SCRIPT, TIMEOUT_S, Done, RunningNode, Shell, start_node, stop_node

# --- starting -----------------------------------------------------------------------------------


def test_help_loads_neither_the_engine_nor_the_table_printer(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "memoturn_mcp.cli.main", "--help"],
        capture_output=True,
        env=shell.environment(),
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0
    for command in ("serve", "mcp", "memory", "doctor"):
        assert re.search(rf"^  {command} ", done.stdout.decode(), re.MULTILINE)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "typer" in loaded
    assert loaded.isdisjoint({"apsw", "httpx", "mcp", "numpy", "pydantic", "rich", "starlette", "structlog"})


def test_the_version_is_the_packages(shell: Shell) -> None:
    from importlib.metadata import version

    assert shell("--version") == Done(0, f"memoturn {version('memoturn')}\n", "")


def test_a_shell_can_complete_the_names_of_commands(shell: Shell) -> None:
    done = shell(
        COMP_WORDS="memoturn memory re", COMP_CWORD="2", _MEMOTURN_COMPLETE="complete_bash", _TYPER_COMPLETE_TEST="1"
    )
    assert done.out.split() == ["recall"]


def test_serve_takes_flags_over_the_environment_and_ends_with_130_on_ctrl_c(shell: Shell, tmp_path: Path) -> None:
    running = start_node(
        shell, "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "other"), MEMOTURN_LISTEN="127.0.0.1:1"
    )
    assert stop_node(running) == 130
    assert (tmp_path / "other").is_dir()
    assert not shell.home.exists()


def test_mcp_serves_stdin_with_the_flags_of_the_stdio_server(shell: Shell) -> None:
    process = subprocess.Popen(
        [SCRIPT, "mcp", "--toolsets", "memory", "--exclude-tools", "memory_get", "--read-only"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=shell.environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def say(**message: Any) -> None:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]

    say(id=1, method="initialize", params=INITIALIZE["params"])
    assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "memoturn"
    say(method="notifications/initialized")
    say(id=2, method="tools/list")
    listed = {tool["name"] for tool in json.loads(process.stdout.readline())["result"]["tools"]}
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert "memory_recall" in listed
    assert listed.isdisjoint({"memory_get", "memory_ingest", "health_check"})


# --- on a terminal, and in a pipe ---------------------------------------------------------------


def test_a_person_at_a_terminal_gets_tables(node: RunningNode) -> None:
    found = node.shell.on_a_terminal("memory", "recall", "Rome", "--topic", "user.city")
    assert found.code == 0, found.err
    text = re.sub(r"\x1b\[[0-9;]*m", "", found.out)
    assert text != found.out, "a terminal shows colours"
    assert max(map(len, text.splitlines())) <= 80
    header = text.splitlines()[0].split()
    assert header == ["memory", "type", "topic", "score", "age"]
    assert re.search(r"^lives in Rome +fact +user\.city +0\.\d{4} +(just now|\d+ \w+)", text, re.M)
    assert re.search(r"^mem_[0-9a-f]{32}\b", text, re.M), "ids stay whole, to be copied"
    assert re.fullmatch(r"txid \d+\n", found.err)

    record = node.shell.on_a_terminal("memory", "get", node.ids[1])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", record.out)
    assert re.search(r"^source +chat *$", shown, re.M)
    assert re.search(r"^lives in Paris +mem_[0-9a-f]{32} ", shown, re.M), "the topic's history"


def test_a_table_in_a_pipe_is_plain_text_in_which_a_memory_cannot_act_on_the_terminal(node: RunningNode) -> None:
    found, nobody = node.shell.together(
        ("memory", "recall", "hello", "--format", "human"),
        ("memory", "recall", "xylophone", "--turns", "--format", "human", "-p", "nobody"),
    )
    assert not set(found.out) & set("\x1b\x07\x9b\u202e")
    assert r"hello \x1b[2J [red]there[/red]" in re.sub(r"\s+", " ", found.out)
    assert nobody.out == "nothing found; the profile has no memories yet\nno turns of the transcript match\n"


def test_a_reader_that_stops_early_is_no_error(many: tuple[Shell, Done]) -> None:
    shell, _ = many
    recall = f"'{SCRIPT}' memory recall step -k 1000 --format human"
    piped = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {recall} | head -1"],
        capture_output=True,
        env=shell.environment(),
        timeout=TIMEOUT_S,
    )
    assert piped.stdout.startswith(b"memory ")
    assert piped.stdout.count(b"\n") == 1
    assert piped.stderr == b""
    assert piped.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_an_answer_that_cannot_be_written_is_an_error_that_says_what_was_done(shell: Shell) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [SCRIPT, "memory", "ingest", "x"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=shell.environment(),
            timeout=TIMEOUT_S,
        )
    assert done.returncode == 6
    first, hint = done.stderr.decode().splitlines()
    assert first == "memoturn: the answer cannot be written: No space left on device"
    assert hint.startswith("hint: what the command was to do is done")


def test_ctrl_c_ends_a_command_with_130_and_without_a_word(shell: Shell, tmp_path: Path) -> None:
    fifo = tmp_path / "memories"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [SCRIPT, "memory", "ingest", "--file", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=shell.environment(),
    )
    with fifo.open("wb"):  # opens once the command has opened it too
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert not shell.home.exists()


# --- values -------------------------------------------------------------------------------------


def test_the_types_of_the_flag_are_those_of_the_schema() -> None:
    assert {str(kind) for kind in Kind} == set(get_args(MemoryType))


def test_times_are_iso_dates_or_unix_milliseconds_and_nothing_in_between() -> None:
    assert as_unix_ms("--since", "1700000000123") == 1_700_000_000_123
    assert as_unix_ms("--since", "0") == 0
    assert as_unix_ms("--since", "2026-01-31T09:30:00Z") == 1_769_851_800_000
    assert as_unix_ms("--since", "2026-01-31T09:30+02:00") == 1_769_844_600_000
    assert as_unix_ms("--since", "2026-01-31") == int(datetime(2026, 1, 31).timestamp() * 1_000)
    for ambiguous in ("2026", "20260131", "1700000000", "yesterday", "", "²", "9" * 5_000):
        with pytest.raises(InvalidRequest, match="--since: should be like 2026-01-31"):
            as_unix_ms("--since", ambiguous)


def test_every_reply_has_a_table_and_long_ones_are_counted() -> None:
    def shown(name: str, value: Any) -> list[str]:
        return [line.rstrip() for line in tables.render(tables.of(name, value)).splitlines()]

    created = {"id": "mem_1", "status": "created", "superseded": ["mem_0"]}
    listed = shown("memory_ingest", {"results": [created], "txid": 1})
    assert listed[0].split() == ["id", "status", "supersedes"]
    assert listed[-2:] == ["mem_1  created  mem_0", "1 created, 1 superseded"]
    assert shown("memory_ingest", {"results": [created] * 51, "txid": 1}) == ["51 created, 51 superseded"]
    assert shown("memory_ingest", {"results": [], "txid": 0}) == ["nothing to keep"]
    assert shown("memory_forget", {"forgotten": True}) == ["forgotten"]
    session = {"id": "s", "created_at": 0, "last_active_at": 0, "turns": 3, "tasks": 1}
    assert re.match(r"s +3 +1 +\d+ years ago", shown("memory_sessions_list", {"sessions": [session], "txid": 1})[-1])
    assert shown("memory_sessions_list", {"sessions": [], "txid": 1}) == ["no sessions yet"]
    profile = {"profile": "p", "database": "n--p", "created_at": 0}
    assert shown("memory_profiles_list", {"namespace": "n", "profiles": [profile]})[-1].startswith("p        n--p")
    assert shown("memory_profiles_list", {"namespace": "n", "profiles": []}) == ["namespace n has no profiles yet"]
    turn = {"session_id": "s", "seq": 1, "role": "user", "content": "hi", "distance": 0.5}
    found = shown("memory_recall", {"memories": [], "turns": [turn], "degraded": ["vector"], "txid": 1})
    assert (found[0], found[-2].split(), found[-1]) == (
        "nothing found",
        ["s", "1", "user", "hi", "0.500"],
        "searched without: vector",
    )


def test_ages_are_words() -> None:
    now = 1_700_000_000_000
    assert tables.age(now - 999, now) == "just now"
    assert tables.age(now - 1_000, now) == "1 second ago"
    assert tables.age(now - 3 * 3_600_000, now) == "3 hours ago"
    assert tables.age(now + 2 * 86_400_000, now) == "in 2 days"
    assert tables.age(0, now) == "53 years ago"


def test_printable_text_keeps_every_script_and_no_control_character() -> None:
    assert printable("naïve 日本語 👩‍👧 \t|\n|") == "naïve 日本語 👩‍👧 \t|\n|"
    assert printable("\x1b[31m\x00\x9b\u202e\ud800\r") == r"\x1b[31m\x00\x9b\u202e\ud800\r"
    assert one_line(" two\n  lines ") == "two lines"
