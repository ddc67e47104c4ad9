"""How episodes relate to each other: typed links, kept once and seen from both ends.

Of some types a circle would say nothing (what depends on itself?): a link that closed one is refused. Links go
with either of their episodes. Called by the surfaces, `handoff` and `deletion`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from memoturn_core.episodes.rows import EpisodeRow, format_episode_id, parse_episode_id
from memoturn_core.episodes.wording import line
from memoturn_core.memory.rows import bound
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episode_links import (
    EpisodeRelationshipsRequest,
    EpisodeRelationshipsResponse,
    GetEpisodeRelationshipsRequest,
    NewRelationship,
    Relationship,
    RelationshipType,
)
from memoturn_schemas.errors import Conflict, InvalidRequest, NotFound
from memoturn_storage.handle import Snapshot, Transaction

_WITHOUT_CIRCLES: frozenset[RelationshipType] = frozenset({"parent_child", "depends_on", "blocks", "follows"})
_LINKS = 1_000
"""Of one episode, in both directions."""
_NAMED = 20
"""Episodes of a circle that an error names."""
_DESCRIBED = 200

_AHEAD = "SELECT episode, target FROM __memoturn_episode_links WHERE episode IN carray(?) AND type = ?"
_BEHIND = "SELECT target, episode FROM __memoturn_episode_links WHERE target IN carray(?) AND type = ?"


@operation(
    name="episode_relationships",
    title="Relate episodes",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=EpisodeRelationshipsRequest,
    response=EpisodeRelationshipsResponse,
    rest=Rest("POST", "/episodes/{episode_id}/relationships"),
    idempotent=True,
    conflicts=True,
)
async def episode_relationships(profile: Profile, request: EpisodeRelationshipsRequest) -> Reply:
    """Link an episode to others, or unlink it; call it when one depends on, follows or duplicates another.

    Answers all its relationships, in both directions. What is there already stays, with the reason if one is given.
    """
    done = await profile.write(lambda transaction: _change(transaction, request), create=False, long=True)
    return Reply(_answer(request.episode_id, done.value, done.txid), done.txid)


@operation(
    name="get_episode_relationships",
    title="Get an episode's relationships",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=GetEpisodeRelationshipsRequest,
    response=EpisodeRelationshipsResponse,
    rest=Rest("GET", "/episodes/{episode_id}/relationships"),
    read_only=True,
    idempotent=True,
)
async def get_episode_relationships(profile: Profile, request: GetEpisodeRelationshipsRequest) -> Reply:
    """See which episodes an episode is linked to, both ways; call it to find what it needs or what it holds up."""
    found = await profile.read(lambda snapshot: _get(snapshot, request), as_of=request.as_of)
    return Reply(_answer(request.episode_id, found.value, found.txid), found.txid)


def add(
    transaction: Transaction, rowid: int, target: int, type_: RelationshipType, reason: str | None, field: str
) -> None:
    """Link an episode to another; where the link is there, a reason that is given replaces its own.

    Args:
        field: of the request, by which the target is named.

    Raises:
        Conflict: it would close a circle of a type that has none.
        InvalidRequest: one of them has too many links.
    """
    connection = transaction.connection
    key = (rowid, type_, target)
    there: Any = connection.execute(
        "SELECT reason FROM __memoturn_episode_links WHERE (episode, type, target) = (?, ?, ?)", key
    ).fetchone()
    if there is not None:
        if reason not in (None, there[0]):
            connection.execute(
                "UPDATE __memoturn_episode_links SET reason = ? WHERE (episode, type, target) = (?, ?, ?)",
                (reason, *key),
            )
        return
    if type_ in _WITHOUT_CIRCLES:
        _refuse_circle(connection, rowid, target, type_, field)
    connection.execute(
        "INSERT INTO __memoturn_episode_links (episode, type, target, reason, created_at) VALUES (?, ?, ?, ?, ?)",
        (*key, reason, transaction.ambient.now_ms()),
    )
    for end, name in ((rowid, "episode_id"), (target, field)):
        count = connection.execute(
            "SELECT (SELECT count(*) FROM __memoturn_episode_links WHERE episode = ?1)"
            " + (SELECT count(*) FROM __memoturn_episode_links WHERE target = ?1)",
            (end,),
        ).get
        if count > _LINKS:
            raise InvalidRequest(f"{name}: an episode has at most {_LINKS} relationships, in both directions")


def delete(transaction: Transaction, rowid: int) -> None:
    """Remove all links of an episode."""
    transaction.connection.execute("DELETE FROM __memoturn_episode_links WHERE episode = ?1 OR target = ?1", (rowid,))


def _change(transaction: Transaction, request: EpisodeRelationshipsRequest) -> list[Relationship]:
    connection = transaction.connection
    rowid = EpisodeRow.one(connection, request.episode_id).rowid
    for removed in request.remove:
        connection.execute(
            "DELETE FROM __memoturn_episode_links WHERE (episode, type) = (?, ?)"
            " AND target = (SELECT rowid FROM __memoturn_episodes WHERE id = ?)",
            (rowid, removed.type, parse_episode_id(removed.target)),
        )
    for place, added in enumerate(request.add):
        field = f"add[{place}].target"
        add(transaction, rowid, _target(connection, added, field), added.type, added.reason, field)
    return _listed(connection, rowid)


def _target(connection: apsw.Connection, added: NewRelationship, field: str) -> int:
    found: int | None = connection.execute(
        "SELECT rowid FROM __memoturn_episodes WHERE id = ?", (parse_episode_id(added.target),)
    ).get
    if found is None:
        raise NotFound(f"{field}: there is no episode {added.target}")
    return found


def _get(snapshot: Snapshot, request: GetEpisodeRelationshipsRequest) -> list[Relationship]:
    return _listed(snapshot.connection, EpisodeRow.one(snapshot.connection, request.episode_id).rowid)


def _listed(connection: apsw.Connection, rowid: int) -> list[Relationship]:
    found: list[Any] = connection.execute(
        """
        SELECT link.type, link.direction, id, substr(description, 1, ?2), outcome, link.reason, link.created_at FROM (
          SELECT type, 'outgoing' AS direction, target AS other, reason, created_at
            FROM __memoturn_episode_links WHERE episode = ?1
          UNION ALL
          SELECT type, 'incoming', episode, reason, created_at FROM __memoturn_episode_links WHERE target = ?1
        ) AS link JOIN __memoturn_episodes ON rowid = link.other
        ORDER BY link.created_at, link.direction DESC, link.type, id
        """,
        (rowid, 4 * _DESCRIBED),
    ).fetchall()
    return [
        Relationship(
            type=type_,
            direction=direction,
            episode_id=format_episode_id(id_),
            task_description=line(description, _DESCRIBED),
            outcome=outcome,
            reason=reason,
            created_at=created_at,
        )
        for type_, direction, id_, description, outcome, reason, created_at in found
    ]


def _answer(episode_id: str, relationships: list[Relationship], txid: int) -> EpisodeRelationshipsResponse:
    return EpisodeRelationshipsResponse(episode_id=episode_id, relationships=relationships, txid=txid)


# --- circles -------------------------------------------------------------------------------------


def _refuse_circle(connection: apsw.Connection, rowid: int, target: int, type_: RelationshipType, field: str) -> None:
    way = _way(connection, type_, target, rowid)
    if way is None:
        return
    circle = [rowid, *way] if len(way) < _NAMED else [rowid, *way[: _NAMED - 2], rowid]
    known: Any = connection.execute(
        "SELECT rowid, id FROM __memoturn_episodes WHERE rowid IN carray(?)", (bound(circle),)
    ).fetchall()
    ids = {each: format_episode_id(id_) for each, id_ in known}
    names = [ids[each] for each in circle]
    if len(names) <= len(way):
        names.insert(-1, f"({len(way) + 1 - len(circle)} more)")
    raise Conflict(f"{field}: {type_} would go in a circle: {' -> '.join(names)}")


def _way(connection: apsw.Connection, type_: RelationshipType, start: int, goal: int) -> list[int] | None:
    """A way along the links; searched from both ends by turns, for mostly one of them leads nowhere at once."""
    ahead: dict[int, int | None] = {start: None}
    behind: dict[int, int | None] = {goal: None}
    front, rear = [start], [goal]
    while True:
        front = _further(connection, _AHEAD, type_, front, ahead)
        met = next((each for each in front if each in behind), None)
        if met is None:
            rear = _further(connection, _BEHIND, type_, rear, behind)
            met = next((each for each in rear if each in ahead), None)
        if met is not None:
            return [*reversed(_back(ahead, met)), *_back(behind, behind[met])]
        if not front or not rear:
            return None


def _further(
    connection: apsw.Connection, sql: str, type_: RelationshipType, edge: Iterable[int], seen: dict[int, int | None]
) -> list[int]:
    reached = []
    found: Any = connection.execute(sql, (bound(edge), type_))
    for before, after in found:
        if after not in seen:
            seen[after] = before
            reached.append(after)
    return reached


def _back(seen: dict[int, int | None], place: int | None) -> list[int]:
    way = []
    while place is not None:
        way.append(place)
        place = seen[place]
    return way
