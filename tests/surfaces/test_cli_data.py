"""`memoturn kv`, `docs`, `vector`, `sql` and `db` as a shell sees them: on this machine's files and through a node."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.live_node import Live, serve
from memoturn_schemas.vectors import BATCH_LIMIT
from surfaces.in_process import InProcess
from surfaces.shell import SCRIPT, TIMEOUT_S, Done, Shell, as_error

VALUES = (b"", b"\0", b"text", "caf\u00e9\r\n".encode(), bytes(range(256)), b"\xff\xfe", b'{"$base64": "eA=="}')
KEYS = ("a", "..", ".", "a/b", "\u00e9?#%2F&x=1", " ", "@")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serve(tmp_path_factory.mktemp("node")) as node:
        yield node


@dataclass(frozen=True)
class Somewhere:
    """Runs commands with flags that say where."""

    run: InProcess
    where: tuple[str, ...]

    def __call__(self, *arguments: str) -> Done:
        return self.run(*arguments, *self.where)


@pytest.fixture(params=["here", "through a node"])
def run(request: pytest.FixtureRequest, here: InProcess, live: Live) -> Somewhere:
    return Somewhere(here, () if request.param == "here" else ("--url", live.url))


# --- what comes out is what went in -------------------------------------------------------------


def test_values_and_keys_come_out_as_they_went_in_to_the_byte(run: Somewhere, tmp_path: Path) -> None:
    given, taken = tmp_path / "given", tmp_path / "taken"
    for key, value in zip(KEYS, VALUES, strict=True):
        given.write_bytes(value)
        assert run("kv", "put", "n/s", key, "--file", str(given)).json.keys() == {"txid"}
        done = run("kv", "get", "n/s", key, "--out", str(taken))
        assert (done.code, done.out, re.sub(r"\d+", "", done.err)) == (0, "", "txid \n")
        assert taken.read_bytes() == value
    assert run("kv", "list", "n/s").json == {"keys": sorted(KEYS, key=str.encode)}
    page = run("kv", "list", "n/s", "--limit", "2").json
    rest = run("kv", "list", "n/s", "--cursor", page["next_cursor"]).json
    assert page["keys"] + rest["keys"] == sorted(KEYS, key=str.encode)
    assert run("kv", "get", "n/s", "a/b").json == {"value": "caf\u00e9\r\n"}
    assert run("kv", "get", "n/s", " ").json == {"value": {"$base64": "//4="}}
    assert run("kv", "get", "n/s", "@", "--raw").out == '{"$base64": "eA=="}', "and no line end"
    assert run("kv", "delete", "n/s", "@").json == {"deleted": True}
    assert run("kv", "get", "n/s", "@").code == 3


def test_bytes_go_through_a_pipe_both_ways_and_an_argument_may_be_no_text(here: InProcess, tmp_path: Path) -> None:
    everything = bytes(range(256)) * 4
    piped = subprocess.run(
        ["bash", "-c", f"'{SCRIPT}' kv put s all --file - >&2 && '{SCRIPT}' kv get s all --raw"],
        input=everything,
        capture_output=True,
        env=Shell(here.home).environment(),
        timeout=TIMEOUT_S,
    )
    assert (piped.returncode, piped.stdout) == (0, everything)
    here("kv", "put", "s", "argument", os.fsdecode(b"\xff\xfe"))
    assert here("kv", "get", "s", "argument").json == {"value": {"$base64": "//4="}}


def test_statements_are_one_transaction_and_values_are_bound(run: Somewhere, tmp_path: Path) -> None:
    run("db", "create", "rows")

    def sql(*arguments: str) -> Done:
        return run("sql", "--db", "rows", *arguments)

    made = sql("CREATE TABLE t (a, b)", "INSERT INTO t VALUES (1, x'00ff'), (2, NULL)").json
    assert made == {
        "results": [
            {"columns": [], "rows": [], "rows_affected": 0},
            {"columns": [], "rows": [], "rows_affected": 2},
        ],
        "txid": 1,
    }
    assert sql("INSERT INTO t VALUES (3, 'x')", "INSERT INTO nowhere VALUES (1)").code == 2
    sql("INSERT INTO t VALUES (?, ?)", "--param", "4", "--param", '{"$base64": "AP8="}')
    found = sql("SELECT * FROM t WHERE a >= :least AND a < :end", "--param", "least=2", "--param", "end=9")
    assert found.json["results"][0]["rows"] == [[2, None], [4, {"$base64": "AP8="}]]
    assert found.err == "txid 2\n"
    script = tmp_path / "script.sql"
    script.write_text("\ufeffDELETE FROM t WHERE a > ?;\nSELECT count(*) FROM t WHERE a < ?")
    assert sql("--file", str(script), "--param", "2", "--param", "9").json["results"][0]["rows"] == [[2]]
    assert run("sql", "--db", "rows@nope", "SELECT 1").code == 3


def test_documents_are_kept_found_changed_and_deleted(run: Somewhere, tmp_path: Path) -> None:
    run("db", "create", "papers")
    db = ("--db", "papers")
    lines = tmp_path / "papers.jsonl"
    lines.write_text("\n".join(json.dumps({"_id": f"{n:04}", "n": n, "tag": "ab"[n % 2]}) for n in range(1_001)) + "\n")
    kept = run("docs", "insert", "c", "--file", str(lines), *db).json
    assert kept == {"ids": [f"{n:04}" for n in range(1_001)], "txid": 2}, "a thousand at a time"
    found = run("docs", "find", "c", '{"n": {"$lt": 9}}', "--sort", '{"n": -1}', "--limit", "2", "--skip", "1", *db)
    assert [each["n"] for each in found.json["docs"]] == [7, 6]
    assert run("docs", "update", "c", '{"tag": "a"}', '{"$set": {"seen": true}}', *db).json["modified"] == 1
    assert run("docs", "update", "c", '{"tag": "a"}', '{"$inc": {"n": 1}}', "--multi", *db).json["modified"] == 501
    assert run("docs", "delete", "c", '{"tag": "b"}', "--multi", *db).json["deleted"] == 500
    assert run("docs", "index", "c", "tag", *db).json == {"indexed": "tag"}
    assert run("docs", "insert", "d", '[{"_id": "x"}, {"_id": "y"}]', *db).json["ids"] == ["x", "y"]
    assert run("docs", "find", "d", "--as-of", "2", *db).json["docs"] == [], "as it stood then"
    assert run("docs", "collections", *db).json["collections"] == [
        {"name": "c", "documents": 501, "indexes": ["tag"]},
        {"name": "d", "documents": 2, "indexes": []},
    ]


def test_vectors_are_kept_one_by_one_or_by_the_file_and_searched(run: Somewhere, tmp_path: Path) -> None:
    run("db", "create", "space")
    db = ("--db", "space")
    many = tmp_path / "vectors.json"
    many.write_text(json.dumps([{"id": f"v{n}", "embedding": [1, n]} for n in range(BATCH_LIMIT + 1)]))
    assert run("vector", "put", "c", "--file", str(many), *db).json == {"txid": 2}
    run("vector", "put", "c", "west", "[-1, 0.0]", *db)
    assert [hit["id"] for hit in run("vector", "search", "c", "[1, 0]", "-k", "2", *db).json["hits"]] == ["v0", "v1"]
    wanted = tmp_path / "wanted.json"
    wanted.write_text("[-3.5, 0]\n")
    [nearest] = run("vector", "search", "c", "--file", str(wanted), "-k", "1", *db).json["hits"]
    assert nearest == {"id": "west", "distance": pytest.approx(0, abs=1e-6)}
    assert run("vector", "delete", "c", "west", *db).json == {"deleted": True}
    assert run("vector", "collections", *db).json == {
        "collections": [{"name": "c", "dimension": 2, "count": BATCH_LIMIT + 1}]
    }


def test_databases_are_created_listed_measured_and_deleted(run: Somewhere) -> None:
    made = run("db", "create", "one", "--ttl", "86400", "--durability", "durable").json
    assert made == {**made, "name": "one", "durability": "durable", "ttl_at": made["created_at"] + 86_400_000}
    again = run("db", "create", "one")
    assert (again.code, "hint: `memoturn db list`" in as_error(again)) == (4, True)
    run("db", "create", "two")
    names: list[str] = []
    cursor: tuple[str, ...] = ()
    while True:
        page = run("db", "list", "--limit", "1", *cursor).json
        names += [each["name"] for each in page["databases"]]
        if "next_cursor" not in page:
            break
        cursor = ("--cursor", page["next_cursor"])
    assert names == sorted(names)
    assert {"one", "two"} <= set(names)
    run("kv", "put", "s", "k", "v", "--db", "two")
    assert run("db", "usage", "two").json["rows"]["kv"] == 1
    assert [run("db", "delete", name).json for name in ("one", "two")] == [{"deleted": True}] * 2
    gone = run("db", "delete", "one")
    assert (gone.code, as_error(gone).splitlines()[0]) == (3, "memoturn: there is no database one")
    assert run("kv", "get", "s", "k", "--db", "two").code == 3


def test_a_profile_and_its_branch_are_meant_as_with_memories(here: InProcess) -> None:
    here("kv", "put", "s", "k", "main", "-n", "acme", "-p", "ada")
    here("branch", "create", "draft", "-n", "acme", "-p", "ada")
    here("kv", "put", "s", "k", "draft", "-n", "acme", "-p", "ada", "--branch", "draft")
    for flags, value in {
        ("-n", "acme", "-p", "ada"): "main",
        ("--db", "acme--ada"): "main",
        ("--db", "acme--ada@draft"): "draft",
        ("--db", "acme--ada", "--branch", "draft"): "draft",
    }.items():
        assert here("kv", "get", "s", "k", *flags).json == {"value": value}, flags
    assert here("kv", "get", "s", "k", MEMOTURN_NAMESPACE="acme", MEMOTURN_PROFILE="ada").json == {"value": "main"}
    assert here("kv", "get", "s", "k", "--db", "acme--ada", MEMOTURN_PROFILE="bob").json == {"value": "main"}


def test_a_process_that_owns_the_database_is_asked_for_bytes_too(tmp_path: Path, here: InProcess) -> None:
    with serve(tmp_path / "data") as node:
        node.http.put("/v1/memory/default/default/kv/s/k", content=b"\xff\0").raise_for_status()
        assert here("kv", "get", "s", "k").json == {"value": {"$base64": "/wA="}}
        given = tmp_path / "given"
        given.write_bytes(b"\0\xff")
        here("kv", "put", "s", "k", "--file", str(given))
        assert node.http.get("/v1/memory/default/default/kv/s/k").content == b"\0\xff"


# --- what is wrong ------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_by_its_name_and_nothing_is_made(here: InProcess, tmp_path: Path) -> None:
    bad_line, no_text = tmp_path / "bad.jsonl", tmp_path / "no_text"
    bad_line.write_text('{"_id": "a", "id": "a", "embedding": [1]}\n\n{"_id": 7, "id": "", "embedding": [1]}\n')
    no_text.write_bytes(b"SELECT '\xff'")
    nowhere = str(tmp_path / "nowhere")
    expected: dict[tuple[str, ...], str] = {
        ("kv", "put", "s", "k"): "VALUE: give it, or --file",
        ("kv", "put", "s", "k", "v", "--file", "x"): "VALUE: give it, or --file",
        ("kv", "put", "s", "k", "--file", nowhere): f"--file: cannot read {nowhere}: No such file",
        ("kv", "put", "", "k", "v"): "ns: ",
        ("kv", "put", "s", "k", "v", "--ttl", "-1"): "ttl: should be greater than or equal to 0",
        ("kv", "put", "s", "\udcff", "v"): "key: is not valid UTF-8",
        ("kv", "put", "s", "k", "v", "--db", "a", "-p", "b"): "--profile: leave it out with --db a",
        ("kv", "put", "s", "k", "v", "--db", "a", "-n", "b"): "--namespace: leave it out with --db a",
        ("kv", "put", "s", "k", "v", "--db", "a@b", "--branch", "c"): "--branch: leave it out with --db a@b",
        ("kv", "put", "s", "k", "v", "--db", "A B"): "db: must be 1-64 of",
        ("kv", "put", "s", "k", "v", "--branch", "a/b"): "branch: must be 1-64 of",
        ("kv", "get", "s", "k", "--raw", "--format", "json"): "--format: leave it out with --raw",
        ("kv", "get", "s", "k", "--raw", "-o", "x"): "--raw: leave it out with --out",
        ("kv", "list", "s", "--cursor", "!"): "cursor: must be the next_cursor",
        ("sql",): "STATEMENT: give one or more, or --file",
        ("sql", "SELECT 1", "--file", "x"): "STATEMENT: give one or more, or --file",
        ("sql", "SELECT 1", "SELECT ?", "--param", "1"): "--param: give it with one statement",
        ("sql", "SELECT ?", "--param", "Rome"): "--param: is not valid JSON: ",
        ("sql", "SELECT ?", "--param", "1", "--param", "a=1"): "--param: give all values by NAME=JSON",
        ("sql", "SELECT ?", "--param", "a=1", "--param", "a=1"): "--param: a is given twice",
        ("sql", "SELECT '\udcff'"): "STATEMENT 1: is not valid UTF-8",
        ("sql", "--file", str(no_text)): f"--file: {no_text} is not valid UTF-8",
        ("sql", "SELEKT"): "stmts[0]: ",
        ("docs", "insert", "c"): "JSON: give it, or --file",
        ("docs", "insert", "c", "[{}, 7]"): "JSON[1]: should be a valid dictionary",
        ("docs", "insert", "c", "{"): "JSON: is not valid JSON: ",
        ("docs", "insert", "c", "\udcff"): "JSON: is not valid UTF-8",
        ("docs", "insert", "c", "--file", str(bad_line)): "line 3: must have a string as _id",
        ("docs", "insert", "a b", "{}"): "collection: must be 1-64 of",
        ("docs", "find", "c", "[]"): "FILTER: should be a JSON object",
        ("docs", "find", "c", "null"): "FILTER: should be a JSON object",
        ("docs", "find", "c", "--sort", "x"): "--sort: is not valid JSON: ",
        ("docs", "find", "c", '{"a": {"$near": 1}}'): "filter",
        ("docs", "update", "c", "{}", '{"$pull": {}}'): "update",
        ("vector", "put", "c"): "ID and VECTOR: give them, or --file",
        ("vector", "put", "c", "a", "--file", "x"): "ID and VECTOR: leave them out with --file",
        ("vector", "put", "c", "a", "0.1,0.2"): "VECTOR: is not valid JSON: ",
        ("vector", "put", "c", "a", "[NaN]"): "VECTOR: is not valid JSON: ",
        ("vector", "put", "c", "a", "[0]"): "embedding: must not be all zeros",
        ("vector", "put", "c", "--file", str(bad_line)): "line 1: _id: unknown field",
        ("vector", "put", "c", "--file", "/dev/null"): "--file: there are no vectors in it",
        ("vector", "search", "c", '"x"'): "vector: should be a valid list",
        ("db", "create", "a--b"): "name: must be 1-64 of",
        ("db", "create", "a", "--ttl", "0"): "ttl: should be greater than",
        ("db", "list", "--cursor", "!"): "cursor: should be next_cursor",
        ("db", "delete", "A"): "db: must be 1-64 of",
        ("db", "delete", "a@b"): "branch: a database is deleted with all its branches",
        ("token", "create", "a", "--scope", "read"): "there are no tokens while auth is off",
        ("token", "create-ns", "A", "--scope", "read"): "namespace: must be 1-64 of",
        ("token", "revoke", ""): "jti: ",
    }
    for command, said in expected.items():
        done = here(*command)
        assert (done.code, as_error(done)[:300].removeprefix("memoturn: ")[: len(said)]) == (2, said), command
    assert not here.home.exists()
    for command in (("db", "create", "a", "--durability", "high"), ("token", "create", "a"), ("kv", "get", "s")):
        wrong = here(*command)
        assert (wrong.code, wrong.out, wrong.err.startswith("Usage: ")) == (2, "", True), command
    assert not here.home.exists()


def test_what_is_not_there_is_said_with_a_hint_where_to_look(here: InProcess) -> None:
    here("kv", "put", "s", "k", "v")
    expected = {
        ("kv", "get", "s", "other"): ("there is no such key", "kv list"),
        ("kv", "get", "s", "k", "--db", "nope"): ("there is no database nope", "db list"),
        ("kv", "get", "s", "k", "-p", "nope"): ("there is no database default--nope", "profiles in namespace default"),
        ("kv", "get", "s", "k", "--branch", "nope"): ("there is no branch nope", "main"),
        ("kv", "put", "s", "k", "v", "--db", "nope"): ("there is no database nope", "db create"),
        ("db", "usage", "nope"): ("there is no database nope", "db list"),
    }
    for command, (said, hint) in expected.items():
        done = here(*command)
        first, *hints = as_error(done).splitlines()
        assert (done.code, said in first, any(hint in each for each in hints)) == (3, True, True), (command, done.err)
    unwritable = here("kv", "get", "s", "k", "--out", "/nowhere/x")
    assert (unwritable.code, unwritable.err.splitlines()[0]) == (
        6,
        "memoturn: --out: /nowhere/x cannot be written: No such file or directory",
    )


def test_of_a_file_that_fails_half_way_is_said_how_much_is_kept(here: InProcess, tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text("\n".join(json.dumps({"_id": str(min(n, 1_000))}) for n in range(1_002)))
    failed = here("docs", "insert", "c", "--file", str(file))
    assert failed.code != 0
    assert as_error(failed).splitlines()[-1] == "hint: the first 1000 documents are kept; go on after them"
    assert here("docs", "collections").json["collections"][0]["documents"] == 1_000
