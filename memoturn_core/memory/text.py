"""From a person's words to a full-text query. Pure functions, called by `recall` and `turns`.

The query is data: it is cut into words, each is quoted, and any of them may match. Words that every
English sentence has are left out, unless there are no others. FTS5 then folds case and accents and
stems (`tables`), the same way as it did for what it stored; so words reach it as they are written.
"""

from __future__ import annotations

import re
import unicodedata

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


def words(query: str) -> list[str]:
    """The distinct words worth looking up, as they are written, in order of appearance."""
    distinct: dict[str, str] = {}
    for word in _split(query):
        distinct.setdefault(word.lower(), word)
    telling = [word for folded, word in distinct.items() if folded not in STOPWORDS]
    return (telling or list(distinct.values()))[:TERMS_AT_MOST]


def _split(query: str) -> list[str]:
    """Runs of letters, digits and the marks that belong to them; FTS5 cuts further where it must."""
    if query.isascii():
        return _WORD.findall(query)
    composed = unicodedata.normalize("NFC", query)
    return "".join(each if each.isalnum() or unicodedata.category(each)[0] == "M" else " " for each in composed).split()


def match_any(query: str) -> str | None:
    """An FTS5 expression that matches any of the query's words, or None where it has none."""
    return " OR ".join(f'"{word}"' for word in words(query)) or None
