"""What operators ask: how a node does, what it logs, how it is configured, what its storage holds."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract.branches import KeptStore
from contract.live_node import Live, event, serve
from memoturn_mcp import logs as log_files
from memoturn_mcp.cli import environment, tables
from memoturn_mcp.cli.config import template
from memoturn_mcp.cli.environment import parse
from memoturn_mcp.cli.flags import Format
from memoturn_mcp.cli.logs import _follow, _Tail
from memoturn_mcp.cli.main import _SHORT, app
from memoturn_mcp.cli.output import as_data
from memoturn_mcp.cli.tables_of_node import line, monitored
from memoturn_mcp.settings import Settings
from memoturn_mcp.variables import VARIABLES
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import ManualAmbient
from objects.faulty import Faults, FaultyStore
from surfaces.in_process import InProcess
from surfaces.shell import NOBODY_LISTENS, Shell, as_error

SECRETS = [name for name, variable in VARIABLES.items() if variable.secret]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serve(tmp_path_factory.mktemp("node")) as served:
        served.memory().keep(event("note"))
        yield served


# --- health and monitor --------------------------------------------------------------------------


def test_health_is_that_of_the_node_at_the_url_or_where_this_configuration_listens(here: InProcess, live: Live) -> None:
    there = here("health", "--url", live.url).json
    assert (there["status"], there["open_databases"]) == ("ok", 1)
    listening = here("hp", MEMOTURN_LISTEN=f"127.0.0.1:{live.port}").json
    assert listening["databases"] == there["databases"]
    shown = here("health", "--url", live.url, "--format", "human")
    assert re.search(r"^status +ok *$", shown.out, re.MULTILINE)
    nobody = here("health", "--url", NOBODY_LISTENS)
    assert nobody.code == 6
    assert "`memoturn serve` starts a node" in as_error(nobody)
    anywhere = here("monitor", "--count", "1", MEMOTURN_LISTEN="127.0.0.1:0")
    assert anywhere.code == 2
    assert "--url" in as_error(anywhere)


def test_the_exit_code_of_health_is_1_where_the_node_is_degraded(here: InProcess, tmp_path: Path) -> None:
    store = FaultyStore(KeptStore(ManualAmbient()), Random(1), Faults())
    with serve(tmp_path / "node", store=store) as live:
        memory = live.memory()
        memory.keep(event("note"))
        store.down = True
        assert live.http.post(f"{memory.database}/sync").status_code == 503
        done = here("health", "--url", live.url)
        shown = here("health", "--url", live.url, "--format", "human")
        store.down = False
    assert done.code == shown.code == 1
    assert [reason["part"] for reason in json.loads(done.out)["reasons"]] == ["object_store"]
    assert "because object_store: the last" in " ".join(shown.out.split())


def test_monitor_gives_a_sample_at_each_look_in_each_format(here: InProcess, live: Live) -> None:
    def looks(*flags: str) -> str:
        done = here("mon", "--url", live.url, "--interval", "0.1", "--count", "3", *flags)
        assert done.code == 0, done.err
        return done.out

    samples = [json.loads(text) for text in looks("--format", "json").splitlines()]
    asked = [
        next(each for each in sample["operations"] if each["operation"] == "get_metrics")["outcomes"]["ok"]
        for sample in samples[1:]
    ]
    assert asked[1] == asked[0] + 1
    documents = list(yaml.safe_load_all(looks("--format", "yaml")))
    assert [set(document) for document in documents] == [set(samples[0])] * 3
    lines = looks().splitlines()
    assert len(lines) == 3
    for text in lines:
        assert re.fullmatch(
            r"\S+Z rss [\d.]+ MiB cpu \d+ % open 1 waiting 0 unshipped \d+ calls (-|[\d.]+/s)"
            r" slowest p95 [\d.]+ ms",
            text,
        )


def test_rates_are_those_since_the_sample_before_and_what_is_null_is_shown_as_unknown(live: Live) -> None:
    now: dict[str, Any] = live.http.get("/v1/metrics").json()
    earlier = json.loads(json.dumps(now))
    earlier["at"] -= 2_000
    now["process"] |= {"cpu_seconds": earlier["process"]["cpu_seconds"] + 1.0, "rss_bytes": None, "threads": None}
    now["operations"] = [{**each, "outcomes": {"ok": each["outcomes"]["ok"] + 10}} for each in now["operations"][:1]]
    earlier["operations"] = earlier["operations"][:1]
    assert "rss ? cpu 50 % " in line(now, earlier)
    assert "calls 5.0/s" in line(now, earlier)
    shown = tables.render(monitored(now, earlier))
    assert "?, 50 % of a processor, ? threads" in shown
    assert "calls -" in line(now, None)


def test_a_person_at_a_terminal_sees_one_table_that_changes(live: Live, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    seen = shell.on_a_terminal("monitor", "--url", live.url, "--interval", "0.1", "--count", "2", columns=120)
    assert seen.code == 0, seen.err
    assert "\x1b[2K" in seen.out
    assert "get_metrics" in seen.out


# --- formats -------------------------------------------------------------------------------------


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(
        ["yes", "null", "~", "1e3", "0x1f", "12:30:45", "2026-01-31", "- a", "a: b", "---", "\ufeff", " "]
    ),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=5), below, max_size=4),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), JSON_VALUES, max_size=5))
@example({"\x85": "\u2028 \ufeff", "a\u2029b": "\r\n\t\x00\x7f\x1b"})
def test_yaml_says_what_json_says(value: dict[str, Any]) -> None:
    try:
        expected = json.loads(as_data(value, Format.JSON))
    except UnicodeEncodeError:  # a key that is no Unicode
        return
    assert yaml.safe_load(as_data(value, Format.YAML)) == expected


def test_every_format_of_a_command_has_the_same_in_it(here: InProcess) -> None:
    here("kv", "put", "cache", "a", "naïve 🦊")
    answer = here("kv", "get", "cache", "a").json
    assert answer == {"value": {"$base64": "bmHDr3ZlIPCfpoo="}} or answer == {"value": "naïve 🦊"}
    assert yaml.safe_load(here("kv", "get", "cache", "a", "--format", "yaml").out) == answer
    assert here("kv", "get", "cache", "a", "--format", "human").out == "naïve 🦊\n"


# --- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, variable in VARIABLES.items() if variable.default is not None])
def test_a_setting_that_is_set_to_its_default_changes_nothing(name: str) -> None:
    default = VARIABLES[name].default
    assert default is not None
    assert Settings.from_environment({name: default}) == Settings.from_environment({})


def test_the_settings_are_shown_with_where_they_are_from_and_secrets_are_not(here: InProcess) -> None:
    given = dict.fromkeys(SECRETS, "s3cret-value")
    shown = here(
        "cfg", "show", **given, MEMOTURN_HOT_CAP="7", MEMOTURN_TOKN="s3cret-value", MEMOTURN_URL="http://u:pw@h:1/x"
    )
    assert "s3cret" not in shown.out
    assert "pw" not in shown.out
    settings = {each["name"]: (each["value"], each["source"]) for each in shown.json["settings"]}
    assert list(settings) == [*VARIABLES, "MEMOTURN_TOKN"]
    assert settings["MEMOTURN_HOT_CAP"] == ("7", "environment")
    assert settings["MEMOTURN_LISTEN"] == ("127.0.0.1:8787", "default")
    assert settings["MEMOTURN_OBJECT_STORE"] == (None, "default")
    assert settings["MEMOTURN_URL"] == ("http://********@h:1/x", "environment")
    assert settings["MEMOTURN_TOKN"][1] == "environment, and there is no such setting"
    assert {settings[name] for name in SECRETS} == {("********", "environment")}
    assert here("config", "show", MEMOTURN_DATA_DIR="").json["settings"][0]["value"].endswith("memoturn")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MEMOTURN_HOT_CAP", "many"),
        ("MEMOTURN_LISTEN", "8787"),
        ("MEMOTURN_AUTH", "on"),
        ("MEMOTURN_HOTCAP", "1"),
        ("MEMOTURN_LLM_PROVIDER", "hal"),
        ("MEMOTURN_TOOLSETS", "hammers"),
    ],
)
def test_validate_names_what_is_wrong_and_exits_with_2(here: InProcess, variable: str, value: str) -> None:
    refused = here("config", "validate", **{variable: value})
    assert refused.code == 2
    said = as_error(refused)
    assert (
        value if variable == "MEMOTURN_TOOLSETS" else "MEMOTURN_PLATFORM_KEY" if value == "on" else variable
    ) in said


def test_validate_finds_nothing_wrong_with_what_is_right(here: InProcess) -> None:
    done = here("config", "validate", MEMOTURN_HOT_CAP="7")
    assert done.json == {"valid": True, "set": ["MEMOTURN_DATA_DIR", "MEMOTURN_HOT_CAP"]}


def test_init_writes_a_file_of_all_settings_for_its_owner_alone_and_never_over_another(
    here: InProcess, tmp_path: Path
) -> None:
    file = tmp_path / "memoturn.env"
    assert here("config", "init", "--out", str(file)).code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == here("config", "init").out == template()
    file.write_text("mine")
    taken = here("config", "init", "--out", str(file))
    assert (taken.code, file.read_text()) == (4, "mine")
    assert here("config", "init", "--out", str(tmp_path / "none" / "file")).code == 2


def test_what_init_writes_sets_nothing_and_with_its_signs_taken_off_the_defaults() -> None:
    text = template()
    assert parse(text) == {}
    all_set = re.sub(r"^#(MEMOTURN_)", r"\1", text, flags=re.MULTILINE)
    found = parse(all_set)
    assert found == {name: variable.default or "" for name, variable in VARIABLES.items()}
    assert Settings.from_environment(found) == Settings.from_environment({})


ENV_FILE = r"""
# a comment
MEMOTURN_A=plain
 export MEMOTURN_B="two words # no comment"   # a comment
