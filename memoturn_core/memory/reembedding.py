"""Bringing memories to the node's model, in the background: those of another model, and those that got no vector.

A profile is noticed when a request on it was embedded, which shows that the embedder answers, and its memories are
behind. They are then embedded a portion at a time, in the order in which they came, each portion kept by a transaction
of its own with how far it got. So it can end anywhere: a process that stops, or an embedder that fails, leaves the
rest to the next request. Made by `memoturn_core.node`; called by `ingest` and `recall`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import structlog

from memoturn_core.memory.vectors import (
    Embeddings,
    MemoryVectors,
    accept,
    comparable,
    embedded,
    embedded_text,
    superseded,
    to_embed,
)
from memoturn_core.providers.embedding import Embedder
from memoturn_core.vectors.vector import Vector, as_vector
from memoturn_storage.engine import Engine
from memoturn_storage.errors import translate
from memoturn_storage.handle import Transaction
from memoturn_storage.manifest import BranchRef

log = structlog.get_logger("memoturn")

_ALL = (1 << 40) - 1
_LOOKED_AT = 256
_EMBEDDED = 32
_CHARACTERS = 8_000
"""Of the memories of a portion that are looked at, of those that are embedded, and of the texts of these: so that a
portion holds up nobody, and any embedder has it within its budget."""


class Reembedding:
    """Of all branches that a node has open; used from the event loop of its requests."""

    def __init__(self, engine: Engine, embedder: Embedder) -> None:
        self._engine = engine
        self._embedder = embedder
        self._behind: deque[BranchRef] = deque()
        self._task: asyncio.Task[None] | None = None

    def notice(self, ref: BranchRef) -> None:
        """The memories of this branch are behind."""
        if ref not in self._behind:
            self._behind.append(ref)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._behind:
            ref = self._behind[0]
            try:
                more = await self._embed_portion(ref)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other branches are not to wait for it
                log.warning("memories left without embeddings", branch=str(ref), error=str(translate(error)))
                more = False
            self._behind.popleft()
            if more:
                self._behind.append(ref)

    async def _embed_portion(self, ref: BranchRef) -> bool:
        """Whether there is more to embed."""
        model = self._embedder.model
        looked = await asyncio.wrap_future(
            self._engine.read(ref, lambda snapshot: _portion(snapshot.connection, model))
        )
        portion = looked.value
        if portion is None:
            return False
        texts = [lacking.text for lacking in portion.lacking]
        vectors = [as_vector(values) for values in await self._embedder.embed(texts, purpose="document")]
        kept = await asyncio.wrap_future(
            self._engine.write(ref, lambda transaction: _keep(transaction, portion, vectors, model))
        )
        return kept.value


@dataclass(frozen=True, slots=True)
class _Lacking:
    rowid: int
    id: bytes
    text: str


@dataclass(frozen=True, slots=True)
class _Portion:
    """The next memories that have no vector of the node's model; up to and with `through` there are no others."""

    through: int
    lacking: list[_Lacking]


def _portion(connection: apsw.Connection, model: str) -> _Portion | None:
    start = to_embed(connection, model)
    if start is None:
        return None
    known = Embeddings.of(connection)
    spaces = comparable(connection, known.dimension, model) if known.model in (None, model) and known.dimension else []
    lacking: list[_Lacking] = []
    through, characters = start, 0
    rows: Any = connection.execute(
        "SELECT rowid, id, summary, keywords FROM __memoturn_memories WHERE rowid >= ? AND type <> 'task'"
        " ORDER BY rowid LIMIT ?",
        (start, _LOOKED_AT),
    )
    for rowid, id_, summary, keywords in rows.fetchall():
        if not MemoryVectors.has(connection, rowid, spaces):
            text = embedded_text(summary, keywords)
            characters += len(text)
            if lacking and (len(lacking) == _EMBEDDED or characters > _CHARACTERS):
                break
            lacking.append(_Lacking(rowid, id_, text))
        through = rowid
    return _Portion(through, lacking)


def _keep(transaction: Transaction, portion: _Portion, vectors: Sequence[Vector], model: str) -> bool:
    """Whether there is more to embed."""
    connection = transaction.connection
    for lacking, vector in zip(portion.lacking, vectors, strict=True):
        there = "SELECT 1 FROM __memoturn_memories WHERE rowid = ? AND id = ?"
        if connection.execute(there, (lacking.rowid, lacking.id)).fetchone() is None:
            continue
        space = accept(connection, vector, model=model)
        if space is None:  # clients have fixed another dimension, and no memory can have a vector of this model
            return embedded(connection, _ALL, model)
        MemoryVectors.delete(transaction, [lacking.rowid], superseded(connection, model))
        if not MemoryVectors.has(connection, lacking.rowid, comparable(connection, len(vector), model)):
            MemoryVectors.insert(transaction, lacking.rowid, vector, space)
    # Looked at anew, for others may have been here meanwhile.
    left = _portion(connection, model)
    return left is not None and embedded(connection, left.lacking[0].rowid - 1 if left.lacking else left.through, model)
