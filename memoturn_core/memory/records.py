"""One memory by its id: get it with its history, or forget it. Also the list of profiles."""

from __future__ import annotations

from typing import Any, cast

from memoturn_core.memory import rows
from memoturn_core.memory.identity import format_id, parse_id
from memoturn_core.memory.rows import Row
from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.errors import NotFound
from memoturn_schemas.memory import (
    ChainLink,
    ForgetResponse,
    GetRequest,
    MemoryId,
    MemoryRecord,
    ProfileEntry,
    ProfileList,
    ProfilesRequest,
)
from memoturn_schemas.names import check_name
from memoturn_storage.handle import Snapshot, Transaction


@operation(
    name="memory_get",
    title="Get a memory",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="memory",
    default_tool=True,
    request=GetRequest,
    response=MemoryRecord,
    rest=Rest("GET", "/memories/{id}"),
    read_only=True,
    idempotent=True,
    missing={"found": False},
)
async def get(profile: Profile, request: GetRequest) -> Reply:
    """Look at one memory in full; call it when recall's summary is not enough.

    Gives the content, what it supersedes or what superseded it, and its topic's whole history.
    """
    found = await profile.read(lambda snapshot: _record(snapshot, request.id), as_of=request.as_of)
    if found.value is None:
        raise NotFound(f"there is no memory {request.id}")
    return Reply(found.value, found.txid)


@operation(
    name="memory_forget",
    title="Forget a memory",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="memory",
    default_tool=True,
    request=MemoryId,
    response=ForgetResponse,
    rest=Rest("DELETE", "/memories/{id}", status=204),
    destructive=True,
    idempotent=True,
    missing={"forgotten": False},
)
async def forget(profile: Profile, request: MemoryId) -> Reply:
    """Delete one memory for good; call it when the user asks to forget something.

    An older memory of the same topic does not come back. To correct a memory, ingest the right one.
    """
    done = await profile.write(lambda transaction: _forget(transaction, request.id), create=False)
    if not done.value:
        raise NotFound(f"there is no memory {request.id}")
    return Reply(ForgetResponse(forgotten=True), done.txid)


@operation(
    name="memory_profiles_list",
    title="List profiles",
    target=Target.NAMESPACE,
    scope=Scope.READ,
    toolset="memory",
    request=ProfilesRequest,
    response=ProfileList,
    rest=Rest("GET", ""),
    read_only=True,
    idempotent=True,
)
async def profiles(subject: tuple[Node, str], request: ProfilesRequest) -> Reply:
    """List the profiles of a namespace; call it to see whose memories there are."""
    node, namespace = subject
    prefix = f"{namespace}--"
    entries = [
        ProfileEntry(profile=entry.name.removeprefix(prefix), database=entry.name, created_at=entry.created_at)
        for entry in node.catalog.with_prefix(prefix)
        if _is_name(entry.name.removeprefix(prefix))
    ]
    return Reply(ProfileList(namespace=namespace, profiles=entries))


def _find(state: Snapshot | Transaction, memory_id: str) -> Row | None:
    key = parse_id(memory_id)
    row = None if key is None else Row.one(state.connection, "id = ?", (key,))
    return None if row is None or row.expired(state.ambient.now_ms()) else row


def _record(snapshot: Snapshot, memory_id: str) -> MemoryRecord | None:
    row = _find(snapshot, memory_id)
    if row is None:
        return None
    predecessors = snapshot.connection.execute(
        "SELECT id FROM __memoturn_memories WHERE superseded_by = ? ORDER BY superseded_at, rowid", (row.id,)
    )
    return MemoryRecord(
        **row.core(),
        expires_at=row.expires_at,
        superseded_at=row.superseded_at,
        supersedes=[format_id(cast("bytes", key)) for (key,) in predecessors],
        chain=_chain(snapshot, row),
    )


def _chain(snapshot: Snapshot, row: Row) -> list[ChainLink]:
    history: list[Any] = [(row.id, row.summary, row.created_at, row.superseded_at)]
    if row.topic_key is not None:
        history = snapshot.connection.execute(
            "SELECT id, summary, created_at, superseded_at FROM __memoturn_memories"
            " WHERE topic_key = ? AND type = ? ORDER BY created_at, rowid",
            (row.topic_key, row.type),
        ).fetchall()
    return [
        ChainLink(id=format_id(key), summary=summary, created_at=created_at, superseded_at=superseded_at)
        for key, summary, created_at, superseded_at in history
    ]


def _forget(transaction: Transaction, memory_id: str) -> bool:
    row = _find(transaction, memory_id)
    if row is not None:
        rows.delete(transaction, row)
    return row is not None


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ValueError:
        return False
    return True
