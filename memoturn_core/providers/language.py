"""A language model that proposes memories from a transcript and answers questions from memories.

Called by extract and ask. Turns, questions and memories reach the model as one JSON document that its
instructions declare to be data (`tasks`). A refusal, a reply that was cut off, or one that is not of
the shape asked for is a `UpstreamFailure`; a model never gets half of its reply accepted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from pydantic import ValidationError

from memoturn_core.providers.http import Endpoint, ProviderClient, encode
from memoturn_core.providers.tasks import ANSWER, EXTRACT, ProposalType, ProposedMemory, R, Task
from memoturn_schemas.errors import UpstreamFailure
from memoturn_storage.ambient import Ambient

MAX_OUTPUT_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a transcript."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A memory worth keeping. Only facts and instructions have a `topic_key`; spaces part the keywords."""

    type: ProposalType
    topic_key: str | None
    summary: str
    details: str
    keywords: str


@dataclass(frozen=True, slots=True)
class Grounded:
    """A memory an answer may rest on; `content_text` is its content as text."""

    id: str
    summary: str
    content_text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and those of the given memories it rests on, each once."""

    text: str
    cited_ids: list[str]


class LanguageModel(Protocol):
    """Reads transcripts and memories. Both calls raise `UpstreamFailure` and write nothing."""

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def failing(self) -> bool:
        """Whether it failed so often, and never since, that it is not worth asking."""
        ...

    async def extract(self, turns: Sequence[Turn]) -> list[Proposal]:
        """The memories the turns hold, possibly none; summaries are one line and not blank."""
        ...

    async def answer(self, question: str, memories: Sequence[Grounded]) -> Answer:
        """The answer that `memories` (one at least) give to `question`."""
        ...

    async def aclose(self) -> None: ...


_STOPPED = {
    "max_tokens": "was cut off at its limit of tokens",
    "length": "was cut off at its limit of tokens",
    "refusal": "refused to answer",
    "content_filter": "refused to answer",
}


class _StructuredModel(ABC):
    """What the providers have in common: the two tasks, and replies that are checked."""

    def __init__(self, endpoint: Endpoint, ambient: Ambient) -> None:
        self._model = endpoint.model
        self._client = ProviderClient(endpoint, ambient, headers=self._headers(endpoint.api_key))

    @property
    def model(self) -> str:
        return self._model

    @property
    def failing(self) -> bool:
        return self._client.failing

    async def extract(self, turns: Sequence[Turn]) -> list[Proposal]:
        reply = await self._perform(EXTRACT, {"turns": [asdict(turn) for turn in turns]})
        return [_proposal(memory) for memory in reply.memories]

    async def answer(self, question: str, memories: Sequence[Grounded]) -> Answer:
        given = [{"id": each.id, "summary": each.summary, "content": each.content_text} for each in memories]
        reply = await self._perform(ANSWER, {"question": question, "memories": given})
        known = {each.id for each in memories}
        return Answer(reply.answer, [cited for cited in dict.fromkeys(reply.cited_ids) if cited in known])

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _perform(self, task: Task[R], document: Mapping[str, object]) -> R:
        reply = await self._reply(task, encode(document).decode())
        try:
            return task.reply.model_validate(reply)
        except ValidationError:
            raise self._client.failure("answered in another shape than it was told to") from None

    @abstractmethod
    async def _reply(self, task: Task[R], document: str) -> object:
        """What the model replied, unchecked; `UpstreamFailure` unless it came to a regular end."""

    @staticmethod
    @abstractmethod
    def _headers(api_key: str | None) -> dict[str, str]: ...

    def _stopped(self, reason: object) -> UpstreamFailure:
        return self._client.failure(_STOPPED.get(str(reason), "did not give the answer it was told to"))


class AnthropicModel(_StructuredModel):
    """The Messages API. The reply is the input of a tool the model is made to call."""

    async def _reply(self, task: Task[R], document: str) -> object:
        message = await self._client.post(
            "/v1/messages",
            {
                "model": self.model,
                "max_tokens": MAX_OUTPUT_TOKENS,
                "system": task.instructions,
                "messages": [{"role": "user", "content": document}],
                "tools": [{"name": task.name, "input_schema": task.schema()}],
                "tool_choice": {"type": "tool", "name": task.name, "disable_parallel_tool_use": True},
            },
        )
        match message:
            case {"stop_reason": "tool_use", "content": [*_, {"type": "tool_use", "input": reply}]}:
                return reply
        raise self._stopped(message.get("stop_reason"))

    @staticmethod
    def _headers(api_key: str | None) -> dict[str, str]:
        return {"anthropic-version": "2023-06-01"} | ({"x-api-key": api_key} if api_key else {})


class OpenAIModel(_StructuredModel):
    """Chat completions, by OpenAI or a server that speaks its protocol. The reply is the message's text."""

    async def _reply(self, task: Task[R], document: str) -> object:
        completion = await self._client.post(
            "/v1/chat/completions",
            {
                "model": self.model,
                "messages": [
                    {"role": "system", "content": task.instructions},
                    {"role": "user", "content": document},
                ],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": task.name, "strict": True, "schema": task.schema()},
                },
            },
        )
        match completion:
            case {"choices": [{"message": {"refusal": str(said)}}]} if said:
                raise self._stopped("refusal")
            case {"choices": [{"finish_reason": "stop", "message": {"content": str(text)}}]}:
                return self._client.decode(text)
            case {"choices": [{"finish_reason": reason}]}:
                raise self._stopped(reason)
        raise self._stopped(None)

    @staticmethod
    def _headers(api_key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {api_key}"} if api_key else {}


def _proposal(memory: ProposedMemory) -> Proposal:
    keyed = memory.type in ("fact", "instruction")
    summary = _line(memory.summary)
    return Proposal(
        type=memory.type,
        topic_key=(_line(memory.topic_key or "") or None) if keyed else None,
        summary=summary,
        # Memories are told apart by their content: blank details would make duplicates of any two.
        details=memory.details if memory.details.strip() else summary,
        keywords=_line(memory.keywords),
    )


def _line(text: str) -> str:
    return " ".join(text.split())
