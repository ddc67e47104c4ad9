"""Looking for what was tried before: episodes, the patterns in them, and what was learnt from them.

`candidates` finds the most relevant episodes, more than are wanted, and `choice` chooses among them. docs/episodes.md
has the whole of it, and what it is worth. `similar_episodes` is called by whoever recommends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from memoturn_core.episodes.candidates import Candidate, Candidates, nothing_stored
from memoturn_core.episodes.choice import COMPARED, chosen
from memoturn_core.episodes.filters import conditions
from memoturn_core.episodes.patterns.known import strongest_in
from memoturn_core.episodes.rows import EpisodeRow
from memoturn_core.memory.recall import query_vector
from memoturn_core.memory.vectors import behind
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.experience import (
    FIELDS,
    INSIGHTS_AT_MOST,
    PATTERNS_AT_MOST,
    FoundEpisode,
    FoundInsight,
    FoundPattern,
    QueryMemoryRequest,
    QueryMemoryResponse,
)
from memoturn_storage.handle import Snapshot

_EACH, _FEWEST = 3, 30
"""Candidates for each episode that is wanted, and in any case."""

_DIGITS = 6


@operation(
    name="query_memory",
    title="Look for experience",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=QueryMemoryRequest,
    response=QueryMemoryResponse,
    rest=Rest("POST", "/episodes/query"),
    read_only=True,
    idempotent=True,
)
async def query_memory(profile: Profile, request: QueryMemoryRequest) -> Reply:
    """Find what was tried on tasks like this one and how it went; call it before starting a task.

    Gives episodes, the best first, the patterns that they show and what was learnt from them. Where nothing is found
    it says why.
    """
    if not profile.exists():
        profile.require_min_txid(0)
        empty = QueryMemoryResponse(
            episodes=[], patterns=[], insights=[], explanation=nothing_stored(request.query), txid=0
        )
        return Reply(empty, 0)
    embedder, reembedding = profile.node.embedder, profile.node.reembedding
    vector = await query_vector(profile.node, request.query, request.embedding)
    model = embedder.model if embedder is not None and request.embedding is None else None

    def work(snapshot: Snapshot) -> tuple[dict[str, Any], bool]:
        lagging = model is not None and request.as_of is None and behind(snapshot.connection, model)
        return query(snapshot, request, vector, model), lagging

    found = await profile.read(work, as_of=request.as_of)
    answer, lagging = found.value
    if lagging and vector is not None and len(vector) and reembedding is not None:
        reembedding.notice(profile.ref)
    return Reply({**answer, "txid": found.txid}, found.txid)


def similar_episodes(
    snapshot: Snapshot, text: str, vector: Vector | None, limit: int, model: str | None = None
) -> list[tuple[int, float]]:
    """The episodes whose tasks are most like a task, completed or not: rowids with scores from 0 to 1, best first.

    Args:
        vector: of the text, if there is one; `model` made it, None for a client's.
    """
    candidates = Candidates(snapshot, text, vector, model, {}, limit)
    return [(each.rowid, min(1.0, max(0.0, each.relevance))) for each in candidates.best()]


def query(snapshot: Snapshot, request: QueryMemoryRequest, vector: Vector | None, model: str | None) -> dict[str, Any]:
    """The answer without its txid; `vector` and `model` are as of `memoturn_core.memory.vectors.searched`."""
    wanted = max(request.limit, min(COMPARED, max(_FEWEST, _EACH * request.limit)))
    candidates = Candidates(snapshot, request.query, vector, model, conditions(request), wanted)
    hits = chosen(snapshot, request.query, candidates.best(), sort=request.sort, limit=request.limit)
    known = EpisodeRow.of_rowids(snapshot.connection, [each.rowid for each in hits])
    rows = [known[each.rowid] for each in hits]
    asked = set(request.include)
    answer: dict[str, Any] = {
        "episodes": _entries(rows, hits, request.fields or FIELDS) if "episodes" in asked else [],
        "patterns": _patterns(snapshot, rows) if "patterns" in asked else [],
        "insights": _insights(rows) if "insights" in asked else [],
    }
    if not hits:
        answer["explanation"] = candidates.emptiness()
    if candidates.degraded:
        answer["degraded"] = ["vector"]
    return answer


# --- answering -----------------------------------------------------------------------------------

_Tree = dict[str, Any]
"""Names of fields with what is wanted of each; all of it where that is empty."""


def _entries(rows: Sequence[EpisodeRow], hits: Sequence[Candidate], paths: Sequence[str]) -> list[FoundEpisode]:
    tree = _tree(paths)
    entries = []
    for row, hit in zip(rows, hits, strict=True):
        parts = {name: round(part, _DIGITS) for name, part in hit.parts.items()}
        parts = {name: part for name, part in parts.items() if part}
        entry = {**row.episode(), "score": round(sum(parts.values()), _DIGITS), "breakdown": parts}
        entries.append(cast("FoundEpisode", _projected(entry, tree)))
    return entries


def _tree(paths: Sequence[str]) -> _Tree:
    tree: _Tree = {}
    for path in sorted(paths, key=len, reverse=True):  # so that a whole goes over its parts
        *above, last = path.split(".")
        inside = tree
        for name in above:
            inside = inside.setdefault(name, {})
        inside[last] = {}
    return tree


def _projected(value: Mapping[str, Any], tree: _Tree) -> dict[str, Any]:
    """What is not there is left out; of what is no object all is given."""
    return {
        name: _projected(value[name], below) if below and isinstance(value[name], dict) else value[name]
        for name, below in tree.items()
        if name in value
    }


def _patterns(snapshot: Snapshot, rows: Sequence[EpisodeRow]) -> list[FoundPattern]:
    """What the episodes are evidence for, the strongest first."""
    ids = {row.rowid: row.episode_id for row in rows}
    return [
        FoundPattern(
            pattern_id=each.pattern_id,
            kind=each.kind,
            domain=each.domain,
            text=each.text,
            goes_with=each.goes_with,
            strength=round(each.strength, _DIGITS),
            occurrences=each.occurrences,
            episode_ids=[id_ for rowid, id_ in ids.items() if rowid in having],
        )
        for each, having in strongest_in(snapshot, ids, PATTERNS_AT_MOST)
    ]


def _insights(rows: Sequence[EpisodeRow]) -> list[FoundInsight]:
    """Those of the best episodes first; the same one once."""
    found: dict[str, FoundInsight] = {}
    for row in rows:
        reflection = row.body.get("reflection") or {}
        for text in dict.fromkeys(reflection.get("insights", [])):
            insight = found.setdefault(" ".join(text.lower().split()), FoundInsight(text=text, episode_ids=[]))
            insight["episode_ids"].append(row.episode_id)
    return list(found.values())[:INSIGHTS_AT_MOST]
