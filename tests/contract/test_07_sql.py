"""Items 70 to 72: SQL over the user's own tables, its shapes and its values, by the route and by the tool."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.bad_input import refusal, refused
from contract.live_node import event, message_of
from contract.sql import NOTES
from contract.sql import db as db

TOOLSETS = "sql"


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
