"""Ingest: a batch of memories kept in one transaction, with supersession and idempotence.

A memory's state is one of: absent, active, superseded. A task whose time has run out is absent.

    absent      --assert--> active       `created`; the topic's active memory becomes superseded
    active      --assert--> active       `duplicate`; nothing is written
    superseded  --assert--> active       `revived`; what replaced it becomes superseded by it
    expired task --assert--> active      `revived`, with a fresh TTL; the first writer's source stays

The result of a new memory also names the active ones that say the same in other words (`similarity`). In one batch
the later names the earlier. Nothing else depends on it.

Contract section 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from memoturn_core.memory import rows
from memoturn_core.memory.identity import canonical_json, format_id, memory_key
from memoturn_core.memory.rows import Row
from memoturn_core.memory.sessions import touch
from memoturn_core.memory.similarity import similar
from memoturn_core.memory.vectors import MemoryVectors, accept, behind, embedded_text
from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import Vector, as_vector
from memoturn_schemas.errors import UpstreamFailure
from memoturn_schemas.memory import TASK_TTL_S, IngestRequest, IngestResponse, IngestResult, MemoryItem
from memoturn_storage.handle import Transaction

log = structlog.get_logger("memoturn")

_HINTED = 32
"""New memories of a batch to which similar ones are looked for: more than an agent has to say, fewer than an import."""


def fill_defaults(arguments: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Complete what agents leave out: content from the summary, source from the environment.

    Without this every event that comes without content would be the same one.
    """
    memories = arguments.get("memories")
    if not isinstance(memories, list):
        return arguments
    filled = []
    for memory in memories:
        if isinstance(memory, dict):
            memory = {"content": {"summary": memory.get("summary")}, **memory}
            if source is not None and memory.get("source") is None:
                memory["source"] = source
        filled.append(memory)
    return {**arguments, "memories": filled}


@operation(
    name="memory_ingest",
    title="Remember",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="memory",
    default_tool=True,
    request=IngestRequest,
    response=IngestResponse,
    rest=Rest("POST", "/memories", status=201),
    idempotent=True,
    durable=True,
    fill_defaults=fill_defaults,
)
async def ingest(profile: Profile, request: IngestRequest) -> Reply:
    """Keep what is worth remembering; call it at the end of a turn in which something was learnt.

    Facts and instructions with a topic_key replace what was known on that topic; the history is kept.
    Events are what happened, tasks are what is to be done and expire. Sending the same memory again
    changes nothing. A batch is kept whole or not at all.
    """
    return await keep(profile, request.memories)


async def keep(profile: Profile, items: Sequence[MemoryItem]) -> Reply:
    """Write a validated batch; also what extraction ends in."""
    if not items:
        txid = (await profile.read(lambda _: None)).txid if profile.exists() else 0
        return Reply(IngestResponse(results=[], txid=txid), txid)
    embedder, reembedding = profile.node.embedder, profile.node.reembedding
    embedded = await _embedded(profile.node, items)
    prepared = [_prepare(item, embedded.get(index)) for index, item in enumerate(items)]
    model = None if embedder is None else embedder.model
    done = await profile.write(lambda transaction: _ingest(transaction, prepared, model))
    results, lagging = done.value
    if lagging and embedded and reembedding is not None:
        reembedding.notice(profile.ref)
    return Reply(IngestResponse(results=results, txid=done.txid), done.txid)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item with all that can be worked out before the transaction."""

    item: MemoryItem
    key: bytes
    content: str
    vector: Vector | None


def _prepare(item: MemoryItem, embedded: Sequence[float] | None) -> Prepared:
    content = canonical_json(item.content)
    values = item.embedding or embedded
    return Prepared(
        item,
        memory_key(item.type, item.topic_key, content),
        content,
        None if values is None else as_vector(values),
    )


async def _embedded(node: Node, items: Sequence[MemoryItem]) -> dict[int, list[float]]:
    """Vectors from the node's embedder for the items that have none; tasks never get one."""
    if node.embedder is None:
        return {}
    wanted = [index for index, item in enumerate(items) if item.embedding is None and item.type != "task"]
    texts = [embedded_text(items[index].summary, items[index].keywords) for index in wanted]
    if not texts:
        return {}
    try:
        return dict(zip(wanted, await node.embedder.embed(texts, purpose="document"), strict=True))
    except UpstreamFailure as error:
        log.warning("memories kept without embeddings", count=len(texts), error=str(error))
        return {}


