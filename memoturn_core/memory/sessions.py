"""Sessions: the conversations that memories and turns come from. Contract section 3, items 50 and 51."""

from __future__ import annotations

from typing import Any

from memoturn_core.memory import rows, turns
from memoturn_core.memory.rows import COLUMNS, Row
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.transcript import (
    SessionEndRequest,
    SessionEndResponse,
    SessionEntry,
    SessionsRequest,
    SessionsResponse,
)
from memoturn_storage.handle import Snapshot, Transaction


def touch(transaction: Transaction, session_id: str, now: int, *, active: bool = True) -> None:
    """The session exists from now on; where something happened in it (`active`), that was now."""
    transaction.connection.execute(
        "INSERT INTO __memoturn_sessions (id, created_at, last_active_at) VALUES (?, ?, ?) ON CONFLICT (id) "
        + ("DO UPDATE SET last_active_at = excluded.last_active_at" if active else "DO NOTHING"),
        (session_id, now, now),
    )


@operation(
    name="memory_sessions_list",
    title="List sessions",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="memory",
    request=SessionsRequest,
    response=SessionsResponse,
    rest=Rest("GET", "/sessions"),
    read_only=True,
    idempotent=True,
)
async def sessions(profile: Profile, request: SessionsRequest) -> Reply:
    """List a profile's conversations, latest first; call it to find one, or its open tasks."""
    found = await profile.read(lambda snapshot: _sessions(snapshot, request.limit), as_of=request.as_of)
    return Reply(SessionsResponse(sessions=found.value, txid=found.txid), found.txid)


@operation(
    name="memory_session_end",
    title="End a session",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="memory",
    request=SessionEndRequest,
    response=SessionEndResponse,
    rest=Rest("DELETE", "/sessions/{session}", status=204),
    destructive=True,
    idempotent=True,
)
async def end(profile: Profile, request: SessionEndRequest) -> Reply:
    """Close a conversation; call it when it is over. Its tasks go, what was learnt stays."""
    done = await profile.write(lambda transaction: _end(transaction, request), create=False)
    return Reply(SessionEndResponse(ended=True), done.txid)


def _sessions(snapshot: Snapshot, limit: int) -> list[SessionEntry]:
    found: list[Any] = snapshot.connection.execute(
        """
        SELECT id, created_at, last_active_at,
          (SELECT count(*) FROM __memoturn_turns WHERE session_id = s.id),
          (SELECT count(*) FROM __memoturn_memories WHERE session_id = s.id AND type = 'task' AND expires_at > ?)
        FROM __memoturn_sessions AS s ORDER BY last_active_at DESC, rowid DESC LIMIT ?
        """,
        (snapshot.ambient.now_ms(), limit),
    ).fetchall()
    return [
        SessionEntry(id=id_, created_at=created_at, last_active_at=last_active_at, turns=turn_count, tasks=task_count)
        for id_, created_at, last_active_at, turn_count, task_count in found
    ]


def _end(transaction: Transaction, request: SessionEndRequest) -> None:
    connection = transaction.connection
    tasks: list[Any] = connection.execute(
        f"SELECT {COLUMNS} FROM __memoturn_memories WHERE session_id = ? AND type = 'task'",
        (request.session,),
    ).fetchall()
    for task in tasks:
        rows.delete(transaction, Row(*task))
    if request.turns:
        turns.drop(transaction, request.session)
    connection.execute("DELETE FROM __memoturn_sessions WHERE id = ?", (request.session,))
