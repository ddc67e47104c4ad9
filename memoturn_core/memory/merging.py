"""Diff and merge of branches, memory by memory; what differs is worked out in `changes`.

A merge replays what one branch has come to since the fork through ingest into another: in one transaction, with
supersession, so that the other's history is kept. What is active on both is a duplicate, and what the other has
replaced since is left alone, so that a merge which is repeated changes nothing. Memories are kept as of the time of
the merge, with the session, the source, the vector and the rest of the ttl that they had. Nothing is forgotten for
it unless that is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import apsw

from memoturn_core.memory import rows
from memoturn_core.memory.changes import Changes, Standing, State, Topic, Verdict, conflicts, judge, replayable
from memoturn_core.memory.identity import format_id, parse_id
from memoturn_core.memory.ingest import Prepared, assert_one
from memoturn_core.memory.rows import COLUMNS, Row, bound
from memoturn_core.memory.sessions import touch
from memoturn_core.memory.vectors import Embeddings, MemoryVectors
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.errors import Conflict, InvalidRequest, NotFound, Unavailable
from memoturn_schemas.memory import IngestResult, MemoryItem
from memoturn_schemas.merging import (
    MERGE_LIMIT,
    BranchChanges,
    ChangeCounts,
    ConflictSide,
    DiffRequest,
    DiffResponse,
    MergeRequest,
    MergeResponse,
    OnConflict,
    ResolvedConflict,
    TopicConflict,
)
from memoturn_storage.ancestry import fork_of
from memoturn_storage.branching import Moment
from memoturn_storage.handle import Result, Snapshot, Transaction

T = TypeVar("T")

_NAMED_TOPICS = 10
"""Topics that the error of a merge names."""


@operation(
    name="branch_diff",
    title="Compare branches",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    request=DiffRequest,
    response=DiffResponse,
    rest=Rest("GET", "/branches/{branch}/diff", also_at="/v1/databases/{db}"),
    read_only=True,
    idempotent=True,
    conflicts=True,
    whole_database=True,
)
async def diff(profile: Profile, request: DiffRequest) -> Reply:
    """Compare what two branches remember; call it before a merge or promotion, to see what came of an attempt.

    Lists what each has created, revived, superseded and forgotten since they parted, and the topics on which
    they disagree.
    """
    if request.against == request.branch:
        raise InvalidRequest(f"against: must be another branch than {request.branch}")
    base = await _base(profile, request.branch, request.against)
    theirs = await _read(profile, request.branch, base, lambda snapshot: State.of(snapshot.connection, base.now_ms))
    ours = await _read(profile, request.against, base, lambda snapshot: State.of(snapshot.connection, base.now_ms))
    disputed = conflicts(base.state, ours.value, theirs.value)
    return Reply(
        DiffResponse(
            fork_txid=base.txid,
            branch=_changes(request.branch, base, theirs, request.limit),
            against=_changes(request.against, base, ours, request.limit),
            conflicts=[
                TopicConflict(
                    type=mine.type,
                    topic_key=mine.topic_key or "",
                    branch=_conflict_side(theirs.value, other),
                    against=_conflict_side(ours.value, mine),
                )
                for mine, other in disputed[: request.limit]
            ],
            conflict_count=len(disputed),
        )
    )


@operation(
    name="branch_merge",
    title="Merge a branch",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    request=MergeRequest,
    response=MergeResponse,
    rest=Rest("POST", "/branches/{branch}/merge", also_at="/v1/databases/{db}"),
    conflicts=True,
    destructive=True,
    idempotent=True,
    durable=True,
    whole_database=True,
)
async def merge(profile: Profile, request: MergeRequest) -> Reply:
    """Take what a branch has learnt into another; call it when an attempt has worked and the other has gone on too.

    Everything, or only some topics and ids. Merging again changes nothing. To make main what the branch is,
    promote it.
    """
    if request.into == request.branch:
        raise InvalidRequest(f"into: must be another branch than {request.branch}")
    base = await _base(profile, request.branch, request.into)
    brought = (await _read(profile, request.branch, base, lambda snapshot: _choose(snapshot, base, request))).value
    done = await profile.on(request.into).write(
        lambda transaction: _merge(transaction, base, brought, request.on_conflict), create=False, long=True
    )
    return Reply(
        MergeResponse(
            branch=request.branch,
            into=request.into,
            fork_txid=base.txid,
            results=done.value.results,
            unchanged=done.value.unchanged,
            conflicts=done.value.conflicts,
            forgotten=done.value.forgotten,
            txid=done.txid,
        ),
        done.txid,
    )


# --- the two branches and what they started from -------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Base:
    """What both branches started from, at transaction `txid`; all states are looked at as of `now_ms`."""

    txid: int
    state: State
    now_ms: int


async def _base(profile: Profile, one: str, other: str) -> _Base:
    node, now_ms = profile.node, profile.node.ambient.now_ms()

    def found() -> _Base:
        manifests = [node.branching.shipped_manifest(profile.branch(name)) for name in (one, other)]
        fork = fork_of(node.engine.manifests, node.engine.restorer, *manifests)
        if fork.txid == 0:
            return _Base(0, State(()), now_ms)
        then = node.past.read(
            fork.kept_by, Moment(txid=fork.txid), lambda snapshot: State.of(snapshot.connection, now_ms)
        )
        return _Base(fork.txid, then.value, now_ms)

    return await node.wait_for(found)


async def _read(profile: Profile, branch: str, base: _Base, work: Callable[[Snapshot], T]) -> Result[T]:
    """Run `work` beside the branch's other jobs, for all of its memories are looked at."""
    read = await asyncio.wrap_future(profile.node.engine.read_aside(profile.branch(branch), work))
    if read.txid < base.txid:
        raise Unavailable(f"the history of {branch} was replaced meanwhile; try again")
    return read


