"""The steps of an open episode: add them one by one.

A step is written beside its episode, whose row is not touched. What the same number is sent for again is a
`duplicate` where it says the same, be the episode completed or not, and a conflict where it does not. A step that
is sent without a time says nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import apsw
from pydantic_core import from_json

from memoturn_core.episodes.rows import (
    as_text,
    format_episode_id,
    parse_episode_id,
    step_number,
    step_rowid,
    steps_range,
)
from memoturn_core.memory.identity import canonical_json
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.episodes import (
    EPISODE_BYTES,
    STEP_NUMBER,
    STEPS,
    VALUE_BYTES,
    AddStepRequest,
    AddStepResponse,
    NewStep,
)
from memoturn_schemas.errors import Conflict, InvalidRequest, NotFound, PayloadTooLarge
from memoturn_storage.handle import Transaction


@operation(
    name="add_step",
    title="Add a step",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="episodes",
    request=AddStepRequest,
    response=AddStepResponse,
    rest=Rest("POST", "/episodes/{episode_id}/steps", status=201, other_statuses=(200,)),
    conflicts=True,
    durable=True,
)
async def add_step(profile: Profile, request: AddStepRequest) -> Reply:
    """Record one step of an episode and how it went; call it after each tool that was used for the task.

    With its step_number, a step may be sent again without harm.
    """
    prepared = prepare(request, profile.node.ambient.now_ms())
    key = parse_episode_id(request.episode_id)
    done = await profile.write(lambda transaction: add(transaction, key, prepared), create=False)
    number, count, status = done.value
    answer = AddStepResponse(
        episode_id=request.episode_id, step_number=number, step_count=count, status=status, txid=done.txid
    )
    return Reply(answer, done.txid, 200 if status == "duplicate" else None)


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A step with all that can be worked out before the transaction."""

    number: int | None
    timestamp: int
    timed: bool
    """Whether the time was given, and is not just now."""
    body: str
    size: int
    """Bytes of the body."""

    def says_the_same_as(self, body: str) -> bool:
        said, mine = from_json(body), from_json(self.body)
        if not self.timed:
            said["timestamp"] = self.timestamp
        return canonical_json(said) == canonical_json(mine)


def prepare(step: NewStep, now: int, path: str = "") -> PreparedStep:
    """`path` leads to the step in the request.

    Raises:
        PayloadTooLarge: names the value.
    """
    timestamp = now if step.timestamp is None else step.timestamp
    body = as_text(
        {
            "timestamp": timestamp,
            "tool": step.tool,
            "action": step.action,
            "parameters": step.parameters,
            "result": None if step.result is None else step.result.model_dump(),
            "latency_ms": step.latency_ms,
            "tokens_used": step.tokens_used,
            "metadata": step.metadata,
        }
    )
    size = len(body.encode())
    if size > VALUE_BYTES:
        require_bounded(step.parameters, f"{path}parameters")
        require_bounded(step.metadata, f"{path}metadata")
    return PreparedStep(step.step_number, timestamp, step.timestamp is not None, body, size)


def require_bounded(value: dict[str, Any], path: str) -> None:
    """Raises `PayloadTooLarge` for a JSON value above the limit."""
    size = len(as_text(value).encode())
    if size > VALUE_BYTES:
        raise PayloadTooLarge(f"{path}: must be at most {VALUE_BYTES} bytes of JSON, not {size}")


def insert(connection: apsw.Connection, rowid: int, number: int, step: PreparedStep) -> None:
    """Write a step of the episode with this rowid under a number that is free."""
    connection.execute(
        "INSERT INTO __memoturn_episode_steps (rowid, size, body) VALUES (?, ?, ?)",
        (step_rowid(rowid, number), step.size, step.body),
    )


def add(transaction: Transaction, key: bytes, step: PreparedStep) -> tuple[int, int, Literal["created", "duplicate"]]:
    """The step's number, how many there are with it, and what became of it; `key` is the episode's id."""
    connection = transaction.connection
    row: Any = connection.execute(
        "SELECT rowid, octet_length(description), outcome FROM __memoturn_episodes WHERE id = ?", (key,)
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no episode {format_episode_id(key)}")
    rowid, described, outcome = row
    found: Any = connection.execute(
        "SELECT count(*), coalesce(sum(size), 0), coalesce(max(rowid), 0) FROM __memoturn_episode_steps"
        " WHERE rowid BETWEEN ? AND ?",
        steps_range(rowid),
    ).fetchone()
    count, size, last = found
    highest = step_number(last)
    number = highest + 1 if step.number is None else step.number
    if number <= highest and _is_there(connection, rowid, number, step):
        return number, count, "duplicate"
    if outcome is not None:
        raise Conflict(f"episode {format_episode_id(key)} is completed and takes no further step")
    require_room(count + 1, number, described + size + step.size)
    insert(connection, rowid, number, step)
    return number, count + 1, "created"


def _is_there(connection: apsw.Connection, rowid: int, number: int, step: PreparedStep) -> bool:
    found = connection.execute(
        "SELECT body FROM __memoturn_episode_steps WHERE rowid = ?", (step_rowid(rowid, number),)
    ).get
    if found is None:
        return False
    if not step.says_the_same_as(cast("str", found)):
        raise Conflict(f"step_number: step {number} is there already and says something else")
    return True


def require_room(count: int, number: int, size: int, path: str = "") -> None:
    """Whether an episode may have so many steps, this number of a step, and be so large.

    Raises:
        InvalidRequest, PayloadTooLarge.
    """
    if count > STEPS:
        raise InvalidRequest(f"{path}step_number: an episode has at most {STEPS} steps")
    if number > STEP_NUMBER:
        raise InvalidRequest(f"{path}step_number: must be at most {STEP_NUMBER}, and the step before has that")
    if size > EPISODE_BYTES:
        raise PayloadTooLarge(
            f"{path}parameters: with this step the episode would have {size} bytes; it may have {EPISODE_BYTES}"
        )
