"""The command line as a shell sees it: the installed script in a process of its own, and a real node."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from memoturn_mcp.cli import checks, tables
from memoturn_mcp.cli.batch import checked, read_file
from memoturn_mcp.cli.flags import Kind, as_unix_ms
from memoturn_mcp.cli.printable import one_line, printable
from memoturn_mcp.cli.reach import settings_of
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.memory import MemoryType

SCRIPT = str(Path(sys.executable).with_name("memoturn"))
NOBODY_LISTENS = "http://127.0.0.1:1"
TIMEOUT_S = 60
MANY = 1_001


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1, "one compact document on one line"
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Runs `memoturn` with a data directory of its own."""

    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MEMOTURN_", "COLUMNS"))}
        return {**inherited, "MEMOTURN_DATA_DIR": str(self.home), "MEMOTURN_LISTEN": "127.0.0.1:0", **more}

    def __call__(self, *arguments: str, stdin: bytes = b"", **variables: str) -> Done:
        done = subprocess.run(
            [SCRIPT, *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment(**variables),
            timeout=TIMEOUT_S,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def together(self, *commands: tuple[str, ...]) -> list[Done]:
        """Commands that do not wait for each other."""
        with ThreadPoolExecutor(max_workers=3) as pool:
            return list(pool.map(lambda command: self(*command), commands))

    def on_a_terminal(self, *arguments: str, columns: int = 80) -> Done:
        """Run it with stdout on a terminal; what it writes there is read to the end."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen(
            [SCRIPT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env=self.environment(TERM="xterm-256color"),
        )
        os.close(theirs)
        shown = bytearray()
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError as error:  # how Linux says that the terminal's other side is closed
            if error.errno != errno.EIO:
                raise
        os.close(ours)
        _, said = process.communicate(timeout=TIMEOUT_S)
        return Done(process.returncode, shown.decode().replace("\r\n", "\n"), said.decode())


@dataclass(frozen=True)
class RunningNode:
    process: subprocess.Popen[bytes]
    url: str
    shell: Shell
    ids: tuple[str, ...] = ()
    """Of the memories that it was given before it started."""


def start_node(shell: Shell, *flags: str, **variables: str) -> RunningNode:
    """`memoturn serve`, once it has said where it listens."""
    process = subprocess.Popen(
        [SCRIPT, "serve", *flags], stderr=subprocess.PIPE, env=shell.environment(**variables), stdin=subprocess.DEVNULL
    )
    assert process.stderr is not None
    for line in process.stderr:
        found = re.match(rb"memoturn: listening on (http://\S+)", line)
        if found:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return RunningNode(process, found[1].decode(), shell)
    raise AssertionError("the node ended before it listened")


def stop_node(node: RunningNode) -> int:
    node.process.send_signal(signal.SIGINT)
    code = node.process.wait(TIMEOUT_S)
    assert node.process.stderr is not None
    node.process.stderr.close()
    return code


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "data")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node with a few memories in `default/default`, whose data directory the shell shares."""
    shell = Shell(tmp_path_factory.mktemp("node") / "data")
    memories = [
        {"type": "fact", "topic_key": "user.city", "summary": "lives in Paris", "session_id": "one"},
        {"type": "fact", "topic_key": "user.city", "summary": "lives in Rome", "session_id": "one", "source": "chat"},
        {"type": "event", "summary": "flew to Rome", "content": {"flight": 7, "b": [1, None, "é"]}},
        {"type": "task", "summary": "book a table in Rome", "session_id": "two", "ttl": 5_000},
        {"type": "event", "summary": "hello \x1b[2J [red]there[/red] \x07\u202e\x9b31m"},
    ]
    kept = shell("memory", "ingest", "--file", "-", stdin="\n".join(map(json.dumps, memories)).encode())
    running = replace(start_node(shell), ids=tuple(result["id"] for result in kept.json["results"]))
    yield running
    stop_node(running)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, Done]:
    """A shell with more memories than one batch holds, and how they were kept."""
    shell = Shell(tmp_path_factory.mktemp("many") / "data")
    lines = [json.dumps({"type": "event", "summary": f"step {number}"}) for number in range(MANY)]
    text = "\ufeff" + "\r\n".join(lines[:500]) + "\n\n" + "\n".join(lines[500:])
    kept = shell("memory", "ingest", "--file", "-", "--session", "import", "--source", "log", stdin=text.encode())
    return shell, kept


def as_error(done: Done) -> str:
    """What a failed command said: nothing on stdout, no traceback, one line and perhaps hints."""
    assert done.out == ""
    assert "Traceback" not in done.err
    first, *hints = done.err.splitlines()
    assert first.startswith("memoturn: ")
    assert all(hint.startswith("hint: ") for hint in hints)
    return done.err


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


def test_a_memory_is_kept_superseded_shown_and_forgotten(shell: Shell) -> None:
    first = shell("memory", "ingest", "lives in Paris", "--topic", "user.city", "--keywords", "home")
    assert first.err == "txid 1\n"
    (paris,) = first.json["results"]
    assert first.json == {"results": [{"id": paris["id"], "status": "created", "superseded": []}], "txid": 1}
    second = shell("memory", "ingest", "lives in Rome", "--topic", "user.city", "--content", '{"since": 2020}')
    (rome,) = second.json["results"]
    assert rome["superseded"] == [paris["id"]]
    record = shell("memory", "get", rome["id"]).json
    assert (record["type"], record["content"]) == ("fact", {"since": 2020})
    assert [link["summary"] for link in record["chain"]] == ["lives in Paris", "lives in Rome"]
    assert shell("memory", "forget", rome["id"]) == Done(0, '{"forgotten":true}\n', "txid 3\n")


def test_the_address_and_the_source_come_from_flags_then_from_the_environment(shell: Shell) -> None:
    variables = {"MEMOTURN_NAMESPACE": "acme", "MEMOTURN_PROFILE": "ada", "MEMOTURN_SOURCE": "ci"}
    assert shell("memory", "ingest", "deployed", "-p", "bob", **variables).json["txid"] == 1
    profiles = shell("memory", "profiles", **variables)
    assert [entry["database"] for entry in profiles.json["profiles"]] == ["acme--bob"]
    assert profiles.err == "", "a list of profiles reflects no transaction"
    (hit,) = shell("memory", "recall", "deployed", "-n", "acme", "--profile", "bob").json["memories"]
    assert (hit["source"], hit["type"], hit["content"]) == ("ci", "event", {"summary": "deployed"})


# --- files --------------------------------------------------------------------------------------


def test_json_lines_from_stdin_are_kept_in_batches_and_in_order(many: tuple[Shell, Done]) -> None:
    shell, kept = many
    assert len(kept.json["results"]) == MANY
    assert kept.json["txid"] == 2
    assert {result["status"] for result in kept.json["results"]} == {"created"}
    last = shell("memory", "get", kept.json["results"][-1]["id"]).json
    assert (last["summary"], last["session_id"], last["source"]) == (f"step {MANY - 1}", "import", "log")


def test_a_broken_line_is_named_and_nothing_at_all_is_written(shell: Shell) -> None:
    lines = [json.dumps({"type": "event", "summary": f"step {number}"}) for number in range(1_500)]
    for broken, said in (
        ('{"type": "event", "summary": }', "is not valid JSON: "),
        ('{"type": "event", "summary": "x", "ttl": 3}', "ttl: is only for tasks"),
    ):
        text = "\n".join([*lines, "", broken, lines[0]])
        done = shell("memory", "ingest", "--file", "-", stdin=text.encode())
        assert done.code == 2
        assert as_error(done).startswith(f"memoturn: line 1502: {said}")
        assert not shell.home.exists()


def test_every_memory_is_checked_and_completed_before_one_is_sent() -> None:
    event = {"type": "event", "summary": "x"}
    assert checked([("", event)], session="s", source="me") == [
        {"content": {"summary": "x"}, **event, "session_id": "s", "source": "me"}
    ]
    own = {"type": "fact", "summary": "x", "content": None, "session_id": "mine", "source": "you"}
    assert checked([("", dict(own))], session="s", source="me") == [own]
    for wrong, said in (
        ("just text", "line 7: should be a JSON object"),
        ({"type": "dream", "summary": "x"}, "line 7: type: should be "),
        ({"type": "event"}, "line 7: summary: is required"),
        ({**event, "sumary": "y"}, "line 7: sumary: unknown field"),
    ):
        with pytest.raises(InvalidRequest, match=re.escape(said)):
            checked([("line 6", dict(event)), ("line 7", wrong)], session=None, source=None)


def test_a_file_holds_lines_or_an_array_or_an_object_of_memories_or_one_memory(tmp_path: Path) -> None:
    file = tmp_path / "memories"

    def read(text: str) -> list[tuple[str, Any]]:
        file.write_text(text)
        return read_file(str(file))

    assert read('{"a": 1}\n \n{"a": 2}') == [("line 1", {"a": 1}), ("line 3", {"a": 2})]
    assert read('\n[\n{"a": 1},\n{"a": 2}]') == [("memories[0]", {"a": 1}), ("memories[1]", {"a": 2})]
    assert read('{"memories": [{"a": 1}]}\n') == [("memories[0]", {"a": 1})]
    assert read('{\n  "memories": [\n    {"a": 1}\n  ]\n}') == [("memories[0]", {"a": 1})]
    assert read('{\n  "a": 1\n}') == [("memories[0]", {"a": 1})]
    assert read("") == []
    for broken, said in (
        ('[{"a": 1}\n{"a": 2}]', "at line 2"),
        ('{"memories": 3}', "should be an array"),
        ('{"memories": [], "more": 1}', "more: unknown field"),
        ('{"a": NaN}', "line 1: "),
        ('{"a": "\\ud800"}', "line 1: "),
    ):
        with pytest.raises(InvalidRequest, match=re.escape(said)):
            read(broken)
    with pytest.raises(InvalidRequest, match=r"cannot read .*: No such file"):
        read_file(str(tmp_path / "missing"))


# --- errors -------------------------------------------------------------------------------------


def test_errors_are_one_line_with_a_hint_and_the_exit_code_of_their_kind(node: RunningNode) -> None:
    unknown = "memoturn: there is no memory mem_0\nhint: "
    nobody = "memoturn: there is no database default--nobody\nhint: profiles in namespace default: default; "
    no_branch = "memoturn: default--default has no branch draft\nhint: without --branch "
    expected: dict[tuple[str, ...], tuple[int, str]] = {
        ("get", "mem_0"): (3, unknown),
        ("forget", "mem_0", "--url", node.url): (3, unknown),
        ("get", "mem_0", "-p", "nobody"): (3, nobody),
        ("sessions", "-p", "nobody", "--url", node.url): (3, nobody),
        ("recall", "x", "--branch", "draft", "--url", node.url): (3, no_branch),
        ("sessions", "-n", "empty"): (
            3,
            "memoturn: there is no database empty--default\nhint: namespace empty has no profiles yet; ",
        ),
        ("recall", "x", "--branch", "a/b"): (2, "memoturn: branch: must be "),
        ("recall", "x", "-n", "Acme"): (2, "memoturn: namespace: must be "),
        ("ingest", "x", "--ttl", "3"): (2, "memoturn: ttl: is only for tasks"),
    }
    results = node.shell.together(*(("memory", *command) for command in expected))
    for (command, (code, said)), done in zip(expected.items(), results, strict=True):
        assert done.code == code, command
        assert as_error(done).startswith(said), command


def test_a_node_that_is_not_there_is_an_error_that_asks_whether_it_runs(shell: Shell) -> None:
    done = shell("memory", "recall", "x", MEMOTURN_URL=NOBODY_LISTENS)
    assert done.code == 6
    assert as_error(done).startswith(f"memoturn: the node at {NOBODY_LISTENS} cannot be reached")
    assert "hint: is the node running? `memoturn serve` starts one" in done.err


def test_wrong_usage_is_refused_before_anything_is_opened(shell: Shell) -> None:
    ours = {
        ("memory", "recall"): "QUERY: is required",
        ("memory", "recall", "x", "--since", "2026"): "--since: should be like 2026-01-31",
        ("memory", "ingest", "x", "--file", "-"): "summary: leave it out",
        ("memory", "ingest", "x", "--content", "{"): "--content: is not valid JSON",
        ("memory", "get", os.fsdecode(b"\xff")): "id: is not valid UTF-8",
        ("memory", "profiles", "--url", "x"): "--url: must start with http",
        ("serve", "--listen", "nowhere"): "--listen: must be HOST:PORT",
    }
    theirs = {
        ("memory", "recall", "x", "--format", "xml"): "--format",
        ("memory", "recal"): "recall",
        ("--verbose",): "--verbose",
    }
    for command, done in zip(ours, shell.together(*ours), strict=True):
        assert done.code == 2, command
        assert as_error(done).startswith(f"memoturn: {ours[command]}"), command
    for command, done in zip(theirs, shell.together(*theirs), strict=True):
        assert done.code == 2, command
        assert theirs[command] in done.err
        assert "Traceback" not in done.err
    assert not shell.home.exists()


def test_a_misspelt_setting_is_refused_with_the_likely_one(shell: Shell) -> None:
    done = shell("memory", "profiles", MEMOTURN_PROFLIE="ada")
    assert done.code == 2
    assert "did you mean MEMOTURN_PROFILE?" in as_error(done)
    assert "hint: set it right or unset it; `memoturn doctor`" in done.err


def test_a_failing_embedder_is_a_warning_and_the_memory_is_kept(shell: Shell) -> None:
    done = shell(
        "memory",
        "ingest",
        "x",
        MEMOTURN_EMBED_PROVIDER="openai",
        MEMOTURN_EMBED_URL=NOBODY_LISTENS,
        MEMOTURN_EMBED_MODEL="m",
    )
    assert done.json["results"][0]["status"] == "created"
    warning, txid = done.err.splitlines()
    assert warning.startswith("memoturn: warning: memories kept without embeddings (")
    assert txid == "txid 1"


# --- through a node -----------------------------------------------------------------------------


def test_a_node_and_the_local_files_give_the_same_answers(node: RunningNode) -> None:
    commands: list[tuple[str, ...]] = [
        (
            *("memory", "recall", "lives book", "--topic", "user.city", "--type", "fact", "--type", "task", "-k", "3"),
            *("--include-superseded", "--turns", "--since", "2020-01-01"),
        ),
        ("memory", "sessions", "--limit", "5"),
        ("memory", "ingest", "lives in Rome", "--topic", "user.city"),
        ("memory", "get", node.ids[2]),
    ]
    here = node.shell.together(*commands)
    there = node.shell.together(*((*command, "--url", node.url) for command in commands))
    assert here == there
    recalled, sessions, again, record = (done.json for done in here)
    assert {hit["summary"] for hit in recalled["memories"]} == {
        "lives in Rome",
        "lives in Paris",
        "book a table in Rome",
    }
    assert recalled["turns"] == []
    assert [(session["id"], session["tasks"]) for session in sessions["sessions"]] == [("two", 1), ("one", 0)]
    assert [result["status"] for result in again["results"]] == ["duplicate"]
    assert record["content"] == {"flight": 7, "b": [1, None, "é"]}


def test_a_node_keeps_and_forgets_what_it_is_told_to(node: RunningNode) -> None:
    kept = node.shell("memory", "ingest", "a slip of the tongue", "-p", "other", MEMOTURN_URL=node.url)
    assert kept.err == "txid 1\n"
    (id_,) = [result["id"] for result in kept.json["results"]]
    gone = node.shell("memory", "forget", id_, "-p", "other", "--url", node.url)
    assert gone == Done(0, '{"forgotten":true}\n', "txid 2\n")


def test_a_data_directory_that_is_asked_for_wins_over_the_url_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMOTURN_URL", NOBODY_LISTENS)
    assert settings_of().url == NOBODY_LISTENS
    assert settings_of(data_dir=str(tmp_path)).url is None
    assert settings_of(data_dir=str(tmp_path)).data_dir == tmp_path
    with pytest.raises(InvalidRequest, match="--url and --data-dir: give one of them"):
        settings_of(url=NOBODY_LISTENS, data_dir=str(tmp_path))
    with pytest.raises(InvalidRequest, match="--data-dir: must not be empty"):
        settings_of(data_dir="")


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

    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    say(id=1, method="initialize", params=client)
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
        ("memory", "recall", "hello", "--format", "table"),
        ("memory", "recall", "xylophone", "--turns", "--format", "table", "-p", "nobody"),
    )
    assert not set(found.out) & set("\x1b\x07\x9b\u202e")
    assert r"hello \x1b[2J [red]there[/red]" in re.sub(r"\s+", " ", found.out)
    assert nobody.out == "nothing found; the profile has no memories yet\nno turns of the transcript match\n"


