"""`memoturn memory` as a shell sees it: memories kept, found and forgotten, on files and through a node."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from memoturn_mcp.cli.batch import checked, read_file
from memoturn_mcp.cli.reach import settings_of
from memoturn_schemas.errors import InvalidRequest
from surfaces.in_process import InProcess
from surfaces.shell import MANY, NOBODY_LISTENS, Done, RunningNode, Shell, as_error


def test_a_memory_is_kept_superseded_shown_and_forgotten(here: InProcess) -> None:
    first = here("memory", "ingest", "lives in Paris", "--topic", "user.city", "--keywords", "home")
    assert first.err == "txid 1\n"
    (paris,) = first.json["results"]
    assert first.json == {"results": [{"id": paris["id"], "status": "created", "superseded": []}], "txid": 1}
    second = here("memory", "ingest", "lives in Rome", "--topic", "user.city", "--content", '{"since": 2020}')
    (rome,) = second.json["results"]
    assert rome["superseded"] == [paris["id"]]
    record = here("memory", "get", rome["id"]).json
    assert (record["type"], record["content"]) == ("fact", {"since": 2020})
    assert [link["summary"] for link in record["chain"]] == ["lives in Paris", "lives in Rome"]
    assert here("memory", "forget", rome["id"]) == Done(0, '{"forgotten":true}\n', "txid 3\n")


def test_the_address_and_the_source_come_from_flags_then_from_the_environment(here: InProcess) -> None:
    variables = {"MEMOTURN_NAMESPACE": "acme", "MEMOTURN_PROFILE": "ada", "MEMOTURN_SOURCE": "ci"}
    assert here("memory", "ingest", "deployed", "-p", "bob", **variables).json["txid"] == 1
    profiles = here("memory", "profiles", **variables)
    assert [entry["database"] for entry in profiles.json["profiles"]] == ["acme--bob"]
    assert profiles.err == "", "a list of profiles reflects no transaction"
    (hit,) = here("memory", "recall", "deployed", "-n", "acme", "--profile", "bob").json["memories"]
    assert (hit["source"], hit["type"], hit["content"]) == ("ci", "event", {"summary": "deployed"})


# --- files --------------------------------------------------------------------------------------


def test_json_lines_from_stdin_are_kept_in_batches_and_in_order(many: tuple[Shell, Done]) -> None:
    shell, kept = many
    assert len(kept.json["results"]) == MANY
    assert kept.json["txid"] == 2
    assert {result["status"] for result in kept.json["results"]} == {"created"}
    last = InProcess(shell.home)("memory", "get", kept.json["results"][-1]["id"]).json
    assert (last["summary"], last["session_id"], last["source"]) == (f"step {MANY - 1}", "import", "log")


def test_a_broken_line_is_named_and_nothing_at_all_is_written(here: InProcess) -> None:
    lines = [json.dumps({"type": "event", "summary": f"step {number}"}) for number in range(1_500)]
    for broken, said in (
        ('{"type": "event", "summary": }', "is not valid JSON: "),
        ('{"type": "event", "summary": "x", "ttl": 3}', "ttl: is only for tasks"),
    ):
        text = "\n".join([*lines, "", broken, lines[0]])
        done = here("memory", "ingest", "--file", "-", stdin=text.encode())
        assert done.code == 2
        assert as_error(done).startswith(f"memoturn: line 1502: {said}")
        assert not here.home.exists()


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


def test_errors_are_one_line_with_a_hint_and_the_exit_code_of_their_kind(node: RunningNode, beside: InProcess) -> None:
    unknown = "memoturn: there is no memory mem_0\nhint: "
    nobody = "memoturn: there is no database default--nobody\nhint: profiles in namespace default: default; "
    no_branch = "memoturn: there is no branch draft\nhint: without --branch "
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
    for command, (code, said) in expected.items():
        done = beside("memory", *command)
        assert done.code == code, command
        assert as_error(done).startswith(said), command


def test_a_node_that_is_not_there_is_an_error_that_asks_whether_it_runs(here: InProcess) -> None:
    done = here("memory", "recall", "x", MEMOTURN_URL=NOBODY_LISTENS)
    assert done.code == 6
    assert as_error(done).startswith(f"memoturn: the node at {NOBODY_LISTENS} cannot be reached")
    assert "hint: is the node running? `memoturn serve` starts one" in done.err


def test_wrong_usage_is_refused_before_anything_is_opened(here: InProcess) -> None:
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
    for command, said in ours.items():
        done = here(*command)
        assert done.code == 2, command
        assert as_error(done).startswith(f"memoturn: {said}"), command
    for command, said in theirs.items():
        done = here(*command)
        assert done.code == 2, command
        assert said in done.err
        assert "Traceback" not in done.err
    assert not here.home.exists()


def test_a_misspelt_setting_is_refused_with_the_likely_one(here: InProcess) -> None:
    done = here("memory", "profiles", MEMOTURN_PROFLIE="ada")
    assert done.code == 2
    assert "did you mean MEMOTURN_PROFILE?" in as_error(done)
    assert "hint: set it right or unset it; `memoturn doctor`" in done.err


def test_a_failing_embedder_is_a_warning_and_the_memory_is_kept(here: InProcess) -> None:
    done = here(
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


def test_a_node_and_the_local_files_give_the_same_answers(node: RunningNode, beside: InProcess) -> None:
    commands: list[tuple[str, ...]] = [
        (
            *("memory", "recall", "lives book", "--topic", "user.city", "--type", "fact", "--type", "task", "-k", "3"),
            *("--include-superseded", "--turns", "--since", "2020-01-01"),
        ),
        ("memory", "sessions", "--limit", "5"),
        ("memory", "ingest", "lives in Rome", "--topic", "user.city"),
        ("memory", "get", node.ids[2]),
    ]
    here = [beside(*command) for command in commands]
    there = [beside(*command, "--url", node.url) for command in commands]
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


def test_a_node_keeps_and_forgets_what_it_is_told_to(node: RunningNode, beside: InProcess) -> None:
    kept = beside("memory", "ingest", "a slip of the tongue", "-p", "other", MEMOTURN_URL=node.url)
    assert kept.err == "txid 1\n"
    (id_,) = [result["id"] for result in kept.json["results"]]
    gone = beside("memory", "forget", id_, "-p", "other", "--url", node.url)
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


def test_asking_about_a_directory_that_does_not_exist_does_not_make_it(here: InProcess, tmp_path: Path) -> None:
    typo = tmp_path / "mistyped" / "directory"
    missing = "mem_" + "0" * 32
    for command, code in (
        (("recall", "anything"), 0),
        (("profiles",), 0),
        (("get", missing), 3),
        (("forget", missing), 3),
    ):
        assert here("memory", *command, "--data-dir", str(typo)).code == code
    assert not typo.parent.exists()
    assert here("memory", "ingest", "now there is something", "--data-dir", str(typo)).code == 0
    assert (typo / "catalog.db").exists()
    assert typo.stat().st_mode & 0o077 == 0, "nobody else may read memories"
