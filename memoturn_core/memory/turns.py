"""The transcript's rows: append, window, drop, search.

Called by `transcript`, `sessions` and `recall`.
"""

from __future__ import annotations

from typing import Any

from memoturn_core.memory.rows import bound
from memoturn_core.memory.search import Search
from memoturn_core.memory.vectors import TurnVectors, of_dimension
from memoturn_core.memory.words import TurnWords
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.memory import Fusion, TurnHit
from memoturn_schemas.transcript import StoredTurn
from memoturn_storage.handle import Snapshot, Transaction


def append(
    transaction: Transaction, session_id: str, role: str, content: str, vector: Vector | None, space: range | None
) -> int:
    """Add a turn to the end of its session, its vector where it has a space; `seq`, from 1 without gaps."""
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
    TurnWords.insert(transaction, rowid, session_id, (content,))
    if vector is not None and space is not None:
        TurnVectors.insert(transaction, rowid, vector, space)
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
    for rowid, content in found:
        TurnWords.delete(transaction, rowid, (content,))
    connection.execute("DELETE FROM __memoturn_turns WHERE session_id = ?", (session_id,))
    TurnVectors.delete(transaction, [rowid for rowid, _ in found])


def search(
    snapshot: Snapshot,
    query: str | None,
    vector: Vector | None,
    count: int,
    session_id: str | None,
    *,
    fusion: Fusion = "relevance",
) -> list[TurnHit]:
    """The turns that answer a query best by words, by a vector or by both, of one session or of all."""

    def keep(rowids: list[int]) -> set[int]:
        if session_id is None:
            return set(rowids)
        of_session: list[Any] = snapshot.connection.execute(
            "SELECT rowid FROM __memoturn_turns WHERE rowid IN carray(?) AND session_id = ?",
            (bound(rowids), session_id),
        ).fetchall()
        return {rowid for (rowid,) in of_session}

    def nearest(wanted: int) -> list[tuple[int, float]]:
        if vector is None:
            return []
        spaces = of_dimension(snapshot.connection, len(vector))
        return TurnVectors.nearest(snapshot, vector, spaces, wanted, keep)

    best = Search(TurnWords, keep, nearest, query, [], count, fusion).run(snapshot)
    if not best:
        return []
    found: list[Any] = snapshot.connection.execute(
        "SELECT rowid, session_id, seq, role, content FROM __memoturn_turns WHERE rowid IN carray(?)",
        (bound(hit.rowid for hit in best),),
    ).fetchall()
    rows = {rowid: values for rowid, *values in found}
    return [_hit(*rows[hit.rowid], cosine=hit.cosine) for hit in best]


def _hit(session_id: str, seq: int, role: str, content: str, *, cosine: float | None) -> TurnHit:
    distance = None if cosine is None else 1.0 - cosine
    return TurnHit(session_id=session_id, seq=seq, role=role, content=content, distance=distance)
