"""Recall: up to three channels, each filtered before it is ranked, fused into one list.

| channel | finds                                   | weight |
| topic   | the exact topic_key, newest first       | 2      |
| keyword | BM25 over summary and keywords          | 1      |
| vector  | cosine over the embeddings, exact       | 1      |

Fusion `rrf` gives each hit the sum of weight / (60 + rank) over the channels that found it, rank from
1; equal scores keep the order topic, keyword, vector. Nothing relevant is an empty list. Contract
section 2.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from memoturn_core.memory import turns
from memoturn_core.memory.rows import COLUMNS, Row, bound
from memoturn_core.memory.text import match_any
from memoturn_core.memory.vectors import MemoryVectors, dimension
from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import Vector, as_vector
from memoturn_schemas.errors import UpstreamFailure
from memoturn_schemas.memory import (
    Channel,
    ConciseRecallResponse,
    Hit,
    MemoryType,
    RecallRequest,
    RecallResponse,
    TurnHit,
)
from memoturn_storage.handle import Snapshot

K = TypeVar("K", bound=Hashable)

log = structlog.get_logger("memoturn")

_WEIGHTS: dict[Channel, float] = {"topic": 2.0, "keyword": 1.0, "vector": 1.0}
_RANK_OFFSET = 60
_CANDIDATES = 100
"""Rows that each of several channels hands to the fusion, at least; twice the wanted number where that is more."""


def concise(response: RecallResponse) -> dict[str, Any]:
    """What an agent needs to go on: which memories, and what they say."""
    short = {key: value for key, value in response.items() if key != "memories"}
    return {
        "memories": [{"id": hit["id"], "summary": hit["summary"]} for hit in response["memories"]],
        **short,
    }


@operation(
    name="memory_recall",
    title="Recall",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="memory",
    default_tool=True,
    request=RecallRequest,
    response=RecallResponse,
    rest=Rest("POST", "/recall"),
    read_only=True,
    idempotent=True,
    concise=concise,
    concise_response=ConciseRecallResponse,
)
async def recall(profile: Profile, request: RecallRequest) -> Reply:
    """Search a profile's memories; call it at the start of a turn, before answering from memory.

    Give the user's words as the query, an exact topic_key, or both. Best first; an empty list means
    that nothing relevant is known. Only active memories unless include_superseded is set.
    """
    if not profile.exists():
        profile.require_min_txid(0)
        empty = RecallResponse(memories=[], txid=0)
        if request.include_turns:
            empty["turns"] = []
        return Reply(empty, 0)
    vector = await _query_vector(profile.node, request)
    found = await profile.read(lambda snapshot: search(snapshot, request, vector), as_of=request.as_of)
    return Reply({**found.value, "txid": found.txid}, found.txid)


async def _query_vector(node: Node, request: RecallRequest) -> Vector | None:
    if request.embedding is not None:
        return as_vector(request.embedding)
    if node.embedder is None or not (request.query and request.query.strip()):
        return None
    try:
        return as_vector((await node.embedder.embed([request.query], purpose="query"))[0])
    except UpstreamFailure as error:
        log.warning("recall without the vector channel", error=str(error))
        return as_vector([])


def search(snapshot: Snapshot, request: RecallRequest, vector: Vector | None) -> dict[str, Any]:
    """The answer without its txid. An empty `vector` stands for one that could not be had."""
    condition = _Condition.of(request, snapshot.ambient.now_ms())
    degraded = vector is not None and dimension(snapshot.connection) not in (None, len(vector))
    alone = [request.topic_key is None, request.query is None, vector is None or degraded].count(False) == 1
    depth = 2 * request.k if alone else max(_CANDIDATES, 2 * request.k)
    channels: dict[Channel, list[int]] = {}
    if request.topic_key is not None:
        channels["topic"] = _by_topic(snapshot, request.topic_key, condition, depth)
    if request.query is not None:
        channels["keyword"] = _by_keyword(snapshot, request.query, condition, depth)
    if vector is not None and not degraded:
        channels["vector"] = _by_vector(snapshot, vector, condition, depth)
    answer: dict[str, Any] = {"memories": _hits(snapshot, channels, request.k)}
    if request.include_turns:
        answer["turns"] = _turns(snapshot, request, vector)
    if degraded or (vector is not None and len(vector) == 0):
        answer["degraded"] = ["vector"]
    return answer


def _turns(snapshot: Snapshot, request: RecallRequest, vector: Vector | None) -> list[TurnHit]:
    """By the client's vector, or by words, or, where the node embedded the words, by both."""
    near = [] if vector is None else turns.near(snapshot, vector, request.k, request.session_id)
    if request.query is None or (near and request.embedding is not None):
        return near
    matching = turns.matching(snapshot, request.query, request.k, request.session_id)
    found = {(turn["session_id"], turn["seq"]): turn for turn in [*matching, *near]}
    channels: dict[Channel, list[tuple[str, int]]] = {
        "keyword": [(turn["session_id"], turn["seq"]) for turn in matching],
        "vector": [(turn["session_id"], turn["seq"]) for turn in near],
    }
    return [found[fused.key] for fused in _fuse(channels)[: request.k]]