MEMOTURN_C='$HOME `date` "quoted"'
MEMOTURN_D=
MEMOTURN_E=a\ b'c d'"e f"
MEMOTURN_F=first
MEMOTURN_F=second
MEMOTURN_G=postgres://host/a?b=c
MEMOTURN_H=ünï
"""


def test_a_file_of_settings_means_to_us_what_it_means_to_a_shell(tmp_path: Path) -> None:
    file = tmp_path / "file.env"
    file.write_text(ENV_FILE)
    script = f"set -a; . {file}; env -0"
    done = subprocess.run(["sh", "-c", script], env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    shell = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry.startswith("MEMOTURN_"))
    assert parse(file.read_text()) == shell
    assert len(shell) == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A=1\nB", "line 2: should be NAME=VALUE"),
        ("1A=1", "line 1: should be NAME=VALUE"),
        ("A=a b", "line 1: put a value with spaces into quotes"),
        ("A='a", "line 1: a quote is not closed"),
        ("A=$HOME", "line 1: put a value with $ or ` into single quotes"),
        ('A="`date`"', "line 1: put a value with $ or ` into single quotes"),
    ],
)
def test_a_file_that_a_shell_would_read_otherwise_is_refused_by_its_line(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(f"--env-file: {says}")):
        parse(text)


def test_the_environment_wins_over_the_file(here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.env"
    file.write_text("MEMOTURN_HOT_CAP=5\nMEMOTURN_IDLE_SECS=6\n")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(environment, "LOADED", set())
    shown = here("--env-file", str(file), "config", "show", MEMOTURN_HOT_CAP="7").json["settings"]
    found = {each["name"]: (each["value"], each["source"]) for each in shown}
    assert found["MEMOTURN_HOT_CAP"] == ("7", "environment")
    assert found["MEMOTURN_IDLE_SECS"] == ("6", "file")
    missing = here("--env-file", str(tmp_path / "none"), "config", "show")
    assert missing.code == 2
    assert "--env-file" in as_error(missing)


# --- logs ----------------------------------------------------------------------------------------


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """Where this process logs to; its configuration is as before afterwards."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield tmp_path / "logs" / "node.log"
    structlog.reset_defaults()
    for handler in root.handlers[:]:
        if handler not in before:
            root.removeHandler(handler)
            handler.close()