# --- diff ----------------------------------------------------------------------------------------


def _changes(branch: str, base: _Base, read: Result[State], limit: int) -> BranchChanges:
    changes = Changes.between(base.state, read.value)
    return BranchChanges(
        branch=branch,
        txid=read.txid,
        created=[standing.change() for standing in changes.created[:limit]],
        revived=[standing.change() for standing in changes.revived[:limit]],
        superseded=[standing.change() for standing in changes.superseded[:limit]],
        forgotten=[standing.forgotten() for standing in changes.forgotten[:limit]],
        counts=ChangeCounts(
            created=len(changes.created),
            revived=len(changes.revived),
            superseded=len(changes.superseded),
            forgotten=len(changes.forgotten),
        ),
    )


def _conflict_side(state: State, standing: Standing) -> ConflictSide:
    return ConflictSide(id=format_id(standing.id), summary=standing.summary, active_since=state.active_since(standing))


# --- merge: what is taken along ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Carried:
    """A memory on its way: ready to be ingested, and the model of its vector, if that is known."""

    standing: Standing
    prepared: Prepared
    model: str | None


@dataclass(frozen=True, slots=True)
class _Brought:
    """What a branch brings into another. `state` is that of the branch."""

    state: State
    carried: list[_Carried]
    forgotten: list[Standing]


def _choose(snapshot: Snapshot, base: _Base, request: MergeRequest) -> _Brought:
    state = State.of(snapshot.connection, base.now_ms)
    forgotten = Changes.between(base.state, state).forgotten
    _require_known(request, [*state, *forgotten])
    topics, ids = set(request.topics or ()), {parse_id(id_) for id_ in request.ids or ()}
    everything = request.topics is None and request.ids is None

    def chosen(standing: Standing) -> bool:
        return everything or standing.topic_key in topics or standing.id in ids

    def stands(standing: Standing) -> bool:
        """Whether its topic came to something on the branch; what it only passed through says nothing by itself."""
        return standing.topic is None or standing.topic in state.active or standing.id in ids

    picked = [standing for standing in replayable(base.state, state) if chosen(standing) and stands(standing)]
    if len(picked) > MERGE_LIMIT:
        raise Conflict(f"{len(picked)} memories are to be merged, {MERGE_LIMIT} at most at once: choose topics or ids")
    dropped = [standing for standing in forgotten if chosen(standing)] if request.forget else []
    return _Brought(state, _carried(snapshot.connection, picked, base.now_ms), dropped)


def _require_known(request: MergeRequest, standings: Sequence[Standing]) -> None:
    """Raise `NotFound` for what the branch has never had: it is misspelt, and would do nothing."""
    topics, ids = {standing.topic_key for standing in standings}, {standing.id for standing in standings}
    for position, topic in enumerate(request.topics or ()):
        if topic not in topics:
            raise NotFound(f"topics[{position}]: {request.branch} has nothing on this topic")
    for position, id_ in enumerate(request.ids or ()):
        if parse_id(id_) not in ids:
            raise NotFound(f"ids[{position}]: {request.branch} has no such memory")


def _carried(connection: apsw.Connection, picked: Sequence[Standing], now_ms: int) -> list[_Carried]:
    if not picked:
        return []
    found: list[Any] = connection.execute(
        f"SELECT {COLUMNS} FROM __memoturn_memories WHERE rowid IN carray(?)",
        (bound(standing.rowid for standing in picked),),
    ).fetchall()
    by_rowid = {row.rowid: row for row in (Row(*values) for values in found)}
    model = Embeddings.of(connection).model
    carried = []
    for standing in picked:
        row = by_rowid[standing.rowid]
        vector, of_model = MemoryVectors.vector_of(connection, row.rowid, model)
        prepared = Prepared(_item(row, now_ms), row.id, row.content, vector)
        carried.append(_Carried(standing, prepared, of_model))
    return carried


