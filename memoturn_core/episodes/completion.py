"""Completion: how an episode ended, and everything that follows from it, in one transaction.

    open       --complete--> completed   `completed`; reward, reflection, summary and patterns are there with it
    completed  --complete--> completed   `duplicate` where the outcome is the same, else a conflict

`complete` does it to a row; `bulk` calls it too.
"""

from __future__ import annotations

from typing import Any, cast

from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.medians import Length, Medians, medians_of
from memoturn_core.episodes.patterns import evidence
from memoturn_core.episodes.patterns.evidence import Learnt
from memoturn_core.episodes.quality import quality
from memoturn_core.episodes.reflection import reflect
from memoturn_core.episodes.reward import Typical, reward
from memoturn_core.episodes.rows import EpisodeRow, experience, steps_of
from memoturn_core.episodes.salience import salient
from memoturn_core.episodes.summary import summarise
from memoturn_core.episodes.words import deeds
from memoturn_core.memory.identity import canonical_json
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episodes import (
    AnyOutcome,
    CompleteEpisodeRequest,
    CompleteEpisodeResponse,
    Outcome,
    Step,
)
from memoturn_schemas.errors import Conflict, InvalidRequest, RequestTimeout
from memoturn_storage.handle import Transaction

_MANY = 400
"""Steps that take some 10 ms to judge and to learn from."""


@operation(
    name="complete_episode",
    title="Complete an episode",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=CompleteEpisodeRequest,
    response=CompleteEpisodeResponse,
    rest=Rest("POST", "/episodes/{episode_id}/complete"),
    idempotent=True,
    conflicts=True,
    durable=True,
)
async def complete_episode(profile: Profile, request: CompleteEpisodeRequest) -> Reply:
    """Say how an episode ended and have it judged and learnt from; call it when the task is done or given up.

    Answers its reward, with what that is made of, a reflection, and the patterns found in it.
    """
    outcome = outcome_of(request.outcome)
    medians = await medians_of(profile)
    done = await profile.write(
        lambda transaction: _complete(transaction, request, outcome, medians), create=False, long=True
    )
    return Reply({**done.value, "txid": done.txid}, done.txid)


def outcome_of(given: AnyOutcome) -> Outcome:
    return cast("Outcome", given.model_dump(exclude_none=True))


def complete(
    transaction: Transaction,
    row: EpisodeRow,
    steps: list[Step],
    outcome: Outcome,
    ended_at: int,
    typical: Typical | None,
) -> None:
    """Judge an open episode, learn from it, and write that down."""
    lived = experience(row, steps, outcome, ended_at)
    learnt = evidence.learn(transaction, row.rowid, lived)
    _judge(row, lived, learnt, typical)
    row.save(transaction)
    Medians.insert(transaction, row.domain, Length.of(row.started_at, ended_at, len(steps)))


def _judge(row: EpisodeRow, lived: Experience, learnt: Learnt, typical: Typical | None) -> None:
    earned = reward(lived, len(learnt.pattern_ids), typical)
    row.ended_at = lived.ended_at
    row.step_count = len(lived.steps)
    row.outcome = lived.outcome["type"]
    row.reward = earned["total"]
    row.quality = quality(lived)
    row.deeds = deeds(lived.steps, lived.outcome)
    row.body |= {
        "outcome": lived.outcome,
        "reward": earned,
        "reflection": reflect(lived),
        "salient": salient(lived),
        "summary": summarise(lived),
        "pattern_ids": learnt.pattern_ids,
        "heuristic_ids": learnt.heuristic_ids,
    }


def _complete(
    transaction: Transaction, request: CompleteEpisodeRequest, outcome: Outcome, medians: Medians
) -> dict[str, Any]:
    row = EpisodeRow.one(transaction.connection, request.episode_id)
    if row.completed:
        _require_same(row, outcome, request.end_time)
        return _answer(row, "duplicate")
    ended_at = end_of(row.started_at, request.end_time, transaction.ambient.now_ms())
    if transaction.hurried and row.step_count > _MANY:
        raise RequestTimeout("an episode of many steps is judged where fewer wait for it")
    steps = steps_of(transaction.connection, row.rowid)
    complete(transaction, row, steps, outcome, ended_at, medians.typical(row.domain))
    return _answer(row, "completed")


def end_of(started_at: int, given: int | None, now: int, path: str = "") -> int:
    """When an episode ended; by a clock that was set back meanwhile, when it began.

    Raises:
        InvalidRequest: the time that was given is before that.
    """
    if given is None:
        return max(now, started_at)
    if given < started_at:
        raise InvalidRequest(f"{path}end_time: must not be before the episode's start_time, {started_at}")
    return given


def _require_same(row: EpisodeRow, outcome: Outcome, end_time: int | None) -> None:
    if canonical_json(row.body["outcome"]) != canonical_json(outcome):
        raise Conflict(f"outcome: episode {row.episode_id} is completed with another one, {row.outcome}")
    if end_time not in (None, row.ended_at):
        raise Conflict(f"end_time: episode {row.episode_id} is completed and ended at {row.ended_at}")


def _answer(row: EpisodeRow, status: str) -> dict[str, Any]:
    body = row.body
    return {
        "episode_id": row.episode_id,
        "status": status,
        "end_time": row.ended_at,
        "reward": body["reward"],
        "quality": row.quality,
        **{name: body[name] for name in ("reflection", "salient", "summary", "pattern_ids", "heuristic_ids")},
    }
