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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from memoturn_core.memory.lexicon import NOBODY, Flags, Floats, Ints, Lexicon, Places
from memoturn_core.memory.text import Term
from memoturn_schemas.memory import Contribution


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
_WHOLE = 1 + WEIGHTS.neighbour + WEIGHTS.session
"""What a row that is worth 1 comes to with what it is lent."""


Contributions = Callable[[Places], dict[Contribution, Floats]]


@dataclass(frozen=True, slots=True)
class Ranking:
    scores: Floats
    """Of all places."""
    found: Places
    """Those that answer the query, ascending."""
    worded: Flags
    """Of all places, which have a word of the query themselves."""
    words: Floats
    """Of all places, the share of the query's words that counts for them."""
    contributions: Contributions
    """What makes up the scores of some places by `relevance`; they add up to them."""


def relevance(
    lexicon: Lexicon, terms: Sequence[Term], near: Sequence[tuple[int, float]], vector: float | None = None
) -> Ranking:
    """By words and vectors. Without words in common the cosine alone decides.

    Args:
        near: rowids with their cosines, nearest first.
        vector: the weight of the cosine, if not the usual one.

    Returns:
        Scores of at most 1.
    """
    words, matched, _ = _words(lexicon, terms, context=True)
    places = lexicon.places([rowid for rowid, _ in near])
    cosines = np.array([cosine for _, cosine in near])
    if not matched.any():
        scores = np.zeros(lexicon.count)
        scores[places] = cosines
        return Ranking(scores, np.sort(places), matched, words, lambda places: {"vector": scores[places]})
    found = matched
    if near:
        found = matched.copy()
        found[places] = True
    by_words, by_vector = _parts(lexicon, words, near, WEIGHTS.vector if vector is None else vector)
    stated = by_words + by_vector
    own = _told(lexicon, stated)
    lent, best = _surroundings(lexicon, own)

    def contributions(places: Places) -> dict[Contribution, Floats]:
        return {
            "words": by_words[places] / _WHOLE,
            "vector": by_vector[places] / _WHOLE,
            "asking": (own[places] - stated[places]) / _WHOLE,
            "neighbours": lent[places] / _WHOLE,
            "session": best[places] / _WHOLE,
        }

    return Ranking((own + lent + best) / _WHOLE, np.flatnonzero(found), matched, words, contributions)


def plain(lexicon: Lexicon, terms: Sequence[Term]) -> Ranking:
    """By words, BM25."""
    words, matched, _ = _words(lexicon, terms, context=False)
    return Ranking(words, np.flatnonzero(matched), matched, words, _by_words_alone(words))


def by_words(ranking: Ranking) -> Ranking:
    """Those that have a word themselves, by the words alone."""
    words = ranking.words
    return Ranking(words, np.flatnonzero(ranking.worded), ranking.worded, words, _by_words_alone(words))


def _by_words_alone(words: Floats) -> Contributions:
    return lambda places: {"words": words[places]}


def shares(lexicon: Lexicon, terms: Sequence[Term], places: Places, *, context: bool) -> tuple[Floats, Flags]:
    """For each word of the query, at each of some places: its share of what all of them count for there.

    Returns:
        Shares that add up to 1 at each place, or are all 0, and whether the row there has the word itself.
    """
    each = [_words(lexicon, [term], context=context) for term in terms]
    counted = np.array([weight * words[places] for words, _, weight in each])
    whole = counted.sum(axis=0)
    return counted / np.where(whole > 0, whole, 1.0), np.array([has[places] for _, has, _ in each])


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


def _words(lexicon: Lexicon, terms: Sequence[Term], *, context: bool) -> tuple[Floats, Flags, float]:
    """The share of the query that each row has, whether it has any of it itself, and what the whole query weighs."""
    weights = WEIGHTS
    share = np.zeros(lexicon.count)
    matched = np.zeros(lexicon.count, np.bool_)
    saturation = lexicon.unit * weights.saturation * (1 - weights.length + weights.length * lexicon.relative_lengths)
    context = context and lexicon.session_count > 0
    whole = 0.0
    for term in terms:
        places, counts = _occurrences(lexicon, term)
        if not len(places):
            continue
        rarity = _rarity(lexicon, len(places) if lexicon.unit == 1 else np.minimum(counts / lexicon.unit, 1.0).sum())
        counted = rarity * counts / (counts + saturation[places])
        whole += rarity
        matched[places] = True
        if context and len(places) <= weights.common * lexicon.alive_count:
            share += _heard(lexicon, places, counted)
        else:
            share[places] += counted
    return share / (whole or 1.0), matched, whole


def _rarity(lexicon: Lexicon, having: float) -> float:
    """What it is worth to know that a row has a word which so many rows have: inverse document frequency.

    A row that has it only where it counts for less is a part of one.
    """
    return float(np.log1p((lexicon.alive_count - having + 0.5) / (having + 0.5)))


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


def _parts(lexicon: Lexicon, words: Floats, near: Sequence[tuple[int, float]], weight: float) -> tuple[Floats, Floats]:
    """What each row's words and its vector count for."""
    if not near:
        return words, np.zeros(lexicon.count)
    closeness = np.full(lexicon.count, near[-1][1])
    closeness[lexicon.places([rowid for rowid, _ in near])] = [cosine for _, cosine in near]
    return (1 - weight) * words, weight * closeness


def _told(lexicon: Lexicon, stated: Floats) -> Floats:
    """What each row is worth by itself: less where it asks, nothing where it is no more."""
    return np.where(lexicon.asking, WEIGHTS.asking * stated, stated) * lexicon.alive


def _surroundings(lexicon: Lexicon, own: Floats) -> tuple[Floats, Floats]:
    """What neighbours and sessions lend. A row without a session is one of its own, and has no neighbours."""
    lent, best = np.zeros(len(own)), own
    if lexicon.session_count:
        # One place more, of no worth, for `NOBODY`, which as an index is the last.
        padded = np.append(own, 0.0)
        lent = np.maximum(padded[lexicon.before], padded[lexicon.after])
        inside = lexicon.session != NOBODY
        of_session = np.zeros(lexicon.session_count)
        np.maximum.at(of_session, lexicon.session[inside], own[inside])
        best = np.where(inside, of_session[lexicon.session], own)
    return WEIGHTS.neighbour * lent, WEIGHTS.session * best