def test_the_last_lines_are_found_across_rotations_by_level_and_by_request(
    here: InProcess, log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "FILE_BYTES", 4_000)
    log_files.configure_logging("info", json=False, file=log_file)
    log = structlog.get_logger("memoturn")
    for number in range(100):
        with structlog.contextvars.bound_contextvars(request_id=f"r{number % 10}"):
            (log.warning if number % 3 else log.info)(f"event {number}", number=number)
        log.debug("not wanted")
    logging.getLogger("library").warning("of a %s", "library")
    assert log_file.with_name("node.log.2").exists()
    assert log_file.stat().st_size <= 4_000

    def numbers(*flags: str) -> list[int]:
        out = here("logs", *flags, MEMOTURN_LOG_FILE=str(log_file)).out
        return [each["number"] for each in map(json.loads, out.splitlines()) if "number" in each]

    assert numbers("--lines", "31") == list(range(70, 100))
    assert numbers("--lines", "7", "--level", "warning") == [91, 92, 94, 95, 97, 98]
    assert numbers("--lines", "3", "--request-id", "r5") == [75, 85, 95]
    assert numbers("--lines", "0") == []
    assert numbers("--lines", "4", "--level", "error") == []
    [last] = here("log", "--lines", "1", MEMOTURN_LOG_FILE=str(log_file)).out.splitlines()
    said = json.loads(last)
    assert (said["event"], said["logger"], said["level"]) == ("of a library", "library", "warning")
    shown = here("logs", "--lines", "2", "--format", "human", MEMOTURN_LOG_FILE=str(log_file)).out
    assert re.match(r"\d{4}-\S+Z info +event 99 +(request_id=r9 +number=99|number=99 +request_id=r9)\n", shown)
    documents = list(yaml.safe_load_all(here("logs", "--format", "yaml", MEMOTURN_LOG_FILE=str(log_file)).out))
    assert documents[-1] == said


