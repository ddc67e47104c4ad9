"""What providers answer, on their wire formats, for the scripts of `provider_server`."""

from __future__ import annotations

import json
from typing import Any

from contract.provider_server import Reply, reply
from memoturn_core.providers.http import Endpoint


def endpoint(url: str, name: str = "acme") -> Endpoint:
    return Endpoint(provider=name, base_url=url, model="m-1", budget_s=5.0, api_key="sk-key")


def vectors(*rows: list[float]) -> Reply:
    """Embeddings for the texts of one request, in their order."""
    return indexed_vectors(*enumerate(rows))


def indexed_vectors(*rows: tuple[int, list[float]]) -> Reply:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in rows]
    return reply({"object": "list", "data": data, "model": "m-1"})


def openai_says(value: object, *, finish_reason: str = "stop", refusal: str | None = None) -> Reply:
    message = {"role": "assistant", "content": json.dumps(value), "refusal": refusal}
    choice = {"index": 0, "finish_reason": finish_reason, "message": message}
    return reply({"id": "chatcmpl-1", "object": "chat.completion", "model": "m-1", "choices": [choice]})


def anthropic_says(value: object, *, stop_reason: str = "tool_use") -> Reply:
    block = {"type": "tool_use", "id": "toolu_1", "name": "a_tool", "input": value}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [block]}
    return reply({**message, "stop_reason": stop_reason, "usage": {"output_tokens": 9}})


def proposed(**changes: Any) -> dict[str, Any]:
    """A memory as a model proposes it."""
    base = {"type": "fact", "topic_key": "user.city", "summary": "Lives in Oslo", "details": "Moved.", "keywords": ""}
    return {**base, **changes}
