"""The tags of an episode, which may be changed at any time. The surfaces call it."""

from __future__ import annotations

from memoturn_core.episodes.rows import EpisodeRow
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episode_links import EpisodeTagsRequest, EpisodeTagsResponse
from memoturn_schemas.episodes import TAGS
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.handle import Transaction


@operation(
    name="episode_tags",
    title="Tag an episode",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=EpisodeTagsRequest,
    response=EpisodeTagsResponse,
    rest=Rest("POST", "/episodes/{episode_id}/tags"),
    idempotent=True,
)
async def episode_tags(profile: Profile, request: EpisodeTagsRequest) -> Reply:
    """Add or remove an episode's tags; call it to label it for later filtering. Answers all its tags."""
    done = await profile.write(lambda transaction: _change(transaction, request), create=False)
    answer = EpisodeTagsResponse(episode_id=request.episode_id, tags=done.value, txid=done.txid)
    return Reply(answer, done.txid)


def _change(transaction: Transaction, request: EpisodeTagsRequest) -> list[str]:
    row = EpisodeRow.one(transaction.connection, request.episode_id)
    tags = [tag for tag in dict.fromkeys([*row.tags, *request.add]) if tag not in request.remove]
    if len(tags) > TAGS:
        raise InvalidRequest(f"add: an episode has at most {TAGS} tags, and would have {len(tags)}")
    if tags != row.tags:
        row.body["tags"] = tags
        row.save(transaction)
    return tags
