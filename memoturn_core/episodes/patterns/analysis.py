"""What was learnt, as a whole and one by one, and letting go of what has faded."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, tee
from typing import Any

from memoturn_core.episodes.patterns import evidence
from memoturn_core.episodes.patterns.heuristics import heuristic
from memoturn_core.episodes.patterns.known import Known, PatternIndex, patterns_of
from memoturn_core.episodes.patterns.pattern import Pattern, parse_pattern_id
from memoturn_core.episodes.patterns.ranked import highest, strongest
from memoturn_core.episodes.patterns.search import nothing
from memoturn_core.episodes.patterns.strength import HALF_LIFE_MS
from memoturn_core.episodes.rows import format_episode_id
from memoturn_core.memory.rows import bound
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.errors import NotFound
from memoturn_schemas.patterns import (
    AnalyzePatternsRequest,
    AnalyzePatternsResponse,
    DecayingPattern,
    DecayPatternsRequest,
    DecayPatternsResponse,
    GetPatternRequest,
    GetPatternResponse,
    GroupCount,
    PatternEvidence,
    PatternKind,
)
from memoturn_storage.handle import Snapshot, Transaction


@operation(
    name="analyze_patterns",
    title="Analyze patterns",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=AnalyzePatternsRequest,
    response=AnalyzePatternsResponse,
    rest=Rest("GET", "/patterns"),
    read_only=True,
    idempotent=True,
)
async def analyze_patterns(profile: Profile, request: AnalyzePatternsRequest) -> Reply:
    """Overview of what was learnt from episodes; call it to see what works here, what fails, and what is fading.

    Counts by kind and domain, the strongest patterns, the newest, those that fade, and heuristics made of them.
    """
    if not profile.exists():
        profile.require_min_txid(0)
        return Reply(_overview([], request, nothing(0, 0)), 0)
    found = await profile.read(lambda snapshot: _analyze(snapshot, request), as_of=request.as_of)
    return Reply(found.value, found.txid)


@operation(
    name="get_pattern",
    title="Get a pattern",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=GetPatternRequest,
    response=GetPatternResponse,
    rest=Rest("GET", "/patterns/{pattern_id}"),
    read_only=True,
    idempotent=True,
    missing={"found": False},
)
async def get_pattern(profile: Profile, request: GetPatternRequest) -> Reply:
    """Look at one pattern with the episodes that it rests on; call it before relying on one."""
    found = await profile.read(lambda snapshot: _get(snapshot, request), as_of=request.as_of)
    return Reply(found.value, found.txid)


@operation(
    name="decay_patterns",
    title="Let go of faded patterns",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=DecayPatternsRequest,
    response=DecayPatternsResponse,
    rest=Rest("POST", "/patterns/decay"),
    destructive=True,
    idempotent=True,
    durable=True,
)
async def decay_patterns(profile: Profile, request: DecayPatternsRequest) -> Reply:
    """List patterns that have become weak, or delete them; call it to clear out what no longer holds.

    Deletes with `dry_run` false: patterns, their evidence and their feedback. Episodes stay.
    """
    if request.dry_run:
        found = await profile.read(lambda snapshot: _answer(PatternIndex.of(snapshot), request))
        return Reply({**found.value, "txid": found.txid}, found.txid)
    done = await profile.write(lambda transaction: _decay(transaction, request), create=False, long=True)
    return Reply({**done.value, "txid": done.txid}, done.txid)


# --- the overview --------------------------------------------------------------------------------


def _analyze(snapshot: Snapshot, request: AnalyzePatternsRequest) -> AnalyzePatternsResponse:
    known = PatternIndex.of(snapshot)
    found = patterns_of(snapshot, domain=request.domain, kinds=_kinds(request.kind), task_type=request.task_type)
    passing = [each for each in found if each.strength >= request.min_strength]
    missing = None if passing else nothing(len(known.seen), len(known.all_promoted()))
    answer = _overview(passing, request, missing)
    faded_since = snapshot.ambient.now_ms() - HALF_LIFE_MS
    decaying = strongest(each for each in passing if each.last_seen < faded_since)
    answer["decaying"] = [
        DecayingPattern(**each.entry(), undecayed=known.undecayed(each.place))
        for each in islice(decaying, request.limit)
    ]
    candidates: Any = snapshot.connection.execute("SELECT count(*) FROM __memoturn_pattern_candidates").get
    answer["episodes"], answer["candidates"] = len(known.seen), candidates
    return answer


def _overview(
    patterns: Sequence[Pattern], request: AnalyzePatternsRequest, explanation: str | None
) -> AnalyzePatternsResponse:
    """What the patterns themselves tell."""
    limit = request.limit
    best, speaking = tee(strongest(patterns))
    return AnalyzePatternsResponse(
        episodes=0,
        patterns=len(patterns),
        candidates=0,
        by_kind=_groups(patterns, lambda each: each.kind),
        by_domain=_groups(patterns, lambda each: each.domain)[:limit],
        strongest=[each.entry() for each in islice(best, limit)],
        newest=[each.entry() for each in islice(highest(patterns, lambda each: each.created_at), limit)],
        decaying=[],
        heuristics=list(islice(filter(None, map(heuristic, speaking)), limit)),
        explanation=explanation,
    )


def _groups(patterns: Iterable[Pattern], name: Callable[[Pattern], str]) -> list[GroupCount]:
    """The largest first."""
    strengths: defaultdict[str, list[float]] = defaultdict(list)
    for pattern in patterns:
        strengths[name(pattern)].append(pattern.strength)
    found = [GroupCount(name=each, patterns=len(of), strongest=max(of)) for each, of in strengths.items()]
    return sorted(found, key=lambda group: (-group["patterns"], group["name"]))


def _kinds(kind: PatternKind | None) -> set[PatternKind] | None:
    return None if kind is None else {kind}


# --- one pattern ---------------------------------------------------------------------------------


def _get(snapshot: Snapshot, request: GetPatternRequest) -> GetPatternResponse:
    known = PatternIndex.of(snapshot)
    pattern = known.of_id(parse_pattern_id(request.pattern_id))
    if pattern is None:
        raise NotFound(f"there is no pattern {request.pattern_id}")
    seen = [(known.seen[episode], episode) for episode in pattern.episodes]
    newest = heapq.nlargest(request.limit, seen, key=lambda each: (each[0].at, each[1]))
    rows: Any = snapshot.connection.execute(
        "SELECT rowid, id FROM __memoturn_episodes WHERE rowid IN carray(?)", (bound(episode for _, episode in newest),)
    )
    ids = {rowid: format_episode_id(id_) for rowid, id_ in rows}
    return GetPatternResponse(
        pattern=pattern.entry(),
        heuristic=heuristic(pattern),
        evidence=[
            PatternEvidence(episode_id=ids[episode], outcome=each.outcome, seen_at=each.at) for each, episode in newest
        ],
    )


# --- decay ---------------------------------------------------------------------------------------


def _decay(transaction: Transaction, request: DecayPatternsRequest) -> dict[str, Any]:
    known = Known(transaction.connection, now := transaction.ambient.now_ms())
    known.weigh(now)
    answer = _answer(known, request)
    evidence.drop(transaction, [each.rowid for each in _below(known, request)])
    return {**answer, "deleted": True}


def _answer(known: Known, request: DecayPatternsRequest) -> dict[str, Any]:
    below = _below(known, request)
    return {"count": len(below), "deleted": False, "patterns": [each.entry() for each in below[: request.limit]]}


def _below(known: Known, request: DecayPatternsRequest) -> list[Pattern]:
    """The weakest first, promoted ones only: what does not count yet has not faded."""
    return sorted(
        (
            each
            for each in known.all_promoted()
            if each.strength < request.below
            and request.domain in (None, each.domain)
            and request.kind in (None, each.kind)
        ),
        key=lambda each: (each.strength, each.place),
    )
