"""The vectors of what episodes were to do: from a client or the node's embedder, and kept beside those of memories.

An episode is embedded by its description, once, when it is created. An embedder that fails costs the episode its vector
and nothing else; `memoturn_core.memory.reembedding` brings it later. Called by whoever creates and deletes episodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from memoturn_core.memory.vectors import EpisodeVectors, accept, embedded_text
from memoturn_core.node import Node
from memoturn_core.vectors.vector import Vector, as_vector
from memoturn_schemas.errors import UpstreamFailure
from memoturn_storage.handle import Transaction

log = structlog.get_logger("memoturn")


async def prepare(node: Node, texts: Sequence[str], given: Sequence[list[float] | None]) -> list[Vector | None]:
    """A vector for each description: the client's, or else the embedder's; None where neither has one.

    Takes as long as the embedder's budget at most; called before the transaction.
    """
    vectors = [None if values is None else as_vector(values) for values in given]
    wanted = [place for place, vector in enumerate(vectors) if vector is None]
    if node.embedder is None or not wanted:
        return vectors
    try:
        made = await node.embedder.embed([embedded_text(texts[place]) for place in wanted], purpose="document")
    except UpstreamFailure as error:
        log.warning("episodes kept without embeddings", count=len(wanted), error=str(error))
        return vectors
    for place, values in zip(wanted, made, strict=True):
        vectors[place] = as_vector(values)
    return vectors


def keep(transaction: Transaction, rowid: int, vector: Vector | None, model: str | None, given: bool) -> bool:
    """Keep the vector of a new episode, or note that it is still to get one.

    Args:
        model: the node's, or None where it embeds nothing.
        given: whether the client sent the vector, so that its model is not known.

    Returns:
        False where there is a vector and the profile's dimension is another, so that it was not kept.
    """
    if vector is None:
        if model is not None:
            EpisodeVectors.missed(transaction.connection, rowid)
        return True
    space = accept(transaction.connection, vector, model=None if given else model)
    if space is not None:
        EpisodeVectors.insert(transaction, rowid, vector, space)
    return space is not None


def delete(transaction: Transaction, rowid: int) -> None:
    """Of an episode that goes."""
    EpisodeVectors.delete(transaction, [rowid])
