"""Items 73 to 80 and 82: one atomic batch a request, what may be in it, and who may ask for it."""

from __future__ import annotations

import pytest

from contract.bad_input import refused
from contract.sql import NOTES
from contract.sql import db as db
from memoturn_schemas.errors import Forbidden


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