def test_a_reader_that_stops_early_is_no_error(many: tuple[Shell, Done]) -> None:
    shell, _ = many
    recall = f"'{SCRIPT}' memory recall step -k 1000 --format table"
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


# --- doctor -------------------------------------------------------------------------------------


def checks_of(done: Done) -> dict[str, dict[str, Any]]:
    return {check["check"]: check for check in json.loads(done.out)["checks"]}


def test_doctor_finds_nothing_wrong_where_nothing_is_and_leaves_no_trace(shell: Shell, node: RunningNode) -> None:
    listen = node.url.removeprefix("http://")
    nothing_yet = shell("doctor", MEMOTURN_LISTEN="127.0.0.1:1")
    in_use = node.shell("doctor", MEMOTURN_LISTEN=listen, MEMOTURN_URL=node.url)
    assert (nothing_yet.code, in_use.code) == (0, 0)
    assert (nothing_yet.err, in_use.err) == ("", "")
    assert not shell.home.exists()
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


def test_doctor_prints_the_entry_that_starts_this_installation_on_these_memories(shell: Shell) -> None:
    done = shell("doctor", "--format", "table", MEMOTURN_PROFILE="ada", MEMOTURN_TOKEN="secret")
    assert re.search(r"^ok +SQLite +3\.", done.out, re.M)
    entry = json.loads(done.out[done.out.index("{") :])["mcpServers"]["memoturn"]
    assert os.access(entry["command"], os.X_OK)
    assert Path(entry["command"]).is_absolute()
    assert entry["env"] == {"MEMOTURN_DATA_DIR": str(shell.home), "MEMOTURN_PROFILE": "ada"}
    assert "secret" not in done.out


def test_a_damaged_file_is_an_error_without_a_traceback_and_doctor_names_it(shell: Shell) -> None:
    assert shell("memory", "ingest", "x").code == 0
    (file,) = shell.home.glob("databases/*/*/main.db")
    image = bytearray(file.read_bytes())
    image[5_000:] = b"\xff" * len(image[5_000:])
    file.write_bytes(image)
    recalled = shell("memory", "recall", "x")
    assert recalled.code == 1
    assert as_error(recalled).startswith("memoturn: the database file is corrupt\nhint: ")
    assert str(shell.home) not in recalled.err

    image = bytearray(file.read_bytes())
    done = shell("doctor", MEMOTURN_URL=NOBODY_LISTENS)
    assert done.code == 1
    assert json.loads(done.out)["problems"] == 2
    found = checks_of(done)
    assert found["database files"]["status"] == "problem"
    assert found["database files"]["found"].startswith("0 of 1 checked and sound; default--default in ")
    assert "restore" in found["database files"]["advice"]
    assert found["MEMOTURN_URL"]["status"] == "problem"
    assert file.read_bytes() == image


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
