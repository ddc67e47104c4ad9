"""Embeddings in this process, without a network: `minilm` on a thread of its own. Made by `settings`.

The thread loads the model when it is first asked for something, and then executes one portion of texts at a time. A
portion is small, so that a query waits for little while a large batch is embedded. Who does not get vectors within
the budget goes without; what was still to be begun for them is not begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import anyio

from memoturn_core.providers.embedding import Purpose
from memoturn_core.providers.minilm import MODEL, MiniLM
from memoturn_schemas.errors import InvalidRequest, UpstreamFailure

A = TypeVar("A")
T = TypeVar("T")

_BATCH = 64
"""Texts that are taken to their tokens at once, which takes some 10 ms, and up to 100 where they are long."""
_PORTION_TOKENS = 512
"""In one execution, which takes some 100 ms; larger ones are no faster a token."""


class LocalEmbedder:
    """Used from one event loop; `aclose` ends its thread."""

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._thread = ThreadPoolExecutor(1, "memoturn-embedder")
        self._loading: Future[MiniLM] | None = None

    @property
    def model(self) -> str:
        return MODEL

    @property
    def failing(self) -> bool:
        loading = self._loading
        return loading is not None and loading.done() and loading.exception() is not None

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:  # noqa: ARG002
        """See `Embedder`. To the model, documents and queries are the same."""
        with anyio.move_on_after(self._budget_s):
            vectors: list[list[float]] = []
            for start in range(0, len(texts), _BATCH):
                vectors += await self._embed_batch(texts[start : start + _BATCH])
            return vectors
        raise UpstreamFailure(f"The provider local did not embed {len(texts)} texts within {self._budget_s:g} s.")

    async def aclose(self) -> None:
        await anyio.to_thread.run_sync(lambda: self._thread.shutdown(cancel_futures=True))

    async def _embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        tokens = await self._on_thread(MiniLM.tokens, texts)
        vectors: list[list[float]] = [[]] * len(texts)
        for places in _portions([len(each) for each in tokens]):
            answer = await self._on_thread(MiniLM.vectors, [tokens[place] for place in places])
            for place, vector in zip(places, answer, strict=True):
                vectors[place] = vector
        return vectors

    async def _on_thread(self, work: Callable[[MiniLM, A], T], argument: A) -> T:
        if self._loading is None:
            self._loading = self._thread.submit(MiniLM)
        loading = self._loading

        def run() -> T:
            failed = loading.exception()
            if failed is not None:
                raise UpstreamFailure(
                    f"The provider local cannot be loaded ({type(failed).__name__}); install its packages anew."
                )
            return work(loading.result(), argument)

        try:
            return await asyncio.wrap_future(self._thread.submit(run))
        except UnicodeEncodeError:
            raise InvalidRequest("The text meant for the provider is not valid Unicode.") from None
        except UpstreamFailure:
            raise
        except Exception as error:
            raise UpstreamFailure(f"The provider local failed ({type(error).__name__}).") from error


def _portions(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts to be executed together, which are of similar length, for each is computed at the longest."""
    portion: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if portion and (len(portion) + 1) * lengths[place] > _PORTION_TOKENS:
            yield portion
            portion = []
        portion.append(place)
    yield portion
