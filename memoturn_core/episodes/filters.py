"""What an episode must meet where the caller asked for it, by name. Called by `query`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memoturn_schemas.experience import EpisodeFilter, QueryMemoryRequest

Conditions = Mapping[EpisodeFilter, tuple[str, tuple[Any, ...]]]
"""SQL on a row named `episode`, with its parameters."""


def conditions(request: QueryMemoryRequest) -> Conditions:
    compared: tuple[tuple[EpisodeFilter, str, Any], ...] = (
        ("domain", "episode.domain = ?", request.domain),
        ("task_type", "episode.task_type = ?", request.task_type),
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
        found["tags"] = (" AND ".join([tagged] * len(request.tags)), tuple(request.tags))
    return found
