"""From a person's words to stems in a full-text index: the query is data. Run on a real FTS5 table."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoturn_core.memory.forms import GROUPS
from memoturn_core.memory.lexicon import occurrences
from memoturn_core.memory.text import ENDING, STOPWORDS, TERMS_AT_MOST, asks, stems, terms, words

BOUNDED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

signs = list("\"'*()-+:^{}[]\\/.,;%_\0\r\n\t")
syntax = ["AND", "OR", "NOT", "NEAR", "NEAR(", "summary:", '""', "--", "/*", "x'00'"]
scripts = [
    "漢字",
    "ひらがな",
    "한국어",
    "Ελλάδα",
    "naïve",
    "e\u0301",
    "\u202e",
    "\ufeff",
    "١٢٣",
    "½",
    "ﬁ",
    "İ",
    "🦊",
    "the",
]
nasty = st.sampled_from(signs + syntax + scripts)
any_text = st.text(max_size=40) | st.lists(nasty | st.text(max_size=4), max_size=12).map(" ".join)


@pytest.fixture
def table() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE VIRTUAL TABLE fts USING fts5(summary, keywords, tokenize='porter unicode61 remove_diacritics 2')"
    )
    connection.execute("CREATE VIRTUAL TABLE words USING fts5vocab(fts, instance)")
    yield connection
    connection.close()


def found(table: apsw.Connection, stored: str, query: str) -> bool:
    """Whether `query` finds a row whose summary is `stored`."""
    table.execute("DELETE FROM fts")
    table.execute("INSERT INTO fts (rowid, summary, keywords) VALUES (1, ?, 'unrelated')", (stored,))
    return any(len(rowids) for rowids in occurrences(table, "words", [stem for term in terms(query) for stem in term]))


def once(query: str) -> list[str]:
    """The terms of a query of regular words."""
    assert all(len(term) == 1 for term in terms(query))
    return [stem for (stem,) in terms(query)]


@BOUNDED
@given(any_text)
def test_a_text_has_the_stems_that_its_full_text_index_has(table: apsw.Connection, text: str) -> None:
    table.execute("DELETE FROM fts")
    table.execute("INSERT INTO fts (rowid, summary, keywords) VALUES (7, ?, '')", (text,))
    entered = stems(text)
    for stem, rowids in zip(set(entered), occurrences(table, "words", list(set(entered))), strict=True):
        assert rowids.tolist() == [7] * entered.count(stem)


@BOUNDED
@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6), min_size=1, max_size=300))
def test_however_many_words_there_are_the_query_stays_within_bounds(given: list[str]) -> None:
    query = " ".join(given)
    assert 1 <= len(words(query)) <= TERMS_AT_MOST
    assert len(set(words(query))) == len(words(query))
    assert len(set(terms(query))) == len(terms(query))


latin_greek_cyrillic = st.characters(categories=["Lu", "Ll"], max_codepoint=0x24F) | st.characters(
    categories=["Lu", "Ll"], min_codepoint=0x370, max_codepoint=0x4FF
)
cjk = st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5)


@BOUNDED
@given(st.lists(st.text(latin_greek_cyrillic, min_size=1, max_size=8) | st.text(cjk, min_size=1), min_size=1))
def test_a_text_finds_itself(table: apsw.Connection, given: list[str]) -> None:
    text = ", ".join(given)
    assert found(table, text, text)


@pytest.mark.parametrize(
    ("stored", "query"),
    [
        ("The user lives in Berlin", "where does the user live?"),
        ("The user lives in Berlin", "BERLIN"),
        ("Allergic to peanuts", 'peanut* OR "nothing'),
        ("Trinkt gern Café crème", "cafe creme"),
        ("Trinkt gern Cafe creme", "CAFÉ"),
        ("meets at 10:30", "10 o'clock"),
        ("snake_case names", "case"),
        ("likes 🦊 foxes", "fox"),
        ("住在 東京", "東京?"),
        ("ΟΔΟΣ", "ΟΔΟΣ"),
    ],
)
def test_any_word_in_whatever_form_finds_the_memory(table: apsw.Connection, stored: str, query: str) -> None:
    assert found(table, stored, query)


@pytest.mark.parametrize("of_stored", ["NFC", "NFD"])
@pytest.mark.parametrize("of_query", ["NFC", "NFD"])
def test_a_word_is_found_however_its_accents_are_encoded(table: apsw.Connection, of_stored: str, of_query: str) -> None:
    assert found(table, unicodedata.normalize(of_stored, "wohnt in Zürich"), unicodedata.normalize(of_query, "Zürich"))


@pytest.mark.parametrize(
    ("stored", "query"),
    [
        ("The user lives in Berlin", "what is the weather"),
        ("The user lives in Berlin", "berl"),
        ("The user lives in Berlin", "summary"),
        ("peanuts", "NOT AND OR"),
        ("peanuts", "pea*"),
    ],
)
def test_what_shares_no_word_is_not_found(table: apsw.Connection, stored: str, query: str) -> None:
    assert not found(table, stored, query)


def test_words_that_every_sentence_has_are_left_out() -> None:
    assert words("What is the name of the dog, and of the DOG?") == ["name", "dog"]
    assert terms("What is the name?") == [("name",)]


def test_a_word_that_comes_again_is_looked_up_once_where_it_came_first() -> None:
    assert words("Tea or coffee? TEA, tea!") == ["Tea", "coffee"]


def test_where_there_are_only_such_words_they_are_looked_up() -> None:
    assert words("who am I") == ["who", "am", "I"]
    assert once("To be, or not to be") == ["to", "be", "or", "not"]
    assert all(len(terms(word)) == 1 for word in STOPWORDS)


@pytest.mark.parametrize("query", ["", " ", "\0", "?!", "-- * ()", "_", "___", "🦊", "\u202e\ufeff", "\n\t"])
def test_a_query_without_a_word_looks_for_nothing(query: str) -> None:
    assert words(query) == []
    assert terms(query) == []


def test_an_irregular_word_stands_for_its_other_forms() -> None:
    assert terms("When did she go?") == terms("He went") == [("go", "went", "gone")]
    assert terms("the child and the children") == [("child", "children")]
    assert all(len(group) == len(set(group)) > 1 for group in GROUPS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Why?", True),
        ("Why? ", True),
        ("何？\n", True),
        ("لماذا؟", True),
        ("Oh? No.", False),
        ("?!", False),
        (" ", False),
    ],
)
def test_a_text_asks_where_it_ends_so(text: str, expected: bool) -> None:
    assert asks(text.encode()) == asks(f"some words and {text}".encode()[-ENDING:]) == expected
