"""Two prompts that a person picks in the client: begin with what is known, end by keeping what was learnt."""

from __future__ import annotations

from collections.abc import Mapping

import mcp_types as types
from mcp.shared.exceptions import MCPError

from memoturn_core.address import Address
from memoturn_core.door import Door
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.resources import protocol_error
from memoturn_mcp.tools import Defaults
from memoturn_schemas.errors import MemoturnError

_NAMESPACE = types.PromptArgument(name="namespace", description="Who the memories belong to.", required=False)
_PROFILE = types.PromptArgument(name="profile", description="Whose memories.", required=False)

LISTING = types.ListPromptsResult(
    prompts=[
        types.Prompt(
            name="recall_context",
            title="Start with what is known",
            description="Put what the memory holds on a subject into the conversation.",
            arguments=[
                types.PromptArgument(name="about", description="The subject, in plain words.", required=True),
                _NAMESPACE,
                _PROFILE,
            ],
        ),
        types.Prompt(
            name="end_of_session",
            title="Keep what was learnt",
            description="Have the agent keep what this conversation taught it, and close the session.",
            arguments=[types.PromptArgument(name="session", description="The conversation's id.", required=False)],
        ),
    ]
)

_END = """
This conversation is ending. Go through it once more and keep with memory_ingest, in one call, what will
matter later: facts and preferences (with a topic_key, so that they replace what is outdated), instructions
the user gave you, events worth knowing, and open tasks. Recall first what you are about to keep, and leave
out what is known already. Do not keep small talk or secrets.
""".strip()


async def get(door: Door, defaults: Defaults, name: str, arguments: Mapping[str, str]) -> types.GetPromptResult:
    """A prompt's messages.

    Raises:
        MCPError: invalid params for an unknown prompt or a missing argument.
    """
    if name == "recall_context":
        return _message("What the memory holds", await _context(door, defaults, arguments))
    if name == "end_of_session":
        session = arguments.get("session")
        tail = f"\nUse session_id {session!r}, then close it with memory_session_end." if session else ""
        return _message("Keep what was learnt", _END + tail)
    raise MCPError(types.INVALID_PARAMS, f"there is no prompt {name!r}")


async def _context(door: Door, defaults: Defaults, arguments: Mapping[str, str]) -> str:
    about = arguments.get("about")
    namespace = arguments.get("namespace") or defaults.namespace
    profile = arguments.get("profile") or defaults.profile
    if not about or namespace is None or profile is None:
        missing = "about" if not about else "namespace" if namespace is None else "profile"
        raise MCPError(types.INVALID_PARAMS, f"{missing}: is required")
    try:
        address = Address.of_profile(namespace, profile)
        reply = await door.call(OPERATIONS["memory_recall"], address, {"query": about})
    except MemoturnError as error:
        raise protocol_error(error) from error
    lines = [f"- {memory['summary']} ({memory['id']})" for memory in reply.value["memories"]]
    if not lines:
        return f"The memory holds nothing about: {about}"
    return "\n".join([f"From memory, about: {about}", *lines])


def _message(description: str, text: str) -> types.GetPromptResult:
    message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=text))
    return types.GetPromptResult(description=description, messages=[message])
