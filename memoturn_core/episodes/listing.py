"""Episodes by when they began: a page of those that pass a filter, the latest first."""

from __future__ import annotations

import base64
import re
from typing import Any

from pydantic_core import from_json

from memoturn_core.episodes.filters import conditions
from memoturn_core.episodes.rows import STEP_COUNT, format_episode_id
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episodes import EpisodeEntry, ListEpisodesRequest, ListEpisodesResponse
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.handle import Snapshot

_PLACE = re.compile(r"(-?\d{1,19})\.(\d{1,19})", re.ASCII)
_LARGEST = 2**63 - 1

Place = tuple[int, int]
"""Where an episode is in the list: when it began, and its rowid."""


@operation(
    name="list_episodes",
    title="List episodes",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=ListEpisodesRequest,
    response=ListEpisodesResponse,
    rest=Rest("GET", "/episodes"),
    read_only=True,
    idempotent=True,
)
async def list_episodes(profile: Profile, request: ListEpisodesRequest) -> Reply:
    """List a profile's episodes, the latest first; call it to browse; query_memory finds what fits a task."""
    before = None if request.cursor is None else _place(request.cursor)
    found = await profile.read(
        lambda snapshot: _page(snapshot, request, before, request.limit + 1), as_of=request.as_of, long=True
    )
    page = found.value[: request.limit]
    cursor = _cursor(page[-1]) if len(found.value) > len(page) else None
    return Reply(ListEpisodesResponse(episodes=[_entry(row) for row in page], next_cursor=cursor), found.txid)


def _page(snapshot: Snapshot, request: ListEpisodesRequest, before: Place | None, count: int) -> list[Any]:
    filters = conditions(request)
    required = ["TRUE", *(_ordered(name, sql, request) for name, (sql, _) in filters.items())]
    parameters = [value for _, values in filters.values() for value in values]
    if before is not None:
        required.append("(started_at, rowid) < (?, ?)")
        parameters += before
    found: list[Any] = snapshot.connection.execute(
        "SELECT rowid, id, task_type, domain, description, session_id, started_at, ended_at,"
        f" {STEP_COUNT}, outcome, reward, body FROM __memoturn_episodes AS episode"
        f" WHERE {' AND '.join(required)} ORDER BY started_at DESC, rowid DESC LIMIT ?",
        (*parameters, count),
    ).fetchall()
    return found


def _ordered(name: str, sql: str, request: ListEpisodesRequest) -> str:
    """Of one domain and type the index has the order that is asked for; of one domain alone it has not."""
    return f"+{sql}" if name == "domain" and request.task_type is None else sql


def _entry(row: Any) -> EpisodeEntry:
    _, key, task_type, domain, description, session_id, started_at, ended_at, steps, outcome, reward, body = row
    return EpisodeEntry(
        episode_id=format_episode_id(key),
        task_type=task_type,
        task_description=description,
        domain=domain,
        tags=from_json(body).get("tags", []),
        session_id=session_id,
        start_time=started_at,
        end_time=ended_at,
        step_count=steps,
        outcome=outcome,
        reward=reward,
    )


def _cursor(row: Any) -> str:
    return base64.urlsafe_b64encode(f"{row[6]}.{row[0]}".encode()).rstrip(b"=").decode()


def _place(cursor: str) -> Place:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        text = ""
    parts = _PLACE.fullmatch(text)
    place = (0, 0) if parts is None else (int(parts[1]), int(parts[2]))
    if parts is None or not -_LARGEST <= place[0] <= _LARGEST >= place[1]:
        raise InvalidRequest("cursor: must be the next_cursor of an earlier answer")
    return place
