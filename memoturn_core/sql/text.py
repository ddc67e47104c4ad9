"""The text of a statement, before any database is looked at: refused names, and whether it surely writes.

This sees names as they are spelt; what a statement really touches is judged by `memoturn_core.sql.guard`.
It matters for what SQLite does not tell its authorizer: the name after `REFERENCES` and `RENAME TO`.
The tokens are SQLite's own (its tokenize.c); what is none of them is `Unreadable`. Called by `query`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from memoturn_schemas.errors import Forbidden

RESERVED = "__memoturn_"
"""What our names begin with, in any case."""

SCHEMA_TABLES = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})

_WRITES = frozenset({"insert", "update", "delete", "replace", "create", "drop", "alter"})
"""The first words of statements that are never read-only."""

_CACHED_CHARACTERS = 2_000
_CACHED_TEXTS = 1_024

_WORD = r"[A-Za-z0-9_$\x80-\U0010ffff]"

# A variable with `(` or `::` after its name goes on in SQLite, over quotes even; nobody needs that.
_TOKEN = re.compile(
    rf"""
      (?P<blank>   [ \t\n\f\r\ufeff]++ | --[^\n]*+ | /\*(?s:.)*?(?:\*/|\Z) )
    | (?P<blob>    [xX]'[^']*+' )
    | (?P<word>    [A-Za-z_\x80-\U0010ffff]{_WORD}*+ )
    | (?P<quoted>  "(?:[^"]++|"")*+" | `(?:[^`]++|``)*+` | \[[^\]]*+\] )
    | (?P<string>  '(?:[^']++|'')*+' )
    | (?P<number>  \.?[0-9](?:{_WORD}|\.)*+ )
    | (?P<variable> \?[0-9]*+ | [$@:\#]{_WORD}++(?!\(|::) )
    | (?P<end>     ; )
    | (?P<sign>    [-+*/%&|~<>=!.,()] )
    | (?P<other>   (?s:.) )
    """,
    re.VERBOSE,
)


class Unreadable(Exception):
    """The text has something in it that is no token of SQL."""


def is_reserved(name: str) -> bool:
    """Whether a table, an index (also one that SQLite made for a table) or another thing of this name is ours."""
    return name.lower().removeprefix("sqlite_autoindex_").startswith(RESERVED)


def screen(text: str) -> bool:
    """Whether the text surely writes; if not, it may all the same.

    Raises:
        Forbidden: it names what is reserved, or asks for another file.
        Unreadable.
    """
    return _cached(text) if len(text) <= _CACHED_CHARACTERS else _screen(text)


def _screen(text: str) -> bool:
    first = head = before = ""
    empty = True
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "blank":
            continue
        spelt = token.group()
        if kind == "other":
            raise Unreadable(_complaint(spelt, token.start()))
        word = spelt.lower()
        if kind == "word":
            _refuse(spelt)
            head = head or word
            first = first or word
            if word in ("attach", "detach") and head == word and before in ("", ";"):
                raise Forbidden(f"{word.upper()}: a statement sees its own database only")
            if word == "into" and head == "vacuum":
                raise Forbidden("VACUUM INTO: a statement writes no files")
        elif kind == "quoted" or (kind == "string" and before in ("references", "to")):
            _refuse(_unquoted(spelt))
        if kind == "end":
            head = ""
        else:
            empty = False
        before = word
    if empty:
        raise Unreadable("there is no statement in it")
    return first in _WRITES


_cached = lru_cache(_CACHED_TEXTS)(_screen)


def _refuse(name: str) -> None:
    if is_reserved(name):
        raise Forbidden(f"{name}: names that begin with {RESERVED} are reserved")
    if name.lower() in SCHEMA_TABLES:
        raise Forbidden(f"{name} cannot be used; PRAGMA table_list and PRAGMA table_info(t) say what there is")


def _unquoted(spelt: str) -> str:
    quote = spelt[-1]
    return spelt[1:-1].replace(quote * 2, quote)


def _complaint(character: str, position: int) -> str:
    if character in "'\"`[":
        return f"the {character} at character {position + 1} is never closed"
    return f"{character!r} at character {position + 1} is no part of SQL"
