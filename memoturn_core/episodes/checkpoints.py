"""Checkpoints of an open episode: points to which a handoff may go back. The surfaces call it."""

from __future__ import annotations

from memoturn_core.episodes.rows import EpisodeRow, step_number, steps_range
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episode_links import CheckpointEpisodeRequest, CheckpointEpisodeResponse
from memoturn_schemas.episodes import EpisodeCheckpoint
from memoturn_schemas.errors import Conflict, InvalidRequest
from memoturn_storage.handle import Transaction

CHECKPOINTS = 100
_ID_BYTES = 8


@operation(
    name="checkpoint_episode",
    title="Checkpoint an episode",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=CheckpointEpisodeRequest,
    response=CheckpointEpisodeResponse,
    rest=Rest("POST", "/episodes/{episode_id}/checkpoints", status=201),
    conflicts=True,
)
async def checkpoint_episode(profile: Profile, request: CheckpointEpisodeRequest) -> Reply:
    """Mark how far an open episode is; call it before a risky step, or where another agent could go on from.

    get_handoff_pack takes its checkpoint_id.
    """
    done = await profile.write(lambda transaction: _mark(transaction, request), create=False)
    answer = CheckpointEpisodeResponse(episode_id=request.episode_id, checkpoint=done.value, txid=done.txid)
    return Reply(answer, done.txid)


def _mark(transaction: Transaction, request: CheckpointEpisodeRequest) -> EpisodeCheckpoint:
    connection = transaction.connection
    row = EpisodeRow.one(connection, request.episode_id)
    marked = row.episode()["checkpoints"]
    if row.completed:
        raise Conflict(f"episode {row.episode_id} is completed; only an open one is checkpointed")
    if len(marked) >= CHECKPOINTS:
        raise InvalidRequest(f"episode_id: an episode has at most {CHECKPOINTS} checkpoints")
    last = connection.execute(
        "SELECT coalesce(max(rowid), 0) FROM __memoturn_episode_steps WHERE rowid BETWEEN ? AND ?",
        steps_range(row.rowid),
    ).get
    checkpoint = EpisodeCheckpoint(
        checkpoint_id=f"cp_{transaction.ambient.token(_ID_BYTES).hex()}",
        created_at=transaction.ambient.now_ms(),
        step_number=step_number(last),
        note=request.note,
    )
    row.body["checkpoints"] = [*marked, checkpoint]
    row.save(transaction)
    return checkpoint
