"""What experience recommends for a task, and warns of; what was offered is recorded, so that feedback can be taken.

The ranking is read on one state, and recorded in a transaction of its own after it. Called by the surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memoturn_core.episodes.patterns import offers
from memoturn_core.episodes.patterns.asking import Question, question, task
from memoturn_core.episodes.patterns.fit import Task
from memoturn_core.episodes.patterns.heuristics import heuristic
from memoturn_core.episodes.patterns.known import Known
from memoturn_core.episodes.patterns.measuring import DIGITS
from memoturn_core.episodes.patterns.offers import Offer, episode_named
from memoturn_core.episodes.patterns.pattern import Pattern
from memoturn_core.episodes.patterns.ranking import SIMILAR, Ranking, Scored
from memoturn_core.episodes.rows import format_episode_id
from memoturn_core.memory.rows import bound
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episodes import Applied
from memoturn_schemas.errors import NotFound
from memoturn_schemas.recommendations import (
    ConciseRecommended,
    ConciseRecommendPatternsResponse,
    EvidenceEpisode,
    Feature,
    Part,
    Recommended,
    RecommendPatternsRequest,
    RecommendPatternsResponse,
)
from memoturn_storage.handle import Snapshot, Transaction

EVIDENCE = 3
"""Episodes that are shown with each pattern."""
NOTHING_STORED = "nothing was learnt yet: no episode is completed"

DESCRIPTION_CHARACTERS = 200
_NOBODY = -1
_SAID: dict[Applied, str] = {"helped": "helped", "no_effect": "had no effect", "hindered": "hindered"}


def concise(response: RecommendPatternsResponse) -> dict[str, Any]:
    """What an agent needs to go on, and to give feedback."""

    def short(each: Recommended) -> ConciseRecommended:
        advice = each["heuristic"]
        text = each["text"] if advice is None else f"{advice['condition']}: {advice['action']}"
        return ConciseRecommended(
            pattern_id=each["pattern_id"], text=text, score=each["score"], reasons=each["reasons"]
        )

    return {
        "recommendation_id": response["recommendation_id"],
        "recommended": [short(each) for each in response["recommended"]],
        "avoid": [short(each) for each in response["avoid"]],
        "explanation": response["explanation"],
    }


@operation(
    name="recommend_patterns",
    title="Recommend patterns",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=RecommendPatternsRequest,
    response=RecommendPatternsResponse,
    rest=Rest("POST", "/patterns/recommend"),
    concise=concise,
    concise_response=ConciseRecommendPatternsResponse,
)
async def recommend_patterns(profile: Profile, request: RecommendPatternsRequest) -> Reply:
    """Get what worked on tasks like this one, and what to avoid; call it before starting a task.

    What it offers is recorded under recommendation_id, for record_feedback.
    """
    if not profile.exists():
        profile.require_min_txid(0)
        if request.episode_id is not None:
            raise NotFound(f"episode_id: there is no episode {request.episode_id}")
        return Reply(_answer(None, ([], [], NOTHING_STORED), 0), 0)
    asked = await question(profile, request)
    ranked = await profile.read(lambda snapshot: _recommend(snapshot, request, asked))
    recommended, avoid, _ = ranked.value
    if not recommended and not avoid:
        return Reply(_answer(None, ranked.value, ranked.txid), ranked.txid)
    made = await profile.write(lambda transaction: _record(transaction, request, recommended, avoid), create=False)
    return Reply(_answer(made.value, ranked.value, made.txid), made.txid)


_Ranked = tuple[list[Recommended], list[Recommended], str | None]
"""What to do, what to avoid, and why there is nothing to do."""


def _answer(recommendation_id: str | None, ranked: _Ranked, txid: int) -> RecommendPatternsResponse:
    recommended, avoid, explanation = ranked
    return RecommendPatternsResponse(
        recommendation_id=recommendation_id, recommended=recommended, avoid=avoid, explanation=explanation, txid=txid
    )


def _recommend(snapshot: Snapshot, request: RecommendPatternsRequest, asked: Question) -> _Ranked:
    episode = None if request.episode_id is None else episode_named(snapshot.connection, request.episode_id)
    wanted = task(request, episode)
    itself = None if episode is None else episode.rowid
    similar = [each for each in asked.similar(snapshot, SIMILAR + 1) if each[0] != itself][:SIMILAR]
    ranking = Ranking(snapshot, wanted, similar, request.only)
    shown = _Shown(snapshot, ranking.known, wanted, similar)
    recommended = shown.of(ranking.chosen(request.limit, avoid=False))
    avoid = shown.of(ranking.chosen(request.limit, avoid=True))
    return recommended, avoid, None if recommended else why_nothing(snapshot, ranking, request.only)


def why_nothing(snapshot: Snapshot, ranking: Ranking, only: Sequence[Feature]) -> str:
    """Why nothing is recommended."""
    episodes = snapshot.connection.execute("SELECT count(*) FROM __memoturn_pattern_evidence").get
    if not episodes:
        return NOTHING_STORED
    if not ranking.promoted:
        return (
            f"{episodes} completed episodes have shown no pattern that counts yet; most count from the second"
            " episode on that has them"
        )
    if not ranking.admitted:
        return f"none of {ranking.promoted} patterns was learnt from such work; {' and '.join(only)} left them out"
    return f"nothing speaks for any of {ranking.admitted} patterns: they were seen where tasks failed"


def _record(
    transaction: Transaction,
    request: RecommendPatternsRequest,
    recommended: Sequence[Recommended],
    avoid: Sequence[Recommended],
) -> str:
    episode = None if request.episode_id is None else episode_named(transaction.connection, request.episode_id).rowid
    made = [
        Offer(each["pattern_id"], each["strength"], each["score"], warning)
        for warning, offered in ((False, recommended), (True, avoid))
        for each in offered
    ]
    return offers.record(transaction, made, episode)


# --- saying why ----------------------------------------------------------------------------------


class _Shown:
    """Patterns as they are offered, with the reasons and with episodes that show them."""

    def __init__(self, snapshot: Snapshot, known: Known, wanted: Task, similar: Sequence[tuple[int, float]]) -> None:
        self._connection = snapshot.connection
        self._task = wanted
        self._similar = dict(similar)
        self._seen = known.seen

    def of(self, scored: Sequence[Scored]) -> list[Recommended]:
        shown = {each.pattern.rowid: self._most_telling(each.pattern) for each in scored}
        rows = {rowid for rowids in shown.values() for rowid in rowids}
        found: list[Any] = self._connection.execute(
            "SELECT rowid, id, substr(description, 1, ?), outcome FROM __memoturn_episodes WHERE rowid IN carray(?)",
            (DESCRIPTION_CHARACTERS, bound([_NOBODY, *rows])),
        ).fetchall()
        episodes = {
            rowid: EvidenceEpisode(
                episode_id=format_episode_id(id_),
                task_description=description,
                succeeded=outcome in ("success", "partial_success"),
                similarity=self._similarity(rowid),
            )
            for rowid, id_, description, outcome in found
        }
        return [
            self._offered(each, [episodes[rowid] for rowid in shown[each.pattern.rowid] if rowid in episodes])
            for each in scored
        ]

    def _most_telling(self, pattern: Pattern) -> list[int]:
        """Of the pattern's episodes the most similar ones, those that speak for it first, and then the latest."""
        held = set(pattern.episodes)
        similar = [rowid for rowid in self._similar if rowid in held]
        against = [rowid for rowid in similar if self._seen[rowid].won == (pattern.goes_with == "failure")]
        speaking = [rowid for rowid in similar if rowid not in against]
        return list(dict.fromkeys([*speaking, *against, *pattern.latest(EVIDENCE)]))[:EVIDENCE]

    def _similarity(self, rowid: int) -> float | None:
        known = self._similar.get(rowid)
        return None if known is None else round(known, DIGITS)

    def _offered(self, scored: Scored, evidence: list[EvidenceEpisode]) -> Recommended:
        parts: dict[Part, float] = {name: round(part, DIGITS) for name, part in scored.parts.items()}
        return Recommended(
            **scored.pattern.entry(),
            heuristic=heuristic(scored.pattern),
            score=round(sum(parts.values()), DIGITS),
            parts=parts,
            reasons=self._reasons(scored, evidence),
            evidence=evidence,
        )

    def _reasons(self, scored: Scored, evidence: Sequence[EvidenceEpisode]) -> list[str]:
        pattern, features, wanted = scored.pattern, scored.features, self._task
        standing = pattern.standing
        failing = pattern.goes_with == "failure"
        went = f"{standing.failures} of {{}} failed" if failing else f"{standing.successes} of {{}} succeeded"
        said = [went.format(f"{standing.occurrences} episodes that had it")]
        feedback = [f"{pattern.feedback[each]} {words}" for each, words in _SAID.items() if each in pattern.feedback]
        if feedback:
            said.append(f"feedback: {', '.join(feedback)}")
        telling = next((each for each in evidence if each["similarity"] and each["succeeded"] != failing), None)
        if telling is not None:
            how = "failed" if failing else "worked"
            said.append(f"{how} in a similar task ({telling['similarity']:.2f}): {telling['task_description']}")
        if features.get("domain"):
            said.append(f"learnt in {pattern.domain}")
        labels: dict[Part, str | None] = {
            "task_type": wanted.task_type,
            "language": wanted.language,
            "framework": wanted.framework,
            "tags": ", ".join(sorted(wanted.tags)),
        }
        said += [f"{label}: {features[part]:.0%}" for part, label in labels.items() if features.get(part)]
        return said
