"""An episode's events in the order of time. A read; the surfaces call it."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator
from operator import itemgetter

from memoturn_core.episodes.course import so_far
from memoturn_core.episodes.experience import decides, failed
from memoturn_core.episodes.recoveries import recoveries_of
from memoturn_core.episodes.rows import EpisodeRow, steps_of
from memoturn_core.episodes.wording import line
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episode_links import Mark, TimelineEvent, TimelineRequest, TimelineResponse, TimelineStep
from memoturn_schemas.episodes import STEP_NUMBER, Step
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.handle import Snapshot

_CHARACTERS = 200

_Key = tuple[int, int, int]
"""The time, the number of the step or of the one before, and, of checkpoints after one step, which of them.

Events of the same millisecond come in the order in which they must have happened.
"""


@operation(
    name="get_episode_timeline",
    title="Get an episode's timeline",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=TimelineRequest,
    response=TimelineResponse,
    rest=Rest("GET", "/episodes/{episode_id}/timeline"),
    read_only=True,
    idempotent=True,
)
async def get_episode_timeline(profile: Profile, request: TimelineRequest) -> Reply:
    """See what happened in an episode and when, step by step; call it to find where it went wrong or slow."""
    after = None if request.cursor is None else _key_of(request.cursor)
    found = await profile.read(lambda snapshot: _page(snapshot, request, after), as_of=request.as_of, long=True)
    return Reply(found.value, found.txid)


def _page(snapshot: Snapshot, request: TimelineRequest, after: _Key | None) -> TimelineResponse:
    row = EpisodeRow.one(snapshot.connection, request.episode_id)
    steps = steps_of(snapshot.connection, row.rowid)
    events = sorted(_events(row, steps), key=itemgetter(0))
    left = [(key, event) for key, event in events if after is None or key > after]
    page = left[: request.limit]
    return TimelineResponse(
        episode_id=row.episode_id,
        events=[event for _, event in page],
        next_cursor=_cursor(page[-1][0]) if len(left) > len(page) else None,
    )


def _events(row: EpisodeRow, steps: list[Step]) -> Iterator[tuple[_Key, TimelineEvent]]:
    recovers: dict[int, list[int]] = defaultdict(list)
    for number, recovery in sorted(recoveries_of(so_far(row, steps)).items()):
        recovers[recovery.remedy[-1]["step_number"]].append(number)

    start = row.started_at
    yield (start, -1, 0), TimelineEvent(type="start", at=start, offset_ms=0)
    for step in steps:
        at, number = step["timestamp"], step["step_number"]
        told = _told(step, recovers[number])
        yield (at, number, 0), TimelineEvent(type="step", at=at, offset_ms=at - start, step=told)
    for place, checkpoint in enumerate(row.episode()["checkpoints"], start=1):
        at, number = checkpoint["created_at"], checkpoint["step_number"]
        event = TimelineEvent(type="checkpoint", at=at, offset_ms=at - start, checkpoint=checkpoint)
        yield (at, number, place), event
    if row.ended_at is not None and row.outcome is not None:
        end = TimelineEvent(type="end", at=row.ended_at, offset_ms=row.ended_at - start, outcome=row.outcome)
        yield (row.ended_at, STEP_NUMBER + 1, 0), end


def _told(step: Step, recovers: list[int]) -> TimelineStep:
    result = step["result"]
    marks: dict[Mark, bool] = {"failure": failed(step), "recovery": bool(recovers), "decision": decides(step)}
    return TimelineStep(
        step_number=step["step_number"],
        tool=step["tool"],
        action=line(step["action"], _CHARACTERS),
        result="pending" if result is None else result["type"],
        error=line(result["message"], _CHARACTERS) if result is not None and "message" in result else None,
        latency_ms=step["latency_ms"],
        marks=[mark for mark, there in marks.items() if there],
        recovers=recovers,
    )


def _cursor(key: _Key) -> str:
    return base64.urlsafe_b64encode(",".join(map(str, key)).encode()).decode().rstrip("=")


def _key_of(cursor: str) -> _Key:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        at, number, place = map(int, text.split(","))
    except ValueError:
        raise InvalidRequest("cursor: should be next_cursor of an earlier page") from None
    return at, number, place
