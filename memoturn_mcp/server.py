"""The MCP server: the registry's operations as tools, memories and sessions as resources, two prompts.

It stands on the SDK's low-level `Server`, whose handlers take data: the tools come from the registry,
not from decorated functions. One server object serves stdio, streamable HTTP and SSE alike; what runs
an operation is behind a `Door`, so the same server also fronts a remote node. Through which door a request
goes, and so for whom, is asked for each one: it is never a session's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from memoturn_core.registry import OPERATIONS
from memoturn_mcp import completions, prompts, resources, tools
from memoturn_mcp.settings import ToolChoice
from memoturn_mcp.tools import Defaults, Reach

_INSTRUCTIONS = (
    "Memoturn is your long-term memory. It outlives this conversation.",
    "- Start of a turn: memory_recall with the user's words, before you answer from memory or ask again.",
    """- End of a turn: memory_ingest what was learnt. A fact or instruction with a topic_key replaces what was
  known on that topic; an event is something that happened; a task is something to do, and expires.""",
    "- To keep a conversation verbatim, memory_append each message; memory_window reads its end.",
    "- When the user asks to forget something, recall it and memory_forget its id.",
    """- A task worth learning from: query_memory and recommend_patterns before it, create_episode at its start,
  add_step after each tool, complete_episode at its end, then record_feedback.""",
    "Write summaries that make sense on their own: who, what, when. Never keep secrets such as passwords.",
)

Context = ServerRequestContext[Any, Any]


def instructions(listed: Collection[str]) -> str:
    """What an agent is told at first: the lines all of whose tools are listed."""
    unlisted = OPERATIONS.keys() - set(listed)
    return "\n".join(line for line in _INSTRUCTIONS if not unlisted & set(re.findall(r"\w+", line)))


def make_server(reach: Callable[[Context], Reach], choice: ToolChoice) -> Server[Any]:
    """An MCP server whose requests go through what `reach` says of each.

    Raises:
        InvalidRequest: `choice` names a toolset or tool that does not exist.
    """
    operations = {operation.name: operation for operation in tools.chosen(choice)}

    @lru_cache(maxsize=64)
    def listing(defaults: Defaults) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tools.as_tool(operation, defaults) for operation in operations.values()])

    schemas = {tool.name: tool.input_schema for tool in listing(Defaults()).tools}

    async def list_tools(context: Context, _: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        mine = reach(context)
        every = listing(mine.defaults).tools
        return types.ListToolsResult(tools=[tool for tool in every if mine.door.offers(operations[tool.name])])

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        operation = operations.get(params.name)
        if operation is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name!r} here")
        mine = reach(context)
        return await tools.call(mine.door, operation, params.arguments or {}, mine.defaults)

    async def list_resources(context: Context, _: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        mine = reach(context)
        return await resources.listing(mine.door, mine.defaults)

    async def list_templates(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
        return resources.TEMPLATES

    async def read_resource(context: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        return await resources.read(reach(context).door, str(params.uri))

    async def list_prompts(_: Context, __: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        return prompts.LISTING

    async def get_prompt(context: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        mine = reach(context)
        return await prompts.get(mine.door, mine.defaults, params.name, params.arguments or {})

    async def complete(context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        mine = reach(context)
        return await completions.complete(mine.door, mine.defaults, params)

    return Server(
        "memoturn",
        title="Memoturn",
        version=version("memoturn"),
        instructions=instructions(operations),
        get_tool_input_schema=schemas.get,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
    )
