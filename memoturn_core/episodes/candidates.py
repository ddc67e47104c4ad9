"""The episodes that answer a query best, by their words and a vector, and why there are none.

`memoturn_core.memory.search` finds and ranks them as it does memories; filters that were asked for apply before.
Called by `query`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from memoturn_core.episodes.filters import Conditions
from memoturn_core.memory.rows import bound
from memoturn_core.memory.search import Evidence, Search
from memoturn_core.memory.text import words
from memoturn_core.memory.vectors import EpisodeVectors, Spaces, searched
from memoturn_core.memory.words import EpisodeWords
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.experience import Addend, Emptiness, EpisodeFilter
from memoturn_storage.handle import Snapshot

VECTOR = 0.5
"""The weight of the cosine, the words being the rest: tasks are put in other words more than what is said in a
conversation. `python -m benchmarks.episodes_retrieval` measures it."""

_FEW = 1_000
"""Episodes that pass the filters, up to which they are looked up at once."""


@dataclass(slots=True)
class Candidate:
    rowid: int
    relevance: float
    parts: dict[Addend, float]
    """They add up to the score; so far that is the relevance."""

    @property
    def score(self) -> float:
        return sum(self.parts.values())


class Candidates:
    """What there is on a query in one state.

    Args:
        vector: of the query, if there is one; `model` as of `searched`.
        wanted: how many at most.
    """

    def __init__(
        self, snapshot: Snapshot, query: str, vector: Vector | None, model: str | None, filters: Conditions, wanted: int
    ) -> None:
        self._snapshot = snapshot
        self._query = query
        self._vector = vector
        self._spaces: Spaces | None = None if vector is None else searched(snapshot.connection, vector, model)
        self._filters = filters
        self._sql = " AND ".join(f"({sql})" for sql, _ in filters.values())
        self._parameters = tuple(value for _, values in filters.values() for value in values)
        self._few = self._passing_if_few() if filters else None
        self._search = Search(EpisodeWords, self._keep, self._nearest, query, [], wanted, "relevance", VECTOR)

    @property
    def degraded(self) -> bool:
        """Whether there was to be a vector to search by, and is none."""
        return self._vector is not None and self._spaces is None

    def best(self) -> list[Candidate]:
        """By relevance, the best first."""
        lexicon, ranking = self._evidence.lexicon, self._evidence.ranking
        found = self._search.best(self._evidence, self._search.wanted)
        if lexicon is None or ranking is None:
            return [Candidate(hit.rowid, hit.cosine or 0.0, {"vector": hit.cosine or 0.0}) for hit in found]
        places = lexicon.places([hit.rowid for hit in found])
        parts = ranking.contributions(places)
        addends: dict[Addend, Any] = {name: parts.pop(name) for name in ("words", "vector") if name in parts}
        addends["surroundings"] = sum(parts.values(), np.zeros(len(found)))
        columns = {name: column.tolist() for name, column in addends.items()}
        return [
            Candidate(hit.rowid, relevance, {name: column[index] for name, column in columns.items()})
            for index, (hit, relevance) in enumerate(zip(found, ranking.scores[places].tolist(), strict=True))
        ]

    @cached_property
    def _evidence(self) -> Evidence:
        return self._search.evidence(self._snapshot)

    def _nearest(self, count: int) -> list[tuple[int, float]]:
        if self._vector is None or not self._spaces:
            return []
        return EpisodeVectors.nearest(self._snapshot, self._vector, self._spaces, count, self._keep)

    # --- filters ---------------------------------------------------------------------------------

    def _keep(self, rowids: list[int]) -> set[int]:
        if not self._filters:
            return set(rowids)
        if self._few is not None:
            return self._few.intersection(rowids)
        return self._passing("rowid IN carray(?)", bound(rowids))

    def _passing_if_few(self) -> set[int] | None:
        """All that pass; None where they are many, and it is cheaper to ask of those that are found."""
        by_tag = self._filters.get("tags")
        if by_tag is None:
            found = self._passing("TRUE", limit=_FEW + 1)
        else:  # those of one tag lie together; whether an episode has a tag is asked of each
            of_tag = "rowid IN (SELECT episode FROM __memoturn_episode_tags WHERE tag = ?)"
            found = self._passing(of_tag, by_tag[1][0], limit=_FEW + 1)
        return found if len(found) <= _FEW else None

    def _passing(self, condition: str, *parameters: Any, limit: int = -1) -> set[int]:
        found: list[Any] = self._snapshot.connection.execute(
            f"SELECT rowid FROM __memoturn_episodes AS episode WHERE {condition} AND {self._sql} LIMIT ?",
            (*parameters, *self._parameters, limit),
        ).fetchall()
        return {rowid for (rowid,) in found}

    # --- why there are none ----------------------------------------------------------------------

    def emptiness(self) -> Emptiness:
        """Of a search that found nothing."""
        stored: Any = self._snapshot.connection.execute("SELECT count(*) FROM __memoturn_episodes").get
        if not stored:
            return nothing_stored(self._query)
        matching, left_out = self._matching()
        if left_out:
            most = max(left_out, key=lambda name: left_out[name])
            text = (
                f"of {stored} episodes {matching} match, but not the filters: {most} alone keeps out {left_out[most]}"
            )
        else:
            text = f"none of {stored} episodes has a word of the query" + (
                ", and none a vector to compare" if self._spaces is not None else ""
            )
        return Emptiness(
            reason="filters" if left_out else "no_match",
            text=text,
            stored=stored,
            matching=matching,
            words=words(self._query),
            left_out=left_out,
        )

    def _matching(self) -> tuple[int, dict[EpisodeFilter, int]]:
        """How many match whatever the filters say, and how many of them each filter keeps out."""
        lexicon, ranking = self._evidence.lexicon, self._evidence.ranking
        sources: list[str] = ["SELECT NULL"]
        parameters: list[Any] = []
        if lexicon is not None and ranking is not None and ranking.worded.any():
            sources.append("SELECT value FROM carray(?)")
            parameters.append(bound(lexicon.rowids[np.flatnonzero(ranking.worded)].tolist()))
        for space in self._spaces or ():
            sources.append(f"SELECT rowid - ? FROM {EpisodeVectors.table} WHERE rowid >= ? AND rowid < ?")
            parameters += (space.start, space.start, space.stop)
        failed = "".join(f", coalesce(sum(({sql}) IS NOT TRUE), 0)" for sql, _ in self._filters.values())
        row: Any = self._snapshot.connection.execute(
            f"SELECT count(*){failed} FROM __memoturn_episodes AS episode"
            f" WHERE rowid IN ({' UNION ALL '.join(sources)})",
            (*self._parameters, *parameters),
        ).fetchone()
        matching, *counts = row
        return matching, {name: count for name, count in zip(self._filters, counts, strict=True) if count}


def nothing_stored(query: str) -> Emptiness:
    return Emptiness(
        reason="nothing_stored",
        text="no episode is kept here",
        stored=0,
        matching=0,
        words=words(query),
        left_out={},
    )
