"""The guard knows the SQLite it runs on, and what a batch takes is given back."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_core.sql import bounds, functions
from memoturn_core.sql.guard import MODULES, Guard
from memoturn_core.sql.run import Statement, run
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import Forbidden, InvalidRequest, RequestTimeout
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import open_database

REFUSED_FUNCTIONS = """
    bm25 fts3_tokenizer fts5 fts5_get_locale fts5_insttoken fts5_locale fts5_source_id geopoly_area geopoly_bbox
    geopoly_blob geopoly_ccw geopoly_contains_point geopoly_debug geopoly_group_bbox geopoly_json geopoly_overlap
    geopoly_regular geopoly_svg geopoly_within geopoly_xform highlight json_patch jsonb_patch load_extension match
    matchinfo median offsets optimize percentile percentile_cont percentile_disc rtreecheck rtreedepth rtreenode snippet
    sqlite_compileoption_get sqlite_compileoption_used sqlite_log sqlite_source_id total_changes
"""


@pytest.fixture
def connection(tmp_path: Path) -> Any:
    path = tmp_path / "file.db"
    SCHEMA.create(path, SystemAmbient())
    opened = open_database(path, sync=False)
    opened.execute("CREATE TABLE notes(id INTEGER PRIMARY KEY, body)")
    opened.execute("BEGIN")
    yield opened
    opened.close()


def _run(connection: apsw.Connection, *texts: str, writing: bool = True) -> Any:
    return run(connection, [Statement(text, None) for text in texts], writing=writing)


def test_every_function_of_this_sqlite_was_decided_on():
    connection = apsw.Connection(":memory:")
    present = {name for name, *_ in connection.execute("PRAGMA function_list")}
    assert present - functions.ALLOWED <= set(REFUSED_FUNCTIONS.split())
    assert functions.WEIGHT.keys() <= functions.ALLOWED


def test_every_module_of_this_sqlite_was_decided_on():
    connection = apsw.Connection(":memory:")
    present = {name for (name,) in connection.execute("PRAGMA module_list")}
    assert {name for name in present if not name.startswith("pragma_")} <= MODULES | {"json_each", "json_tree"}


def test_an_action_that_is_not_known_is_refused():
    guard = Guard()
    with guard.watching(hurried=False):
        for action in (999, apsw.SQLITE_ATTACH, apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_CREATE_TEMP_TABLE):
            with pytest.raises(Forbidden):
                guard(action, "x", "y", "main", None)
        assert guard(apsw.SQLITE_READ, "notes", "body", "main", None) == apsw.SQLITE_OK
    assert guard(apsw.SQLITE_READ, "__memoturn_kv", "value", "main", None) == apsw.SQLITE_OK


def test_our_own_statements_pass_before_during_and_after(connection):
    assert _run(connection, "SELECT 1")[0]["rows"] == [[1]]
    assert connection.execute("SELECT count(*) FROM __memoturn_kv").get == 0
    with pytest.raises(Forbidden):
        _run(connection, "SELECT count(*) FROM '__memoturn_kv'")
    assert connection.execute("SELECT count(*) FROM '__memoturn_kv'").get == 0


def test_a_text_of_ours_in_the_cache_is_not_handed_to_a_user(connection):
    for text in ("SELECT count(*) FROM '__memoturn_kv'", "ROLLBACK", "BEGIN"):
        connection.execute(text).fetchall()
        with pytest.raises((Forbidden, InvalidRequest)):
            _run(connection, text)
        with pytest.raises((Forbidden, InvalidRequest)):
            _run(connection, f"SELECT 1;{text}")
    assert connection.in_transaction


@pytest.mark.parametrize("texts", [("SELECT 1",), ("SELEC 1",), ("INSERT INTO notes VALUES (1, 1)", "SELECT * FROM x")])
def test_limits_are_taken_back_whatever_happens(connection, texts):
    limits = [connection.limit(limit, -1) for limit in range(13)]
    with contextlib.suppress(InvalidRequest):
        _run(connection, *texts)
    assert [connection.limit(limit, -1) for limit in range(13)] == limits
    assert apsw.hard_heap_limit(-1) == 0
    assert connection.execute("SELECT length(zeroblob(3000000))").get == 3_000_000


def test_a_batch_that_only_reads_may_not_write_and_has_not(connection):
    assert _run(connection, "SELECT 1", "INSERT INTO notes VALUES (1, 1)", writing=False) is None
    assert _run(connection, "SELECT 1; DELETE FROM notes", writing=False) is None
    assert connection.execute("SELECT count(*) FROM notes").get == 0


def test_what_a_batch_writes_is_bounded(connection, monkeypatch):
    monkeypatch.setattr(bounds, "WRITTEN_BYTES", 4 << 20)
    many = (
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT {}) INSERT INTO notes SELECT n, {} FROM r"
    )
    connection.execute("SAVEPOINT job")
    for endless in (many.format(-1, "zeroblob(1000)"), many.format(-1, "zeroblob(1000000)")):
        with pytest.raises(InvalidRequest, match="writes more than"):
            _run(connection, endless)
        if not connection.in_transaction:
            connection.execute("BEGIN")
        assert connection.execute("SELECT count(*) FROM notes").get == 0
    # It is counted from the beginning of each batch.
    for start in (0, 1_000, 2_000):
        _run(
            connection, f"INSERT INTO notes SELECT value + {start}, zeroblob(1000) FROM json_each('{list(range(999))}')"
        )


def test_trust_in_a_check_ends_with_it(connection):
    for check in ("PRAGMA integrity_check", "PRAGMA quick_check", "PRAGMA table_list"):
        _run(connection, check)
        with pytest.raises(Forbidden):
            _run(connection, check, "SELECT * FROM '__memoturn_kv'")
        with pytest.raises((Forbidden, InvalidRequest)):
            _run(connection, f"{check}; SELECT * FROM '__memoturn_kv'")
        with pytest.raises((Forbidden, InvalidRequest)):
            _run(connection, f"{check};SELECT * FROM '__memoturn_kv';{check}")


_ARGUMENTS = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.text("ab -\x000é", max_size=8),
    st.binary(max_size=6).filter(lambda data: data.isascii()),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(functions._PRODUCTS)), st.tuples(_ARGUMENTS, _ARGUMENTS, _ARGUMENTS))
def test_a_fenced_function_computes_what_sqlite_does(function, arguments):
    name, count = function
    fenced, plain = apsw.Connection(":memory:"), apsw.Connection(":memory:")
    functions.fence(fenced)
    sql = f"SELECT {name}({', '.join('?' * count)})"
    sql = f"{sql}, typeof({sql[7:]})"
    bound = arguments[:count] * 2
    assert fenced.execute(sql, bound).fetchall() == plain.execute(sql, bound).fetchall()


def test_an_index_on_a_fenced_function_is_right_for_a_connection_that_has_it_not(connection, tmp_path):
    _run(
        connection,
        "CREATE INDEX spaced ON notes(replace(body, ' ', ''), instr(body, 'b'))",
        "INSERT INTO notes VALUES (1, 'a b'), (2, 'c')",
    )
    connection.execute("COMMIT")
    other = open_database(tmp_path / "file.db")
    assert other.execute("PRAGMA integrity_check").get == "ok"
    assert other.execute("SELECT id FROM notes INDEXED BY spaced WHERE replace(body, ' ', '') = 'ab'").get == 1
    other.close()


def test_a_heavy_statement_is_refused_where_others_wait_for_it_also_when_it_was_run_elsewhere_before(connection):
    heavy = [Statement("SELECT " + " + ".join(["'a' LIKE 'b'"] * 3), None)]
    light = [Statement("SELECT 'a' LIKE 'b'", None)]
    for _ in range(2):
        with pytest.raises(RequestTimeout):
            run(connection, heavy, writing=False, hurried=True)
        (answered,) = run(connection, heavy, writing=False) or []
        assert answered["rows"] == [[0]]
        assert run(connection, light, writing=False, hurried=True) is not None
