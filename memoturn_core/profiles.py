"""Profiles: one database each, found by name, made by their first write.

`Profile` is what an operation's handler acts on: it runs plain synchronous work on the database's
engine thread, within the request's time budget, and says which transaction the answer reflects.
Called by `memoturn_core.invoke`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from memoturn_core.address import MAIN, Address
from memoturn_core.node import Node
from memoturn_schemas.errors import BranchNotFound, DatabaseNotFound, Unavailable
from memoturn_storage.catalog import Entry
from memoturn_storage.engine import Engine
from memoturn_storage.handle import Result, Snapshot, Transaction
from memoturn_storage.worker import Database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Budget:
    """What the request asks of every step: when to give up, and how new the state must be."""

    deadline: float | None = None
    min_txid: int = 0


class Profile:
    """One branch of one database, for the length of one request."""

    def __init__(self, node: Node, address: Address, budget: Budget) -> None:
        self.node = node
        self.address = address
        self._budget = budget

    @property
    def name(self) -> str:
        return self.address.database or ""

    def exists(self) -> bool:
        """Whether the database is known; raises `BranchNotFound` where only the branch is missing."""
        return self._entry() is not None

    async def read(self, work: Callable[[Snapshot], T]) -> Result[T]:
        """Run `work` on one consistent state.

        Raises:
            DatabaseNotFound, BranchNotFound: reads never create.
            Unavailable: the state is older than the request's Min-Txid.
            RequestTimeout: the budget ran out.
        """
        entry = self._entry()
        if entry is None:
            raise DatabaseNotFound(f"there is no database {self.name}")
        result = await _finished(self._engine.read(self._database(entry), work, deadline=self._budget.deadline))
        self.require_min_txid(result.txid)
        return result

    def require_min_txid(self, txid: int) -> None:
        """Raise unless a state at `txid` is new enough for the request.

        Raises:
            DatabaseNotFound: nothing was ever written here, and something newer was asked for.
            Unavailable: the state is behind.
        """
        wanted = self._budget.min_txid
        if txid < wanted and not self.exists():
            raise DatabaseNotFound(f"there is no database {self.name}")
        if txid < wanted:
            raise Unavailable(f"{self.name} is at transaction {txid}, behind the {wanted} that was asked for")

    async def write(self, work: Callable[[Transaction], T], *, create: bool = True) -> Result[T]:
        """Run `work` in a transaction; the database is created if `create` and the address allow it.

        Raises:
            DatabaseNotFound, BranchNotFound, Overloaded, RequestTimeout.
        """
        entry = self._entry()
        if entry is None:
            if not (create and self.address.may_create):
                raise DatabaseNotFound(f"there is no database {self.name}")
            entry = self.node.catalog.create(self.name)
        return await _finished(self._engine.write(self._database(entry), work, deadline=self._budget.deadline))

    @property
    def _engine(self) -> Engine:
        return self.node.engine

    def _entry(self) -> Entry | None:
        entry = self.node.catalog.find(self.name)
        if self.address.branch != MAIN:
            if entry is None and not self.address.may_create:
                raise DatabaseNotFound(f"there is no database {self.name}")
            raise BranchNotFound(f"{self.name} has no branch {self.address.branch}")
        return entry

    def _database(self, entry: Entry) -> Database:
        return self.node.catalog.database(entry, self.address.branch)


async def _finished(future: Future[Result[T]]) -> Result[T]:
    if future.done():
        return future.result()
    return await asyncio.wrap_future(future)
