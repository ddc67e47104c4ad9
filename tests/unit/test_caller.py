"""What a caller may reach: its scope, and the namespace or database that it is bound to."""

from __future__ import annotations

import asyncio

import pytest

from memoturn_core.address import NODE, Address
from memoturn_core.caller import LOCAL, Caller
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.operations import Scope, Target
from memoturn_core.registry import OPERATIONS
from memoturn_schemas.errors import Forbidden
from memoturn_storage.engine import Limits

ALICE = Address.of_profile("acme", "alice")
BOB = Address.of_profile("acme", "bob")
OTHER = Address.of_profile("globex", "alice")


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_every_operation_asks_for_its_scope_and_the_next_lower_one_is_refused(operation):
    address = NODE if operation.target is Target.NODE else ALICE
    Caller(operation.scope).require(operation, address)
    if operation.scope > Scope.NONE:
        with pytest.raises(Forbidden, match=operation.name):
            Caller(Scope(operation.scope - 1)).require(operation, address)


def test_what_changes_something_needs_more_than_read_but_where_the_operation_itself_looks():
    lenient = {operation.name for operation in OPERATIONS.values() if operation.scope <= Scope.READ}
    changing = {operation.name for operation in OPERATIONS.values() if not operation.read_only}
    assert lenient & changing == {"query", "token_revoke"}


@pytest.mark.parametrize(
    ("caller", "allowed", "refused"),
    [
        (Caller(Scope.ADMIN, namespace="acme"), [ALICE, BOB, Address.of_namespace("acme")], [OTHER]),
        (Caller(Scope.ADMIN, database="acme--alice"), [ALICE], [BOB, OTHER, Address.of_namespace("acme")]),
        (LOCAL, [ALICE, BOB, OTHER, Address.of_namespace("globex")], []),
    ],
)
def test_a_binding_covers_its_own_and_nothing_else(caller, allowed, refused):
    recall = OPERATIONS["memory_recall"]
    for address in allowed:
        caller.require(recall, address)
    for address in refused:
        with pytest.raises(Forbidden):
            caller.require(recall, address)
    caller.require(OPERATIONS["health_check"], NODE)


def test_a_refused_caller_learns_nothing_and_creates_nothing(tmp_path):
    async def main() -> None:
        node = Node.open(tmp_path, limits=Limits(threads=0))
        memories = {"memories": [{"type": "event", "summary": "x"}]}
        with pytest.raises(Forbidden):
            await invoke(node, OPERATIONS["memory_ingest"], ALICE, memories, Caller(Scope.READ))
        # Not even whether the request was well-formed.
        with pytest.raises(Forbidden):
            await invoke(node, OPERATIONS["memory_ingest"], ALICE, {"nonsense": 1}, Caller(Scope.READ))
        assert node.catalog.count() == 0
        await node.close()

    asyncio.run(main())
