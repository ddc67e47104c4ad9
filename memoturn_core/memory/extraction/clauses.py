"""From a turn to the clauses in which its speaker states something: no questions, quotes, conditions, hearsay.

What is in doubt is left out. Everything here takes time linear in the text: patterns look for fixed phrases, and what
they repeat is bounded. Pure functions, called by `rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 300
"""Characters of a sentence at most; longer ones are no plain statements."""

# Covers what is quoted, character for character: a mark that is no letter and ends no sentence.
_COVER = "\ufffc"

_PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"})
_BULLET = re.compile(r"(?:[-*\u2022+]|\d{1,3}[.)])\s+")
_QUOTED = re.compile(
    r"""
    "[^"]*(?:"|$) | “[^”]*(?:”|$) | „[^“”]*(?:[“”]|$) | «[^»]*(?:»|$) | `[^`]*(?:`|$)
    | (?<!\w)'(?:[^']|(?<=\w)'(?=\w))*'(?!\w)
    """,
    re.VERBOSE,
)
# What follows is somebody else's text, or made up, to the end of the turn.
_HANDED_OVER = re.compile(
    r"\b(?:translate|summari[sz]e|rewrite|rephrase|paraphrase|proofread|correct|edit|fix|review|write|draft|compose"
    r"|classify|analy[sz]e)\b[^:]{0,80}:(?=\s|$)",
    re.IGNORECASE,
)
_MADE_UP = re.compile(
    r"(?:please )?(?:imagine|pretend|suppose|let's (?:say|pretend|imagine)|role-?play|act as)\b", re.IGNORECASE
)

_END = re.compile(r"""(?<![.!?\u2026])[.!?\u2026]++[")\]'\u201d]*+(?=\s|$)|[\u3002\uff01\uff1f]""")
_ABBREVIATED = re.compile(r"(?:\b(?:mr|mrs|ms|dr|prof|st|mt|jr|sr|vs|inc|e\.g|i\.e|approx)|\b[a-hj-z])$", re.IGNORECASE)
_ASKS = re.compile(r"[?\uff1f\u061f]")

# In doubt, wherever in the sentence.
_CONDITIONAL = re.compile(
    r"\b(?:if|unless|whether|wish|wished|pretend|suppose|supposing|imagine|hypothetically|assuming|in case|as though"
    r"|maybe|perhaps|possibly|probably|i guess|not sure|joking|kidding)\b",
    re.IGNORECASE,
)
_HEARSAY = re.compile(
    r"\b(?:says?|said|saying|tells?|told|telling|asks|asked|asking|thinks|thought|believes?|believed|claims?|claimed"
    r"|writes|wrote|replied|mentioned|heard|hears|according to|quotes?|lyrics?|was like)\b",
    re.IGNORECASE,
)

_SAID_BY_OTHERS = re.compile(r"\b(?!i )\w+ (?:said|says|claims|claimed)\b", re.IGNORECASE)

_JOINT = re.compile(
    r"(?:(?:\s*[,;\u2013\u2014]+\s*|\s+-+\s+)(?:(?:and|but|so|because|plus)\s+)?|\s+(?:and|but|so|because)\s+)"
    r"(?=(?:i|i'?m|i'?ve|we|we're|we've|my|our|remind me|call me)\s)",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"(?:oh|ah|aw+|wow|well then|well|yes|yeah|yep|yup|no|nope|ok|okay|sure|actually|honestly|anyways?|also|and|but|so"
    r"|plus|hi|hey|hello|thanks|thank you|by the way|btw|fyi|in fact|to be honest|personally|for me|please|lol|haha|hm+"
    r"|um|uh|guess what|you know|i mean|speaking of which|however|then|good news)(?:[,!:]\s*|\s-+\s|\s+)",
    re.IGNORECASE,
)
_WHEN = re.compile(
    r"(?:yesterday|today|tonight|recently|lately|earlier today|currently|right now|nowadays|these days"
    r"|(?:this|last|next) (?:morning|afternoon|evening|night|week|weekend|month|year|summer|winter|spring|fall|autumn"
    r"|(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?)"
    r"|(?:a|an|one|two|three|four|five|six|few|a few|\d{1,3}) (?:day|week|month|year)s? ago"
    r"|(?:in|since) (?:\d{4}|january|february|march|april|may|june|july|august|september|october|november|december)"
    r"(?: \d{4})?"
    r"|on (?:mon|tues|wednes|thurs|fri|satur|sun)day)\b(?:,?\s+|$)",
    re.IGNORECASE,
)
_OPENINGS_AT_MOST = 4


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause as its speaker put it, in plain spaces and apostrophes, without what leads up to it.

    `when` is the time it begins with, or empty.
    """

    text: str
    when: str


def clauses(turn: str) -> Iterator[Clause]:
    """What a turn states, in order; what it asks, quotes, supposes or reports is left out."""
    fenced = False
    for line in turn.splitlines():
        text = " ".join(line.split()).translate(_PLAIN)
        if text.startswith(("```", "~~~")):
            fenced = not fenced
            continue
        if fenced or text.startswith((">", "|")):
            continue
        text = text[bullet.end() :] if (bullet := _BULLET.match(text)) else text
        handed_over = _HANDED_OVER.search(text)
        if handed_over:
            text = text[: handed_over.start()]
        for sentence in _sentences(text):
            if _MADE_UP.match(sentence.covered):
                return
            yield from _stated(sentence)
        if handed_over:
            return


@dataclass(frozen=True, slots=True)
class _Sentence:
    """As it is written, and the same with what is quoted covered."""

    text: str
    covered: str


def _sentences(text: str) -> Iterator[_Sentence]:
    covered = _QUOTED.sub(lambda quoted: _COVER * len(quoted[0]), text)
    start = 0
    for end in _END.finditer(covered):
        if end[0] == "." and _ABBREVIATED.search(covered, max(start, end.start() - 7), end.start()):
            continue
        yield _Sentence(text[start : end.end()].strip(), covered[start : end.end()].strip())
        start = end.end()
    yield _Sentence(text[start:].strip(), covered[start:].strip())


def _stated(sentence: _Sentence) -> Iterator[Clause]:
    text, covered = sentence.text, sentence.covered
    if len(text) > LONGEST or any(doubt.search(covered) for doubt in (_ASKS, _CONDITIONAL, _SAID_BY_OTHERS)):
        return
    joints = list(_JOINT.finditer(covered))
    starts = [0, *(joint.end() for joint in joints)]
    ends = [*(joint.start() for joint in joints), len(covered)]
    before = ""
    for start, end in zip(starts, ends, strict=True):
        if _HEARSAY.search(covered, 0, start):
            return
        begin, when = _begin(covered, start, end)
        stated = text[begin:end].strip(" ,;:-\u2013\u2014")
        if stated and covered[begin] != _COVER:
            yield Clause(stated, when or before)
        before = "" if stated else when


def _begin(covered: str, start: int, end: int) -> tuple[int, str]:
    """Where a clause begins behind interjections and the time it names, and that time."""
    when = ""
    for _ in range(_OPENINGS_AT_MOST):
        if opening := _OPENING.match(covered, start, end):
            start = opening.end()
        elif not when and (named := _WHEN.match(covered, start, end)):
            start, when = named.end(), named[0].strip(" ,").lower()
        else:
            break
    return start, when
