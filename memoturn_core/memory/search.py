"""One search of one table: by topic, by words and by a vector, filtered before it is ranked, fused into one list.

| channel | finds                                                    |
| topic   | the exact topic_key, newest first; memories only         |
| keyword | rows that have any word of the query                     |
| vector  | the rows nearest by cosine                               |

Fusion `relevance` puts topic hits first, with scores from 0.5 to 1, and all others below, by `ranking.relevance`.
Fusion `rrf` gives each hit the sum of weight / (60 + rank) over the channels that found it, rank from 1; equal scores
keep the order topic, keyword, vector. Called by `recall` and `turns`. Contract section 2, items 31 to 36.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from memoturn_core.memory.lexicon import Ints, Lexicon
from memoturn_core.memory.ranking import Ranking, best_first, plain, relevance
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

_RRF_WEIGHTS: dict[Channel, float] = {"topic": 2.0, "keyword": 1.0, "vector": 1.0}
_RRF_OFFSET = 60
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

    def run(self, snapshot: Snapshot) -> list[Found]:
        """The best first, as many as wanted at most."""
        looked_up = [] if self.query is None else terms(self.query)
        lexicon = self.words.of(snapshot, looked_up) if looked_up else None
        if self.fusion == "rrf":
            near = self.nearest(max(_RRF_DEPTH, 2 * self.wanted))
            found = self._by_rank(lexicon, looked_up, near)
        else:
            near = self._near(lexicon)
            found = self._by_relevance(lexicon, looked_up, near)
        cosines = dict(near)
        for hit in found:
            hit.cosine = cosines.get(hit.rowid)
        return found

    # --- relevance -------------------------------------------------------------------------------

    def _near(self, lexicon: Lexicon | None) -> Near:
        least = 0 if lexicon is None else _NEAR if lexicon.alive_count <= _MANY else _NEAR_OF_MANY
        return self.nearest(max(least, 2 * self.wanted))

    def _by_relevance(self, lexicon: Lexicon | None, looked_up: Sequence[Term], near: Near) -> list[Found]:
        found = {
            rowid: Found(rowid, 0.5 + 0.5 / (1 + rank), ["topic"])
            for rank, rowid in enumerate(self.topic[: self.wanted], start=1)
        }
        ranked, worded = near, set[int]()
        if lexicon is not None:
            ranking = relevance(lexicon, looked_up, near)
            ranked = self._kept(ranking, lexicon.rowids, self.wanted)
            candidates = [*found, *(rowid for rowid, _ in ranked)]
            having = ranking.worded[lexicon.places(candidates)].tolist()
            worded = {rowid for rowid, has_word in zip(candidates, having, strict=True) if has_word}
        for rowid, score in ranked:
            if rowid not in found and len(found) < self.wanted:
                found[rowid] = Found(rowid, 0.5 * score)
        close = {rowid for rowid, _ in near}
        for hit in found.values():
            hit.channels += ["keyword"] * (hit.rowid in worded)
            hit.channels += ["vector"] * (hit.rowid in close)
        return list(found.values())

    def _kept(self, ranking: Ranking, rowids: Ints, wanted: int) -> list[tuple[int, float]]:
        """Of those that may be found the best, with their scores."""
        kept: list[tuple[int, float]] = []
        for places in best_first(ranking, max(_PROBE, wanted)):
            slice_ = rowids[places].tolist()
            passed = self.keep(slice_)
            scores = ranking.scores[places].tolist()
            kept += [(rowid, score) for rowid, score in zip(slice_, scores, strict=True) if rowid in passed]
            if len(kept) >= wanted:
                break
        return kept[:wanted]

    # --- rrf -------------------------------------------------------------------------------------

    def _by_rank(self, lexicon: Lexicon | None, looked_up: Sequence[Term], near: Near) -> list[Found]:
        worded: list[tuple[int, float]] = []
        if lexicon is not None:
            worded = self._kept(plain(lexicon, looked_up), lexicon.rowids, max(_RRF_DEPTH, 2 * self.wanted))
        channels: Mapping[Channel, Sequence[int]] = {
            "topic": self.topic,
            "keyword": [rowid for rowid, _ in worded],
            "vector": [rowid for rowid, _ in near],
        }
        found: dict[int, Found] = {}
        for channel, rowids in channels.items():
            for rank, rowid in enumerate(rowids, start=1):
                hit = found.setdefault(rowid, Found(rowid))
                hit.score += _RRF_WEIGHTS[channel] / (_RRF_OFFSET + rank)
                hit.channels.append(channel)
        return sorted(found.values(), key=lambda hit: hit.score, reverse=True)[: self.wanted]