def _ingest(transaction: Transaction, batch: Sequence[Prepared], model: str | None) -> tuple[list[IngestResult], bool]:
    """The results, and whether rows lack vectors of `model`, the node's."""
    now = transaction.ambient.now_ms()
    results = []
    new: list[tuple[IngestResult, int, str]] = []
    sessions: dict[str, bool] = {}
    for prepared in batch:
        result, rowid = assert_one(transaction, prepared, now, model)
        results.append(result)
        if rowid is not None:
            new.append((result, rowid, prepared.item.summary))
        if prepared.item.session_id is not None:
            active = result["status"] != "duplicate"
            sessions[prepared.item.session_id] = sessions.get(prepared.item.session_id, False) or active
    for session_id, active in sessions.items():
        touch(transaction, session_id, now, active=active)
    _hint(transaction, new)
    return results, model is not None and behind(transaction.connection, model)


def _hint(transaction: Transaction, new: Sequence[tuple[IngestResult, int, str]]) -> None:
    """Name in the results of new memories, each with its row and its summary, what says the same.

    It comes last, for an item of the batch may supersede what an earlier one is similar to.
    """
    for place, (result, rowid, summary) in enumerate(new[:_HINTED], start=1):
        named = similar(transaction, rowid, summary, later={each for _, each, _ in new[place:]})
        if named:
            result["similar"] = named


def assert_one(
    transaction: Transaction, prepared: Prepared, now: int, model: str | None
) -> tuple[IngestResult, int | None]:
    """Write a memory by the states above; the result, and the row that has become active, if one has."""
    known = Row.one(transaction.connection, "id = ?", (prepared.key,))
    result = IngestResult(id=format_id(prepared.key), status="created", superseded=[])
    if known is not None and known.superseded_at is not None:
        result["status"] = "revived"
        result["superseded"] = _supersede_active(transaction, prepared, now)
        transaction.connection.execute(
            "UPDATE __memoturn_memories SET superseded_at = NULL, superseded_by = NULL WHERE rowid = ?",
            (known.rowid,),
        )
        return result, known.rowid
    if known is not None and not known.expired(now):
        result["status"] = "duplicate"
        return result, None
    row = _new_row(prepared, now)
    if known is not None:
        result["status"] = "revived"
        rows.delete(transaction, known)
        row = replace(row, source=known.source)
    result["superseded"] = _supersede_active(transaction, prepared, now)
    vector, space = prepared.vector, None
    if vector is not None:
        space = accept(transaction.connection, vector, model=model if prepared.item.embedding is None else None)
        if space is None:
            result["embedding"] = "skipped_dimension"
    rowid = rows.insert(transaction, row, vector, space)
    if vector is None and model is not None and row.type != "task":
        MemoryVectors.missed(transaction.connection, rowid)
    return result, rowid


def _supersede_active(transaction: Transaction, prepared: Prepared, now: int) -> list[str]:
    topic = prepared.item.topic_key
    if topic is None:
        return []
    # Looking first is cheaper than UPDATE ... RETURNING, which sets up a table even where nothing matches.
    active: list[Any] = transaction.connection.execute(
        "SELECT rowid, id FROM __memoturn_memories WHERE topic_key = ? AND type = ? AND superseded_at IS NULL",
        (topic, prepared.item.type),
    ).fetchall()
    for rowid, _ in active:
        transaction.connection.execute(
            "UPDATE __memoturn_memories SET superseded_at = ?, superseded_by = ? WHERE rowid = ?",
            (now, prepared.key, rowid),
        )
    return [format_id(key) for _, key in active]


def _new_row(prepared: Prepared, now: int) -> Row:
    item = prepared.item
    expires_at = None
    if item.type == "task":
        expires_at = now + 1_000 * (TASK_TTL_S if item.ttl is None else item.ttl)
    return Row(
        rowid=0,
        id=prepared.key,
        type=item.type,
        topic_key=item.topic_key,
        summary=item.summary,
        content=prepared.content,
        keywords=item.keywords,
        session_id=item.session_id,
        source=item.source,
        created_at=now,
        expires_at=expires_at,
        superseded_at=None,
        superseded_by=None,
    )
