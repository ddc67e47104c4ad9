"""Bringing memories and episodes to the node's model, in the background: those of another, and those without a vector.

A profile is noticed when a request on it was embedded, which shows that the embedder answers, and its rows are behind.
They are then embedded a portion at a time, in the order in which they came, each portion kept by a transaction of its
own with how far it got. So it can end anywhere: a process that stops, or an embedder that fails, leaves the rest to
the next request. Made by `memoturn_core.node`; called by `ingest`, `recall` and `memoturn_core.episodes.query`.
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
    EMBEDDED,
    Embeddings,
    OwnVectors,
    accept,
    behind,
    comparable,
    embedded_text,
    superseded,
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
"""Of the rows of a portion that are looked at, of those that are embedded, and of the texts of these: so that a
portion holds up nobody, and any embedder has it within its budget."""


class Reembedding:
    """Of all branches that a node has open; used from the event loop of its requests."""

    def __init__(self, engine: Engine, embedder: Embedder) -> None:
        self._engine = engine
        self._embedder = embedder
        self._behind: deque[BranchRef] = deque()
        self._task: asyncio.Task[None] | None = None

    def notice(self, ref: BranchRef) -> None:
        """Rows of this branch are behind."""
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
                log.warning("left without embeddings", branch=str(ref), error=str(translate(error)))
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
    """The next rows of a kind that have no vector of the node's model; up to and with `through` there are no others."""

    rows: type[OwnVectors]
    through: int
    lacking: list[_Lacking]


def _portion(connection: apsw.Connection, model: str) -> _Portion | None:
    known = Embeddings.of(connection)
    for rows in EMBEDDED:
        start = rows.to_embed(connection, model, known)
        if start is not None:
            return _portion_of(connection, rows, start, model, known)
    return None


def _portion_of(
    connection: apsw.Connection, rows: type[OwnVectors], start: int, model: str, known: Embeddings
) -> _Portion:
    spaces = comparable(connection, known.dimension, model) if known.model in (None, model) and known.dimension else []
    lacking: list[_Lacking] = []
    through, characters = start, 0
    found: Any = connection.execute(
        f"SELECT rowid, id, {rows.texts} FROM {rows.rows} WHERE rowid >= ? AND {rows.condition} ORDER BY rowid LIMIT ?",
        (start, _LOOKED_AT),
    )
    for rowid, id_, *texts in found.fetchall():
        if not rows.has(connection, rowid, spaces):
            text = embedded_text(*texts)
            characters += len(text)
            if lacking and (len(lacking) == _EMBEDDED or characters > _CHARACTERS):
                break
            lacking.append(_Lacking(rowid, id_, text))
        through = rowid
    return _Portion(rows, through, lacking)


def _keep(transaction: Transaction, portion: _Portion, vectors: Sequence[Vector], model: str) -> bool:
    """Whether there is more to embed."""
    connection, rows = transaction.connection, portion.rows
    for lacking, vector in zip(portion.lacking, vectors, strict=True):
        there = f"SELECT 1 FROM {rows.rows} WHERE rowid = ? AND id = ?"
        if connection.execute(there, (lacking.rowid, lacking.id)).fetchone() is None:
            continue
        space = accept(connection, vector, model=model)
        if space is None:  # clients have fixed another dimension, and no row can have a vector of this model
            rows.embedded(connection, _ALL, model)
            return behind(connection, model)
        rows.delete(transaction, [lacking.rowid], superseded(connection, model))
        if not rows.has(connection, lacking.rowid, comparable(connection, len(vector), model)):
            rows.insert(transaction, lacking.rowid, vector, space)
    # Looked at anew, for others may have been here meanwhile.
    left = _portion(connection, model)
    if left is not None:
        left.rows.embedded(connection, left.lacking[0].rowid - 1 if left.lacking else left.through, model)
    return left is not None and behind(connection, model)
