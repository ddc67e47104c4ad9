"""Embeddings by Cohere, whose protocol is its own: `POST /v2/embed`. Made by `settings`."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from memoturn_core.providers.embedding import Purpose, RemoteEmbedder
from memoturn_core.providers.http import Endpoint
from memoturn_schemas.common import Embedding
from memoturn_storage.ambient import Ambient


class CohereEmbedder(RemoteEmbedder):
    """It is told what the texts are for, and answers in their order."""

    def __init__(self, endpoint: Endpoint, ambient: Ambient) -> None:
        root = endpoint.base_url.rstrip("/").removesuffix("/v2")
        super().__init__(replace(endpoint, base_url=root), ambient)

    async def _ask(self, texts: list[str], purpose: Purpose) -> list[list[float]]:
        payload = {
            "model": self._model,
            "texts": texts,
            "input_type": f"search_{purpose}",
            "embedding_types": ["float"],
        }
        return _Answer.model_validate(await self._client.post("/v2/embed", payload)).embeddings.floats


class _Embeddings(BaseModel):
    model_config = ConfigDict(strict=True)
    floats: list[Embedding] = Field(alias="float")


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)
    embeddings: _Embeddings
