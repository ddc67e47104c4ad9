"""The verbatim transcript: append, window, search. Contract section 3, items 52 to 54."""

from __future__ import annotations

from memoturn_core.memory import turns
from memoturn_core.memory.sessions import touch
from memoturn_core.memory.vectors import accept
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors.vector import as_vector
from memoturn_schemas.transcript import (
    AppendRequest,
    AppendResponse,
    SearchRequest,
    SearchResponse,
    WindowRequest,
    WindowResponse,
)
from memoturn_storage.handle import Transaction


@operation(
    name="memory_append",
    title="Append to the transcript",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="transcript",
    default_tool=True,
    request=AppendRequest,
    response=AppendResponse,
    rest=Rest("POST", "/memory/{session}/turns", status=201, profile_path="/sessions/{session}/turns"),
)
async def append(profile: Profile, request: AppendRequest) -> Reply:
    """Record one turn of a conversation verbatim; call it for each message that should stay on record."""
    done = await profile.write(lambda transaction: _append(transaction, request))
    return Reply({**done.value, "txid": done.txid}, done.txid)


@operation(
    name="memory_window",
    title="Read the transcript's end",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="transcript",
    default_tool=True,
    request=WindowRequest,
    response=WindowResponse,
    rest=Rest("GET", "/memory/{session}/turns", profile_path="/sessions/{session}/turns"),
    read_only=True,
    idempotent=True,
)
async def window(profile: Profile, request: WindowRequest) -> Reply:
    """Read the last turns of a conversation, oldest first; call it to pick up where it was left."""
    found = await profile.read(
        lambda snapshot: turns.last(snapshot, request.session, request.last), as_of=request.as_of
    )
    return Reply(WindowResponse(turns=found.value), found.txid)


@operation(
    name="memory_search",
    title="Search the transcript by vector",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="transcript",
    request=SearchRequest,
    response=SearchResponse,
    rest=Rest("POST", "/memory/{session}/search", profile_path="/sessions/{session}/search"),
    read_only=True,
    idempotent=True,
)
async def search(profile: Profile, request: SearchRequest) -> Reply:
    """Find the turns of a conversation nearest to a vector; call it if you have one, else memory_recall."""
    vector = as_vector(request.vector)
    found = await profile.read(lambda snapshot: turns.search(snapshot, None, vector, request.k, request.session))
    return Reply(SearchResponse(turns=found.value), found.txid)


def _append(transaction: Transaction, request: AppendRequest) -> dict[str, object]:
    vector = None if request.embedding is None else as_vector(request.embedding)
    space = None if vector is None else accept(transaction.connection, vector, model=None)
    skipped = vector is not None and space is None
    seq = turns.append(transaction, request.session, request.role, request.content, vector, space)
    touch(transaction, request.session, transaction.ambient.now_ms())
    return {"seq": seq, "embedding": "skipped_dimension"} if skipped else {"seq": seq}
