"""What the learning is worth: how episodes go as time passes, and whether strengths are right about what helps.

Called by the surfaces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from memoturn_core.episodes.patterns import offers
from memoturn_core.episodes.patterns.measuring import calibration, mean_of, median_of, share
from memoturn_core.episodes.patterns.pattern import format_pattern_id
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episodes import OutcomeType
from memoturn_schemas.recommendations import (
    DomainReward,
    EpisodeCounts,
    EvaluateLearningRequest,
    EvaluateLearningResponse,
    Half,
    LearningStats,
    OverTime,
)
from memoturn_storage.handle import Snapshot

DOMAINS = 100
"""Of which the reward is told: those with the most episodes."""

_NONE_COMPLETED = "no episode is completed"
_NONE_SUCCEEDED = "no episode succeeded"


class Ended(NamedTuple):
    """A completed episode."""

    domain: str
    outcome: OutcomeType
    reward: float
    steps: int

    @property
    def succeeded(self) -> bool:
        return self.outcome in ("success", "partial_success")


@operation(
    name="evaluate_learning",
    title="Evaluate the learning",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=EvaluateLearningRequest,
    response=EvaluateLearningResponse,
    rest=Rest("GET", "/evaluation"),
    read_only=True,
    idempotent=True,
)
async def evaluate_learning(profile: Profile, request: EvaluateLearningRequest) -> Reply:
    """Measure whether episodes get better and recommendations are right; call it to see if learning pays."""
    found = await profile.read(lambda snapshot: _evaluate(snapshot, request.domain), as_of=request.as_of, long=True)
    return Reply(found.value, found.txid)


def stats(ended: Sequence[Ended], open_: int) -> LearningStats:
    """Of completed episodes in the order in which they ended, and how many are open."""
    outcomes = Counter(each.outcome for each in ended)
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for each in ended:
        rewards[each.domain].append(each.reward)
    largest = sorted(rewards, key=lambda domain: (-len(rewards[domain]), domain))[:DOMAINS]
    middle = (len(ended) + 1) // 2
    whole = _half(ended)
    return LearningStats(
        episodes=EpisodeCounts(
            total=len(ended) + open_,
            open=open_,
            success=outcomes["success"],
            partial_success=outcomes["partial_success"],
            failure=outcomes["failure"],
            abstained=outcomes["abstained"],
        ),
        reward=whole["reward"],
        success_rate=whole["success_rate"],
        steps_to_success=whole["steps_to_success"],
        reward_by_domain=[DomainReward(domain=each, reward=mean_of(rewards[each], "")) for each in largest],
        over_time=OverTime(first_half=_half(ended[:middle]), second_half=_half(ended[middle:])),
    )


def _half(ended: Sequence[Ended]) -> Half:
    won = [each.steps for each in ended if each.succeeded]
    return Half(
        episodes=len(ended),
        reward=mean_of([each.reward for each in ended], _NONE_COMPLETED),
        success_rate=share(len(won), len(ended), _NONE_COMPLETED),
        steps_to_success=median_of(won, 1, _NONE_SUCCEEDED),
    )


def _evaluate(snapshot: Snapshot, domain: str | None) -> EvaluateLearningResponse:
    rows: list[Any] = snapshot.connection.execute(
        "SELECT domain, outcome, reward, step_count FROM __memoturn_episodes"
        " WHERE ?1 IS NULL OR domain = ?1 ORDER BY ended_at, rowid",
        (domain,),
    ).fetchall()
    ended = [Ended(*row) for row in rows if row[1] is not None]
    return EvaluateLearningResponse(
        stats=stats(ended, len(rows) - len(ended)), calibration=calibration(list(_cases(snapshot, domain)))
    )


def _cases(snapshot: Snapshot, domain: str | None) -> Iterator[tuple[float, bool]]:
    """The strength at the time of the recommendation, and whether feedback said that it helped."""
    said: defaultdict[int, dict[str, bool]] = defaultdict(dict)
    rows: Any = snapshot.connection.execute(
        "SELECT recommendation, id, outcome FROM __memoturn_pattern_feedback AS feedback"
        " JOIN __memoturn_patterns AS pattern ON pattern.rowid = feedback.pattern"
        " WHERE outcome <> 'pending' AND (?1 IS NULL OR domain = ?1)",
        (domain,),
    )
    for recommendation, id_, outcome in rows:
        said[recommendation][format_pattern_id(id_)] = outcome == "helped"
    for recommendation in offers.all_of_them(snapshot.connection):
        for pattern_id, helped in said.get(recommendation.rowid, {}).items():
            yield recommendation.offers[pattern_id].strength, helped
