"""Which candidates to answer with, and in which order: boosted, and the most relevant ones unlike each other.

A candidate whose task is put in the words of the query, all of them and no others, is as relevant as whatever boosts
could make of the most relevant. So it comes first, however old it is. Called by `query`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from memoturn_core.episodes.boosts import WHOLE, Suggestion
from memoturn_core.episodes.candidates import Candidate
from memoturn_core.episodes.diversity import Likeness, by_vectors, by_words, diversified
from memoturn_core.memory.rows import bound
from memoturn_core.memory.text import STOPWORDS, stems
from memoturn_core.memory.vectors import Embeddings, EpisodeVectors, comparable
from memoturn_schemas.episodes import TaskType
from memoturn_schemas.experience import Sort
from memoturn_storage.handle import Snapshot

COMPARED = 150
"""Candidates at most that are compared with each other."""
_CHARACTERS = 1_000
"""Of a description that are compared."""


def chosen(
    snapshot: Snapshot, query: str, candidates: Sequence[Candidate], *, sort: Sort, limit: int
) -> list[Candidate]:
    """Those to answer with, in their order; all that makes up their scores is added to their parts.

    Args:
        candidates: by relevance, the best first.
    """
    known = _known(snapshot, candidates)
    _add_boosts(query, candidates, known, snapshot.ambient.now_ms())
    ordered = sorted(candidates, key=lambda each: each.score, reverse=True)
    if sort == "recency":
        return sorted(ordered, key=lambda each: known[each.rowid].started_at, reverse=True)[:limit]
    if sort == "reward":
        rewards = {rowid: -np.inf if each.reward is None else each.reward for rowid, each in known.items()}
        return sorted(ordered, key=lambda each: rewards[each.rowid], reverse=True)[:limit]
    compared, rest = ordered[:COMPARED], ordered[COMPARED:]
    picked = []
    for place, added in diversified(
        [each.score for each in compared], _likeness(snapshot, compared, known, _wording(query)), limit
    ):
        compared[place].parts["diversity"] = added
        picked.append(compared[place])
    return [*picked, *rest][:limit]


class _Known(NamedTuple):
    """What is read of a candidate to choose by."""

    task_type: TaskType
    domain: str
    started_at: int
    reward: float | None
    wording: Set[str]


def _known(snapshot: Snapshot, candidates: Sequence[Candidate]) -> dict[int, _Known]:
    if not candidates:
        return {}
    found: list[Any] = snapshot.connection.execute(
        "SELECT rowid, task_type, domain, started_at, reward, substr(description, 1, ?) FROM __memoturn_episodes"
        " WHERE rowid IN carray(?)",
        (_CHARACTERS, bound(each.rowid for each in candidates)),
    ).fetchall()
    return {
        rowid: _Known(task_type, domain, started_at, reward, _wording(description))
        for rowid, task_type, domain, started_at, reward, description in found
    }


def _wording(text: str) -> Set[str]:
    return frozenset(stems(text[:_CHARACTERS])) - _COMMON


_COMMON = frozenset(stems(" ".join(STOPWORDS)))


def _add_boosts(query: str, candidates: Sequence[Candidate], known: dict[int, _Known], now: int) -> None:
    suggestion, wording = Suggestion.of(query), _wording(query)
    enough = (1 + WHOLE) * candidates[0].relevance if candidates else 0.0
    for candidate in candidates:
        each = known[candidate.rowid]
        if wording and each.wording == wording:
            candidate.parts["exact"] = max(0.0, enough - candidate.relevance)
        boosts = suggestion.boosts(
            domain=each.domain, task_type=each.task_type, started_at=each.started_at, reward=each.reward, now=now
        )
        candidate.parts |= {name: max(0.0, candidate.relevance) * share for name, share in boosts.items()}


def _likeness(
    snapshot: Snapshot, candidates: Sequence[Candidate], known: dict[int, _Known], asked: Set[str]
) -> Likeness:
    """By vectors where all have one, and else by the words of what was to be done that nobody `asked` for."""
    embeddings = Embeddings.of(snapshot.connection)
    if embeddings.dimension is not None and candidates:
        spaces = comparable(snapshot.connection, embeddings.dimension, embeddings.model)
        vectors = EpisodeVectors.of_rows(snapshot.connection, [each.rowid for each in candidates], spaces)
        if len(vectors) == len(candidates):
            return by_vectors(np.array([vectors[each.rowid] for each in candidates]))
    return by_words([known[each.rowid].wording - asked for each in candidates])
