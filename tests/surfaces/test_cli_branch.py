"""`memoturn branch` as a shell sees it: here and through a node, in a pipe and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest

from memoturn_mcp.cli import tables
from memoturn_mcp.cli.flags import as_moment
from memoturn_schemas.errors import InvalidRequest
from surfaces.in_process import InProcess, in_process
from surfaces.shell import SCRIPT, TIMEOUT_S, Done, RunningNode, Shell, as_error


def cities(done: Done) -> list[str]:
    return [hit["summary"] for hit in done.json["memories"]]


def test_what_is_tried_on_a_branch_is_dropped_kept_or_taken_back(here: InProcess) -> None:
    city = ("--topic", "user.city")
    here("memory", "ingest", "lives in Paris", *city)
    assert here("branch", "checkpoint", "paris") == Done(0, '{"checkpoint":"paris","txid":1}\n', "txid 1\n")
    here("memory", "ingest", "lives in Rome", *city)
    made = here("branch", "create", "draft", "--checkpoint", "paris", "--ttl", "3600")
    assert made.json == {**made.json, "parent": "main", "fork_txid": 1, "spec": "default--default@draft"}
    assert cities(here("memory", "recall", *city, "--branch", "draft")) == ["lives in Paris"]
    (listed,) = here("branch", "list").json["branches"]
    assert (listed["branch"], listed["ttl_at"]) == ("draft", made.json["ttl_at"])
    promoted = here("branch", "promote", "draft", "--keep-as", "rome")
    assert (promoted.json["promoted"], promoted.err) == ("draft", "txid 1\n"), "nobody is asked in a pipe"
    assert cities(here("memory", "recall", *city)) == ["lives in Paris"]
    assert cities(here("memory", "recall", *city, "--branch", "rome")) == ["lives in Rome"]
    assert here("branch", "rewind", "1", "--branch", "rome").json["rewound_to"] == 1
    assert [here("branch", "delete", "rome").json for _ in range(2)] == [{"deleted": True}, {"deleted": False}]


def test_a_node_does_the_same_with_its_branches(node: RunningNode) -> None:
    there = ("-p", "travels", "--url", node.url)
    with in_process(node.shell.home) as here:
        here("memory", "ingest", "in Paris", *there)
        assert here("branch", "checkpoint", "start", *there).json == {"checkpoint": "start", "txid": 1}
        assert here("branch", "create", "draft", "--at", "start", *there).json["fork_txid"] == 1
        assert here("branch", "checkpoint", "same", "--branch", "draft", *there).json["txid"] == 1
        inspected = here("storage", "inspect", "--branch", "draft", *there).json
        assert (inspected["branch"], inspected["checkpoints"]) == ("draft", {"same": 1})
        assert here("branch", "rewind", "same", "--branch", "draft", *there).json["rewound_to"] == 1
        assert here("branch", "promote", "draft", *there).json["txid"] == 1
        assert here("sync", *there).json == {"txid": 1}
        (listed,) = here("branch", "list", "-p", "travels").json["branches"]
        assert listed["branch"] == "draft", "the process that owns it was asked"
        assert here("branch", "delete", "draft", *there).json == {"deleted": True}


def test_what_cannot_be_gone_back_to_is_an_error_that_says_where_to_look(here: InProcess) -> None:
    here("memory", "ingest", "x")
    expected: dict[tuple[str, ...], tuple[int, str, str]] = {
        ("rewind", "nope"): (3, "main has no checkpoint nope", "branch list"),
        ("rewind", "7"): (4, "transaction 7 is above the head of main, 1", "storage inspect"),
        ("rewind", "2026-01-31T9:30"): (2, "TO: should be a checkpoint, a transaction or a time like", ""),
        ("create", "main"): (4, "the branch main exists", ""),
        ("create", "a/b"): (2, "name: must be 1-64 of", ""),
        ("create", "café"): (2, "name: must be ASCII", ""),
        ("create", "x", "--at", "1", "--checkpoint", "y"): (2, "checkpoint and at: give one of them", ""),
        ("create", "x", "--ttl", "-1"): (2, "ttl: should be greater than or equal to 0", ""),
        ("create", "x", "--from", "nope"): (3, "there is no branch nope", "branch list"),
        ("checkpoint", "x", "-p", "nobody"): (3, "there is no database default--nobody", "profiles in namespace"),
        ("delete", "main"): (2, "branch: main cannot be deleted", ""),
    }
    for command, (code, said, hint) in expected.items():
        done = here("branch", *command)
        assert (done.code, as_error(done).partition("\n")[0].startswith(f"memoturn: {said}")) == (code, True), command
        assert ("hint: " in done.err) == bool(hint), command
        assert hint in done.err, command


def test_a_person_at_a_terminal_is_asked_before_anything_is_discarded(shell: Shell) -> None:
    shell("memory", "ingest", "x", "-n", "acme", "-p", "ada")
    command = ("branch", "rewind", "1", "-n", "acme", "-p", "ada")
    for typed, code, said in ((b"\n", 1, b"nothing was changed\n"), (b"y\n", 0, b"txid 1\n")):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [SCRIPT, *command], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=shell.environment()
        )
        os.close(theirs)
        assert process.stderr is not None
        question = b""
        while not question.endswith(b"[y/N] "):
            question += process.stderr.read(1) or pytest.fail("it did not ask")
        assert question == b"Rewind main of acme/ada to 1? What came after it is discarded. [y/N] "
        os.write(ours, typed)
        assert process.communicate(timeout=TIMEOUT_S)[1] == said
        os.close(ours)
        assert process.returncode == code
    answered = shell.on_a_terminal(*command, "--yes")
    assert (answered.code, answered.out, answered.err) == (0, "back at transaction 1\n", "txid 1\n")


# --- values -------------------------------------------------------------------------------------


def test_a_moment_with_a_colon_is_a_time_and_all_else_is_handed_on() -> None:
    for text in ("7", "1700000000123", "before-the-trip", "2026-01-31"):
        assert as_moment("TO", text) == text
    then = datetime.fromisoformat(as_moment("TO", "2026-01-31T09:30+02:00"))
    assert then == datetime(2026, 1, 31, 7, 30, tzinfo=UTC)
    assert re.fullmatch(r"1971-01-31T09:30:00[+-]\d\d:\d\d", as_moment("TO", "1971-01-31T09:30")), "it stays a time"
    for wrong in (":", "yesterday at 9:30", "2026-01-31T25:00"):
        with pytest.raises(InvalidRequest, match="TO: should be a checkpoint, a transaction or a time like"):
            as_moment("TO", wrong)


def test_every_reply_about_branches_has_a_table() -> None:
    def shown(name: str, value: Any) -> list[str]:
        return [line.rstrip() for line in tables.render(tables.of(name, value)).splitlines()]

    made = {"branch": "b", "parent": "main", "fork_txid": 3, "ttl_at": None, "spec": "n--p@b"}
    assert shown("branch_create", made) == ["n--p@b, from main after transaction 3"]
    assert re.search(r"; it goes away \d+ years ago$", shown("branch_create", {**made, "ttl_at": 0})[0])
    entry = {"branch": "b", "parent": "main", "fork_txid": 3, "head_txid": 5, "created_at": 0, "ttl_at": None}
    assert re.match(r"b +main +3 +5 +\d+ years ago", shown("branch_list", {"branches": [entry]})[-1])
    assert shown("branch_list", {"branches": []}) == ["no branches beside main"]
    assert shown("branch_delete", {"deleted": False}) == ["there is no such branch"]
    assert shown("branch_checkpoint", {"checkpoint": "c", "txid": 3}) == ["c is transaction 3"]
    assert shown("branch_rewind", {"rewound_to": 3, "epoch": 2}) == ["back at transaction 3"]
    assert shown("branch_promote", {"promoted": "b", "txid": 3, "epoch": 2}) == [
        "main is what b is, after transaction 3"
    ]
    assert shown("sync", {"txid": 3}) == ["object storage has everything up to transaction 3"]