def _item(row: Row, now_ms: int) -> MemoryItem:
    # Its content stays the text that the row has; the id is made of it.
    return MemoryItem(
        type=row.type,
        topic_key=row.topic_key,
        summary=row.summary,
        keywords=row.keywords,
        session_id=row.session_id,
        source=row.source,
        ttl=None if row.expires_at is None else -((now_ms - row.expires_at) // 1_000),
    )


# --- merge: what comes of it ---------------------------------------------------------------------


@dataclass(slots=True)
class _Merged:
    results: list[IngestResult] = field(default_factory=list)
    unchanged: int = 0
    conflicts: list[ResolvedConflict] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


def _merge(transaction: Transaction, base: _Base, brought: _Brought, on_conflict: OnConflict) -> _Merged:
    merged = _Merged(forgotten=_forget(transaction, brought.forgotten))
    now = transaction.ambient.now_ms()
    ours = State.of(transaction.connection, now)
    wins = _winning_topics(base.state, ours, brought, on_conflict, merged)
    sessions: set[str] = set()
    for carried in brought.carried:
        if not _is_news(carried.standing, ours, wins):
            merged.unchanged += 1
            continue
        merged.results.append(_replay(transaction, carried, now))
        if carried.prepared.item.session_id is not None:
            sessions.add(carried.prepared.item.session_id)
    for session_id in sorted(sessions):
        touch(transaction, session_id, now)
    return merged


def _winning_topics(
    base: State, ours: State, brought: _Brought, on_conflict: OnConflict, merged: _Merged
) -> dict[Topic, Standing]:
    """The topics on which the branch has the last word, and that word; conflicts are noted in `merged`.

    Raises:
        Conflict: where they are to `fail`.
    """
    proposed = {each.standing.topic: each.standing for each in brought.carried}  # the last one of each topic
    wins: dict[Topic, Standing] = {}
    for topic, standing in proposed.items():
        if topic is None:
            continue
        verdict = judge(topic, base, ours, brought.state, standing)
        if verdict is Verdict.NEITHER:
            verdict = _resolved(ours, ours.active[topic], brought.state, standing, on_conflict)
            merged.conflicts.append(
                ResolvedConflict(
                    type=standing.type,
                    topic_key=topic[1],
                    ours=format_id(ours.active[topic].id),
                    theirs=format_id(standing.id),
                    taken="theirs" if verdict is Verdict.THEIRS else "ours",
                )
            )
        if verdict is Verdict.THEIRS:
            wins[topic] = standing
    if merged.conflicts and on_conflict == "fail":
        raise Conflict(_disagreement(merged.conflicts))
    return wins


def _resolved(ours: State, mine: Standing, theirs: State, other: Standing, on_conflict: OnConflict) -> Verdict:
    newer = theirs.active_since(other) > ours.active_since(mine)
    taken = on_conflict == "theirs" or (on_conflict == "newest" and newer)
    return Verdict.THEIRS if taken else Verdict.OURS


def _is_news(standing: Standing, ours: State, wins: dict[Topic, Standing]) -> bool:
    """Whether it is to be replayed: on a topic that is won, its last word, and what led to it and is not known yet."""
    if standing.topic is None:
        return ours.get(standing.id) is None
    last = wins.get(standing.topic)
    return last is not None and (standing.id == last.id or ours.get(standing.id) is None)


def _replay(transaction: Transaction, carried: _Carried, now: int) -> IngestResult:
    """Ingest one memory. A vector of another model than the node's here is left to be made anew."""
    model = Embeddings.of(transaction.connection).model
    if carried.prepared.vector is not None and (carried.model is None or model in (None, carried.model)):
        return assert_one(transaction, carried.prepared, now, carried.model)[0]
    return assert_one(transaction, replace(carried.prepared, vector=None), now, model)[0]


def _forget(transaction: Transaction, standings: Sequence[Standing]) -> list[str]:
    forgotten = []
    for standing in standings:
        row = Row.one(transaction.connection, "id = ?", (standing.id,))
        if row is not None:
            rows.delete(transaction, row)
            forgotten.append(format_id(row.id))
    return forgotten


def _disagreement(disputed: Sequence[ResolvedConflict]) -> str:
    named = [f"{each['type']} {each['topic_key']}" for each in disputed[:_NAMED_TOPICS]]
    if len(disputed) > len(named):
        named.append(f"{len(disputed) - len(named)} more")
    return f"both branches have come to a memory of their own on: {', '.join(named)}; on_conflict says which to keep"
