"""Extract and ask: a language model, off the write path, or rules for what is stated explicitly.

Contract section 2, items 42 to 48.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from memoturn_core.memory.extraction.rules import propose
from memoturn_core.memory.identity import canonical_json
from memoturn_core.memory.ingest import keep
from memoturn_core.memory.recall import recall
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.providers.language import Grounded, LanguageModel, Proposal, Turn
from memoturn_schemas.errors import Unconfigured
from memoturn_schemas.memory import (
    AskRequest,
    AskResponse,
    ExtractRequest,
    ExtractResponse,
    Hit,
    MemoryItem,
    ProposedMemory,
    RecallRequest,
)


@operation(
    name="memory_ask",
    title="Ask the memories",
    target=Target.PROFILE,
    scope=Scope.READ,
    toolset="memory",
    request=AskRequest,
    response=AskResponse,
    rest=Rest("POST", "/ask"),
    read_only=True,
    open_world=True,
)
async def ask(profile: Profile, request: AskRequest) -> Reply:
    """Have a question answered from the memories alone; call it when many memories bear on one question.

    The answer comes with the ids it rests on; it is null where nothing relevant is known.
    """
    model = _model(profile)
    wanted = RecallRequest(query=request.question, **request.model_dump(exclude={"question"}))
    found = await recall(profile, wanted)
    memories: list[Hit] = found.value["memories"]
    answer, sources = None, []
    if memories:
        grounds = [Grounded(hit["id"], hit["summary"], canonical_json(hit["content"])) for hit in memories]
        told = await model.answer(request.question, grounds)
        answer, sources = told.text, told.cited_ids
    return Reply(AskResponse(answer=answer, sources=sources, memories=memories, txid=found.txid or 0), found.txid)


@operation(
    name="memory_extract",
    title="Extract memories from a conversation",
    target=Target.PROFILE,
    scope=Scope.WRITE,
    toolset="memory",
    request=ExtractRequest,
    response=ExtractResponse,
    rest=Rest("POST", "/extract", status=201, other_statuses=(200,)),
    idempotent=True,
    open_world=True,
    durable=True,
)
async def extract(profile: Profile, request: ExtractRequest) -> Reply:
    """Have a conversation read for memories; call it at its end instead of ingesting by hand.

    What is worth remembering is kept as ingest would; with dry_run it is only proposed.
    """
    turns = [Turn(turn.role, turn.content) for turn in request.turns]
    if request.extractor == "rules":
        proposals = await profile.node.wait_for(lambda: propose(turns))
    else:
        proposals = await _model(profile).extract(turns)
    items = _items(proposals, request)
    if request.dry_run:
        return Reply(ExtractResponse(proposed=[_proposed(item) for item in items]), status=200)
    if not items:
        return Reply(ExtractResponse(results=[], txid=None))
    return await keep(profile, items)


def _model(profile: Profile) -> LanguageModel:
    if profile.node.language_model is None:
        raise Unconfigured("this node has no language model; set MEMOTURN_LLM_PROVIDER to use ask and extract")
    return profile.node.language_model


def _items(proposals: Sequence[Proposal], request: ExtractRequest) -> list[MemoryItem]:
    return [
        MemoryItem(
            type=proposal.type,
            topic_key=proposal.topic_key,
            summary=proposal.summary,
            content={"text": proposal.details},
            keywords=proposal.keywords,
            session_id=request.session_id,
            source=request.source,
        )
        for proposal in proposals
    ]


def _proposed(item: MemoryItem) -> ProposedMemory:
    return cast(ProposedMemory, item.model_dump(include=set(ProposedMemory.__annotations__)))
