"""Which memories say in other words what a new one says: a hint for whoever wrote it. Nothing is done about it.

Compared are those that have the longest word of the new summary, if they are few. Long words are the rare ones, and to
look up more than one is more than a write can bear: it takes a third of what all the rest does. Two summaries are as
similar as the share of their distinct words that both have, where the word that was looked up weighs the more the rarer
it is. Where both have vectors, a cosine that is near enough makes up for words. docs/memory.md says what the hints are
worth. Called by `ingest`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import nlargest
from math import log
from typing import Any

import apsw
import numpy as np

from memoturn_core.memory.identity import format_id
from memoturn_core.memory.rows import bound
from memoturn_core.memory.text import STOPWORDS, stems, words
from memoturn_core.memory.vectors import Embeddings, MemoryVectors, comparable
from memoturn_core.vectors.vector import unit
from memoturn_storage.handle import Transaction

NAMED_AT_MOST = 3

BY_WORDS = 0.6
"""The share of words from which on two summaries say the same."""
BY_BOTH = 0.7
"""The mean of this share and the cosine from which on they do."""
_RARE = 32
"""Memories that have the word, at most. Where two have it, it weighs as much as nearly four others."""
_BEGINNING = 1_000
"""Characters of a summary that are looked at."""

_TELL_NOTHING = frozenset(stem for word in STOPWORDS for stem in stems(word))


def similar(transaction: Transaction, rowid: int, summary: str, later: Collection[int]) -> list[str]:
    """The ids of active memories that say the same as the one at `rowid`, the most similar first.

    Args:
        summary: of that memory.
        later: rows that are not to be named.
    """
    connection = transaction.connection
    summary = summary[:_BEGINNING]
    word = max(words(summary), key=len, default="")
    having = _having(connection, word)
    others = having - {rowid} - set(later)
    if not others or len(having) > _RARE:
        return []
    weights = dict.fromkeys(_telling(summary), 1.0)
    weights |= dict.fromkeys(stems(word), 1 + log(_RARE / len(having)))
    active = _active(connection, others, transaction.ambient.now_ms())
    shares = {row: _share(weights, _telling(said)) for row, _, said in active}
    # A cosine of 1 at most makes up for no less.
    undecided = [row for row, share in shares.items() if 2 * BY_BOTH - 1 <= share < BY_WORDS]
    cosines = _cosines(connection, rowid, undecided)
    found: list[tuple[float, int, bytes]] = []
    for row, id_, _ in active:
        share = shares[row]
        both = (share + cosines.get(row, 0.0)) / 2
        if share >= BY_WORDS or both >= BY_BOTH:
            found.append((max(share, both), row, id_))
    return [format_id(id_) for _, _, id_ in nlargest(NAMED_AT_MOST, found)]


def _telling(summary: str) -> set[str]:
    """The words to compare, stemmed."""
    distinct = set(stems(summary))
    return distinct - _TELL_NOTHING or distinct


def _share(weights: dict[str, float], others: set[str]) -> float:
    """What two summaries have in common, of all that they have; a word that is not weighed counts 1."""
    common = sum(weights[stem] for stem in others & weights.keys())
    return common / (sum(weights.values()) + len(others - weights.keys()))


def _having(connection: apsw.Connection, word: str) -> set[int]:
    """The memories that have a word, one more than the most that are compared."""
    rows: list[Any] = connection.execute(
        "SELECT rowid FROM __memoturn_memories_fts WHERE __memoturn_memories_fts MATCH ? LIMIT ?",
        (f'"{word}"', _RARE + 1),
    ).fetchall()
    return {rowid for (rowid,) in rows}


def _active(connection: apsw.Connection, rowids: Collection[int], now_ms: int) -> list[Any]:
    """Those that are active, as `(rowid, id, beginning of the summary)`."""
    return connection.execute(
        "SELECT rowid, id, substr(summary, 1, ?) FROM __memoturn_memories"
        " WHERE rowid IN carray(?) AND superseded_at IS NULL AND (expires_at IS NULL OR expires_at > ?)",
        (_BEGINNING, bound(rowids), now_ms),
    ).fetchall()


def _cosines(connection: apsw.Connection, rowid: int, others: Sequence[int]) -> dict[int, float]:
    """To those of the other rows that have a vector in a space in which this row has one."""
    cosines: dict[int, float] = {}
    known = Embeddings.of(connection)
    if not others or known.dimension is None:
        return cosines
    for space in comparable(connection, known.dimension, known.model):
        found: list[Any] = connection.execute(
            f"SELECT rowid, embedding FROM {MemoryVectors.table} WHERE rowid IN carray(?)",
            (bound(space[row] for row in (rowid, *others)),),
        ).fetchall()
        vectors = {placed - space.start: np.frombuffer(blob, "<f4") for placed, blob in found}
        own = vectors.pop(rowid, None)
        if own is not None and vectors:
            directions = unit(np.stack([own, *vectors.values()]))
            cosines |= zip(vectors, (directions[1:] @ directions[0]).tolist(), strict=True)
    return cosines
