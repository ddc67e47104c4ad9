"""What a request says of a task to be done, and the episodes that are like it. Called by `recommend` and `playbook`."""

from __future__ import annotations

from dataclasses import dataclass

from memoturn_core.episodes.patterns.fit import Task
from memoturn_core.episodes.query import similar_episodes
from memoturn_core.episodes.rows import EpisodeRow
from memoturn_core.memory.recall import query_vector
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.recommendations import TaskRequest
from memoturn_storage.handle import Snapshot


@dataclass(frozen=True, slots=True)
class Question:
    """A task in words and, where it could be had, as a vector; `model` made that, None for a client's."""

    text: str
    vector: Vector | None
    model: str | None

    def similar(self, snapshot: Snapshot, count: int) -> list[tuple[int, float]]:
        """Rowids of episodes with their similarity, 0...1, the most similar first; equals by rowid."""
        found = similar_episodes(snapshot, self.text, self.vector, count, self.model)
        return sorted(found, key=lambda each: (-each[1], each[0]))


async def question(profile: Profile, request: TaskRequest) -> Question:
    """Asks the node's embedder, if there is one and the client gave no vector."""
    embedder = profile.node.embedder
    vector = await query_vector(profile.node, request.task_description, request.embedding)
    return Question(
        request.task_description,
        vector,
        embedder.model if embedder is not None and request.embedding is None else None,
    )


def task(request: TaskRequest, episode: EpisodeRow | None = None) -> Task:
    """What is known of the task; what the request leaves out is the episode's, if there is one.

    Raises:
        InvalidRequest: something is made a condition that nobody said.
    """
    body = {} if episode is None else episode.body
    known = Task(
        task_type=request.task_type or (None if episode is None else episode.task_type),
        domain=request.domain or (None if episode is None else episode.domain),
        language=request.language or body.get("language"),
        framework=request.framework or body.get("framework"),
        tags=frozenset(request.tags or body.get("tags", ())),
    )
    for place, feature in enumerate(request.only):
        if getattr(known, feature) is None:
            raise InvalidRequest(f"only[{place}]: {feature} can only be a condition where it is given")
    return known
