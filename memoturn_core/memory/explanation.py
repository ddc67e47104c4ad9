"""Why a recall answers what it does: what each score is made of, and why a memory was not found.

Worked out beside a finished search, from what it went by, and only where a request asks for it. The numbers are
rounded: they are to be read, and are paid for by the token. Called by `recall`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memoturn_core.memory.filters import Filters
from memoturn_core.memory.identity import format_id, parse_id
from memoturn_core.memory.ranking import shares
from memoturn_core.memory.rows import Row, bound
from memoturn_core.memory.search import BELOW_TOPICS, RRF_OFFSET, RRF_WEIGHTS, Evidence, Found, Search
from memoturn_core.memory.text import left_out, terms, words
from memoturn_core.memory.vectors import MemoryVectors, Spaces
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.memory import (
    Channel,
    ChannelRank,
    Contribution,
    Explanation,
    FilterName,
    MemoryOutcome,
    RecallExplanation,
    RecallRequest,
    TermScore,
    VectorExplanation,
)
from memoturn_storage.handle import Snapshot

_DIGITS = 6
_OF_CHANNEL: dict[Channel, Contribution] = {"topic": "topic", "keyword": "words", "vector": "vector"}


def of_vector(request: RecallRequest, vector: Vector | None, model: str | None, *, admitted: bool) -> VectorExplanation:
    """Whose vector the query has, or why it has none; the arguments are those of `recall.search`."""
    if vector is None:
        has_text = bool(request.query and request.query.strip())
        return {"missing": "no_embedder" if has_text else "no_query"}
    if not len(vector):
        return {"missing": "embedder_failed"}
    if not admitted:
        return {"missing": "other_space"}
    return {"by": model or "request"}


def of_nothing(request: RecallRequest) -> RecallExplanation:
    """Of a recall from a profile that does not exist."""
    explained = _of_query(request, {"missing": "none_stored"})
    if request.explain_id is not None:
        explained["memory"] = {"outcome": "unknown"}
    return explained


def _of_query(request: RecallRequest, vector: VectorExplanation) -> RecallExplanation:
    query = request.query or ""
    return RecallExplanation(words=words(query), left_out=left_out(query), vector=vector, candidates=0, removed={})


def _numbered(rowids: Iterable[int]) -> dict[int, int]:
    return {rowid: rank for rank, rowid in enumerate(rowids, start=1)}


@dataclass(frozen=True, slots=True)
class Explainer:
    """What a search went by."""

    snapshot: Snapshot
    request: RecallRequest
    filters: Filters
    search: Search
    evidence: Evidence
    vector: Vector | None
    """That the memories were compared with."""
    spaces: Spaces

    def of_recall(self, vector: VectorExplanation) -> RecallExplanation:
        explained = _of_query(self.request, vector)
        if self.vector is not None and not self.spaces:
            explained["vector"] = {"missing": "none_stored"}
        explained["candidates"], explained["removed"] = self._candidates()
        if self.request.explain_id is not None:
            explained["memory"] = self._of_memory(self.request.explain_id)
        return explained

    # --- hits ------------------------------------------------------------------------------------

    def of_hits(self, hits: Sequence[Found]) -> list[Explanation]:
        """In the order of the hits."""
        ranks: dict[Channel, dict[int, int]] = {
            "topic": _numbered(self.search.topic),
            "keyword": self.search.ranks_by_words(self.evidence, [hit.rowid for hit in hits]),
            "vector": _numbered(rowid for rowid, _ in self.evidence.near),
        }
        channels = [{channel: ranks[channel][hit.rowid] for channel in hit.channels} for hit in hits]
        parts = [self._by_rank(each) for each in channels] if self._rrf else self._by_relevance(hits)
        return [
            Explanation(
                channels={channel: self._rank(channel, rank, hit) for channel, rank in each.items()},
                terms=of_words,
                contributions={name: round(value, _DIGITS) for name, value in part.items() if value},
            )
            for hit, each, part, of_words in zip(hits, channels, parts, self._terms(hits, parts), strict=True)
        ]

    @property
    def _rrf(self) -> bool:
        return self.search.fusion == "rrf"

    def _rank(self, channel: Channel, rank: int, hit: Found) -> ChannelRank:
        made = ChannelRank(rank=rank)
        if self._rrf:
            made["weight"] = RRF_WEIGHTS[channel]
        if channel == "vector" and hit.cosine is not None:
            made["cosine"] = round(hit.cosine, _DIGITS)
        return made

    def _by_rank(self, ranks: dict[Channel, int]) -> dict[Contribution, float]:
        return {_OF_CHANNEL[channel]: RRF_WEIGHTS[channel] / (RRF_OFFSET + rank) for channel, rank in ranks.items()}

    def _by_relevance(self, hits: Sequence[Found]) -> list[dict[Contribution, float]]:
        lexicon, ranking = self.evidence.lexicon, self.evidence.ranking
        of_all: dict[Contribution, Any] = {"vector": [hit.score / BELOW_TOPICS for hit in hits]}
        if lexicon is not None and ranking is not None:
            places = lexicon.places([hit.rowid for hit in hits])
            of_all = {name: part.tolist() for name, part in ranking.contributions(places).items()}
        return [
            {"topic": hit.score}
            if "topic" in hit.channels
            else {name: BELOW_TOPICS * part[index] for name, part in of_all.items()}
            for index, hit in enumerate(hits)
        ]

    def _terms(self, hits: Sequence[Found], parts: Sequence[dict[Contribution, float]]) -> list[list[TermScore]]:
        lexicon = self.evidence.lexicon
        if lexicon is None or not hits:
            return [[] for _ in hits]
        written: dict[tuple[str, ...], str] = {}
        for word in words(self.search.query or ""):
            for term in terms(word):
                written.setdefault(term, word)
        places = lexicon.places([hit.rowid for hit in hits])
        share, has = shares(lexicon, self.evidence.terms, places, context=not self._rrf)
        of_hits: list[list[TermScore]] = []
        for index, part in enumerate(parts):
            of_hits.append(listed := [])
            for number, term in enumerate(self.evidence.terms):
                score = float(share[number, index]) * part.get("words", 0.0)
                if has[number, index]:
                    listed.append({"word": written[term], "score": round(score, _DIGITS)})
                elif score:
                    listed.append({"word": written[term], "score": round(score, _DIGITS), "nearby": True})
        return of_hits

    # --- what was looked through -----------------------------------------------------------------

    def _candidates(self) -> tuple[int, dict[FilterName, int]]:
        lexicon, ranking = self.evidence.lexicon, self.evidence.ranking
        sources: list[str] = []
        parameters: list[Any] = []
        if lexicon is not None and ranking is not None and ranking.worded.any():
            sources.append("SELECT value FROM carray(?)")
            parameters.append(bound(lexicon.rowids[np.flatnonzero(ranking.worded)].tolist()))
        if self.request.topic_key is not None:
            sources.append("SELECT rowid FROM __memoturn_memories WHERE topic_key = ?")
            parameters.append(self.request.topic_key)
        for space in self.spaces:
            sources.append(f"SELECT rowid - ? FROM {MemoryVectors.table} WHERE rowid >= ? AND rowid < ?")
            parameters += (space.start, space.start, space.stop)
        if not sources:
            return 0, {}
        counted: Any = self.snapshot.connection.execute(
            f"SELECT {self.filters.first_failed}, count(*) FROM __memoturn_memories AS m"
            f" WHERE m.rowid IN ({' UNION ALL '.join(sources)}) GROUP BY 1",
            (*self.filters.parameters, *parameters),
        ).fetchall()
        by_filter = dict(counted)
        order = self.filters.conditions
        return sum(by_filter.values()), {name: by_filter[name] for name in order if name in by_filter}

    # --- one memory ------------------------------------------------------------------------------

    def _of_memory(self, memory_id: str) -> MemoryOutcome:
        key = parse_id(memory_id)
        row = None if key is None else Row.one(self.snapshot.connection, "id = ?", (key,))
        if row is None:
            return {"outcome": "unknown"}
        failed = self.filters.failed(self.snapshot.connection, row.rowid)
        return self._kept_out(row, failed) if failed else self._ranked(row.rowid)

    def _kept_out(self, row: Row, failed: list[FilterName]) -> MemoryOutcome:
        others = [name for name in failed if name not in ("expired", "superseded")]
        outcome = MemoryOutcome(outcome="filtered")
        if "expired" in failed and row.expires_at is not None:
            outcome = MemoryOutcome(outcome="expired", expires_at=row.expires_at)
        elif "superseded" in failed and row.superseded_at is not None:
            by = None if row.superseded_by is None else format_id(row.superseded_by)
            outcome = MemoryOutcome(outcome="superseded", superseded_by=by, superseded_at=row.superseded_at)
        if others:
            outcome["filters"] = others
        return outcome

    def _ranked(self, rowid: int) -> MemoryOutcome:
        rank, hit = self._place(rowid)
        if hit is None:
            deep = rowid in self.search.topic or self.search.ranks_by_words(self.evidence, [rowid])
            return MemoryOutcome(outcome="beyond_k") if deep else self._not_matching(rowid, self.evidence.near)
        if rank <= self.search.wanted:
            return MemoryOutcome(outcome="found", rank=rank)
        [explanation] = self.of_hits([hit])
        return MemoryOutcome(outcome="beyond_k", rank=rank, score=hit.score, explanation=explanation)

    def _place(self, rowid: int) -> tuple[int, Found | None]:
        """Its rank and what was found, looked for ever further down."""
        count, seen = self.search.wanted, 0
        while True:
            found = self.search.best(self.evidence, count)
            for rank, hit in enumerate(found[seen:], start=seen + 1):
                if hit.rowid == rowid:
                    return rank, hit
            if len(found) < count:
                return 0, None
            count, seen = 8 * count, count

    def _not_matching(self, rowid: int, near: Sequence[tuple[int, float]]) -> MemoryOutcome:
        outcome = MemoryOutcome(outcome="not_matching")
        if self.vector is None:
            return outcome
        only: Callable[[list[int]], set[int]] = {rowid}.intersection
        found = MemoryVectors.nearest(self.snapshot, self.vector, self.spaces, 1, only)
        if not found:
            outcome["embedded"] = False
        elif near:
            outcome["cosine"], outcome["least_cosine"] = round(found[0][1], _DIGITS), round(near[-1][1], _DIGITS)
        return outcome
