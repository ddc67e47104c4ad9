"""Feedback: what came of patterns that were recommended; it is counted in their strength from then on.

What feedback says of an episode is also in that episode (`applied_patterns`). Called by the surfaces, and by whoever
deletes episodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import apsw

from memoturn_core.episodes.patterns import evidence, offers
from memoturn_core.episodes.patterns.known import PatternIndex
from memoturn_core.episodes.patterns.offers import Recommendation, episode_named
from memoturn_core.episodes.patterns.pattern import format_pattern_id, parse_pattern_id
from memoturn_core.episodes.rows import EpisodeRow
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episodes import AppliedPattern
from memoturn_schemas.errors import InvalidRequest, NotFound
from memoturn_schemas.recommendations import (
    PatternFeedback,
    RecordedFeedback,
    RecordFeedbackRequest,
    RecordFeedbackResponse,
)
from memoturn_storage.handle import Snapshot, Transaction


@operation(
    name="record_feedback",
    title="Say how patterns worked",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=RecordFeedbackRequest,
    response=RecordFeedbackResponse,
    rest=Rest("POST", "/patterns/feedback"),
    idempotent=True,
)
async def record_feedback(profile: Profile, request: RecordFeedbackRequest) -> Reply:
    """Say how recommended patterns worked; call it once you know, so that the next ranking is better.

    Only what the recommendation offered can be judged. The last word on a pattern counts.
    """
    done = await profile.write(lambda transaction: _record(transaction, request), create=False)
    said = done.value
    strengths = await profile.read(lambda snapshot: _strengths(snapshot, (each["pattern_id"] for each in said)))
    feedback = [RecordedFeedback(**{**each, "strength": strengths.value[each["pattern_id"]]}) for each in said]
    answer = RecordFeedbackResponse(recommendation_id=request.recommendation_id, feedback=feedback, txid=done.txid)
    return Reply(answer, done.txid)


def forget(transaction: Transaction, episode: int) -> None:
    """Remove the feedback that was given for an episode, and what was recommended for it and nobody else judged."""
    judged: list[Any] = transaction.connection.execute(
        "DELETE FROM __memoturn_pattern_feedback WHERE episode = ? RETURNING pattern", (episode,)
    ).fetchall()
    evidence.judged(transaction, {pattern for (pattern,) in judged})
    offers.forget_episode(transaction.connection, episode)


def _record(transaction: Transaction, request: RecordFeedbackRequest) -> list[RecordedFeedback]:
    """Without the strengths."""
    connection = transaction.connection
    recommendation = offers.find(connection, request.recommendation_id)
    named = None if request.episode_id is None else episode_named(connection, request.episode_id).rowid
    told: defaultdict[int, dict[str, AppliedPattern | None]] = defaultdict(dict)
    kept: dict[int, tuple[AppliedPattern, int | None]] = {}
    for place, said in enumerate(request.feedback):
        applied, pattern = _offered(connection, recommendation, said, f"feedback[{place}].pattern_id")
        before: Any = connection.execute(
            "SELECT episode FROM __memoturn_pattern_feedback WHERE pattern = ? AND recommendation = ?",
            (pattern, recommendation.rowid),
        ).get
        episode = named or before or recommendation.episode
        if before not in (None, episode):
            told[before][applied["pattern_id"]] = None
        if episode is not None:
            told[episode][applied["pattern_id"]] = applied
        _keep(transaction, pattern, recommendation.rowid, episode, applied)
        kept[pattern] = applied, episode
    episodes = _tell(transaction, told)
    evidence.judged(transaction, kept)
    return [
        RecordedFeedback(**applied, episode_id=None if episode is None else episodes[episode], strength=None)
        for applied, episode in kept.values()
    ]


def _offered(
    connection: apsw.Connection, recommendation: Recommendation, said: PatternFeedback, field: str
) -> tuple[AppliedPattern, int]:
    """What is said, of which pattern; its rowid. A heuristic has the digits of its pattern.

    Raises:
        InvalidRequest: it was not offered. NotFound: it is no more.
    """
    pattern_id = format_pattern_id(bytes.fromhex(said.pattern_id.partition("_")[2]))
    if pattern_id not in recommendation.offers:
        raise InvalidRequest(f"{field}: {said.pattern_id} was not offered by this recommendation")
    rowid: Any = connection.execute(
        "SELECT rowid FROM __memoturn_patterns WHERE id = ?", (parse_pattern_id(pattern_id),)
    ).get
    if rowid is None:
        raise NotFound(f"{field}: {said.pattern_id} was deleted since it was offered")
    applied = AppliedPattern(pattern_id=pattern_id, applied_at_step=said.applied_at_step, outcome=said.outcome)
    return applied, rowid


def _keep(
    transaction: Transaction, pattern: int, recommendation: int, episode: int | None, applied: AppliedPattern
) -> None:
    """The last word; the same again changes nothing, and is as old as it was."""
    transaction.connection.execute(
        "INSERT INTO __memoturn_pattern_feedback"
        " (pattern, recommendation, episode, outcome, applied_at_step, said_at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET episode = excluded.episode, outcome = excluded.outcome,"
        " applied_at_step = excluded.applied_at_step, said_at = excluded.said_at"
        " WHERE (episode, outcome, applied_at_step)"
        " IS NOT (excluded.episode, excluded.outcome, excluded.applied_at_step)",
        (
            pattern, recommendation, episode, applied["outcome"], applied["applied_at_step"],
            transaction.ambient.now_ms(),
        ),
    )  # fmt: skip


def _tell(transaction: Transaction, told: Mapping[int, Mapping[str, AppliedPattern | None]]) -> dict[int, str]:
    """Have episodes say what was applied in them, and no more what None stands for; their ids."""
    rows = EpisodeRow.of_rowids(transaction.connection, told)
    for rowid, row in rows.items():
        before: list[AppliedPattern] = row.body.get("applied_patterns", [])
        merged: dict[str, AppliedPattern | None] = {each["pattern_id"]: each for each in before}
        after = [each for each in {**merged, **told[rowid]}.values() if each is not None]
        if after != before:
            row.body["applied_patterns"] = after
            row.save(transaction)
    return {rowid: row.episode_id for rowid, row in rows.items()}


def _strengths(snapshot: Snapshot, pattern_ids: Iterable[str]) -> dict[str, float | None]:
    known = PatternIndex.of(snapshot)
    found = {each: known.of_id(parse_pattern_id(each)) for each in pattern_ids}
    return {each: None if pattern is None else pattern.strength for each, pattern in found.items()}
