"""Search of patterns by their words: tools, errors, actions, contexts and domains.

A pattern's relevance is the share of the query's words that it has, each weighted by how rare it is among the patterns
that are searched (the idf of BM25; a pattern is a few words, so that neither how often it has one nor its length
says anything). Strength multiplies it by 1 to 1.25: of equal matches the stronger one comes first, and no strength
makes up for words that are missing by more than that.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from itertools import islice

import numpy as np

from memoturn_core.episodes.patterns.known import PatternIndex, patterns_of
from memoturn_core.episodes.patterns.pattern import Pattern
from memoturn_core.episodes.patterns.ranked import strongest
from memoturn_core.memory import text
from memoturn_core.memory.text import Term
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.patterns import PatternHit, SearchPatternsRequest, SearchPatternsResponse
from memoturn_storage.handle import Snapshot

_STRENGTH = 0.25


@operation(
    name="search_patterns",
    title="Search patterns",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=SearchPatternsRequest,
    response=SearchPatternsResponse,
    rest=Rest("POST", "/patterns/search"),
    read_only=True,
    idempotent=True,
)
async def search_patterns(profile: Profile, request: SearchPatternsRequest) -> Reply:
    """Find learnt patterns by words of a tool, an error or an action; call it when something fails or is to be used.

    Best first. Without a query the strongest come first.
    """
    if not profile.exists():
        profile.require_min_txid(0)
        return Reply(SearchPatternsResponse(patterns=[], explanation=nothing(0, 0)), 0)
    found = await profile.read(lambda snapshot: _search(snapshot, request), as_of=request.as_of)
    return Reply(found.value, found.txid)


def nothing(episodes: int, promoted: int) -> str:
    """Why nothing passes."""
    if not episodes:
        return "nothing is learnt yet: no episode of this profile is completed"
    if not promoted:
        return f"nothing is promoted yet: what was seen in {episodes} completed episodes was seen once"
    return f"the filters leave none of the {promoted} promoted patterns"


def _search(snapshot: Snapshot, request: SearchPatternsRequest) -> SearchPatternsResponse:
    kinds = None if request.kind is None else {request.kind}
    passing = [
        each
        for each in patterns_of(snapshot, domain=request.domain, kinds=kinds, task_type=request.task_type)
        if each.strength >= request.min_strength
    ]
    if not passing:
        known = PatternIndex.of(snapshot)
        return SearchPatternsResponse(patterns=[], explanation=nothing(len(known.seen), len(known.all_promoted())))
    if not request.query.strip():
        best = strongest(passing)
        return SearchPatternsResponse(
            patterns=[_hit(each, 1.0) for each in islice(best, request.limit)], explanation=None
        )
    terms = text.terms(request.query)
    if not terms:
        return SearchPatternsResponse(patterns=[], explanation="the query has no word to look for")
    relevant = [(share, each) for share, each in zip(_relevance(terms, passing), passing, strict=True) if share]
    if not relevant:
        words = ", ".join(text.words(request.query))
        return SearchPatternsResponse(
            patterns=[], explanation=f"none of the {len(passing)} patterns searched has a word of the query: {words}"
        )
    first = heapq.nsmallest(request.limit, relevant, key=lambda each: (-_score(*each), each[1].place))
    return SearchPatternsResponse(patterns=[_hit(each, share) for share, each in first], explanation=None)


def _relevance(terms: Sequence[Term], patterns: Sequence[Pattern]) -> list[float]:
    """Of each pattern, 0...1."""
    stems = _stems(patterns)
    shares, whole = np.zeros(len(patterns)), 0.0
    for term in terms:
        has = np.fromiter((not found.isdisjoint(term) for found in stems), np.bool_, len(stems))
        weight = _rarity(int(has.sum()), len(patterns))
        shares += weight * has
        whole += weight
    relevance: list[float] = (shares / whole).tolist()
    return relevance


def _rarity(having: int, patterns: int) -> float:
    return math.log1p((patterns - having + 0.5) / (having + 0.5))


def _stems(patterns: Sequence[Pattern]) -> list[frozenset[str]]:
    """Of each pattern's words; a tool's are the same in all that have it, and kept for next time."""
    known: dict[str, list[str]] = {}
    found = []
    for pattern in patterns:
        if pattern.stems is None:
            said = [pattern.domain, *pattern.tools, *(each for each in pattern.body.values() if isinstance(each, str))]
            for each in said:
                if each not in known:
                    known[each] = text.stems(each)
            pattern.stems = frozenset(stem for each in said for stem in known[each])
        found.append(pattern.stems)
    return found


def _score(relevance: float, pattern: Pattern) -> float:
    return relevance * (1 + _STRENGTH * pattern.strength)


def _hit(pattern: Pattern, relevance: float) -> PatternHit:
    return PatternHit(**pattern.entry(), score=_score(relevance, pattern), relevance=relevance)
