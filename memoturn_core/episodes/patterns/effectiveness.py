"""What patterns were worth once they were recommended: how often applied, to what effect, in episodes that went how.

Called by the surfaces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import apsw

from memoturn_core.episodes.patterns import offers
from memoturn_core.episodes.patterns.known import PatternIndex
from memoturn_core.episodes.patterns.measuring import difference, share
from memoturn_core.episodes.patterns.pattern import Pattern, parse_pattern_id
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episodes import Applied
from memoturn_schemas.recommendations import (
    PatternEffect,
    PatternEffectivenessRequest,
    PatternEffectivenessResponse,
)
from memoturn_storage.handle import Snapshot

_NOTHING_OFFERED = "no pattern was ever recommended here"


@operation(
    name="get_pattern_effectiveness",
    title="Effectiveness of patterns",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=PatternEffectivenessRequest,
    response=PatternEffectivenessResponse,
    rest=Rest("GET", "/patterns/effectiveness"),
    read_only=True,
    idempotent=True,
)
async def get_pattern_effectiveness(profile: Profile, request: PatternEffectivenessRequest) -> Reply:
    """See which recommended patterns were applied and whether they helped; call it to judge what was learnt."""
    found = await profile.read(lambda snapshot: _effects(snapshot, request), as_of=request.as_of, long=True)
    return Reply(found.value, found.txid)


def _effects(snapshot: Snapshot, request: PatternEffectivenessRequest) -> PatternEffectivenessResponse:
    connection, known = snapshot.connection, PatternIndex.of(snapshot)
    recommendations, offered = 0, Counter[int]()
    for recommendation in offers.all_of_them(connection):
        recommendations += 1
        there = (known.of_id(parse_pattern_id(each)) for each in recommendation.offers)
        offered.update(pattern.rowid for pattern in there if pattern is not None)
    said = _said(connection)
    rowids = [*said, *(rowid for rowid in offered if rowid not in said)]
    patterns = [
        pattern
        for pattern in known.of_rowids(rowids)
        if request.domain in (None, pattern.domain) and request.kind in (None, pattern.kind)
    ]
    patterns.sort(key=lambda each: (-said[each.rowid].total(), -offered[each.rowid], each.rowid))
    applied = _Outcomes(connection)
    return PatternEffectivenessResponse(
        patterns=[
            _effect(pattern, offered[pattern.rowid], said[pattern.rowid], applied)
            for pattern in patterns[: request.limit]
        ],
        recommendations=recommendations,
        explanation=_why_nothing(request, offered=bool(rowids)) if not patterns else None,
    )


def _said(connection: apsw.Connection) -> defaultdict[int, Counter[Applied]]:
    said: defaultdict[int, Counter[Applied]] = defaultdict(Counter)
    rows: Any = connection.execute(
        "SELECT pattern, outcome, count(*) FROM __memoturn_pattern_feedback GROUP BY pattern, outcome"
    )
    for pattern, outcome, count in rows:
        said[pattern][outcome] = count
    return said


class _Outcomes:
    """How completed episodes ended: of each domain, and of those in which a pattern was applied."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        rows: Any = connection.execute(
            "SELECT domain, count(*), sum(outcome IN ('success', 'partial_success')) FROM __memoturn_episodes"
            " WHERE outcome IS NOT NULL GROUP BY domain"
        )
        self._domains = {domain: (succeeded, count) for domain, count, succeeded in rows}

    def of(self, pattern: Pattern) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of those that applied the pattern, and of the others of its domain: how many succeeded, of how many."""
        rows: list[Any] = self._connection.execute(
            "SELECT domain, outcome IN ('success', 'partial_success') FROM __memoturn_episodes WHERE rowid IN"
            " (SELECT episode FROM __memoturn_pattern_feedback WHERE pattern = ?) AND outcome IS NOT NULL",
            (pattern.rowid,),
        ).fetchall()
        here = [won for domain, won in rows if domain == pattern.domain]
        succeeded, count = self._domains.get(pattern.domain, (0, 0))
        return (sum(won for _, won in rows), len(rows)), (succeeded - sum(here), count - len(here))


def _effect(pattern: Pattern, offered: int, said: Counter[Applied], outcomes: _Outcomes) -> PatternEffect:
    with_it, without = outcomes.of(pattern)
    return PatternEffect(
        pattern_id=pattern.pattern_id,
        kind=pattern.kind,
        domain=pattern.domain,
        text=pattern.text,
        strength=pattern.strength,
        offered=offered,
        applied=said.total(),
        helped=said["helped"],
        no_effect=said["no_effect"],
        hindered=said["hindered"],
        pending=said["pending"],
        success_applied=share(*with_it, "no completed episode applied it"),
        success_otherwise=share(*without, "no other episode of its domain is completed"),
        difference=difference(with_it, without),
    )


def _why_nothing(request: PatternEffectivenessRequest, *, offered: bool) -> str:
    if not offered:
        return _NOTHING_OFFERED
    asked = [f"{name} {value}" for name, value in (("domain", request.domain), ("kind", request.kind)) if value]
    return f"no pattern of {' and '.join(asked)} was recommended"
