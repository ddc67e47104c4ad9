"""What providers answer, on their wire formats, for the scripts of `provider_server`, and how to ask them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from contract.provider_server import Reply, reply
from memoturn_core.providers.embedding import Embedder
from memoturn_core.providers.http import Endpoint
from memoturn_core.providers.language import LanguageModel

KEY = "sk-very-secret"
CLIENT = TypeVar("CLIENT", bound=Embedder | LanguageModel)
RESULT = TypeVar("RESULT")


def endpoint(url: str, *, name: str = "acme", budget_s: float = 5.0) -> Endpoint:
    return Endpoint(provider=name, base_url=url, model="m-1", budget_s=budget_s, api_key=KEY)


def using(client: CLIENT, call: Callable[[CLIENT], Awaitable[RESULT]]) -> RESULT:
    """What a client's call gives; the client is closed after it."""

    async def main() -> RESULT:
        try:
            return await call(client)
        finally:
            await client.aclose()

    return anyio.run(main)


def embeddings(*rows: tuple[int, list[Any]]) -> dict[str, Any]:
    """A page of embeddings, with the fields besides that the providers send."""
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in rows]
    return {"object": "list", "data": data, "model": "m-1", "usage": {"total_tokens": 3}}


def vectors(*rows: list[float]) -> Reply:
    """Embeddings for the texts of one request, in their order."""
    return indexed_vectors(*enumerate(rows))


def indexed_vectors(*rows: tuple[int, list[float]]) -> Reply:
    return reply(embeddings(*rows))


def openai_says(value: object, *, finish_reason: str = "stop", **more: Any) -> Reply:
    message = {"role": "assistant", "content": json.dumps(value), "refusal": None, **more}
    choice = {"index": 0, "finish_reason": finish_reason, "message": message}
    return reply({"id": "chatcmpl-1", "object": "chat.completion", "model": "m-1", "choices": [choice]})


def anthropic_says(value: object, *, stop_reason: str = "tool_use", **more: Any) -> Reply:
    block = {"type": "tool_use", "id": "toolu_1", "name": "a_tool", "input": value}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [block]}
    return reply({**message, "stop_reason": stop_reason, "usage": {"output_tokens": 9}, **more})


def proposed(**changes: Any) -> dict[str, Any]:
    """A memory as a model proposes it."""
    base = {"type": "fact", "topic_key": "user.city", "summary": "Lives in Oslo", "details": "Moved.", "keywords": ""}
    return {**base, **changes}
