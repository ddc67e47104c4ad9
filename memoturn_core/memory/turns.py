"""The transcript's rows: append, window, drop, and the two ways to search them.

Called by `transcript`, `sessions` and `recall`.
"""

from __future__ import annotations

from typing import Any

from memoturn_core.memory.rows import bound
from memoturn_core.memory.text import match_any
from memoturn_core.memory.vectors import TurnVectors
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.memory import TurnHit
from memoturn_schemas.transcript import StoredTurn
from memoturn_storage.handle import Snapshot, Transaction


def append(transaction: Transaction, session_id: str, role: str, content: str, vector: Vector | None) -> int:
    """Add a turn to the end of its session; returns its `seq`, from 1 without gaps."""
    connection = transaction.connection
    seq = connection.execute(
        "SELECT coalesce(max(seq), 0) + 1 FROM __memoturn_turns WHERE session_id = ?", (session_id,)
    ).get
    assert isinstance(seq, int)  # noqa: S101 - an aggregate always gives a row
    connection.execute(
        "INSERT INTO __memoturn_turns (session_id, seq, role, content, created_at) VALUES (?, ?, ?, ?, ?)",
        (session_id, seq, role, content, transaction.ambient.now_ms()),
    )
    rowid = connection.last_insert_rowid()
    connection.execute("INSERT INTO __memoturn_turns_fts (rowid, content) VALUES (?, ?)", (rowid, content))
    if vector is not None:
        TurnVectors.insert(transaction, rowid, vector)
    return seq


def last(snapshot: Snapshot, session_id: str, count: int) -> list[StoredTurn]:
    """The last `count` turns of a session, oldest first."""
    found: list[Any] = snapshot.connection.execute(
        "SELECT session_id, seq, role, content, created_at FROM __memoturn_turns"
        " WHERE session_id = ? ORDER BY seq DESC LIMIT ?",
        (session_id, count),
    ).fetchall()
    return [
        StoredTurn(session_id=session, seq=seq, role=role, content=content, created_at=created_at)
        for session, seq, role, content, created_at in reversed(found)
    ]


def drop(transaction: Transaction, session_id: str) -> None:
    """Delete a session's transcript."""
    connection = transaction.connection
    found: list[Any] = connection.execute(
        "SELECT rowid, content FROM __memoturn_turns WHERE session_id = ?", (session_id,)
    ).fetchall()
    connection.executemany(
        "INSERT INTO __memoturn_turns_fts (__memoturn_turns_fts, rowid, content) VALUES ('delete', ?, ?)",
        found,
    )
    connection.execute("DELETE FROM __memoturn_turns WHERE session_id = ?", (session_id,))
    TurnVectors.delete(transaction, [rowid for rowid, _ in found])


def near(snapshot: Snapshot, vector: Vector, count: int, session_id: str | None) -> list[TurnHit]:
    """The turns nearest to `vector`, of one session or of all; those without an embedding never match."""

    def keep(rowids: list[int]) -> set[int]:
        if session_id is None:
            return set(rowids)
        of_session: list[Any] = snapshot.connection.execute(
            "SELECT rowid FROM __memoturn_turns WHERE rowid IN carray(?) AND session_id = ?",
            (bound(rowids), session_id),
        ).fetchall()
        return {rowid for (rowid,) in of_session}

    nearest = TurnVectors.of(snapshot).nearest(vector, count, keep)
    fetched = {row[0]: row for row in _fetch(snapshot, [rowid for rowid, _ in nearest])}
    return [_hit(fetched[rowid], 1.0 - cosine) for rowid, cosine in nearest]


def matching(snapshot: Snapshot, query: str, count: int, session_id: str | None) -> list[TurnHit]:
    """The turns that share words with `query`, best first by BM25."""
    match = match_any(query)
    if match is None:
        return []
    found: list[Any] = snapshot.connection.execute(
        """
        SELECT t.rowid, t.session_id, t.seq, t.role, t.content
        FROM __memoturn_turns_fts JOIN __memoturn_turns AS t ON t.rowid = __memoturn_turns_fts.rowid
        WHERE __memoturn_turns_fts MATCH ?1 AND (?2 IS NULL OR t.session_id = ?2)
        ORDER BY __memoturn_turns_fts.rank LIMIT ?3
        """,
        (match, session_id, count),
    ).fetchall()
    return [_hit(row, None) for row in found]


def _fetch(snapshot: Snapshot, rowids: list[int]) -> list[Any]:
    if not rowids:
        return []
    return snapshot.connection.execute(
        "SELECT rowid, session_id, seq, role, content FROM __memoturn_turns WHERE rowid IN carray(?)",
        (bound(rowids),),
    ).fetchall()


def _hit(row: Any, distance: float | None) -> TurnHit:
    _, session_id, seq, role, content = row
    return TurnHit(session_id=session_id, seq=seq, role=role, content=content, distance=distance)
