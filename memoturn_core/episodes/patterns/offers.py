"""What recommendations offered and on what strength: kept so that feedback can be taken, and judged later.

Patterns are named by their ids, which are the same for the same pattern even where it was forgotten and learnt again.
The newest `WITHOUT_FEEDBACK` recommendations that nobody said anything of are kept, and all that have feedback.
Called by `recommend`, `feedback`, `effectiveness`, `evaluation`, and by what hands an episode over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apsw
from pydantic_core import from_json

from memoturn_core.episodes.rows import EpisodeRow
from memoturn_core.memory.identity import canonical_json
from memoturn_schemas.errors import NotFound
from memoturn_storage.handle import Transaction

WITHOUT_FEEDBACK = 1_000
_PRUNED_EVERY = 100
"""Recommendations, so that there are up to so many more, and most need not look for what is to go."""

_PREFIX = "rec_"
_SILENT = "NOT EXISTS (SELECT 1 FROM __memoturn_pattern_feedback WHERE recommendation = made.rowid)"
"""Of a recommendation `made`: nobody gave feedback."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One pattern as it was offered; `avoid` where it was a warning."""

    pattern_id: str
    strength: float
    score: float
    avoid: bool


@dataclass(frozen=True, slots=True)
class Recommendation:
    rowid: int
    episode: int | None
    """The rowid of the one that it was made for."""
    offers: dict[str, Offer]
    """By the pattern's id, best first, and what to avoid after what to do."""


def record(transaction: Transaction, offers: list[Offer], episode: int | None) -> str:
    """Keep what was offered; the recommendation's id."""
    connection, id_ = transaction.connection, transaction.ambient.token(16)
    body = {
        "offers": [
            {"pattern_id": each.pattern_id, "strength": each.strength, "score": each.score, "avoid": each.avoid}
            for each in offers
        ]
    }
    connection.execute(
        "INSERT INTO __memoturn_recommendations (id, episode, created_at, body) VALUES (?, ?, ?, ?)",
        (id_, episode, transaction.ambient.now_ms(), canonical_json(body)),
    )
    if connection.last_insert_rowid() % _PRUNED_EVERY == 0:
        _prune(connection)
    return f"{_PREFIX}{id_.hex()}"


def find(connection: apsw.Connection, recommendation_id: str) -> Recommendation:
    """Raises `NotFound`, which names the field of the request."""
    found: Any = connection.execute(
        "SELECT rowid, episode, body FROM __memoturn_recommendations WHERE id = ?",
        (bytes.fromhex(recommendation_id.removeprefix(_PREFIX)),),
    ).fetchone()
    if found is None:
        raise NotFound(
            f"recommendation_id: there is no {recommendation_id}; of recommendations without feedback"
            f" the newest {WITHOUT_FEEDBACK} are kept"
        )
    return _recommendation(found)


def all_of_them(connection: apsw.Connection) -> Iterator[Recommendation]:
    """Those that are kept, oldest first."""
    rows: Any = connection.execute("SELECT rowid, episode, body FROM __memoturn_recommendations ORDER BY rowid")
    return map(_recommendation, rows)


def forget_episode(connection: apsw.Connection, episode: int) -> None:
    """Remove what was made for an episode; where others gave feedback on it, what is left is made for none."""
    connection.execute(
        f"DELETE FROM __memoturn_recommendations AS made WHERE episode = ? AND {_SILENT}",
        (episode,),
    )
    connection.execute("UPDATE __memoturn_recommendations SET episode = NULL WHERE episode = ?", (episode,))


def episode_named(connection: apsw.Connection, episode_id: str) -> EpisodeRow:
    """The episode of a request's `episode_id`; raises `NotFound`, which names that field."""
    try:
        return EpisodeRow.one(connection, episode_id)
    except NotFound as error:
        raise NotFound(f"episode_id: {error}") from None


def _prune(connection: apsw.Connection) -> None:
    connection.execute(
        "DELETE FROM __memoturn_recommendations WHERE rowid IN (SELECT rowid FROM __memoturn_recommendations AS made"
        f" WHERE {_SILENT} ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
        (WITHOUT_FEEDBACK,),
    )


def _recommendation(row: Any) -> Recommendation:
    rowid, episode, body = row
    return Recommendation(rowid, episode, {each["pattern_id"]: Offer(**each) for each in from_json(body)["offers"]})
