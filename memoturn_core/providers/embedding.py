"""Texts to vectors, by a provider that speaks `POST /v1/embeddings`.

Called by ingest (documents) and recall (queries), which treat a `UpstreamFailure` as "no vector". What
comes back is either one usable vector for each text, in the order of the texts, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import anyio
from pydantic import BaseModel, ConfigDict, ValidationError

from memoturn_core.providers.http import Endpoint, ProviderClient
from memoturn_schemas.common import Embedding
from memoturn_storage.ambient import Ambient

Purpose = Literal["document", "query"]

BATCH = 96
"""Texts in one request: the least of what the providers accept."""


class Embedder(Protocol):
    """Gives texts their place in the space of one model."""

    @property
    def model(self) -> str:
        """The model's name: vectors of different models are not comparable."""
        ...

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        """One vector for each text, in order, finite and all of one dimension; none for no texts.

        Raises `UpstreamFailure`: then there are no vectors at all.
        """
        ...

    async def aclose(self) -> None: ...


class OpenAIEmbedder:
    """OpenAI, and the many servers that speak its protocol (Ollama, vLLM)."""

    _sends_input_type: ClassVar[bool] = False

    def __init__(self, endpoint: Endpoint, ambient: Ambient) -> None:
        headers = {"authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        self._client = ProviderClient(endpoint, ambient, headers=headers)
        self._model = endpoint.model
        self._budget_s = endpoint.budget_s

    @property
    def model(self) -> str:
        return self._model

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        """See `Embedder`. All batches together take at most the endpoint's budget."""
        vectors: list[list[float]] = []
        with anyio.move_on_after(self._budget_s):
            for start in range(0, len(texts), BATCH):
                vectors += await self._embed_batch(texts[start : start + BATCH], purpose)
        if len(vectors) != len(texts):
            raise self._client.failure(f"did not embed {len(texts)} texts within {self._budget_s:g} s")
        if len({len(vector) for vector in vectors}) > 1:
            raise self._client.failure("answered with embeddings of different dimensions")
        return vectors

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _embed_batch(self, texts: Sequence[str], purpose: Purpose) -> list[list[float]]:
        payload: dict[str, object] = {"model": self._model, "input": list(texts)}
        if self._sends_input_type:
            payload["input_type"] = purpose
        answer = await self._client.post("/v1/embeddings", payload)
        try:
            rows = _Page.model_validate(answer).data
        except ValidationError:
            raise self._client.failure("answered with something that is not a list of embeddings") from None
        rows.sort(key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(texts))):
            raise self._client.failure(f"did not answer {len(texts)} texts with one embedding each")
        return [row.embedding for row in rows]


class VoyageEmbedder(OpenAIEmbedder):
    """Voyage: the same protocol, but it is told what the texts are for."""

    _sends_input_type = True


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)
    index: int
    embedding: Embedding


class _Page(BaseModel):
    model_config = ConfigDict(strict=True)
    data: list[_Row]