# --- filters ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Condition:
    """What a row must meet before it is ranked: SQL over the alias `m`, and its parameters."""

    sql: str
    parameters: tuple[Any, ...]

    @classmethod
    def of(cls, request: RecallRequest, now_ms: int) -> _Condition:
        clauses: list[str] = ["(m.expires_at IS NULL OR m.expires_at > ?)"]
        parameters: list[Any] = [now_ms]
        if not request.include_superseded:
            clauses.append("m.superseded_at IS NULL")
        if request.types is not None:
            types: Sequence[MemoryType] = request.types
            clauses.append(f"m.type IN ({','.join('?' * len(types))})")
            parameters.extend(types)
        for clause, value in (
            ("m.session_id = ?", request.session_id),
            ("m.source = ?", request.source),
            ("m.created_at >= ?", request.since),
            ("m.created_at < ?", request.until),
        ):
            if value is not None:
                clauses.append(clause)
                parameters.append(value)
        return cls(" AND ".join(clauses), tuple(parameters))


# --- channels: rowids, best first ----------------------------------------------------------------


def _by_topic(snapshot: Snapshot, topic_key: str, condition: _Condition, depth: int) -> list[int]:
    return _rowids(
        snapshot,
        f"SELECT m.rowid FROM __memoturn_memories AS m WHERE m.topic_key = ? AND {condition.sql}"
        " ORDER BY m.superseded_at IS NOT NULL, m.created_at DESC, m.rowid DESC LIMIT ?",
        (topic_key, *condition.parameters, depth),
    )


def _by_keyword(snapshot: Snapshot, query: str, condition: _Condition, depth: int) -> list[int]:
    match = match_any(query)
    if match is None:
        return []
    # FTS5 hands rows over in the order of their rank, so the filter runs on no more rows than needed;
    # a second sort key would make SQLite read every match, hence the ties are put right afterwards.
    ranked: list[Any] = snapshot.connection.execute(
        "SELECT m.rowid, __memoturn_memories_fts.rank, m.created_at FROM __memoturn_memories_fts"
        " JOIN __memoturn_memories AS m ON m.rowid = __memoturn_memories_fts.rowid"
        f" WHERE __memoturn_memories_fts MATCH ? AND {condition.sql}"
        " ORDER BY __memoturn_memories_fts.rank LIMIT ?",
        (match, *condition.parameters, depth),
    ).fetchall()
    ranked.sort(key=lambda row: (row[1], -row[2], -row[0]))
    return [rowid for rowid, _, _ in ranked]


def _by_vector(snapshot: Snapshot, vector: Vector, condition: _Condition, depth: int) -> list[int]:
    sql = f"SELECT m.rowid FROM __memoturn_memories AS m WHERE m.rowid IN carray(?) AND {condition.sql}"

    def keep(rowids: list[int]) -> set[int]:
        return set(_rowids(snapshot, sql, (bound(rowids), *condition.parameters)))

    return [rowid for rowid, _ in MemoryVectors.of(snapshot).nearest(vector, depth, keep)]


def _rowids(snapshot: Snapshot, sql: str, parameters: tuple[Any, ...]) -> list[int]:
    rows: list[Any] = snapshot.connection.execute(sql, parameters).fetchall()
    return [rowid for (rowid,) in rows]


# --- fusion --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Fused(Generic[K]):
    key: K
    score: float
    channels: list[Channel]


def _fuse(channels: Mapping[Channel, Sequence[K]]) -> list[_Fused[K]]:
    """Weighted reciprocal rank over the keys that each channel found, best first."""
    fused: dict[K, _Fused[K]] = {}
    for channel, keys in channels.items():
        for rank, key in enumerate(keys, start=1):
            entry = fused.setdefault(key, _Fused(key, 0.0, []))
            entry.score += _WEIGHTS[channel] / (_RANK_OFFSET + rank)
            entry.channels.append(channel)
    return sorted(fused.values(), key=lambda entry: entry.score, reverse=True)


def _hits(snapshot: Snapshot, channels: Mapping[Channel, Sequence[int]], k: int) -> list[Hit]:
    best = _fuse(channels)[:k]
    if not best:
        return []
    found: list[Any] = snapshot.connection.execute(
        f"SELECT {COLUMNS} FROM __memoturn_memories WHERE rowid IN carray(?)", (bound(hit.key for hit in best),)
    ).fetchall()
    rows = {row.rowid: row for row in (Row(*values) for values in found)}
    return [Hit(**rows[hit.key].core(), score=hit.score, channels=hit.channels) for hit in best]
