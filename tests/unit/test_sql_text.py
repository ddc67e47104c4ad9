"""The text of statements is cut into the tokens that SQLite cuts it into."""

from __future__ import annotations

import contextlib

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_core.sql.text import Unreadable, is_reserved, screen
from memoturn_schemas.errors import Forbidden

_RESERVED = ["__memoturn_t", '"__memoturn_t"', "`__MEMOTURN_T`", "[__Memoturn_t]", "main.__memoturn_t"]
_HARMLESS_TABLES = ["t", '"t"', "[t]", "main.t"]
_BLANKS = st.sampled_from(
    [" ", "\n", "\t", "\ufeff ", "/**/", "/* ' */", '/*/ " */', "/* -- */", "-- '\n", "--\n", "/* [ ` */", "/* */ "]
)
_JUNK = st.sampled_from(
    ["1", "''", "'it''s'", "'\"'", '\'[\'', "x'00'", "X'ab'", "'--'", "'/*'", "'`'", "1.5e3", ".5", "0x1F", "?", "?2",
     ":a", "@b", "$c", "1<>2", "1||2", "'a'->>'b'", "-1", "~1", "1 AS \"a\"\"b\"", "1 AS `a``b`", "1 AS [a'b]",
     "1 AS é",     "'__memoturn_t'", "1 /* __memoturn_t */", "1 -- \"__memoturn_t\n", "x 'a'", "'", '"', "`",
     "[", "\\", "1e", "$", ":",
     ":a(')", ":a::b"]
)  # fmt: skip


def _read(text: str) -> set[str] | None:
    """The tables that SQLite finds in a text; None where it takes it for no statement."""
    found: set[str] = set()

    def note(action: int, table: str | None, *_rest: str | None) -> int:
        if action == apsw.SQLITE_READ and table is not None:
            found.add(table)
        return apsw.SQLITE_OK

    connection = apsw.Connection(":memory:")
    try:
        connection.execute("CREATE TABLE __memoturn_t(x); CREATE TABLE t(x)")
        connection.authorizer = note
        connection.execute(f"EXPLAIN {text}", _Nulls())
    except apsw.Error:
        return None
    finally:
        connection.close()
    return found


class _Nulls(dict[str, None]):
    def __missing__(self, _name: str) -> None:
        return None


@st.composite
def _selects(draw: st.DrawFn, names: list[str]) -> str:
    columns = draw(st.lists(_JUNK, min_size=1, max_size=4))
    parts = ["SELECT"]
    for index, column in enumerate(columns):
        parts += [draw(_BLANKS), column, "," if index < len(columns) - 1 else ""]
    parts += [draw(_BLANKS), "FROM", draw(_BLANKS), draw(st.sampled_from(names)), draw(_BLANKS)]
    return "".join(parts)


@settings(max_examples=400, deadline=None)
@given(_selects(_RESERVED))
def test_a_reserved_table_that_sqlite_finds_in_a_text_is_found_here(text):
    if "__memoturn_t" in (_read(text) or ()):
        # What SQLite takes for a variable with quotes in it is not taken here.
        with pytest.raises((Forbidden, Unreadable) if ":a" in text else Forbidden):
            screen(text)


@settings(max_examples=400, deadline=None)
@given(_selects(_HARMLESS_TABLES))
def test_a_text_that_sqlite_takes_and_that_names_nothing_reserved_passes(text):
    if _read(text) is not None and ":a(" not in text and "::" not in text:
        assert screen(text) is False


@given(st.text(max_size=60))
def test_any_text_at_all_has_an_answer(text):
    with contextlib.suppress(Forbidden, Unreadable):
        assert screen(text) in (True, False)


def test_a_text_of_the_longest_kind_takes_no_more_than_its_length():
    for text in (
        "'" * 1_000_001,
        '"' + "a" * 2_000_000,
        "SELECT '" + "''" * 1_000_000,
        "/* " * 700_000,
        "`" * 999_999,
    ):
        with pytest.raises(Unreadable):
            screen(text)


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("INSERT INTO t VALUES (1)", True),
        (" /* x */ -- y\n ; delete from t", True),
        ("REPLACE INTO t VALUES (1)", True),
        ("WITH x AS (SELECT 1) DELETE FROM t", False),
        ("SELECT 1; DELETE FROM t", False),
        ("EXPLAIN DELETE FROM t", False),
        ("PRAGMA table_list", False),
        ("VACUUM", False),
    ],
)
def test_the_first_word_says_what_surely_writes(text, writes):
    assert screen(text) is writes


def test_reserved_names_are_so_in_any_case_and_for_the_indexes_that_sqlite_makes():
    assert all(map(is_reserved, ["__memoturn_x", "__MEMOTURN_", "sqlite_autoindex___memoturn_kv_1"]))
    assert not any(map(is_reserved, ["", "_memoturn_x", "x__memoturn_", "__memoturn", "sqlite_autoindex_notes_1"]))
