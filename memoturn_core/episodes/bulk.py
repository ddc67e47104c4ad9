"""Whole episodes at once, from somewhere else: with their past, judged and learnt from like those that happen here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memoturn_core.episodes import embedding, episodes, steps
from memoturn_core.episodes.completion import complete, end_of, outcome_of
from memoturn_core.episodes.medians import Length, Medians, medians_of
from memoturn_core.episodes.rows import EpisodeRow, format_episode_id, steps_of
from memoturn_core.episodes.steps import PreparedStep
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.episodes import (
    BulkEpisodesRequest,
    BulkEpisodesResponse,
    Outcome,
    WholeEpisode,
)
from memoturn_schemas.errors import InvalidRequest, RequestTimeout
from memoturn_storage.ambient import Ambient
from memoturn_storage.handle import Transaction

_MANY = 200
"""Episodes and steps together that take some 10 ms to write."""


def fill_defaults(arguments: dict[str, Any], source: str | None) -> dict[str, Any]:
    """As of `create_episode`, for each of them."""
    given = arguments.get("episodes")
    if not isinstance(given, list):
        return arguments
    filled = [episodes.fill_defaults(each, source) if isinstance(each, dict) else each for each in given]
    return {**arguments, "episodes": filled}


@operation(
    name="bulk_episodes",
    title="Import episodes",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=BulkEpisodesRequest,
    response=BulkEpisodesResponse,
    rest=Rest("POST", "/episodes/bulk", status=201),
    fill_defaults=fill_defaults,
    durable=True,
)
async def bulk_episodes(profile: Profile, request: BulkEpisodesRequest) -> Reply:
    """Keep whole episodes that have a past, at most 100; call it to import what was recorded elsewhere.

    All are kept, each completed in its turn if it has an outcome, or none.
    """
    node = profile.node
    prepared = [_prepare(whole, node.ambient, f"episodes[{n}].") for n, whole in enumerate(request.episodes)]
    vectors = await embedding.prepare(
        node, [whole.task_description for whole in request.episodes], [whole.embedding for whole in request.episodes]
    )
    medians = await medians_of(profile) if profile.exists() else Medians()
    model = None if node.embedder is None else node.embedder.model
    many = sum(1 + len(episode.steps) for episode in prepared) > _MANY

    def work(transaction: Transaction) -> tuple[list[str], list[str]]:
        if many and transaction.hurried:
            raise RequestTimeout("many episodes are written where fewer wait for them")
        return _keep(transaction, prepared, vectors, model, medians)

    done = await profile.write(work, long=many)
    ids, skipped = done.value
    answer = BulkEpisodesResponse(episode_ids=ids, txid=done.txid)
    if skipped:
        answer["skipped_dimension"] = skipped
    return Reply(answer, done.txid)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An episode with all that can be worked out before the transaction."""

    row: EpisodeRow
    steps: Sequence[tuple[int, PreparedStep]]
    outcome: Outcome | None
    ended_at: int
    given_vector: bool


def _prepare(whole: WholeEpisode, ambient: Ambient, path: str) -> _Prepared:
    now = ambient.now_ms()
    row = episodes.prepare(whole, ambient, path)
    if whole.outcome is None and whole.end_time is not None:
        raise InvalidRequest(f"{path}end_time: an episode without an outcome has not ended")
    return _Prepared(
        row,
        _prepare_steps(whole, now, path),
        None if whole.outcome is None else outcome_of(whole.outcome),
        end_of(row.started_at, whole.end_time, now, path),
        whole.embedding is not None,
    )


def _prepare_steps(whole: WholeEpisode, now: int, path: str) -> list[tuple[int, PreparedStep]]:
    numbered: dict[int, PreparedStep] = {}
    highest = 0
    size = len(whole.task_description.encode())
    for place, step in enumerate(whole.steps):
        within = f"{path}steps[{place}]."
        prepared = steps.prepare(step, now, within)
        number = highest + 1 if prepared.number is None else prepared.number
        size += prepared.size
        steps.require_room(len(numbered) + 1, number, size, within)
        if number in numbered:
            raise InvalidRequest(f"{within}step_number: there is a step {number} before it")
        numbered[number] = prepared
        highest = max(highest, number)
    return sorted(numbered.items())


def _keep(
    transaction: Transaction,
    prepared: Sequence[_Prepared],
    vectors: Sequence[Vector | None],
    model: str | None,
    medians: Medians,
) -> tuple[list[str], list[str]]:
    """The ids, and those of episodes whose vectors were not kept."""
    ids, skipped = [], []
    completed: defaultdict[str, list[Length]] = defaultdict(list)
    for episode, vector in zip(prepared, vectors, strict=True):
        row, kept = episodes.keep(transaction, episode.row, vector, model, given=episode.given_vector)
        ids.append(format_episode_id(row.id))
        if not kept:
            skipped.append(ids[-1])
        for number, step in episode.steps:
            steps.insert(transaction.connection, row.rowid, number, step)
        if episode.outcome is not None:
            before = completed[row.domain]
            taken = steps_of(transaction.connection, row.rowid)
            complete(transaction, row, taken, episode.outcome, episode.ended_at, medians.typical(row.domain, before))
            before.append(Length.of(row.started_at, episode.ended_at, len(taken)))
    return ids, skipped
