"""What an episode must meet where the caller asked for it, by name. Called by `query` and `listing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memoturn_schemas.episodes import ListEpisodesRequest
from memoturn_schemas.experience import EpisodeFilter, QueryMemoryRequest

Conditions = Mapping[EpisodeFilter, tuple[str, tuple[Any, ...]]]
"""SQL on a row named `episode`, with its parameters."""


def conditions(request: QueryMemoryRequest | ListEpisodesRequest) -> Conditions:
    session_id = request.session_id if isinstance(request, ListEpisodesRequest) else None
    compared: tuple[tuple[EpisodeFilter, str, Any], ...] = (
        ("domain", "episode.domain = ?", request.domain),
        ("task_type", "episode.task_type = ?", request.task_type),
        ("session_id", "episode.session_id = ?", session_id),
        ("since", "episode.started_at >= ?", request.since),
        ("until", "episode.started_at < ?", request.until),
    )
    found: dict[EpisodeFilter, tuple[str, tuple[Any, ...]]] = {
        name: (sql, (value,)) for name, sql, value in compared if value is not None
    }
    if request.outcome is not None:
        ended = None if request.outcome == "open" else request.outcome
        found["outcome"] = ("episode.outcome IS ?", (ended,))
    if request.tags:
        tagged = (
            "EXISTS (SELECT 1 FROM __memoturn_episode_tags AS tagged"
            " WHERE tagged.tag = ? AND tagged.episode = episode.rowid)"
        )
        tags = tuple(dict.fromkeys(request.tags))
        found["tags"] = (" AND ".join([tagged] * len(tags)), tags)
    return found
