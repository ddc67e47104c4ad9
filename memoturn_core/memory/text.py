"""From a person's words to the stems that are looked up. Pure functions, called by whoever
ranks (`search`, `words`), explains (`explanation`) or compares (`similarity`).

The query is data: it is cut into words, and any of them may match. Words that every English sentence has are left
out, unless there are no others. Case and accents are folded and words stemmed by the tokenizer of SQLite that
also made the full-text indexes (`tables`), so that both sides agree.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache
from typing import cast

import apsw

from memoturn_core.memory.forms import GROUPS

TERMS_AT_MOST = 128
"""Distinct words of a query that are looked up; a longer query is cut here."""

_WORD = re.compile(r"[^\W_]+")

STOPWORDS = frozenset(
    """
    a about after all also am an and any are aren as at be because been before being between both but by can
    could couldn d did didn do does doesn doing don down during each few for from further had hadn has hasn have
    haven having he her here hers herself him himself his how i if in into is isn it its itself just ll m me more
    most must my myself no nor not now of off on once only or other our ours ourselves out over own re s same shall
    she should shouldn so some such t than that the their theirs them themselves then there these they this those
    through to too under until up ve very was wasn we were weren what when where which while who whom whose why
    will with won would wouldn you your yours yourself yourselves
    """.split()
)

ENDING = 16
_QUESTION_MARKS = tuple(mark.encode() for mark in ("?", "\uff1f", "\u061f"))

Term = tuple[str, ...]
"""The stems that a word of the query stands for; one as a rule, more where it is irregular."""


def words(query: str) -> list[str]:
    """The distinct words worth looking up, as they are written, in order of appearance."""
    distinct: dict[str, str] = {}
    for word in _split(query):
        distinct.setdefault(word.lower(), word)
    telling = [word for folded, word in distinct.items() if folded not in STOPWORDS]
    return (telling or list(distinct.values()))[:TERMS_AT_MOST]


def left_out(query: str) -> list[str]:
    """The distinct words that are not looked up, folded: those that every sentence has, and those beyond the limit."""
    kept = {word.lower() for word in words(query)}
    return [word for word in dict.fromkeys(word.lower() for word in _split(query)) if word not in kept]


def terms(query: str) -> list[Term]:
    """What to look up, in order of appearance; nothing where the query has no word."""
    distinct = dict.fromkeys(stem for word in words(query) for stem in stems(word))
    return list(dict.fromkeys(_forms().get(stem, (stem,)) for stem in distinct))


def stems(text: str) -> list[str]:
    """The words of a text as the full-text indexes have them, each as often as it comes."""
    return cast(
        "list[str]",
        _of_thread.tokenizer(
            text.encode(), apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False, include_colocated=False
        ),
    )


def asks(ending: bytes) -> bool:
    """Whether a text ends as a question does, by its last `ENDING` bytes in UTF-8."""
    return ending.rstrip().endswith(_QUESTION_MARKS)


def _split(query: str) -> list[str]:
    """Runs of letters, digits and the marks that belong to them; the tokenizer cuts further where it must."""
    if query.isascii():
        return _WORD.findall(query)
    composed = unicodedata.normalize("NFC", query)
    return "".join(each if each.isalnum() or unicodedata.category(each)[0] == "M" else " " for each in composed).split()


@cache
def _forms() -> dict[str, Term]:
    """The other stems of each irregular word, by stem."""
    forms: dict[str, Term] = {}
    for group in GROUPS:
        together = tuple(dict.fromkeys(stem for word in group for stem in stems(word)))
        for stem in together:
            forms.setdefault(stem, together)
    return forms


class _OfThread(threading.local):
    """A connection of each thread's own, for a tokenizer belongs to one and is used by one thread at a time."""

    def __init__(self) -> None:
        self.connection = apsw.Connection(":memory:")
        self.tokenizer = self.connection.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])


_of_thread = _OfThread()
