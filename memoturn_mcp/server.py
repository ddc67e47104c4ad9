"""The MCP server: the registry's operations as tools, memories and sessions as resources, two prompts.

It stands on the SDK's low-level `Server`, whose handlers take data: the tools come from the registry,
not from decorated functions. One server object serves stdio, streamable HTTP and SSE alike; what runs
an operation is behind a `Door`, so the same server also fronts a remote node.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from memoturn_core.door import Door
from memoturn_mcp import completions, prompts, resources, tools
from memoturn_mcp.settings import ToolChoice
from memoturn_mcp.tools import Defaults

INSTRUCTIONS = """
Memoturn is your long-term memory. It outlives this conversation.
- Start of a turn: memory_recall with the user's words, before you answer from memory or ask again.
- End of a turn: memory_ingest what was learnt. A fact or instruction with a topic_key replaces what was
  known on that topic; an event is something that happened; a task is something to do, and expires.
- To keep a conversation verbatim, memory_append each message; memory_window reads its end.
- When the user asks to forget something, recall it and memory_forget its id.
Write summaries that make sense on their own: who, what, when. Never keep secrets such as passwords.
""".strip()

Context = ServerRequestContext[Any, Any]


def make_server(door: Door, choice: ToolChoice, defaults: Defaults) -> Server[Any]:
    """An MCP server over `door`.

    Raises:
        InvalidRequest: `choice` names a toolset or tool that does not exist.
    """
    operations = {operation.name: operation for operation in tools.chosen(choice)}
    listing = types.ListToolsResult(tools=[tools.as_tool(operation, defaults) for operation in operations.values()])
    schemas = {tool.name: tool.input_schema for tool in listing.tools}

    async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return listing

    async def call_tool(_: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        operation = operations.get(params.name)
        if operation is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name!r} here")
        return await tools.call(door, operation, params.arguments or {}, defaults)

    async def list_resources(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        return await resources.listing(door, defaults)

    async def list_templates(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
        return resources.TEMPLATES

    async def read_resource(_: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        return await resources.read(door, str(params.uri))

    async def list_prompts(_: Context, __: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        return prompts.LISTING

    async def get_prompt(_: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        return await prompts.get(door, defaults, params.name, params.arguments or {})

    async def complete(_: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        return await completions.complete(door, defaults, params)

    return Server(
        "memoturn",
        title="Memoturn",
        version=version("memoturn"),
        instructions=INSTRUCTIONS,
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
