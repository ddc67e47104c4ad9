"""Handing an episode over: what the next agent needs to go on, as a pack, and going on from one.

    open or completed episode --get_handoff_pack--> pack --resume_from_handoff--> open episode that continues it

A pack is a value: the same episode in the same state gives the same pack, whose id is a hash of it. It may be carried
to another profile. What it tells is bounded part by part, and `truncated` says what was left out.

A pack is taken up once at a time: as long as the episode that was made of it is open, resuming it again answers that
episode, so that a request may be repeated; once it is completed, the pack begins another. The id of such an episode
is made of that of its pack, so that it is found without being looked for. Called by the surfaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import apsw
from pydantic import TypeAdapter, ValidationError

from memoturn_core.episodes import embedding, relationships
from memoturn_core.episodes.course import so_far
from memoturn_core.episodes.episodes import fill_defaults, keep, prepare
from memoturn_core.episodes.experience import Experience, succeeded
from memoturn_core.episodes.patterns import offers
from memoturn_core.episodes.patterns.known import patterns_of
from memoturn_core.episodes.recoveries import recoveries_of
from memoturn_core.episodes.rows import EpisodeRow, format_episode_id, parse_episode_id, steps_of
from memoturn_core.episodes.salience import decision
from memoturn_core.episodes.summary import summarise_open
from memoturn_core.episodes.wording import line, remedy
from memoturn_core.memory.identity import canonical_json
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.episode_links import (
    HandoffPack,
    HandoffRequest,
    HandoffResponse,
    PackedDecision,
    PackedFailure,
    PackedOrigin,
    PackedPattern,
    PackedState,
    PackedStep,
    PackedTask,
    ResumeRequest,
    ResumeResponse,
)
from memoturn_schemas.episodes import NewEpisode, Step
from memoturn_schemas.errors import NotFound
from memoturn_storage.handle import Snapshot, Transaction

T = TypeVar("T")

HANDOFF = "handoff"
"""Where the metadata of a resumed episode hold its pack."""
_METADATA_BYTES = 4_000
_LIMITS = {
    **{"done": 30, "failures": 20, "decisions": 20, "pending": 20, "patterns": 20, "state.remaining": 20, "earlier": 5}
}
"""Entries of each list."""
_LIST_BYTES = 8_000
"""And how large its JSON may be."""
_CHARACTERS, _LONG_CHARACTERS = 200, 400

_PACK: TypeAdapter[HandoffPack] = TypeAdapter(HandoffPack)


@operation(
    name="get_handoff_pack",
    title="Get a handoff pack",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="episodes",
    request=HandoffRequest,
    response=HandoffResponse,
    rest=Rest("GET", "/episodes/{episode_id}/handoff"),
    read_only=True,
    idempotent=True,
)
async def get_handoff_pack(profile: Profile, request: HandoffRequest) -> Reply:
    """Get all that another agent needs to go on with an episode; call it before work changes hands.

    The task, what was done, what failed and why, decisions, what is pending. Give it to resume_from_handoff.
    """
    found = await profile.read(lambda snapshot: _pack(snapshot, request), as_of=request.as_of, long=True)
    return Reply(HandoffResponse(pack=found.value), found.txid)


@operation(
    name="resume_from_handoff",
    title="Resume from a handoff",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=ResumeRequest,
    response=ResumeResponse,
    rest=Rest("POST", "/episodes/resume", status=201, other_statuses=(200,)),
    idempotent=True,
    fill_defaults=fill_defaults,
)
async def resume_from_handoff(profile: Profile, request: ResumeRequest) -> Reply:
    """Take over work from a handoff pack; call it to go on where another agent stopped.

    Begins an episode of the same task, with the pack as `metadata.handoff`; while that is open, the same pack
    answers it again.
    """
    row = _row(request, profile)
    [vector] = await embedding.prepare(profile.node, [row.description], [None])
    model = profile.node.embedder.model if profile.node.embedder is not None else None
    done = await profile.write(lambda transaction: _resume(transaction, request.pack, row, vector, model))
    answer: dict[str, Any] = done.value
    status = 200 if answer["status"] == "duplicate" else None
    return Reply({**answer, "txid": done.txid}, done.txid, status)


# --- a pack is made ------------------------------------------------------------------------------


class _Parts:
    """The lists of a pack, each cut to its bounds, and notes of what was cut."""

    def __init__(self) -> None:
        self.truncated: list[str] = []

    def first(self, path: str, entries: Sequence[T]) -> list[T]:
        """As many of the first entries as fit."""
        kept: list[T] = []
        left = _LIST_BYTES
        for entry in entries[: _LIMITS[path]]:
            left -= len(canonical_json(entry).encode())
            if left < 0:
                break
            kept.append(entry)
        if len(kept) < len(entries):
            self.truncated.append(f"{path}: {len(kept)} of {len(entries)} are here")
        return kept

    def latest(self, path: str, entries: Sequence[T]) -> list[T]:
        """As many of the last entries as fit."""
        return self.first(path, entries[::-1])[::-1]


def _pack(snapshot: Snapshot, request: HandoffRequest) -> HandoffPack:
    row = EpisodeRow.one(snapshot.connection, request.episode_id)
    steps = steps_of(snapshot.connection, row.rowid)
    checkpoint = None
    if request.checkpoint_id is not None:
        marked = {each["checkpoint_id"]: each for each in row.episode()["checkpoints"]}
        checkpoint = marked.get(request.checkpoint_id)
        if checkpoint is None:
            raise NotFound(f"checkpoint_id: episode {row.episode_id} has no checkpoint {request.checkpoint_id}")
        steps = [step for step in steps if step["step_number"] <= checkpoint["step_number"]]
    course = so_far(row, steps)
    ended = checkpoint is None and row.completed
    parts = _Parts()
    before = _before(row, parts)
    pack = HandoffPack(
        version=1,
        pack_id="",
        origin=PackedOrigin(
            episode_id=row.episode_id,
            checkpoint_id=None if checkpoint is None else checkpoint["checkpoint_id"],
            note=None if checkpoint is None else checkpoint["note"],
            source=row.source,
        ),
        task=_task(row, parts),
        state=_state(row, course, ended, parts),
        summary=row.body["summary"]["text"] if ended else summarise_open(course)["text"],
        done=parts.latest("done", _done(course)),
        failures=parts.latest("failures", _failures(course)),
        decisions=parts.latest("decisions", _decisions(course)),
        pending=parts.latest("pending", [_step(step) for step in steps if step["result"] is None]),
        patterns=parts.first("patterns", _patterns(snapshot, row)),
        earlier=parts.latest("earlier", [] if before is None else [*before["earlier"], before["summary"]]),
        truncated=parts.truncated,
    )
    pack["pack_id"] = f"pack_{hashlib.sha256(canonical_json(pack).encode()).hexdigest()[:32]}"
    return pack


def _task(row: EpisodeRow, parts: _Parts) -> PackedTask:
    context = row.context
    metadata = {name: value for name, value in row.body.get("metadata", {}).items() if name != HANDOFF}
    size = len(canonical_json(metadata).encode())
    if size > _METADATA_BYTES:
        parts.truncated.append(f"task.metadata: none of its {size} bytes are here")
        metadata = {}
    return PackedTask(task_description=row.description, task_type=row.task_type, metadata=metadata, **context)


def _state(row: EpisodeRow, course: Experience, ended: bool, parts: _Parts) -> PackedState:
    outcome = row.body["outcome"] if ended else {}
    said = line(outcome.get("verdict") or outcome.get("reason") or "", _CHARACTERS)
    remaining = [line(each, _CHARACTERS) for each in outcome.get("failed", ())]
    until = row.ended_at if ended and row.ended_at is not None else course.ended_at
    return PackedState(
        step_count=len(course.steps),
        last_step=course.steps[-1]["step_number"] if course.steps else 0,
        elapsed_ms=min(until - row.started_at, 2**63 - 1),
        outcome=row.outcome if ended else None,
        said=said or None,
        remaining=parts.first("state.remaining", remaining),
    )


def _step(step: Step) -> PackedStep:
    action = line(step["action"], _CHARACTERS)
    return PackedStep(step_number=step["step_number"], tool=step["tool"], action=action)


def _done(course: Experience) -> list[PackedStep]:
    return [_step(step) for step in course.steps if succeeded(step)]


def _failures(course: Experience) -> list[PackedFailure]:
    """With the whole message as far as it fits, for the next agent may see more in it than its class."""
    made_good = recoveries_of(course)
    failures = []
    for step in course.failures:
        recovery = made_good.get(step["step_number"])
        failures.append(
            PackedFailure(
                **_step(step),
                error=line(_message(step), _LONG_CHARACTERS),
                recovered_by=None if recovery is None else [each["step_number"] for each in remedy(recovery)],
            )
        )
    return failures


def _message(step: Step) -> str:
    result = step["result"]
    return "timeout" if result is None else result.get("message", "timeout")


def _decisions(course: Experience) -> list[PackedDecision]:
    return [PackedDecision(step_number=step["step_number"], decision=decision(step)) for step in course.decisions]


def _patterns(snapshot: Snapshot, row: EpisodeRow) -> list[PackedPattern]:
    """What was recommended for the episode last, and what feedback says was applied, as far as it still counts."""
    applied = {each["pattern_id"]: each["outcome"] for each in row.episode()["applied_patterns"]}
    named = dict.fromkeys([*_offered(snapshot.connection, row.rowid), *applied])
    if not named:
        return []
    known = {pattern.pattern_id: pattern for pattern in patterns_of(snapshot)}
    return [
        PackedPattern(
            pattern_id=pattern_id,
            text=line(known[pattern_id].text, _LONG_CHARACTERS),
            avoid=known[pattern_id].goes_with == "failure",
            outcome=applied.get(pattern_id),
        )
        for pattern_id in named
        if pattern_id in known
    ]


def _offered(connection: apsw.Connection, rowid: int) -> list[str]:
    found: bytes | None = connection.execute(
        "SELECT id FROM __memoturn_recommendations WHERE episode = ? ORDER BY rowid DESC LIMIT 1", (rowid,)
    ).get
    return [] if found is None else list(offers.find(connection, f"rec_{found.hex()}").offers)


def _before(row: EpisodeRow, parts: _Parts) -> HandoffPack | None:
    """The pack that the episode was resumed from; metadata are anybody's to write, so it may be anything."""
    metadata = row.body.get("metadata", {})
    if HANDOFF not in metadata:
        return None
    try:
        return _PACK.validate_python(metadata[HANDOFF], strict=True)
    except ValidationError:
        parts.truncated.append(f"task.metadata.{HANDOFF}: it is no pack, and its place is taken by this one")
        return None


