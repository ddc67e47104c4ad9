"""What one running process has: the engine, the catalogue, the models it was given.

Made by the composition root of a surface; handed to every operation. Closing it finishes what is
queued and closes every file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from memoturn_core.memory.tables import SCHEMA
from memoturn_core.providers.embedding import Embedder
from memoturn_core.providers.language import LanguageModel
from memoturn_storage.ambient import Ambient, SystemAmbient
from memoturn_storage.catalog import Catalog
from memoturn_storage.engine import Engine


@dataclass(frozen=True)
class Node:
    engine: Engine
    catalog: Catalog
    ambient: Ambient
    started: float
    embedder: Embedder | None = None
    language_model: LanguageModel | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        ambient: Ambient | None = None,
        threads: int = 2,
        hot_cap: int = 256,
        queue_depth: int = 256,
        embedder: Embedder | None = None,
        language_model: LanguageModel | None = None,
        create: bool = True,
    ) -> Self:
        """A node on a data directory; `threads=0` is inline.

        The directory is made now if it does not exist, or without `create` by the first write.

        Raises:
            Unavailable: the directory cannot be used.
        """
        world = ambient or SystemAmbient()
        catalog = Catalog(directory, world)
        if create:
            catalog.prepare()  # first, for it may fail and the engine has threads
        return cls(
            engine=Engine(SCHEMA, world, threads=threads, hot_cap=hot_cap, queue_depth=queue_depth),
            catalog=catalog,
            ambient=world,
            started=world.monotonic(),
            embedder=embedder,
            language_model=language_model,
        )

    async def close(self) -> None:
        self.engine.close()
        self.catalog.close()
        for model in (self.embedder, self.language_model):
            if model is not None:
                await model.aclose()
