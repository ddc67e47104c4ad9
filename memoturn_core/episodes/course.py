"""An episode as far as it got, read like one that has ended: its failures, decisions and recoveries.

Called by `timeline` and `handoff`, which tell of open episodes too.
"""

from __future__ import annotations

from collections.abc import Sequence

from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.rows import EpisodeRow, experience
from memoturn_schemas.episodes import Outcome, Step

_OPEN = Outcome(type="partial_success", verdict="", completed=[], failed=[])
"""Stands for an outcome that is not there; who reads a course asks the row how it ended."""


def so_far(row: EpisodeRow, steps: Sequence[Step]) -> Experience:
    """What these steps of the episode tell; it takes until the last of them."""
    until = max([row.started_at, *(step["timestamp"] for step in steps)])
    return experience(row, list(steps), _OPEN, until)
