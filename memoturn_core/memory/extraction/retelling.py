"""A clause in the first person, told of its speaker: "I love my dog" becomes "Ann loves their dog".

Pure functions, called by `rules`.
"""

from __future__ import annotations

import re

ADVERBS = (
    "really just also still always currently now finally recently actually even usually often sometimes mostly both all"
    " absolutely totally truly simply especially particularly definitely already mainly normally generally officially"
    " only ever so very super quite pretty"
).split()

_ADVERB = frozenset((*ADVERBS, "no", "longer"))

# Verbs that rules look for in the present tense; in the past tense I and she say the same.
_PRESENT = (
    "adore believe cherish collect come dislike do dream drive enjoy go hate hope intend like live love need own plan"
    " play practice practise prefer reside speak study teach use value volunteer want work"
).split()
_IRREGULAR = {"don't": "doesn't", "dont": "doesn't", "have": "has"}

_SUBJECT = re.compile(r"(i'?m|i am|i'?ve|we're|we are|we've|we|i|my|our)(?![\w'])\s*", re.IGNORECASE)
_OF_SPEAKER = {"i'm": "is", "im": "is", "i am": "is", "i've": "has", "ive": "has"}
_OF_SEVERAL = {"we": "", "we're": "are ", "we are": "are ", "we've": "have "}

# What is quoted stays as it is.
_PRONOUN = re.compile(
    r"""
    "[^"]*" | “[^”]*”
    | (?<![\w'-])(?:i'm|i\ am|i\ was|i've|i'd|i'll|i|me|my|mine|myself
    |we're|we've|we|us|our|ours|ourselves)(?![\w'-])
    """,
    re.IGNORECASE | re.VERBOSE,
)
_THEIRS = {
    "i'm": "they are", "i am": "they are", "i was": "they were", "i've": "they have", "i'd": "they would",
    "i'll": "they will", "i": "they", "me": "them", "my": "their", "mine": "theirs", "myself": "themselves",
    "we're": "they are", "we've": "they have", "we": "they", "us": "them", "our": "their", "ours": "theirs",
    "ourselves": "themselves",
}  # fmt: skip


def retold(clause: str, who: str) -> str:
    """The clause with its subject named; one that has no subject in the first person is told as a request."""
    subject = _SUBJECT.match(clause)
    if subject is None:
        return f"{who} asks: {clause}"
    first, rest = subject[1].lower(), clause[subject.end() :]
    if first in ("my", "our"):
        return f"{who}'s {_of_speaker(rest)}"
    if first in _OF_SEVERAL:
        return f"{who} and others {_OF_SEVERAL[first]}{_of_speaker(rest)}"
    if first in _OF_SPEAKER:
        return f"{who} {_OF_SPEAKER[first]} {_of_speaker(rest)}"
    words = rest.split(" ")
    verb = next((place for place, word in enumerate(words) if word.lower() not in _ADVERB), 0)
    words[verb] = _third_person(words[verb])
    return f"{who} {_of_speaker(' '.join(words))}"


def _of_speaker(text: str) -> str:
    return _PRONOUN.sub(lambda pronoun: _THEIRS.get(pronoun[0].lower(), pronoun[0]), text)


def _third_person(verb: str) -> str:
    if verb.lower() not in _PRESENT:
        return _IRREGULAR.get(verb.lower(), verb)
    if verb.endswith(("s", "sh", "ch", "x", "o")):
        return f"{verb}es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}s"
