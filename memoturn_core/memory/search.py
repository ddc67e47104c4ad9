"""One search of one table: by topic, by words and by a vector, filtered before it is ranked, fused into one list.

| channel | finds                                                    |
| topic   | the exact topic_key, newest first; memories only         |
| keyword | rows that have any word of the query                     |
| vector  | the rows nearest by cosine                               |

Fusion `relevance` puts topic hits first, with scores from 0.5 to 1, and all others below, by `ranking.relevance`.
Fusion `rrf` gives each hit the sum of weight / (60 + rank) over the channels that found it, rank from 1; equal scores
keep the order topic, keyword, vector. Called by `recall` and `turns`; `explanation` looks at what it went by. Contract
section 2, items 31 to 36.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from memoturn_core.memory.lexicon import Ints, Lexicon
from memoturn_core.memory.ranking import Ranking, best_first, by_words, plain, relevance
from memoturn_core.memory.text import Term, terms
from memoturn_core.memory.words import WordIndex
from memoturn_schemas.memory import Channel, Fusion
from memoturn_storage.handle import Snapshot

Keep = Callable[[list[int]], set[int]]
"""Takes rowids and returns those that may be found."""
Near = list[tuple[int, float]]
"""Rowids and their cosines, nearest first."""
Nearest = Callable[[int], Near]
"""Takes a number and returns so many of the rows that may be found."""

BELOW_TOPICS = 0.5
"""Of a score by `relevance`, which leaves the upper half to topic hits."""
RRF_WEIGHTS: dict[Channel, float] = {"topic": 2.0, "keyword": 1.0, "vector": 1.0}
RRF_OFFSET = 60
_RRF_DEPTH = 100
"""Rows that each of several channels hands to `rrf`, at least; twice the wanted number where that is more."""
_NEAR = 400
_MANY = 10_000
_NEAR_OF_MANY = 100
"""Rows whose cosine `relevance` knows, at least; so too. Where there are many rows each costs a look into the file."""
_PROBE = 64


@dataclass(slots=True)
class Found:
    rowid: int
    score: float = 0.0
    channels: list[Channel] = field(default_factory=list)
    cosine: float | None = None
    """Where the vector channel found it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to rank by."""

    terms: Sequence[Term]
    lexicon: Lexicon | None
    """None where there is no word to look up; so too the ranking."""
    ranking: Ranking | None
    """By `relevance`, or by words alone for `rrf`."""
    near: Near


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for in one table; a query that is None and a topic that is empty take no part."""

    words: type[WordIndex]
    keep: Keep
    nearest: Nearest
    query: str | None
    topic: Sequence[int]
    """Rows of the topic, best first; they pass `keep`."""
    wanted: int
    fusion: Fusion
    vector: float | None = None
    """The weight of the cosine under `relevance`, if not the usual one."""

    def run(self, snapshot: Snapshot) -> list[Found]:
        """The best first, as many as wanted at most."""
        return self.best(self.evidence(snapshot), self.wanted)

    def evidence(self, snapshot: Snapshot) -> Evidence:
        looked_up = [] if self.query is None else terms(self.query)
        lexicon = self.words.of(snapshot, looked_up) if looked_up else None
        if self.fusion == "rrf":
            near = self.nearest(self._depth)
            return Evidence(looked_up, lexicon, None if lexicon is None else plain(lexicon, looked_up), near)
        near = self._near(lexicon)
        ranking = None if lexicon is None else relevance(lexicon, looked_up, near, self.vector)
        return Evidence(looked_up, lexicon, ranking, near)

    def best(self, evidence: Evidence, count: int) -> list[Found]:
        """The best by this evidence, first; of different counts one is the beginning of the other."""
        found = self._by_rank(evidence) if self.fusion == "rrf" else self._by_relevance(evidence, count)
        cosines = dict(evidence.near)
        for hit in found:
            hit.cosine = cosines.get(hit.rowid)
        return found[:count]

    def ranks_by_words(self, evidence: Evidence, rowids: Collection[int]) -> dict[int, int]:
        """Which ranks rows that may be found have by their words alone; those that have none are left out."""
        lexicon, ranking = evidence.lexicon, evidence.ranking
        if lexicon is None or ranking is None or not rowids:
            return {}
        asked = np.array(sorted(rowids), np.int64)
        missing = set(asked[ranking.worded[lexicon.places(asked)]].tolist())
        ranks: dict[int, int] = {}
        for rank, (rowid, _) in enumerate(self._passing(by_words(ranking), lexicon.rowids, _PROBE), start=1):
            if not missing:
                break
            if rowid in missing:
                missing.remove(rowid)
                ranks[rowid] = rank
        return ranks

    # --- relevance -------------------------------------------------------------------------------

    def _near(self, lexicon: Lexicon | None) -> Near:
        least = 0 if lexicon is None else _NEAR if lexicon.alive_count <= _MANY else _NEAR_OF_MANY
        return self.nearest(max(least, 2 * self.wanted))

    def _by_relevance(self, evidence: Evidence, count: int) -> list[Found]:
        lexicon, ranking = evidence.lexicon, evidence.ranking
        found = {
            rowid: Found(rowid, 0.5 + 0.5 / (1 + rank), ["topic"])
            for rank, rowid in enumerate(self.topic[:count], start=1)
        }
        ranked, worded = evidence.near, set[int]()
        if lexicon is not None and ranking is not None:
            ranked = self._kept(ranking, lexicon.rowids, count)
            candidates = [*found, *(rowid for rowid, _ in ranked)]
            having = ranking.worded[lexicon.places(candidates)].tolist()
            worded = {rowid for rowid, has_word in zip(candidates, having, strict=True) if has_word}
        for rowid, score in ranked:
            if rowid not in found and len(found) < count:
                found[rowid] = Found(rowid, BELOW_TOPICS * score)
        close = {rowid for rowid, _ in evidence.near}
        for hit in found.values():
            hit.channels += ["keyword"] * (hit.rowid in worded)
            hit.channels += ["vector"] * (hit.rowid in close)
        return list(found.values())

    def _kept(self, ranking: Ranking, rowids: Ints, wanted: int) -> list[tuple[int, float]]:
        """Of those that may be found the best, with their scores."""
        return list(islice(self._passing(ranking, rowids, max(_PROBE, wanted)), wanted))

    def _passing(self, ranking: Ranking, rowids: Ints, probe: int) -> Iterator[tuple[int, float]]:
        """All that may be found, the best first."""
        for places in best_first(ranking, probe):
            slice_ = rowids[places].tolist()
            passed = self.keep(slice_)
            scored = zip(slice_, ranking.scores[places].tolist(), strict=True)
            yield from ((rowid, score) for rowid, score in scored if rowid in passed)

    # --- rrf -------------------------------------------------------------------------------------

    @property
    def _depth(self) -> int:
        """Rows that keyword and vector hand over."""
        return max(_RRF_DEPTH, 2 * self.wanted)

    def _by_rank(self, evidence: Evidence) -> list[Found]:
        lexicon, ranking = evidence.lexicon, evidence.ranking
        worded: list[tuple[int, float]] = []
        if lexicon is not None and ranking is not None:
            worded = self._kept(ranking, lexicon.rowids, self._depth)
        channels: Mapping[Channel, Sequence[int]] = {
            "topic": self.topic[: 2 * self.wanted],
            "keyword": [rowid for rowid, _ in worded],
            "vector": [rowid for rowid, _ in evidence.near],
        }
        found: dict[int, Found] = {}
        for channel, rowids in channels.items():
            for rank, rowid in enumerate(rowids, start=1):
                hit = found.setdefault(rowid, Found(rowid))
                hit.score += RRF_WEIGHTS[channel] / (RRF_OFFSET + rank)
                hit.channels.append(channel)
        return sorted(found.values(), key=lambda hit: hit.score, reverse=True)
