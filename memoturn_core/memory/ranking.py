"""Which rows answer a query best, by their words, by their vectors, and by what stands around them.

Pure functions over a `Lexicon`; the same ones rank memories and turns. docs/recall.md says what each part is worth.

`relevance` adds evidence that is measured on one scale, from nothing to all that the query could ask for:

    words    the share of the query's words, each weighted by how rare it is, that the row has (BM25's saturation).
             A word that a row next to it in its session has counts for it too, at a discount.
    vector   the cosine. Rows that are not among the nearest are taken to be as far as the last of those.

A row that asks tells less than one that states. The rows next to it, and the best of its session, lend a row some of
what they are worth. `plain` is BM25 alone, as the fusion `rrf` takes it. Called by `memoturn_core.memory.search`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from memoturn_core.memory.lexicon import NOBODY, Flags, Floats, Ints, Lexicon, Places
from memoturn_core.memory.text import Term


@dataclass(frozen=True, slots=True)
class Weights:
    saturation: float = 0.9
    """BM25's k1: how little more a word counts for coming again."""
    length: float = 0.5
    """BM25's b: how much less it counts in a long row."""
    said_before: tuple[float, ...] = (0.5, 0.4, 0.3)
    """What a word counts for that the row one, two, three before this one has: of what it counts there."""
    said_after: tuple[float, ...] = (0.3, 0.24, 0.18)
    common: float = 0.25
    """The share of all rows that have a word from which on it says nothing about the rows beside them."""
    vector: float = 0.3
    """The weight of the cosine, that of the words being the rest."""
    asking: float = 0.9
    """What a row that asks is worth."""
    neighbour: float = 0.2
    """What the better of the rows next to it lends a row: of what that is worth."""
    session: float = 0.3
    """What the best row of its session lends."""


WEIGHTS = Weights()


@dataclass(frozen=True, slots=True)
class Ranking:
    scores: Floats
    """Of all places."""
    found: Places
    """Those that answer the query, ascending."""
    worded: Flags
    """Of all places, which have a word of the query themselves."""


def relevance(lexicon: Lexicon, terms: Sequence[Term], near: Sequence[tuple[int, float]]) -> Ranking:
    """By words and vectors. Without words in common the cosine alone decides.

    Args:
        near: rowids with their cosines, nearest first.

    Returns:
        Scores of at most 1.
    """
    weights = WEIGHTS
    words, matched = _words(lexicon, terms, context=True)
    places = lexicon.places([rowid for rowid, _ in near])
    cosines = np.array([cosine for _, cosine in near])
    if not matched.any():
        scores = np.zeros(lexicon.count)
        scores[places] = cosines
        return Ranking(scores, np.sort(places), matched)
    scores, found = words, matched
    if near:
        closeness = np.full(lexicon.count, cosines[-1])
        closeness[places] = cosines
        scores = (1 - weights.vector) * words + weights.vector * closeness
        found = matched.copy()
        found[places] = True
    scores = np.where(lexicon.asking, weights.asking * scores, scores) * lexicon.alive
    return Ranking(_with_surroundings(lexicon, scores), np.flatnonzero(found), matched)


def plain(lexicon: Lexicon, terms: Sequence[Term]) -> Ranking:
    """By words, BM25."""
    words, matched = _words(lexicon, terms, context=False)
    return Ranking(words, np.flatnonzero(matched), matched)


def best_first(ranking: Ranking, probe: int) -> Iterator[Places]:
    """The places that were found, the best first and the newer of equals, in slices of growing size."""
    found, scores = ranking.found, -ranking.scores[ranking.found]
    start = 0
    while start < len(found):
        end = min(start + probe, len(found))
        # All that rank no worse than the last wanted one, however many are equal to it.
        good = np.flatnonzero(scores <= np.partition(scores, end - 1)[end - 1])
        yield found[good[np.lexsort((-good, scores[good]))][start:end]]
        start, probe = end, 8 * probe


def _words(lexicon: Lexicon, terms: Sequence[Term], *, context: bool) -> tuple[Floats, Flags]:
    """The share of the query that each row has, and whether it has any of it itself."""
    weights = WEIGHTS
    share = np.zeros(lexicon.count)
    matched = np.zeros(lexicon.count, np.bool_)
    saturation = weights.saturation * (1 - weights.length + weights.length * lexicon.relative_lengths)
    context = context and lexicon.session_count > 0
    whole = 0.0
    for term in terms:
        places, counts = _occurrences(lexicon, term)
        if not len(places):
            continue
        rarity = float(np.log1p((lexicon.alive_count - len(places) + 0.5) / (len(places) + 0.5)))
        counted = rarity * counts / (counts + saturation[places])
        whole += rarity
        matched[places] = True
        if context and len(places) <= weights.common * lexicon.alive_count:
            share += _heard(lexicon, places, counted)
        else:
            share[places] += counted
    return share / (whole or 1.0), matched


def _occurrences(lexicon: Lexicon, term: Term) -> tuple[Places, Ints]:
    """The living rows that have any form of a word, ascending, and how often."""
    postings = [posting for posting in map(lexicon.posting, term) if len(posting.places)]
    if len(postings) == 1:
        places, counts = postings[0].places, postings[0].counts
    elif postings:
        together = np.concatenate([posting.places for posting in postings])
        places, which = np.unique(together, return_inverse=True)
        counts = np.zeros(len(places), np.int64)
        np.add.at(counts, which, np.concatenate([posting.counts for posting in postings]))
    else:
        return np.empty(0, np.intp), np.empty(0, np.int64)
    if lexicon.alive_count < lexicon.count:
        living = lexicon.alive[places]
        return places[living], counts[living]
    return places, counts


def _heard(lexicon: Lexicon, places: Places, counted: Floats) -> Floats:
    """What a word counts for in each row: what it counts there itself, or next to it, whichever is more."""
    heard = np.zeros(lexicon.count)
    heard[places] = counted
    # What is said in a row is "said before" for the rows after it.
    for step, discounts in ((lexicon.after, WEIGHTS.said_before), (lexicon.before, WEIGHTS.said_after)):
        there, value = places, counted
        for discount in discounts:
            there = step[there]
            inside = there != NOBODY
            there, value = there[inside], value[inside]
            heard[there] = np.maximum(heard[there], discount * value)
    return heard


def _with_surroundings(lexicon: Lexicon, scores: Floats) -> Floats:
    """Add what neighbours and sessions lend. A row without a session is one of its own, and has no neighbours."""
    lent, best = np.zeros(len(scores)), scores
    if lexicon.session_count:
        # One place more, of no worth, for `NOBODY`, which as an index is the last.
        padded = np.append(scores, 0.0)
        lent = np.maximum(padded[lexicon.before], padded[lexicon.after])
        inside = lexicon.session != NOBODY
        of_session = np.zeros(lexicon.session_count)
        np.maximum.at(of_session, lexicon.session[inside], scores[inside])
        best = np.where(inside, of_session[lexicon.session], scores)
    total = scores + WEIGHTS.neighbour * lent + WEIGHTS.session * best
    return total / (1 + WEIGHTS.neighbour + WEIGHTS.session)
