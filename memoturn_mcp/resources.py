"""Memories and sessions as MCP resources: `memoturn://{namespace}/{profile}/...`.

A memory's resource is its record; a session's is the end of its transcript. Called by `server`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote, urlsplit

import mcp_types as types
from mcp.shared.exceptions import MCPError
from pydantic_core import to_json

from memoturn_core.address import Address
from memoturn_core.door import Door
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.tools import Defaults
from memoturn_schemas.errors import MemoturnError, NotFound

_MIME = "application/json"
_LISTED_SESSIONS = 50
_TURNS = 100

TEMPLATES = types.ListResourceTemplatesResult(
    resource_templates=[
        types.ResourceTemplate(
            name="memory",
            title="A memory",
            uri_template="memoturn://{namespace}/{profile}/memories/{id}",
            description="One memory in full, with its topic's history.",
            mime_type=_MIME,
        ),
        types.ResourceTemplate(
            name="session",
            title="A session",
            uri_template="memoturn://{namespace}/{profile}/sessions/{session}",
            description=f"The last {_TURNS} turns of a conversation, oldest first.",
            mime_type=_MIME,
        ),
    ]
)


async def listing(door: Door, defaults: Defaults) -> types.ListResourcesResult:
    """The sessions of the default profile, most recently active first; none where there is no default."""
    if defaults.namespace is None or defaults.profile is None:
        return types.ListResourcesResult(resources=[])
    address = Address.of_profile(defaults.namespace, defaults.profile)
    try:
        reply = await door.call(OPERATIONS["memory_sessions_list"], address, {"limit": _LISTED_SESSIONS})
    except NotFound:
        return types.ListResourcesResult(resources=[])
    except MemoturnError as error:
        raise protocol_error(error) from error
    base = f"memoturn://{defaults.namespace}/{defaults.profile}/sessions/"
    return types.ListResourcesResult(
        resources=[
            types.Resource(
                name=session["id"],
                title=f"Session {session['id']}",
                uri=base + quote(session["id"], safe=""),
                description=f"{session['turns']} turns, {session['tasks']} open tasks",
                mime_type=_MIME,
            )
            for session in reply.value["sessions"]
        ]
    )


async def read(door: Door, uri: str) -> types.ReadResourceResult:
    """The JSON behind a resource's URI.

    Raises:
        MCPError: invalid params for a URI that is none of ours or names nothing.
    """
    parts = urlsplit(uri)
    segments = [parts.netloc, *(unquote(segment) for segment in parts.path.split("/")[1:])]
    arguments: dict[str, Any]
    match segments:
        case [namespace, profile, "memories", id_] if parts.scheme == "memoturn":
            name, arguments = "memory_get", {"id": id_}
        case [namespace, profile, "sessions", session] if parts.scheme == "memoturn":
            name, arguments = "memory_window", {"session": session, "last": _TURNS}
        case _:
            raise MCPError(types.INVALID_PARAMS, f"there is no resource {uri}", {"uri": uri})
    try:
        reply = await door.call(OPERATIONS[name], Address.of_profile(namespace, profile), arguments)
    except MemoturnError as error:
        raise protocol_error(error, uri) from error
    text = to_json({"txid": reply.txid, "result": reply.value}).decode()
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=_MIME, text=text)])


def protocol_error(error: MemoturnError, uri: str | None = None) -> MCPError:
    """The same error as the protocol says it where there is no result to say it in."""
    code = types.INTERNAL_ERROR if error.status >= 500 else types.INVALID_PARAMS
    return MCPError(code, str(error), {**error.envelope(), **({} if uri is None else {"uri": uri})})
