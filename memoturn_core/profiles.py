"""Profiles: one database each, found by name, made by their first write.

`Profile` is what an operation's handler acts on: it runs plain synchronous work on the database's
engine thread, within the request's time budget, and says which transaction the answer reflects.
Whatever it does fails with `OwnedElsewhere` where another process has the database open; `invoke` then
asks that one. Called by `memoturn_core.invoke`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass, replace
from typing import TypeVar

from memoturn_core.address import MAIN, Address
from memoturn_core.node import Node
from memoturn_core.operations import Scope
from memoturn_core.usage import counted
from memoturn_schemas.errors import BranchNotFound, DatabaseNotFound, RequestTimeout, Unavailable
from memoturn_storage.branching import Moment
from memoturn_storage.deletion import moved_on
from memoturn_storage.engine import Engine
from memoturn_storage.entries import Entry
from memoturn_storage.handle import Result, Snapshot, Transaction
from memoturn_storage.manifest import BranchRef

T = TypeVar("T")
V = TypeVar("V")

_SLICE_S = 0.05
"""What a long job may take of the engine's thread, which other databases share, before it goes elsewhere."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What the request asks of every step: when to give up, how new the state must be, how safe a write."""

    deadline: float | None = None
    min_txid: int = 0
    durable: bool = False


class Profile:
    """One branch of one database, for the length of one request.

    `entry` is the catalogue's, or None where there is no such database yet; whoever creates it calls `listen`
    first, for other processes will look for its owner.
    """

    def __init__(
        self,
        node: Node,
        address: Address,
        budget: Budget,
        entry: Entry | None,
        listen: Callable[[], Awaitable[None]],
        scope: Scope,
    ) -> None:
        self.node = node
        self.address = address
        self.scope = scope
        """What the caller may do here, for what the registry cannot know of an operation beforehand."""
        self._budget = budget
        self._entry = entry
        self._listen = listen

    @property
    def name(self) -> str:
        return self.address.database or ""

    async def settle(self) -> None:
        """Have the branch open in this process, if the database exists.

        Raises:
            OwnedElsewhere: another process has it.
            DatabaseNotFound: there is no database that the address could create.
            BranchNotFound, StoreUnavailable.
        """
        if self._entry is None:
            if self.address.branch != MAIN:
                self._require_entry()
            return
        ref = BranchRef(self._entry.uuid, self.address.branch)
        if self._engine.is_open(ref):
            return
        shipped = await _finished(self._engine.exclusive(ref, lambda branch: branch.held is not None))
        if not shipped and await self.moved_on():
            # Deleted elsewhere, so long ago that even the tombstone of its manifest is gone.
            await _finished(self._engine.exclusive(ref, lambda branch: self._engine.sleep(branch, discard=True)))
            raise BranchNotFound(f"there is no branch {ref.branch}")

    async def moved_on(self) -> bool:
        """Whether the name means another database by now, or none; to be asked where a branch was not found.

        Raises:
            StoreUnavailable.
        """
        entry, catalog, manifests = self._entry, self.node.catalog, self._engine.manifests
        return entry is not None and await self.node.wait_for(lambda: moved_on(catalog, manifests, entry))

    @property
    def entry(self) -> Entry:
        """Raises `DatabaseNotFound`."""
        return self._require_entry()

    def exists(self) -> bool:
        return self._entry is not None

    @property
    def ref(self) -> BranchRef:
        """Raises `DatabaseNotFound`."""
        return BranchRef(self._require_entry().uuid, self.address.branch)

    def on(self, branch: str) -> Profile:
        """The same request on another branch."""
        other = copy(self)
        other.address = replace(self.address, branch=branch)
        return other

    def branch(self, name: str) -> BranchRef:
        """Another branch of the database; raises `DatabaseNotFound`."""
        return BranchRef(self._require_entry().uuid, name)

    async def read(
        self, work: Callable[[Snapshot], T], *, as_of: int | str | None = None, long: bool = False
    ) -> Result[T]:
        """Run `work` on one consistent state, the newest or that of a moment in the past.

        What may be `long` is taken off the engine's thread after a moment and run again beside it.

        Raises:
            DatabaseNotFound, BranchNotFound: reads never create.
            Conflict: the moment is not in the history.
            Unavailable: the state is older than the request's Min-Txid.
            RequestTimeout: the budget ran out.
        """
        ref = self.ref
        work = counted(work)
        if as_of is not None:
            moment = Moment.of(as_of)
            return await self.node.wait_for(lambda: self.node.past.read(ref, moment, work))
        deadline = self._budget.deadline
        if long:
            result = await self._patiently(
                lambda slice_s: self._engine.read(ref, work, deadline=deadline, slice_s=slice_s),
                lambda: self._engine.read_aside(ref, work, deadline=deadline),
            )
        else:
            result = await _finished(self._engine.read(ref, work, deadline=deadline))
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

    async def write(self, work: Callable[[Transaction], T], *, create: bool = True, long: bool = False) -> Result[T]:
        """Run `work` in a transaction; the database is created if `create` and the address allow it.

        What may be `long` is taken off the engine's thread after a moment and run again where only its own
        branch waits for it.

        Raises:
            DatabaseNotFound, BranchNotFound, Overloaded, RequestTimeout.
            Unavailable: also where a durable write is committed here and the object store does not confirm it.
        """
        if self._entry is None and create and self.address.may_create:
            await self._listen()
            self._entry = await self.node.wait_for(lambda: self.node.catalog.create(self.name))
        ref, deadline = self.ref, self._budget.deadline
        durable = self._budget.durable or self.entry.durable
        if not long:
            return await _finished(self._engine.write(ref, work, deadline=deadline, durable=durable))
        return await self._patiently(
            lambda slice_s: self._engine.write(ref, work, deadline=deadline, durable=durable, slice_s=slice_s),
            lambda: self._engine.write_alone(ref, work, deadline=deadline, durable=durable),
        )

    async def _patiently(
        self, at_once: Callable[[float], Future[Result[T]]], elsewhere: Callable[[], Future[Result[T]]]
    ) -> Result[T]:
        try:
            return await _finished(at_once(_SLICE_S))
        except RequestTimeout:
            deadline = self._budget.deadline
            if deadline is not None and self.node.ambient.monotonic() >= deadline:
                raise
        return await _finished(elsewhere())

    def peek(self, kind: type[T], look: Callable[[T], V | None], *, of: Hashable = None) -> Result[V] | None:
        """What a cached value of the open branch holds, without waiting for the engine; None where that will not do."""
        if self._entry is None or self._budget.durable:
            return None
        found = self._engine.peek(self.ref, kind, look, of=of)
        return None if found is None or found.txid < self._budget.min_txid else found

    async def sync(self) -> int:
        """Wait until the object store has everything that is committed now; the last txid of it."""
        return (await _finished(self._engine.read(self.ref, lambda _snapshot: None, durable=True))).txid

    @property
    def _engine(self) -> Engine:
        return self.node.engine

    def _require_entry(self) -> Entry:
        if self._entry is not None:
            return self._entry
        if self.address.branch != MAIN and self.address.may_create:
            raise BranchNotFound(f"{self.name} has no branch {self.address.branch}")
        raise DatabaseNotFound(f"there is no database {self.name}")


async def _finished(future: Future[T]) -> T:
    if future.done():
        return future.result()
    return await asyncio.wrap_future(future)
