"""Recall: what a profile's memories and transcript hold on a query, best first; nothing relevant is an empty list.

The filters apply before anything is ranked; what finds and ranks is `memoturn_core.memory.search`, and what says why
`memoturn_core.memory.explanation`. Contract section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from memoturn_core.memory import explanation, turns
from memoturn_core.memory.explanation import Explainer
from memoturn_core.memory.filters import Filters
from memoturn_core.memory.rows import COLUMNS, Row, bound
from memoturn_core.memory.search import Found, Search
from memoturn_core.memory.vectors import MemoryVectors, behind, searched
from memoturn_core.memory.words import MemoryWords
from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import Vector, as_vector
from memoturn_schemas.errors import UpstreamFailure
from memoturn_schemas.memory import (
    ConciseHit,
    ConciseRecallResponse,
    Hit,
    RecallHit,
    RecallRequest,
    RecallResponse,
)
from memoturn_storage.handle import Snapshot

log = structlog.get_logger("memoturn")


def concise(response: RecallResponse) -> dict[str, Any]:
    """What an agent needs to go on: which memories, and what they say."""
    short = {key: value for key, value in response.items() if key != "memories"}
    return {"memories": [_concise_hit(hit) for hit in response["memories"]], **short}


def _concise_hit(hit: RecallHit) -> ConciseHit:
    short = ConciseHit(id=hit["id"], summary=hit["summary"])
    if "explanation" in hit:
        short["explanation"] = dict(hit["explanation"])
    return short


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
        if request.explained:
            empty["explain"] = explanation.of_nothing(request)
        return Reply(empty, 0)
    vector = await query_vector(profile.node, request.query, request.embedding)
    embedder, reembedding = profile.node.embedder, profile.node.reembedding
    model = embedder.model if embedder is not None and request.embedding is None and vector is not None else None

    def work(snapshot: Snapshot) -> tuple[dict[str, Any], bool]:
        lagging = model is not None and request.as_of is None and behind(snapshot.connection, model)
        return search(snapshot, request, vector, model), lagging

    found = await profile.read(work, as_of=request.as_of, long=request.explained)
    answer, lagging = found.value
    if lagging and vector is not None and len(vector) and reembedding is not None:
        reembedding.notice(profile.ref)
    return Reply({**answer, "txid": found.txid}, found.txid)


async def query_vector(node: Node, query: str | None, given: list[float] | None) -> Vector | None:
    """The vector to search by: the client's, or else the embedder's, which is empty where it could not be had."""
    if given is not None:
        return as_vector(given)
    if node.embedder is None or not (query and query.strip()):
        return None
    try:
        return as_vector((await node.embedder.embed([query], purpose="query"))[0])
    except UpstreamFailure as error:
        log.warning("recall without the vector channel", error=str(error))
        return as_vector([])


def search(
    snapshot: Snapshot, request: RecallRequest, vector: Vector | None, model: str | None = None
) -> dict[str, Any]:
    """The answer without its txid.

    Args:
        vector: empty stands for one that could not be had.
        model: by which it was made; None for a client's.
    """
    spaces = None if vector is None else searched(snapshot.connection, vector, model)
    usable = None if spaces is None else vector
    degraded = vector is not None and usable is None
    filters = Filters.of(request, snapshot.ambient.now_ms())
    passing = f"SELECT m.rowid FROM __memoturn_memories AS m WHERE m.rowid IN carray(?) AND {filters.sql}"

    def keep(rowids: list[int]) -> set[int]:
        return set(_rowids(snapshot, passing, (bound(rowids), *filters.parameters)))

    def nearest(count: int) -> list[tuple[int, float]]:
        return [] if usable is None else MemoryVectors.nearest(snapshot, usable, spaces or [], count, keep)

    # Whether a memory was found is asked of the whole ranking, and so of the whole topic.
    depth = 2 * request.k if request.explain_id is None else -1
    topic = [] if request.topic_key is None else _of_topic(snapshot, request.topic_key, filters, depth)
    wanted = Search(MemoryWords, keep, nearest, request.query, topic, request.k, request.fusion)
    evidence = wanted.evidence(snapshot)
    best = wanted.best(evidence, request.k)
    answer: dict[str, Any] = {"memories": _hits(snapshot, best)}
    if request.include_turns:
        answer["turns"] = turns.search(
            snapshot, request.query, usable, request.k, request.session_id, fusion=request.fusion
        )
    if degraded:
        answer["degraded"] = ["vector"]
    if request.explained:
        explainer = Explainer(snapshot, request, filters, wanted, evidence, usable, spaces or [])
        for hit, explained in zip(answer["memories"], explainer.of_hits(best), strict=True):
            hit["explanation"] = explained
        answer["explain"] = explainer.of_recall(explanation.of_vector(request, vector, model, admitted=not degraded))
    return answer


# --- rows ---------------------------------------------------------------------------------------


def _of_topic(snapshot: Snapshot, topic_key: str, filters: Filters, limit: int) -> list[int]:
    """Best first."""
    return _rowids(
        snapshot,
        f"SELECT m.rowid FROM __memoturn_memories AS m WHERE m.topic_key = ? AND {filters.sql}"
        " ORDER BY m.superseded_at IS NOT NULL, m.created_at DESC, m.rowid DESC LIMIT ?",
        (topic_key, *filters.parameters, limit),
    )


def _rowids(snapshot: Snapshot, sql: str, parameters: tuple[Any, ...]) -> list[int]:
    rows: list[Any] = snapshot.connection.execute(sql, parameters).fetchall()
    return [rowid for (rowid,) in rows]


def _hits(snapshot: Snapshot, best: Sequence[Found]) -> list[Hit]:
    if not best:
        return []
    found: list[Any] = snapshot.connection.execute(
        f"SELECT {COLUMNS} FROM __memoturn_memories WHERE rowid IN carray(?)", (bound(hit.rowid for hit in best),)
    ).fetchall()
    rows = {row.rowid: row for row in (Row(*values) for values in found)}
    return [Hit(**rows[hit.rowid].core(), score=hit.score, channels=hit.channels) for hit in best]
