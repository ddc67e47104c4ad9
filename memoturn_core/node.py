"""What one running process has: the engine, the catalogue, the models it was given.

Made by the composition root of a surface; handed to every operation. Several processes may have a node
on one data directory: a database is open in one of them at a time, and the others ask it
(`memoturn_core.peers`). Closing a node finishes what is queued, ships what can be shipped, and closes
every file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from memoturn_core import sweeping
from memoturn_core.code.sandbox import Sandbox
from memoturn_core.latencies import Latencies
from memoturn_core.memory.reembedding import Reembedding
from memoturn_core.operations import Reply
from memoturn_core.peers import Answer, PeerRequest, Peers, PeerServer
from memoturn_core.providers.embedding import Embedder
from memoturn_core.providers.language import LanguageModel
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import Unavailable
from memoturn_storage.ambient import Ambient, SystemAmbient
from memoturn_storage.branching import Branching
from memoturn_storage.catalog import Catalog
from memoturn_storage.collector import Collector
from memoturn_storage.drill import Drill
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.leases.file import FileLeases
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.metered import MeteredStore
from memoturn_storage.objects.store import ObjectStore
from memoturn_storage.past import Past
from memoturn_storage.upkeep import Upkeep

T = TypeVar("T")


@dataclass
class Node:
    directory: Path
    """The data directory."""
    engine: Engine
    catalog: Catalog
    branching: Branching
    past: Past
    store: ObjectStore
    metered: MeteredStore
    """The same, as everything here uses it: what is asked of it is counted."""
    ambient: Ambient
    started: float
    peers: Peers
    upkeep: Upkeep
    latencies: Latencies
    """Of the operations that were asked for here."""
    durable: bool = False
    """Whether every write is acknowledged only once the object store has it."""
    embedder: Embedder | None = None
    reembedding: Reembedding | None = None
    """Where there is an embedder."""
    language_model: LanguageModel | None = None
    sandbox: Sandbox | None = None
    """Where snippets are run, if they are."""
    _server: PeerServer | None = None
    _answer: Answer | None = None
    _listening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        ambient: Ambient | None = None,
        store: ObjectStore | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        durable: bool = False,
        embedder: Embedder | None = None,
        language_model: LanguageModel | None = None,
        sandbox: Sandbox | None = None,
        create: bool = True,
    ) -> Self:
        """A node on a data directory.

        The directory is made now if it does not exist, or without `create` by the first write.

        Args:
            store: where everything is kept; the directory `objects` in the data directory where none is given.

        Raises:
            Unavailable: the directory cannot be used.
        """
        world = ambient or SystemAmbient()
        given = store or FileStore(directory / "objects", world, create=False)
        objects = MeteredStore(given)
        catalog = Catalog(directory, objects, world)
        if create:
            catalog.prepare()  # first, for it may fail and the engine has threads
        databases = directory / "databases"

        async def answer(request: PeerRequest) -> Reply:
            if node._answer is None:
                raise Unavailable("this process is still starting; try again")
            return await node._answer(request)

        server = PeerServer(directory, answer, world)
        leases = FileLeases(databases, server.address)
        engine = Engine(SCHEMA, world, databases, objects, leases, limits)
        branching = Branching(engine, world)
        upkeep = Upkeep(
            engine,
            branching,
            Collector(objects, engine.manifests, world),
            Drill(engine.manifests, engine.restorer, world),
            leases,
            databases,
            catalog,
            sweeping.due,
            world,
            limits,
        )
        node = cls(
            directory=directory,
            engine=engine,
            catalog=catalog,
            branching=branching,
            past=Past(engine, branching, SCHEMA, world),
            store=given,
            metered=objects,
            ambient=world,
            started=world.monotonic(),
            peers=Peers(world),
            upkeep=upkeep,
            latencies=Latencies(world),
            durable=durable,
            embedder=embedder,
            reembedding=None if embedder is None else Reembedding(engine, embedder),
            language_model=language_model,
            sandbox=sandbox,
            _server=server,
        )
        return node

    async def listen(self, answer: Answer) -> None:
        """Have the other processes on the data directory reach this one; before it owns anything."""
        if self._answer is None and self._server is not None:
            async with self._listening:
                if self._answer is None:
                    await self._server.start()
                    self._answer = answer
                    if not self.engine.inline:
                        self.upkeep.start()

    async def wait_for(self, work: Callable[[], T]) -> T:
        """Run what may wait for a disk or a network, without holding up the event loop."""
        if self.engine.inline:
            return work()
        return await asyncio.to_thread(work)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
        if self.sandbox is not None:
            await self.sandbox.aclose()
        if self.reembedding is not None:
            await self.reembedding.aclose()
        await self.wait_for(self.upkeep.close)
        await self.wait_for(self.engine.close)
        self.catalog.close()
        await self.peers.close()
        self.store.close()
        for model in (self.embedder, self.language_model):
            if model is not None:
                await model.aclose()