def test_logs_says_what_is_missing(here: InProcess, tmp_path: Path) -> None:
    unset = here("logs")
    assert unset.code == 2
    assert "MEMOTURN_LOG_FILE" in as_error(unset)
    assert here("logs", MEMOTURN_LOG_FILE=str(tmp_path / "none")).code == 3
    (tmp_path / "file").write_text("")
    unusable = here("mcp", MEMOTURN_LOG_FILE=str(tmp_path / "file" / "below"))
    assert unusable.code == 2
    assert "MEMOTURN_LOG_FILE" in unusable.err


def test_what_is_no_json_and_what_acts_on_a_terminal_is_shown_as_text(here: InProcess, tmp_path: Path) -> None:
    file = tmp_path / "node.log"
    lines = [b"Traceback", b"\xff\xfe", json.dumps({"event": "\x1b[2J", "exception": "one\ntwo\x07"}).encode()]
    file.write_bytes(b"\n".join(lines) + b"\n")
    shown = here("logs", "--format", "human", MEMOTURN_LOG_FILE=str(file)).out
    assert "Traceback\n" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "one\ntwo" in shown


@given(
    steps=st.lists(st.one_of(st.integers(0, 5), st.just("rotate"), st.just("look")), max_size=30), late=st.booleans()
)
def test_who_follows_misses_nothing_while_the_file_grows_and_is_rotated(
    steps: list[int | str], late: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("log") / "node.log"
    tail = _Tail(path)
    written = 0
    looked_since_rotation = True
    seen: list[int] = []
    if not late:
        path.touch()
    for step in [*steps, "look"]:
        if step == "look":
            seen += [each["n"] for each in tail.more()]
            looked_since_rotation = True
        elif step == "rotate":
            # Two rotations between two looks are more than a log of 10 MiB files has.
            if path.exists() and looked_since_rotation and tail._file is not None:
                path.rename(path.with_name("node.log.1"))
                path.touch()
                looked_since_rotation = False
        else:
            with path.open("ab") as file:
                for _ in range(int(step)):
                    file.write(json.dumps({"n": written}).encode() + b"\n")
                    written += 1
    tail.close()
    assert seen == list(range(written))


def test_a_line_is_seen_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    tail = _Tail(path)
    assert tail.more() == []
    path.write_bytes(b'{"n": 1}\n{"n"')
    assert tail.more() == [{"n": 1}]
    with path.open("ab") as file:
        file.write(b": 2}\n")
    assert tail.more() == [{"n": 2}]
    tail.close()


def test_a_node_takes_its_settings_and_its_log_from_a_file(
    here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(environment, "LOADED", set())
    file = tmp_path / "node.env"
    (tmp_path / "no directory").touch()
    file.write_text(f"MEMOTURN_LOG_FILE='{tmp_path / 'no directory' / 'node.log'}'\n")
    refused = here("--env-file", str(file), "serve")
    assert refused.code == 2
    assert as_error(refused).startswith("memoturn: MEMOTURN_LOG_FILE: ")


def test_who_follows_is_shown_what_is_logged_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    shown: list[Any] = []

    class Enough(Exception):
        """Ends what goes on for ever."""

    def take(event: dict[str, Any]) -> None:
        shown.append(event["n"])
        if event["n"] == 2:
            raise Enough
        with path.open("a") as file:
            file.write(f'{{"n": {event["n"] + 1}}}\n')

    path.write_text('{"n": 0}\n')
    with closing(_Tail(path)) as tail, pytest.raises(Enough):
        asyncio.run(_follow(tail, take))
    assert shown == [0, 1, 2]


# --- storage -------------------------------------------------------------------------------------


def test_storage_is_counted_by_kind_and_tried_out(here: InProcess, live: Live) -> None:
    assert here("memory", "ingest", "--type", "event", "a note").code == 0
    inspected = here("storage", "inspect").json
    counted = here("st", "stats").json
    assert counted["snapshots"]["objects"] == len(inspected["snapshots"]) == 1
    assert sum(each["objects"] for each in counted["segments"]) == len(inspected["segments"])
    in_all = counted["snapshots"]["bytes"] + sum(each["bytes"] for each in counted["segments"])
    assert in_all == counted["bytes"] == inspected["bytes"]
    vacuumed = here("storage", "vacuum").json
    assert 0 < vacuumed["bytes_after"] <= vacuumed["bytes_before"]
    assert re.match(r"\d+ KiB before, \d+ KiB now\n", here("storage", "vacuum", "--format", "human").out)
    tried = here("storage", "health").json
    assert (tried["status"], tried["problem"], tried["txid"]) == ("ok", None, 3)

    snapshot = max((here.home / "objects").rglob("snapshots/*"), key=lambda path: path.name)
    right = snapshot.read_bytes()
    snapshot.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    damaged = here("storage", "health")
    assert damaged.code == 1
    found = json.loads(damaged.out)
    assert found["status"] == "damaged"
    assert snapshot.name in found["problem"]
    assert "damaged" in here("storage", "health", "--format", "human").out
    assert here("storage", "health", "--branch", "none").code == 3
    assert here("storage", "health", "-p", "none").code == 3


# --- short names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("short", _SHORT)
def test_a_short_name_is_its_command_where_that_exists(here: InProcess, short: str) -> None:
    name = _SHORT[short]
    listed = {group.name for group in app.registered_groups} | {
        each.name or each.callback.__name__ for each in app.registered_commands if each.callback is not None
    }
    if name not in listed:
        assert here(short, "--help").code == 2
        return
    said, whole = (here(each, "--help").out.split() for each in (short, name))
    assert [*said[:2], name, *said[3:]] == whole
    shown = here("--help").out
    assert f"{short} is {name}" in " ".join(shown.split())
    assert not re.search(rf"^  {short} ", shown, re.MULTILINE), "help lists a command once"
