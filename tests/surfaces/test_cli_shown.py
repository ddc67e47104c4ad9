"""How a person at a terminal sees the data plane and the control plane: questions, tables, help and completion."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from typing import Any

import pytest

from memoturn_core.operations import Scope
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.cli import tables, tables_of_data
from memoturn_mcp.cli.main import _ORDER
from surfaces.in_process import InProcess
from surfaces.shell import SCRIPT, TIMEOUT_S, Shell


def test_a_person_is_asked_before_a_database_is_deleted(here: InProcess, shell: Shell) -> None:
    here("db", "create", "shop")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [SCRIPT, "db", "delete", "shop"], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=shell.environment()
    )
    os.close(theirs)
    assert process.stderr is not None
    question = b""
    while not question.endswith(b"[y/N] "):
        question += process.stderr.read(1) or pytest.fail("it did not ask")
    assert question == b"Delete shop with everything in it and all its branches? [y/N] "
    os.write(ours, b"\n")
    assert process.communicate(timeout=TIMEOUT_S)[1] == b"nothing was changed\n"
    os.close(ours)
    assert process.returncode == 1
    assert [each["name"] for each in here("db", "list").json["databases"]] == ["shop"]


def test_every_reply_of_the_two_planes_has_a_table() -> None:
    def shown(name: str, /, **value: Any) -> list[str]:
        return [line.rstrip() for line in tables.render(tables.of(name, value)).splitlines()]

    planes = {"sql", "docs", "kv", "vectors", "admin"}
    served = {
        operation.name
        for operation in OPERATIONS.values()
        if operation.toolset in planes and operation.scope > Scope.NONE
    }
    in_parts = {"export_records", "import_records", "backup_database", "restore_database"}
    assert served - in_parts <= tables_of_data.TABLES.keys(), "a command puts what comes in parts together"
    rows = {"columns": ["a\x1b", "b"], "rows": [[None, "x\x07"], [1.5, {"$base64": "AA=="}]], "rows_affected": 0}
    assert shown("query", results=[rows, {"columns": [], "rows": [], "rows_affected": 1}])[0] == r"a\x1b  b"
    assert shown("query", results=[rows])[2:] == [r"null   x\x07", '1.5    {"$base64": "AA=="}', "2 rows"]
    assert shown("query", results=[{"columns": [], "rows": [], "rows_affected": 1}]) == ["1 row changed"]
    assert shown("kv_get", value=b"a\n\x1b b") == ["a", r"\x1b b"]
    assert shown("kv_get", value=b"\xff") == ["1 byte, no text; --raw writes them, -o FILE keeps them"]
    assert shown("kv_get", value=b"x" * 500) == ["x" * 500], "to be copied whole"
    assert shown("kv_list", keys=["a\nb", "c"], next_cursor="Yw") == [r"a\nb", "c", "there are more: --cursor Yw"]
    assert shown("docs_find", docs=[{"a": "\u00e9[b]"}]) == ['{"a": "\u00e9[b]"}']
    assert shown("docs_insert", ids=["x"] * 51) == ["51 documents kept"]
    assert shown("docs_insert", ids=["x"]) == ["x", "1 document kept"]
    assert shown("docs_index", indexed="a.b") == ["a.b is indexed"]
    assert shown("vector_search", hits=[{"id": "a", "distance": 0.25}])[-1] == "a   0.2500"
    token = "t" * 300
    assert shown("token_create", token=token, scope="read", expires_in=1, jti="j") == [
        token,
        "",
        "scope read, for 1 second; to revoke it: j",
    ]
    assert shown("provision_database", name="x", durability="standard", ttl_at=0)[0].startswith("x is created; it")
    assert shown("list_databases", databases=[]) == ["no databases"]


def test_the_tables_are_of_what_the_operations_answer(here: InProcess) -> None:
    commands: tuple[tuple[str, ...], ...] = (
        ("db", "create", "shop"),
        ("db", "list"),
        ("kv", "put", "s", "k", "v", "--db", "shop"),
        ("kv", "get", "s", "k", "--db", "shop"),
        ("kv", "list", "s", "--db", "shop"),
        ("kv", "delete", "s", "k", "--db", "shop"),
        ("docs", "insert", "c", "{}", "--db", "shop"),
        ("docs", "find", "c", "--db", "shop"),
        ("docs", "update", "c", "{}", '{"$set": {"a": 1}}', "--db", "shop"),
        ("docs", "index", "c", "a", "--db", "shop"),
        ("docs", "collections", "--db", "shop"),
        ("docs", "delete", "c", "{}", "--db", "shop"),
        ("vector", "put", "c", "a", "[1]", "--db", "shop"),
        ("vector", "search", "c", "[1]", "--db", "shop"),
        ("vector", "collections", "--db", "shop"),
        ("vector", "delete", "c", "a", "--db", "shop"),
        ("sql", "CREATE TABLE t (a)", "SELECT 1", "--db", "shop"),
        ("db", "usage", "shop"),
        ("db", "delete", "shop"),
    )
    for command in commands:
        done = here(*command, "--format", "human")
        assert (done.code, bool(done.out.strip())) == (0, True), (command, done.err)


# --- help and completion ------------------------------------------------------------------------


def test_help_lists_the_commands_in_the_order_of_their_use(here: InProcess) -> None:
    listed = re.findall(r"^  ([a-z]+) {2}", here("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert listed == list(_ORDER)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("memoturn d", {"docs", "db", "doctor"}),
        ("memoturn token cr", {"create", "create-ns"}),
        ("memoturn kv put --na", {"--namespace"}),
        ("memoturn token create x --scope ", {"read", "write", "admin"}),
    ],
)
def test_a_shell_completes_commands_flags_and_their_values(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, words: str, completed: set[str]
) -> None:
    count = str(len(words.split(" ")) - 1)
    for name, value in {"COMP_WORDS": words, "COMP_CWORD": count, "_MEMOTURN_COMPLETE": "complete_bash"}.items():
        monkeypatch.setenv(name, value)
    assert set(here().out.split()) == completed
