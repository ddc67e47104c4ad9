"""One episode: create it, get it, delete it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memoturn_core.episodes import embedding
from memoturn_core.episodes.deletion import delete
from memoturn_core.episodes.rows import EpisodeRow, format_episode_id, new_episode_id, steps_of
from memoturn_core.episodes.steps import require_bounded
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.episodes import (
    CreateEpisodeRequest,
    CreateEpisodeResponse,
    DeleteEpisodeRequest,
    DeleteEpisodeResponse,
    GetEpisodeRequest,
    GetEpisodeResponse,
    NewEpisode,
)
from memoturn_storage.ambient import Ambient
from memoturn_storage.handle import Snapshot, Transaction


def fill_defaults(arguments: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Complete what agents leave out: the source, from the environment."""
    if source is None or arguments.get("source") is not None:
        return arguments
    return {**arguments, "source": source}


@operation(
    name="create_episode",
    title="Begin an episode",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=CreateEpisodeRequest,
    response=CreateEpisodeResponse,
    rest=Rest("POST", "/episodes", status=201),
    fill_defaults=fill_defaults,
    durable=True,
)
async def create_episode(profile: Profile, request: CreateEpisodeRequest) -> Reply:
    """Begin to record how a task goes; call it before the first step of a task worth learning from.

    Then add_step as it goes, and complete_episode when it is over.
    """
    row = prepare(request, profile.node.ambient)
    [vector] = await embedding.prepare(profile.node, [row.description], [request.embedding])
    model = None if profile.node.embedder is None else profile.node.embedder.model
    given = request.embedding is not None

    def work(transaction: Transaction) -> bool:
        return keep(transaction, row, vector, model, given=given)[1]

    done = await profile.write(work)
    answer = CreateEpisodeResponse(episode_id=format_episode_id(row.id), start_time=row.started_at, txid=done.txid)
    if not done.value:
        answer["embedding"] = "skipped_dimension"
    return Reply(answer, done.txid)


@operation(
    name="get_episode",
    title="Get an episode",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=GetEpisodeRequest,
    response=GetEpisodeResponse,
    rest=Rest("GET", "/episodes/{episode_id}"),
    read_only=True,
    idempotent=True,
    missing={"found": False},
)
async def get_episode(profile: Profile, request: GetEpisodeRequest) -> Reply:
    """Look at one episode with its steps, reward and reflection; call it when a summary is not enough."""
    found = await profile.read(lambda snapshot: _get(snapshot, request), as_of=request.as_of)
    return Reply(found.value, found.txid)


@operation(
    name="delete_episode",
    title="Delete an episode",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=DeleteEpisodeRequest,
    response=DeleteEpisodeResponse,
    rest=Rest("DELETE", "/episodes/{episode_id}"),
    destructive=True,
    idempotent=True,
    missing={"deleted": False},
    durable=True,
)
async def delete_episode(profile: Profile, request: DeleteEpisodeRequest) -> Reply:
    """Delete an episode for good, with all that was learnt from it alone; call it when it should not be remembered."""
    done = await profile.write(
        lambda transaction: delete(transaction, EpisodeRow.one(transaction.connection, request.episode_id)),
        create=False,
    )
    return Reply(DeleteEpisodeResponse(deleted=True, txid=done.txid), done.txid)


def prepare(request: NewEpisode, ambient: Ambient, path: str = "") -> EpisodeRow:
    """The row of a new episode, not in the file yet; `path` leads to it in the request.

    Raises:
        PayloadTooLarge: names the value.
    """
    now = ambient.now_ms()
    require_bounded(request.metadata, f"{path}metadata")
    known = {
        "language": request.language,
        "framework": request.framework,
        "complexity": request.complexity,
        "tags": list(dict.fromkeys(request.tags)),
        "metadata": request.metadata,
    }
    return EpisodeRow(
        rowid=0,
        id=new_episode_id(ambient, now),
        task_type=request.task_type,
        domain=request.domain,
        description=request.task_description,
        session_id=request.session_id,
        source=request.source,
        started_at=now if request.start_time is None else request.start_time,
        body={name: value for name, value in known.items() if value},
    )


def keep(
    transaction: Transaction, prepared: EpisodeRow, vector: Vector | None, model: str | None, *, given: bool
) -> tuple[EpisodeRow, bool]:
    """Write a new episode and its vector; the row, and whether the vector, if any, was of the profile's dimension."""
    row = replace(prepared, body=dict(prepared.body))
    row.insert(transaction)
    return row, embedding.keep(transaction, row.rowid, vector, model, given=given)


def _get(snapshot: Snapshot, request: GetEpisodeRequest) -> GetEpisodeResponse:
    row = EpisodeRow.one(snapshot.connection, request.episode_id)
    steps = steps_of(snapshot.connection, row.rowid) if request.steps else None
    return GetEpisodeResponse(episode=row.episode(), steps=steps)
