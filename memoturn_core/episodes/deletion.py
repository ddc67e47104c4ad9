"""What an episode leaves in a profile, all of it, and how it goes. Called by `episodes`."""

from __future__ import annotations

from memoturn_core.episodes import embedding, relationships
from memoturn_core.episodes.medians import Length, Medians
from memoturn_core.episodes.patterns import evidence, feedback
from memoturn_core.episodes.rows import EpisodeRow
from memoturn_storage.handle import Transaction


def delete(transaction: Transaction, row: EpisodeRow) -> None:
    """Delete an episode and every trace of it: no row is left that it made."""
    feedback.forget(transaction, row.rowid)
    evidence.forget(transaction, row.rowid)
    relationships.delete(transaction, row.rowid)
    embedding.delete(transaction, row.rowid)
    if row.ended_at is not None:
        Medians.delete(transaction, row.domain, Length.of(row.started_at, row.ended_at, row.step_count))
    row.remove(transaction)
