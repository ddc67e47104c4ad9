"""Texts to vectors: what an embedder is, and the ones that ask a provider over HTTP.

Called by ingest (documents) and recall (queries), which treat a `UpstreamFailure` as "no vector". What
comes back is either one usable vector for each text, in the order of the texts, or nothing. Beside this
file, `cohere` speaks another protocol and `local` needs no network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Protocol

import anyio
from pydantic import BaseModel, ConfigDict, ValidationError

from memoturn_core.providers.http import Endpoint, ProviderClient
from memoturn_schemas.common import Embedding
from memoturn_storage.ambient import Ambient

Purpose = Literal["document", "query"]

BATCH = 96
"""Texts in one request: the least of what the providers accept."""
BATCH_CHARACTERS = 100_000
"""Of all texts in one request, which providers count in tokens: 120 000 is the least that one accepts."""
TEXT_CHARACTERS = 8_000
"""Of one text that are embedded, from its start: some providers reject a whole batch for one that exceeds their
8 192 tokens."""


class Embedder(Protocol):
    """Gives texts their place in the space of one model."""

    @property
    def model(self) -> str:
        """The model's name: vectors of different models are not comparable."""
        ...

    @property
    def failing(self) -> bool:
        """Whether it failed so often, and never since, that it is not worth asking."""
        ...

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        """One vector for each text, in order, finite and all of one dimension; none for no texts.

        Raises `UpstreamFailure`: then there are no vectors at all.
        """
        ...

    async def aclose(self) -> None: ...


class RemoteEmbedder(ABC):
    """What the providers have in common: batches, one budget for all of them, and vectors that are checked."""

    def __init__(self, endpoint: Endpoint, ambient: Ambient) -> None:
        headers = {"authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        self._client = ProviderClient(endpoint, ambient, headers=headers)
        self._model = endpoint.model
        self._budget_s = endpoint.budget_s

    @property
    def model(self) -> str:
        return self._model

    @property
    def failing(self) -> bool:
        return self._client.failing

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        """See `Embedder`. All batches together take at most the endpoint's budget."""
        vectors: list[list[float]] = []
        with anyio.move_on_after(self._budget_s):
            for batch in _batches(texts):
                try:
                    answer = await self._ask(batch, purpose)
                except ValidationError:
                    raise self._client.failure("answered with something that is not a list of embeddings") from None
                if len(answer) != len(batch):
                    raise self._client.failure(f"did not answer {len(batch)} texts with one embedding each")
                vectors += answer
        if len(vectors) != len(texts):
            raise self._client.failure(f"did not embed {len(texts)} texts within {self._budget_s:g} s")
        if len({len(vector) for vector in vectors}) > 1:
            raise self._client.failure("answered with embeddings of different dimensions")
        return vectors

    async def aclose(self) -> None:
        await self._client.aclose()

    @abstractmethod
    async def _ask(self, texts: list[str], purpose: Purpose) -> list[list[float]]:
        """The vectors that one request brings, in the order of its texts; one that brings none raises.

        Raises `UpstreamFailure`, or `ValidationError` for an answer of another shape.
        """


class OpenAIEmbedder(RemoteEmbedder):
    """OpenAI, and the many servers that speak its protocol (Ollama, vLLM)."""

    _sends_input_type: ClassVar[bool] = False

    async def _ask(self, texts: list[str], purpose: Purpose) -> list[list[float]]:
        payload: dict[str, object] = {"model": self._model, "input": texts}
        if self._sends_input_type:
            payload["input_type"] = purpose
        rows = _Page.model_validate(await self._client.post("/v1/embeddings", payload)).data
        rows.sort(key=lambda row: row.index)
        # With an index that is not there, or there twice, no vector is known to be that of its text.
        return [row.embedding for place, row in enumerate(rows) if row.index == place]


class VoyageEmbedder(OpenAIEmbedder):
    """Voyage: the same protocol, but it is told what the texts are for."""

    _sends_input_type = True


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        embedded = text[:TEXT_CHARACTERS]
        if batch and (len(batch) == BATCH or characters + len(embedded) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(embedded)
        characters += len(embedded)
    if batch:
        yield batch


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)
    index: int
    embedding: Embedding


class _Page(BaseModel):
    model_config = ConfigDict(strict=True)
    data: list[_Row]
