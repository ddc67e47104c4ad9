"""Items 70 to 80 and 82: SQL over the user's own tables, one atomic batch a request."""

from __future__ import annotations

import asyncio
import base64
import itertools
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.bad_input import refusal, refused
from contract.live_node import Live, event, message_of
from memoturn_core.address import Address
from memoturn_core.caller import Caller
from memoturn_core.invoke import invoke
from memoturn_core.operations import Scope
from memoturn_core.registry import OPERATIONS
from memoturn_schemas.errors import Forbidden

TOOLSETS = "sql"

_numbers = itertools.count(1)


class Database:
    """A plain database of the module's node that nobody has used."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.name = f"plain{next(_numbers)}"
        self.path = f"/v1/db/{self.name}"
        live.node.catalog.create(self.name)

    def post(self, *stmts: Any, at: str = "", **headers: str) -> Any:
        """Each statement is a text, or a text with its params."""
        return self.live.http.post(
            f"{self.path}{at}/sql", json={"stmts": [_statement(given) for given in stmts]}, headers=headers
        )

    def run(self, *stmts: Any, at: str = "") -> list[dict[str, Any]]:
        """The results of a batch that is certainly right."""
        response = self.post(*stmts, at=at)
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    def rows(self, *stmts: Any, at: str = "") -> list[list[Any]]:
        """Those of the last statement."""
        rows: list[list[Any]] = self.run(*stmts, at=at)[-1]["rows"]
        return rows

    @property
    def txid(self) -> int:
        return int(self.post("SELECT 1").json()["txid"])

    def read(self, text: str) -> Any:
        """The same as a caller who may only read."""
        arguments = {"stmts": [{"q": text}]}
        address = Address.of_database(self.name)
        asked = invoke(self.live.node, OPERATIONS["query"], address, arguments, Caller(Scope.READ))
        return asyncio.run(asked)  # type: ignore[arg-type]


def _statement(given: Any) -> dict[str, Any]:
    return {"q": given} if isinstance(given, str) else {"q": given[0], "params": given[1]}


@pytest.fixture
def db(live: Live) -> Database:
    return Database(live)


NOTES = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body)"


# --- shapes --------------------------------------------------------------------------------------


def test_item_70_a_batch_answers_a_result_each_with_positional_rows_and_the_txid(db):
    response = db.post(NOTES, ("INSERT INTO notes(body) VALUES (?), (?)", ["a", "b"]), "SELECT * FROM notes")
    assert response.status_code == 200
    assert response.json() == {
        "results": [
            {"columns": [], "rows": [], "rows_affected": 0},
            {"columns": [], "rows": [], "rows_affected": 2},
            {"columns": ["id", "body"], "rows": [[1, "a"], [2, "b"]], "rows_affected": 0},
        ],
        "txid": 1,
    }
    assert response.headers["Memoturn-Txid"] == "1"


def test_item_70_several_statements_in_one_q_answer_as_the_last(db):
    results = db.run(f"{NOTES}; INSERT INTO notes(body) VALUES (1); SELECT 7 AS x;", "SELECT 1; DELETE FROM notes")
    assert results[0] == {"columns": ["x"], "rows": [[7]], "rows_affected": 0}
    assert results[1] == {"columns": [], "rows": [], "rows_affected": 1}


def test_item_70_columns_of_the_same_name_all_stay(db):
    assert db.run("SELECT 1 AS x, 2 AS x")[0] == {"columns": ["x", "x"], "rows": [[1, 2]], "rows_affected": 0}


def test_item_71_what_returns_rows_has_rows_affected_0_and_the_rest_counts_them(db):
    db.run(NOTES)
    returning = db.run("INSERT INTO notes(body) VALUES (1), (2) RETURNING id")[0]
    assert returning == {"columns": ["id"], "rows": [[1], [2]], "rows_affected": 0}
    counts = [
        result["rows_affected"]
        for result in db.run(
            "UPDATE notes SET body = 3",
            "CREATE TABLE other(a)",
            "UPDATE notes SET body = 3 WHERE id = 9",
            "INSERT INTO other SELECT id FROM notes WHERE 0",
            "DELETE FROM notes",
            "DROP TABLE other",
        )
    ]
    assert counts == [2, 0, 0, 0, 2, 0]
    assert db.run("SELECT * FROM notes")[0] == {"columns": ["id", "body"], "rows": [], "rows_affected": 0}


def test_item_71_a_reader_is_not_told_of_anothers_changes(db):
    db.run(NOTES, "INSERT INTO notes VALUES (77, 1)")
    assert db.rows("SELECT last_insert_rowid()") == [[0]]
    assert db.rows("INSERT INTO notes VALUES (78, 1)", "SELECT last_insert_rowid(), changes()") == [[78, 1]]


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind", "found"),
    [
        (None, "null", None),
        (True, "integer", 1),
        (False, "integer", 0),
        (2**63 - 1, "integer", 2**63 - 1),
        (-(2**63), "integer", -(2**63)),
        (2**53 + 1, "integer", 2**53 + 1),
        (0.1, "real", 0.1),
        (5e-324, "real", 5e-324),
        (1.0, "real", 1.0),
        ("", "text", ""),
        ("日本語 🍵 \u0000 x", "text", "日本語 🍵 \u0000 x"),
        ({"$base64": ""}, "blob", {"$base64": ""}),
        ({"$base64": "AP8="}, "blob", {"$base64": "AP8="}),
        ([1, "a", None, [True]], "text", '[1,"a",null,[true]]'),
        ({"b": 1, "a": {"$base64": "x"}}, "text", '{"b":1,"a":{"$base64":"x"}}'),
        ({}, "text", "{}"),
        ({"$base64": "AA==", "x": 1}, "text", '{"$base64":"AA==","x":1}'),
    ],
)
def test_item_72_values_go_in_and_come_out(db, given, kind, found):
    assert db.rows(("SELECT ?1, typeof(?1)", [given])) == [[found, kind]]
    [[stored]] = db.rows("CREATE TABLE kept(v)", ("INSERT INTO kept VALUES (?)", [given]), "SELECT v FROM kept")
    assert stored == found
    assert type(stored) is type(found)


_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.binary(max_size=40).map(lambda data: {"$base64": base64.b64encode(data).decode()}),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_VALUES, min_size=1, max_size=6))
def test_item_72_any_row_of_values_comes_back_as_it_went(db, values):
    marks = ", ".join("?" * len(values))
    assert repr(db.rows((f"SELECT {marks}", values))) == repr([values])
    names = {f"v{index}": value for index, value in enumerate(values)}
    assert repr(db.rows((f"SELECT {', '.join(':' + name for name in names)}", names))) == repr([values])


def test_item_72_params_are_by_position_or_by_name(db):
    assert db.rows(("SELECT ?, ?2, ?1", [1, 2])) == [[1, 2, 1]]
    assert db.rows(("SELECT :a, @b, $c, :a", {"a": 1, "b": 2, "c": 3})) == [[1, 2, 3, 1]]
    assert db.rows(("SELECT ?; SELECT ?, ?", [1, 2, 3])) == [[2, 3]]
    assert db.rows(("SELECT :a; SELECT :b", {"a": 1, "b": 2})) == [[2]]
    assert db.rows(("SELECT 1", [])) == [[1]]
    assert db.rows(("SELECT 1", None)) == [[1]]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ([1, 2**63], "stmts[1].params[1]"),
        ([-(2**63) - 1], "stmts[1].params[0]"),
        ({"a": 10**30}, "stmts[1].params.a"),
        ([{"$base64": "no!"}], "stmts[1].params[0].$base64"),
        ([{"$base64": 1}], "stmts[1].params[0].$base64"),
        ([{"$base64": "AAE"}], "stmts[1].params[0].$base64"),
        ("x", "stmts[1].params"),
        (1, "stmts[1].params"),
        ([], "stmts[1].params"),
        ([1, 2], "stmts[1].params"),
        ({"b": 1}, "stmts[1].params"),
        ({}, "stmts[1].params"),
        ({"a": 1, "b": 2}, "stmts[1]"),
        ([[[], {}], 1], "stmts[1].params"),
    ],
)
def test_item_72_bad_params_are_400_that_names_them(db, params, field):
    db.run(NOTES)
    refused(db.post("INSERT INTO notes VALUES (1, 1)", ("SELECT :a", params)), field)
    assert db.rows("SELECT * FROM notes") == []


def test_item_72_a_deeply_nested_param_is_400(db):
    nested: Any = 1
    for _ in range(150):
        nested = [nested]
    refused(db.post(("SELECT ?", [nested])), "stmts[0].params")


@pytest.mark.parametrize("body", ['{"stmts":[{"q":"SELECT ?","params":[%s]}]}'])
@pytest.mark.parametrize("literal", ["1e999", "NaN", "-Infinity", '"\\ud800"'])
def test_item_72_what_is_no_json_value_is_400(db, body, literal):
    headers = {"content-type": "application/json"}
    response = db.live.http.post(f"{db.path}/sql", content=body % literal, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("text", ["SELECT 9e999", "SELECT -9e999", "SELECT 1, exp(1000)"])
def test_item_72_an_infinity_is_an_error_and_as_text_it_is_not(db, text):
    refused(db.post(text), "stmts[0]")
    assert db.rows(text.replace("SELECT ", "SELECT CAST(", 1).replace("1, ", "") + " AS TEXT)")[0][0] in ("Inf", "-Inf")


def test_item_72_a_real_that_is_not_a_number_is_null(db):
    assert db.rows("SELECT 9e999 - 9e999") == [[None]]
    assert math.isfinite(db.rows("SELECT 1.7976931348623157e308")[0][0])


def test_item_72_text_that_is_no_utf8_is_an_error_and_as_blob_it_is_not(db):
    db.run("CREATE TABLE t(v)", "INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
    refused(db.post("SELECT v FROM t"), "stmts[0]")
    assert db.rows("SELECT CAST(v AS BLOB) FROM t") == [[{"$base64": "/w=="}]]


# --- transactions --------------------------------------------------------------------------------


def test_item_73_the_first_effective_batch_is_1_a_batch_bumps_once_and_reads_do_not(db):
    assert db.txid == 0
    assert db.post("SELECT 1", "PRAGMA table_list").json()["txid"] == 0
    assert db.post(NOTES, *["INSERT INTO notes(body) VALUES (1)"] * 5).json()["txid"] == 1
    assert db.post("SELECT * FROM notes").json()["txid"] == 1
    assert db.post("UPDATE notes SET body = 2 WHERE id = 99").json()["txid"] == 1
    assert db.post("DELETE FROM notes WHERE id = 1", "SELECT 1").json()["txid"] == 2
    assert db.post("CREATE TABLE IF NOT EXISTS notes(a)").json()["txid"] == 2
    assert db.post("CREATE VIEW seen AS SELECT 1").json()["txid"] == 3


@pytest.mark.parametrize(
    "failing",
    [
        "SELEC 1",
        "INSERT INTO nowhere VALUES (1)",
        "INSERT INTO notes VALUES (1, 'again')",
        "INSERT OR FAIL INTO notes SELECT value, 1 FROM json_each('[5, 6, 1]')",
        "INSERT OR ROLLBACK INTO notes VALUES (1, 'again')",
        "INSERT INTO checked VALUES (-1)",
        "INSERT INTO child VALUES (9)",
        "SELECT abs(-9223372036854775807 - 1)",
        "CREATE TABLE notes(a)",
        "DROP TABLE nowhere",
        "INSERT INTO strictly VALUES ('x')",
        "BEGIN",
        "",
    ],
)
def test_item_74_any_failure_is_400_that_names_the_statement_and_rolls_everything_back(db, failing):
    db.run(
        NOTES,
        "INSERT INTO notes VALUES (1, 'kept')",
        "CREATE TABLE checked(a CHECK (a > 0))",
        "CREATE TABLE child(parent REFERENCES notes)",
        "CREATE TABLE strictly(a INTEGER) STRICT",
    )
    before = db.rows("SELECT * FROM notes"), db.rows("PRAGMA table_list"), db.txid
    response = db.post("INSERT INTO notes VALUES (2, 'lost')", "CREATE TABLE lost(a)", failing, "SELECT 1")
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["error"].startswith("stmts[2]"), response.text
    assert (db.rows("SELECT * FROM notes"), db.rows("PRAGMA table_list"), db.txid) == before


def test_item_74_a_foreign_key_that_is_checked_late_is_checked_before_the_commit(db):
    db.run("CREATE TABLE p(id INTEGER PRIMARY KEY)", "CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
    refused(db.post("INSERT INTO c VALUES (1)"), "stmts")
    db.run("INSERT INTO c VALUES (1)", "INSERT INTO p VALUES (1)")
    assert db.rows("SELECT * FROM c") == [[1]]
    refused(db.post("DELETE FROM p"), "stmts")


def test_item_74_nothing_of_a_failed_batch_is_left_behind(db):
    db.run(NOTES)
    for _ in range(3):
        refused(
            db.post("INSERT INTO notes VALUES (5, 1)", "SELECT 1; SELECT abs(-9223372036854775807 - 1)"), "stmts[1]"
        )
        assert db.rows("SELECT last_insert_rowid(), (SELECT count(*) FROM notes)") == [[0, 0]]
        assert db.rows("PRAGMA foreign_keys") == [[1]]
    # What is not SQL has the limits that it always had.
    body = b"x" * (4 << 20)
    assert db.live.http.put(f"{db.path}/kv/n/k", content=body).status_code < 300
    assert db.live.http.get(f"{db.path}/kv/n/k").content == body


def test_item_75_an_unknown_database_is_404_and_so_is_an_unknown_branch(db, live):
    for text in ("SELECT 1", "CREATE TABLE t(a)"):
        response = live.http.post("/v1/db/nowhere/sql", json={"stmts": [{"q": text}]})
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
        response = db.post(text, at="@nowhere")
        assert (response.status_code, response.json()["code"]) == (404, "branch_not_found")
    assert live.http.post("/v1/db/nowhere/sql", json={"stmts": [{"q": "SELECT 1"}]}).status_code == 404


def test_item_76_the_guard_runs_before_the_lookup_of_the_database(live):
    for text in ("SELECT * FROM __memoturn_turns", 'DROP TABLE "__MEMOTURN_kv"', "SELECT sql FROM sqlite_schema"):
        response = live.http.post("/v1/db/nowhere/sql", json={"stmts": [{"q": "SELECT 1"}, {"q": text}]})
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert response.json()["error"].startswith("stmts[1].q: ")


def test_item_76_a_reserved_name_in_a_trigger_is_403_and_in_a_string_is_allowed(db):
    db.run(NOTES)
    made = "CREATE TRIGGER t AFTER INSERT ON notes BEGIN INSERT INTO __memoturn_turns(seq) VALUES (1); END"
    assert db.post(made).status_code == 403
    assert db.post(made.replace("__memoturn_turns(seq)", "'__memoturn_turns'"), "DELETE FROM notes").status_code == 200
    assert db.post("INSERT INTO notes VALUES (1, 1)").status_code in (400, 403)
    assert db.rows("SELECT '__memoturn_turns' AS x") == [["__memoturn_turns"]]


def test_item_77_other_files_and_pragmas(db):
    for text in ("ATTACH 'x' AS y", "VACUUM INTO 'x'", "PRAGMA writable_schema", "PRAGMA writable_schema = ON"):
        response = db.post(text)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    refused(db.post("VACUUM"), "stmts[0]")
    for text in ("PRAGMA integrity_check", "PRAGMA integrity_check;", "/* x */ pragma Integrity_Check -- y"):
        assert db.rows(text) == [["ok"]]
    db.run(NOTES)
    assert db.rows("PRAGMA table_info(notes)")[0][:3] == [0, "id", "INTEGER"]
    assert [row[1] for row in db.rows("PRAGMA table_list") if row[0] == "main"] == ["notes", "sqlite_schema"]
    assert db.rows("PRAGMA integrity_check") == [["ok"]]


_CONTROL = ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT a", "RELEASE a"]


@pytest.mark.parametrize("control", _CONTROL)
def test_item_78_transaction_control_is_400_also_after_another_statement(db, control):
    db.run(NOTES)
    trigger = "CREATE TRIGGER t AFTER INSERT ON notes BEGIN SELECT 1; END"
    for text in (
        control,
        control.lower(),
        f"SELECT 1; {control}",
        f"SELECT 1;; /* x */ {control};",
        f"{trigger}; {control}",
    ):
        refused(db.post("INSERT INTO notes VALUES (1, 1)", text), "stmts[1]")
    assert db.rows("SELECT * FROM notes") == []


def test_item_78_what_only_looks_like_it_passes(db):
    db.run(
        'CREATE TABLE begin_log(begins, "end", [commit])',
        "INSERT INTO begin_log VALUES (CASE WHEN 1 THEN 'BEGIN' ELSE 'END' END, '; ROLLBACK', 3)",
        "CREATE TRIGGER rollback_later AFTER INSERT ON begin_log BEGIN"
        " UPDATE begin_log SET begins = CASE 1 WHEN 1 THEN 2 END; DELETE FROM begin_log WHERE 0; END",
    )
    assert db.rows('SELECT "end", "commit" FROM begin_log -- ; COMMIT') == [["; ROLLBACK", 3]]


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO notes VALUES (2, 2)",
        "INSERT INTO notes VALUES (2, 2) RETURNING *",
        "WITH x AS (SELECT 2 AS a) INSERT INTO notes SELECT a, a FROM x",
        "WITH x AS (SELECT 1) UPDATE notes SET body = 3",
        "/* SELECT */ DELETE FROM notes",
        "SELECT 1; DELETE FROM notes",
        "EXPLAIN DELETE FROM notes",
        "CREATE TABLE other(a)",
        "CREATE VIEW other AS SELECT 1",
        "DROP TABLE notes",
        "REINDEX notes_body",
        "REPLACE INTO notes VALUES (1, 2)",
        "ALTER TABLE notes ADD COLUMN c",
        "SELECT 'never closed",
        "SELECT \\ 1",
    ],
)
def test_item_79_and_132_what_writes_or_cannot_be_read_needs_scope_write(db, text):
    db.run(NOTES, "INSERT INTO notes VALUES (1, 1)", "CREATE INDEX notes_body ON notes(body)")
    with pytest.raises(Forbidden):
        db.read(text)
    assert db.rows("SELECT * FROM notes") == [[1, 1]]
    assert db.txid == 1


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM notes",
        "WITH x AS (SELECT * FROM notes) SELECT * FROM x",
        "VALUES (1, 1)",
        'SELECT id, replace(body, 2, 3) AS "update" FROM notes -- DELETE FROM notes',
        "EXPLAIN QUERY PLAN SELECT * FROM notes",
        "PRAGMA table_info(notes)",
        "PRAGMA integrity_check",
        "SELECT 'INSERT INTO notes VALUES (1)'",
    ],
)
def test_item_79_what_only_reads_needs_scope_read(db, text):
    db.run(NOTES, "INSERT INTO notes VALUES (1, 1)")
    assert len(db.read(text).value["results"][0]["rows"]) >= 1


def test_item_80_returning_and_with_are_writes_that_bump_and_ship(db):
    db.run(NOTES)
    assert db.post("INSERT INTO notes VALUES (1, 1) RETURNING id").json()["txid"] == 2
    assert db.post("WITH x AS (SELECT 5 AS a) UPDATE notes SET body = (SELECT a FROM x)").json()["txid"] == 3
    durable = db.post("DELETE FROM notes RETURNING *", **{"Memoturn-Durability": "durable"})
    assert (durable.status_code, durable.json()["txid"]) == (200, 4)
    synced = db.live.http.post(f"{db.path}/sync")
    assert synced.json()["txid"] == 4


def test_item_82_a_fork_sees_its_parents_rows_and_neither_the_others(db):
    db.run(NOTES, "INSERT INTO notes VALUES (1, 'both')")
    assert db.live.http.post(f"{db.path}/branches", json={"name": "try"}).status_code == 201
    db.run("INSERT INTO notes VALUES (2, 'fork')", at="@try")
    db.run("INSERT INTO notes VALUES (2, 'main')", "CREATE TABLE only_main(a)")
    assert db.rows("SELECT body FROM notes", at="@try") == [["both"], ["fork"]]
    assert db.rows("SELECT body FROM notes") == [["both"], ["main"]]
    assert db.post("SELECT * FROM only_main", at="@try").status_code == 400


# --- what SQL can do -----------------------------------------------------------------------------


def test_the_sql_that_people_write_works(db):
    db.run(
        "CREATE TABLE city(name TEXT PRIMARY KEY, people INTEGER, about TEXT) WITHOUT ROWID, STRICT",
        "CREATE TABLE visit(id INTEGER PRIMARY KEY AUTOINCREMENT, city TEXT REFERENCES city ON DELETE CASCADE,"
        " at TEXT DEFAULT CURRENT_TIMESTAMP, year AS (substr(at, 1, 4)) STORED)",
        "CREATE INDEX visit_city ON visit(city) WHERE city IS NOT NULL",
        "CREATE INDEX city_about ON city(replace(about, ' ', ''))",
        "CREATE TABLE log(what)",
        "CREATE TRIGGER logged AFTER DELETE ON visit BEGIN INSERT INTO log VALUES ('gone: ' || old.city); END",
        "CREATE VIEW big AS SELECT name FROM city WHERE people > 1000",
        "INSERT INTO city VALUES ('Oslo', 700, 'a b'), ('Paris', 2000, 'c d')",
        "INSERT INTO visit(city) VALUES ('Oslo'), ('Paris'), ('Oslo')",
        "INSERT INTO city(name, people) VALUES ('Oslo', 701) ON CONFLICT DO UPDATE SET people = excluded.people",
        "ALTER TABLE log ADD COLUMN at",
        "ALTER TABLE log RENAME COLUMN what TO said",
        "ALTER TABLE log RENAME TO diary",
        "ALTER TABLE diary DROP COLUMN at",
    )
    assert db.rows("SELECT people FROM city WHERE name = 'Oslo'") == [[701]]
    assert db.rows("SELECT * FROM big") == [["Paris"]]
    assert db.rows("SELECT id, row_number() OVER (PARTITION BY city ORDER BY id DESC) FROM visit ORDER BY 1") == [
        [1, 2], [2, 1], [3, 1],
    ]  # fmt: skip
    assert db.rows("SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]'), '[3]' ->> 0") == [[2, 3]]
    assert db.rows("DELETE FROM city WHERE name = 'Oslo'", "SELECT said FROM diary") == [["gone: Oslo"]] * 2
    assert db.rows("SELECT seq FROM sqlite_sequence") == [[3]]
    assert db.rows("PRAGMA foreign_key_list(visit)")[0][2] == "city"
    assert db.rows("PRAGMA integrity_check") == [["ok"]]


def test_a_compiled_statement_is_judged_again_when_the_tables_change(db):
    db.run("CREATE TABLE t(a)", "CREATE VIEW v AS SELECT a FROM t")
    assert db.rows("SELECT * FROM v") == []
    db.run("DROP VIEW v", "CREATE VIEW v AS SELECT 1 AS a FROM '__memoturn_turns'")
    assert db.post("SELECT * FROM v").status_code == 403


def test_texts_of_ours_that_are_compiled_already_are_refused_all_the_same(db):
    db.run(NOTES)
    for text in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", "SAVEPOINT job", "RELEASE job", "ROLLBACK TO job",
                 "SELECT 1; COMMIT", "SELECT 1;ROLLBACK"):  # fmt: skip
        refused(db.post("INSERT INTO notes(body) VALUES (1)", text), "stmts[1]")
    assert db.rows("SELECT count(*) FROM notes") == [[0]]


def test_more_rows_or_bytes_than_the_limit_are_an_error_and_no_cut(db):
    rows = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT {}) SELECT n FROM r"
    assert len(db.rows(rows.format(10_000))) == 10_000
    refused(db.post(rows.format(10_001)), "stmts[0]")
    refused(db.post(*["SELECT hex(zeroblob(500000)) FROM json_each('[1,2,3,4]')"] * 9), "stmts[8]")


def test_values_up_to_2_mib_are_kept(db):
    text = "x" * (2_000_000)
    db.run("CREATE TABLE t(v)", ("INSERT INTO t VALUES (?)", [text]))
    assert db.rows("SELECT length(v), v FROM t") == [[len(text), text]]
    refused(db.post(("SELECT ?", ["x" * 2_200_000])), "stmts[0]")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "stmts"),
        ({"stmts": []}, "stmts"),
        ({"stmts": "SELECT 1"}, "stmts"),
        ({"stmts": [{}]}, "stmts[0].q"),
        ({"stmts": [{"q": 1}]}, "stmts[0].q"),
        ({"stmts": [{"q": "SELECT 1", "args": []}]}, "stmts[0].args"),
        ({"stmts": [{"q": "SELECT 1"}], "txn": False}, "txn"),
        ({"stmts": [{"q": "SELECT 1"}], "sql": 1}, "sql"),
        ({"stmts": [{"q": "SELECT 1"}, {"q": " -- nothing"}]}, "stmts[1].q"),
        ({"stmts": [{"q": "SELECT 'x"}]}, "stmts[0].q"),
        ({"stmts": [{"q": "SELECT 1"}] * 10_001}, "stmts"),
    ],
)
def test_a_bad_request_is_400_that_names_the_field(db, body, field):
    refused(db.live.http.post(f"{db.path}/sql", json=body), field)


def test_txn_true_is_what_always_is(db):
    body = {"stmts": [{"q": "SELECT 1"}], "txn": True}
    assert db.live.http.post(f"{db.path}/sql", json=body).status_code == 200


# --- MCP -----------------------------------------------------------------------------------------


def test_the_tool_answers_the_same_and_makes_a_profile_with_its_first_write(live, mcp):
    memory = live.memory()
    where = {"namespace": memory.namespace, "profile": memory.profile}
    answer = mcp.call("query", stmts=[{"q": NOTES}, {"q": "INSERT INTO notes VALUES (1, 'x') RETURNING *"}], **where)
    assert answer["structuredContent"] == {
        "txid": 1,
        "result": {
            "results": [
                {"columns": [], "rows": [], "rows_affected": 0},
                {"columns": ["id", "body"], "rows": [[1, "x"]], "rows_affected": 0},
            ]
        },
    }
    assert memory.exists


@pytest.mark.parametrize(
    "text", ["SELECT 1", "SELEC 1", "INSERT INTO nowhere VALUES (1)", "SELECT * FROM __memoturn_kv"]
)
def test_a_tool_call_that_reads_or_fails_makes_no_profile(live, mcp, text):
    memory = live.memory()
    arguments = f'{{"namespace": "{memory.namespace}", "profile": "{memory.profile}", "stmts": [{{"q": "{text}"}}]}}'
    envelope = refusal(message_of(mcp.call_text("query", arguments)))
    assert envelope["code"] in ("database_not_found", "invalid_request", "forbidden")
    assert not memory.exists


def test_the_tool_says_that_it_may_destroy(mcp):
    listed = message_of(mcp.post('{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'))["result"]["tools"]
    [tool] = [tool for tool in listed if tool["name"] == "query"]
    assert tool["annotations"]["readOnlyHint"] is False
    assert tool["annotations"]["destructiveHint"] is True


def test_memories_are_recalled_and_kept_beside_a_users_tables(live):
    memory = live.memory()
    memory.keep(event("Zebra in the garden"))

    def sql(text: str) -> Any:
        return live.http.post(f"{memory.database}/sql", json={"stmts": [{"q": text}]})

    assert sql("CREATE TABLE zebra(a)").json()["txid"] == 2
    memory.keep(event("Another zebra"))
    assert sql("INSERT INTO zebra VALUES (1)").json()["txid"] == 4
    assert len(memory.found(query="zebra")) == 2
    assert sql("PRAGMA integrity_check").json()["results"][0]["rows"] == [["ok"]]


def test_a_heavy_statement_is_answered_beside_those_that_are_not(db):
    sums = " + ".join(["('a' LIKE 'a')"] * 10)
    assert db.rows(f"SELECT {sums}") == [[10]]
    db.run("CREATE TABLE heavy (total INTEGER)", f"INSERT INTO heavy SELECT {sums}")
    assert db.rows("SELECT total FROM heavy") == [[10]]