# --- a pack is taken up --------------------------------------------------------------------------


def _row(request: ResumeRequest, profile: Profile) -> EpisodeRow:
    """The episode that the pack would begin."""
    task = request.pack["task"]
    told = {**request.pack, "task": {**task, "metadata": {}}}
    metadata = {**task["metadata"], HANDOFF: told}
    where = {"session_id": request.session_id, "source": request.source}
    new = NewEpisode.model_validate({**task, "metadata": metadata, **where})
    return prepare(new, profile.node.ambient, "pack.task.")


def _resume(
    transaction: Transaction, pack: HandoffPack, prepared: EpisodeRow, vector: Vector | None, model: str | None
) -> dict[str, Any]:
    connection = transaction.connection
    id_, row = _taken_up(connection, pack["pack_id"])
    status = "duplicate"
    origin: int | None = connection.execute(
        "SELECT rowid FROM __memoturn_episodes WHERE id = ?", (parse_episode_id(pack["origin"]["episode_id"]),)
    ).get
    if row is None:
        row, _ = keep(transaction, replace(prepared, id=id_), vector, model, given=False)
        status = "created"
        if origin is not None:
            relationships.add(transaction, row.rowid, origin, "continues", None, "pack.origin.episode_id")
    return {
        "episode_id": row.episode_id,
        "status": status,
        "continues": None if origin is None else pack["origin"]["episode_id"],
        "start_time": row.started_at,
    }


def _taken_up(connection: apsw.Connection, pack_id: str) -> tuple[bytes, EpisodeRow | None]:
    """The open episode that was made of a pack; or none, and the id of the one that it would begin."""
    time = 0
    while True:
        id_ = _id_of(pack_id, time)
        try:
            row = EpisodeRow.one(connection, format_episode_id(id_))
        except NotFound:
            return id_, None
        if not row.completed:
            return id_, row
        time += 1


def _id_of(pack_id: str, time: int) -> bytes:
    """A UUID of version 8: of the episode that is begun with a pack for the `time`th time."""
    id_ = bytearray(hashlib.sha256(f"{pack_id}\0{time}".encode()).digest()[:16])
    id_[6] = 0x80 | id_[6] & 0x0F
    id_[8] = 0x80 | id_[8] & 0x3F
    return bytes(id_)
