"""Text of others on this terminal: nothing in it moves the cursor, hides or turns what stands there.

A memory's words come from agents and from whoever they talked to. Called by `tables` and `failures`.
"""

from __future__ import annotations

import unicodedata

_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
"""Characters that change the direction of the text after them."""


def printable(text: str) -> str:
    """The text with every control character, but for tabs and line ends, written as its escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _shown(character: str) -> str:
    if character in "\t\n":
        return character
    if character in _TURNING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
