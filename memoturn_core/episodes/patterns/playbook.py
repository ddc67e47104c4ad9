"""A playbook: the steps that similar tasks which succeeded had in common, what to look out for, and how sure that is.

Everything in it is read from episodes and patterns, and the same state gives the same playbook. Called by the surfaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

import apsw

from memoturn_core.episodes.patterns.asking import Question, question, task
from memoturn_core.episodes.patterns.composition import Common, Course, Taken, compose
from memoturn_core.episodes.patterns.fit import Task, nearness
from memoturn_core.episodes.patterns.known import PatternIndex
from memoturn_core.episodes.patterns.measuring import DIGITS, median_of
from memoturn_core.episodes.patterns.pattern import Pattern
from memoturn_core.episodes.patterns.ranking import NEARLY, Ranking
from memoturn_core.episodes.patterns.recommend import (
    DESCRIPTION_CHARACTERS,
    EVIDENCE,
    NOTHING_STORED,
)
from memoturn_core.episodes.patterns.strength import lower_bound
from memoturn_core.episodes.rows import EpisodeRow, format_episode_id, steps_range
from memoturn_core.episodes.wording import line
from memoturn_core.memory.rows import bound
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.recommendations import (
    Feature,
    Measured,
    Pitfall,
    PlaybookEvidence,
    PlaybookStep,
    RecommendPlaybookRequest,
    RecommendPlaybookResponse,
)
from memoturn_storage.handle import Snapshot

SIMILAR = 30
"""Episodes that are looked at most."""
FOLLOWED = 8
"""Of those that succeeded, how many the steps are made of at most."""
ENOUGH = 3
"""Cases from which on a median is one."""
STEPS = 50
SEQUENCES = 20
"""Tool sequences that steps are looked up in."""
PITFALLS = 5
"""Of what to avoid, and of recoveries."""
ACTION_CHARACTERS = 300

_NOBODY = -1


@operation(
    name="recommend_playbook",
    title="Recommend a playbook",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=RecommendPlaybookRequest,
    response=RecommendPlaybookResponse,
    rest=Rest("POST", "/patterns/playbook"),
    read_only=True,
    idempotent=True,
)
async def recommend_playbook(profile: Profile, request: RecommendPlaybookRequest) -> Reply:
    """Get the steps that worked on tasks like this one, with pitfalls and expected effort; call it to plan a task."""
    if not profile.exists():
        profile.require_min_txid(0)
        return Reply(_nothing(), 0)
    asked = await question(profile, request)
    similar = await profile.read(lambda snapshot: _similar(snapshot, asked), as_of=request.as_of)
    found = await profile.read(
        lambda snapshot: _playbook(snapshot, request, similar.value), as_of=request.as_of, long=True
    )
    return Reply(found.value, found.txid)


def _similar(snapshot: Snapshot, asked: Question) -> list[tuple[int, float]]:
    """Has the patterns read too: what may be long, and run beside, does not keep what it reads for the next one."""
    PatternIndex.of(snapshot)
    return asked.similar(snapshot, SIMILAR)


def _nothing() -> RecommendPlaybookResponse:
    """Of a profile that does not exist."""
    return RecommendPlaybookResponse(
        steps=[], pitfalls=[], expected_steps=median_of([], ENOUGH), expected_seconds=median_of([], ENOUGH),
        confidence=_confidence([], _Example([], [], 0.0)), evidence=[], pattern_ids=[], explanation=NOTHING_STORED,
        txid=0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Precedent:
    """A similar episode that is completed."""

    row: EpisodeRow
    similarity: float
    nearness: float = 1.0
    """Of its domain and its type to those of the task."""

    @property
    def likeness(self) -> float:
        return self.similarity * self.nearness

    @property
    def succeeded(self) -> bool:
        return self.row.outcome in ("success", "partial_success")

    @property
    def weight(self) -> float:
        """What it counts for as an example: how like the task it is, and less where its reward is below 1."""
        return self.likeness * min(1.0, max(0.0, self.row.reward or 0.0))

    @property
    def seconds(self) -> float:
        return max(0, (self.row.ended_at or 0) - self.row.started_at) / 1_000

    def evidence(self) -> PlaybookEvidence:
        return PlaybookEvidence(
            episode_id=self.row.episode_id,
            task_description=line(self.row.description, DESCRIPTION_CHARACTERS),
            similarity=round(self.similarity, DIGITS),
            outcome=self.row.outcome or "success",
            reward=self.row.reward,
            step_count=self.row.step_count,
            seconds=self.seconds,
        )


@dataclass(frozen=True, slots=True)
class _Example:
    """What the best of the episodes that succeeded did, and what of that is common to them."""

    followed: Sequence[_Precedent]
    common: Sequence[Common]
    agreement: float

    @classmethod
    def of(cls, connection: apsw.Connection, precedents: Iterable[_Precedent]) -> Self:
        good = [each for each in precedents if each.succeeded and each.weight > 0]
        good.sort(key=lambda each: (-each.weight, each.row.rowid))
        courses = ((each, _taken(connection, each.row.rowid)) for each in good)
        followed = list(islice(((each, steps) for each, steps in courses if steps), FOLLOWED))
        common, agreement = compose([Course(each.row.rowid, each.weight, steps) for each, steps in followed])
        return cls([each for each, _ in followed], common, agreement)


def _playbook(
    snapshot: Snapshot, request: RecommendPlaybookRequest, similar: Sequence[tuple[int, float]]
) -> RecommendPlaybookResponse:
    wanted = task(request)
    ranking = Ranking(snapshot, wanted, similar, request.only)
    precedents = _precedents(snapshot.connection, similar, wanted, request.only)
    example = _Example.of(snapshot.connection, precedents)
    sequences = [
        each.pattern
        for each in ranking.chosen(SEQUENCES, avoid=False, kinds={"tool_sequence"})
        if ranking.is_near(each)
    ]
    steps, evidence, explanation = _steps(example, sequences), example.followed, None
    if not steps and sequences:
        evidence = _of_rowids(snapshot.connection, sequences[0].latest(FOLLOWED), dict(similar))
        steps = _steps_of(sequences[0], evidence)
        explanation = "no similar episode that succeeded has steps; these are those of the best sequence of tools"
    elif not steps:
        explanation = _why_nothing(snapshot, precedents)
    elif len(steps) > STEPS:
        explanation = f"these are the first {STEPS} of {len(steps)} steps"
    return RecommendPlaybookResponse(
        steps=steps[:STEPS],
        pitfalls=_pitfalls(snapshot.connection, ranking),
        expected_steps=median_of([each.row.step_count for each in evidence], ENOUGH),
        expected_seconds=median_of([each.seconds for each in evidence], ENOUGH),
        confidence=_confidence(precedents, example),
        evidence=[each.evidence() for each in evidence],
        pattern_ids=list(dict.fromkeys(id_ for step in steps[:STEPS] for id_ in step["pattern_ids"])),
        explanation=explanation,
        txid=snapshot.txid,
    )


# --- what is known -------------------------------------------------------------------------------


def _precedents(
    connection: apsw.Connection, similar: Sequence[tuple[int, float]], wanted: Task, only: Sequence[Feature]
) -> list[_Precedent]:
    """The completed episodes that are nearly as much like the task as the one that is most like it."""
    found = [
        replace(each, nearness=nearness(wanted, each.row.domain, each.row.task_type))
        for each in _of_rowids(connection, (rowid for rowid, _ in similar), dict(similar))
        if ("domain" not in only or each.row.domain == wanted.domain)
        and ("task_type" not in only or each.row.task_type == wanted.task_type)
    ]
    most = max((each.likeness for each in found), default=0.0)
    return [each for each in found if each.likeness >= NEARLY * most]


def _of_rowids(connection: apsw.Connection, rowids: Iterable[int], similarity: Mapping[int, float]) -> list[_Precedent]:
    wanted = list(rowids)
    rows = EpisodeRow.of_rowids(connection, wanted)
    return [
        _Precedent(rows[rowid], similarity.get(rowid, 0.0))
        for rowid in wanted
        if rowid in rows and rows[rowid].completed
    ]


def _taken(connection: apsw.Connection, rowid: int) -> list[Taken]:
    """The steps that did not fail; of a step without a result nothing says that it did."""
    rows: Any = connection.execute(
        "SELECT body ->> 'tool', substr(body ->> 'action', 1, ?), body ->> 'latency_ms' FROM __memoturn_episode_steps"
        " WHERE rowid BETWEEN ? AND ? AND coalesce(body ->> '$.result.type', 'success') = 'success' ORDER BY rowid",
        (ACTION_CHARACTERS, *steps_range(rowid)),
    )
    return [Taken(tool, line(action, ACTION_CHARACTERS), latency) for tool, action, latency in rows]


def _confidence(precedents: Sequence[_Precedent], example: _Example) -> Measured:
    """How sure success on such tasks is, by the weight of those that were similar, times how far they agree."""
    if not example.common:
        return Measured(value=None, cases=len(precedents), reason="no similar episode that succeeded has steps")
    won = sum(each.likeness for each in precedents if each.succeeded)
    bound = float(lower_bound(won, sum(each.likeness for each in precedents)))
    return Measured(value=round(bound * example.agreement, DIGITS), cases=len(precedents), reason=None)


def _why_nothing(snapshot: Snapshot, precedents: Sequence[_Precedent]) -> str:
    completed = snapshot.connection.execute("SELECT count(*) FROM __memoturn_episodes WHERE outcome IS NOT NULL").get
    if not completed:
        return NOTHING_STORED
    if not precedents:
        return f"none of {completed} completed episodes is similar, and no sequence of tools is of such work"
    if not any(each.succeeded for each in precedents):
        return f"none of {len(precedents)} similar episodes succeeded, and no sequence of tools is of such work"
    return (
        f"none of {len(precedents)} similar episodes that succeeded has steps, and no sequence of tools is of such work"
    )


# --- what it is made of --------------------------------------------------------------------------


def _steps(example: _Example, sequences: Sequence[Pattern]) -> list[PlaybookStep]:
    names = {each.row.rowid: each.row.episode_id for each in example.followed}
    patterns = _covering([each.step.tool for each in example.common], sequences)
    return [
        PlaybookStep(
            order=place + 1,
            tool=each.step.tool,
            action=each.step.action or None,
            support=round(each.support, DIGITS),
            seconds=median_of(
                [taken.latency_ms / 1_000 for taken in each.taken.values() if taken.latency_ms is not None], ENOUGH
            ),
            episode_ids=[names[rowid] for rowid in each.taken],
            pattern_ids=patterns[place],
        )
        for place, each in enumerate(example.common)
    ]


def _steps_of(sequence: Pattern, evidence: Sequence[_Precedent]) -> list[PlaybookStep]:
    """The tools of a sequence; what was done with them differed."""
    return [
        PlaybookStep(
            order=place + 1,
            tool=tool,
            action=None,
            support=1.0,
            seconds=median_of([], ENOUGH),
            episode_ids=[each.row.episode_id for each in evidence],
            pattern_ids=[sequence.pattern_id],
        )
        for place, tool in enumerate(sequence.tools)
    ]


def _covering(tools: Sequence[str], sequences: Sequence[Pattern]) -> list[list[str]]:
    """For each place of a plan, the sequences that it is part of."""
    covering: list[list[str]] = [[] for _ in tools]
    for sequence in sequences:
        length = len(sequence.tools)
        covered = {
            place
            for start in range(len(tools) - length + 1)
            if tools[start : start + length] == sequence.tools
            for place in range(start, start + length)
        }
        for place in covered:
            covering[place].append(sequence.pattern_id)
    return covering


def _pitfalls(connection: apsw.Connection, ranking: Ranking) -> list[Pitfall]:
    """What failed in such work, the best known first, with what worked against it."""
    warnings = ranking.chosen(PITFALLS, avoid=True, kinds={"anti_pattern"})
    recoveries = ranking.chosen(PITFALLS, avoid=False, kinds={"error_recovery"})
    near = sorted((each for each in [*warnings, *recoveries] if ranking.is_near(each)), key=lambda each: each.order())
    shown = {each.pattern.rowid: each.pattern.latest(EVIDENCE) for each in near}
    rows: Any = connection.execute(
        "SELECT rowid, id FROM __memoturn_episodes WHERE rowid IN carray(?)",
        (bound([_NOBODY, *(rowid for rowids in shown.values() for rowid in rowids)]),),
    )
    names = {rowid: format_episode_id(id_) for rowid, id_ in rows}
    pitfalls: dict[object, Pitfall] = {}
    for pattern in (each.pattern for each in near):
        remedy = " → ".join(pattern.tools) if pattern.kind == "error_recovery" else None
        key = pattern.rowid if pattern.error is None else (pattern.failed_tool, pattern.error)
        text = pattern.text if pattern.error is None else f"{pattern.failed_tool} failed: {pattern.error}"
        known = pitfalls.setdefault(key, Pitfall(text=text, remedy=None, pattern_ids=[], episode_ids=[]))
        known["remedy"] = known["remedy"] or remedy
        known["pattern_ids"].append(pattern.pattern_id)
        episode_ids = [names[rowid] for rowid in shown[pattern.rowid] if rowid in names]
        known["episode_ids"] = list(dict.fromkeys([*known["episode_ids"], *episode_ids]))
    return list(pitfalls.values())
