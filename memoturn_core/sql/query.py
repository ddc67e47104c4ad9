"""The user's own SQL over the user's own tables, beside what Memoturn keeps. Contract section 7."""

from __future__ import annotations

import apsw

from memoturn_core.caller import current_caller
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.sql.run import Statement, run
from memoturn_core.sql.text import Unreadable, screen
from memoturn_core.sql.values import parameters
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import Forbidden, InvalidRequest
from memoturn_schemas.sql import QueryRequest, QueryResponse
from memoturn_storage.ambient import Ambient

_SHORT = 100_000
"""Characters that are read in so few milliseconds that the event loop may do it."""
_REHEARSAL_S = 1.0
_STEPS_BETWEEN_LOOKS = 4_000


@operation(
    name="query",
    title="Run SQL",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="sql",
    request=QueryRequest,
    response=QueryResponse,
    rest=Rest("POST", "/sql", in_profile=True),
    destructive=True,
    durable=True,
)
async def query(profile: Profile, request: QueryRequest) -> Reply:
    """Run SQL (SQLite) over a profile's own tables; call it for data with a shape, to count, join or update.

    One batch is one transaction. PRAGMA table_list names the tables, PRAGMA table_info(t) the columns.
    """
    if sum(len(statement.q) for statement in request.stmts) <= _SHORT:
        writes = _screened(request, profile.scope)
    else:
        writes = await profile.node.wait_for(lambda: _screened(request, profile.scope))
    batch = [
        Statement(statement.q, parameters(statement.params, f"stmts[{index}].params"))
        for index, statement in enumerate(request.stmts)
    ]
    if profile.address.may_create and not profile.exists():
        writes = await profile.node.wait_for(lambda: _rehearse(batch, profile.node.ambient))
    if not writes:
        read = await profile.read(
            lambda snapshot: run(snapshot.connection, batch, writing=False, hurried=snapshot.hurried), long=True
        )
        if read.value is not None:
            return Reply(QueryResponse(results=read.value, txid=read.txid), read.txid)
    if profile.scope < Scope.WRITE:
        if current_caller().scope >= Scope.WRITE:
            raise Forbidden(f"token revoked: {profile.name} was deleted after it was issued")
        raise Forbidden("stmts: a statement that is not read-only needs scope write")
    written = await profile.write(
        lambda transaction: run(transaction.connection, batch, writing=True, hurried=transaction.hurried), long=True
    )
    return Reply(QueryResponse(results=written.value or [], txid=written.txid), written.txid)


def _screened(request: QueryRequest, scope: Scope) -> bool:
    """Whether a statement surely writes. Nothing is looked up for what is refused here."""
    writes = False
    for index, statement in enumerate(request.stmts):
        try:
            writes = screen(statement.q) or writes
        except Forbidden as error:
            raise Forbidden(f"stmts[{index}].q: {error}") from None
        except Unreadable as error:
            problem = f"stmts[{index}].q: {error}"
            if scope < Scope.WRITE:
                raise Forbidden(f"{problem}; what cannot be read needs scope write") from None
            raise InvalidRequest(problem) from None
    return writes


def _rehearse(batch: list[Statement], ambient: Ambient) -> bool:
    """Whether a batch writes, and raise if it fails, on what a new profile has: for a failure makes none."""
    give_up_at = ambient.monotonic() + _REHEARSAL_S
    connection = SCHEMA.empty()
    try:
        connection.set_progress_handler(lambda: ambient.monotonic() >= give_up_at, _STEPS_BETWEEN_LOOKS)
        connection.execute("BEGIN")
        if run(connection, batch, writing=False) is not None:
            return False
        run(connection, batch, writing=True)
    except apsw.InterruptError:
        pass  # it takes long, which is no failure
    finally:
        connection.close()
    return True
