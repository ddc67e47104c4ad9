"""Operations as MCP tools: which are listed, their schemas, a call's arguments and its answer.

A tool's arguments are the operation's request plus the address (`namespace` and `profile`, or `db`; `branch`); its
answer is `{"txid", "result"}`, as structured content and as the same compact JSON. Called by `server`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations
from pydantic_core import to_json

from memoturn_core.address import NODE, Address
from memoturn_core.door import Door
from memoturn_core.operations import Operation, Reply, Target
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.settings import ALL, DEFAULT, ToolChoice, default_source
from memoturn_schemas import blob
from memoturn_schemas.errors import InvalidRequest, MemoturnError, NotFound
from memoturn_schemas.json_schema import inlined, request_schema, response_schema

_ADDRESS: dict[str, dict[str, Any]] = {
    "namespace": {"type": "string", "description": "Who the memories belong to."},
    "profile": {"type": "string", "description": "Whose memories: one user, agent or project."},
    "db": {"type": "string", "description": "A database that is no profile: its name, or name@branch."},
    "branch": {"type": "string", "description": "A branch of it; main by default."},
}
_PARTS: dict[Target, tuple[str, ...]] = {
    Target.NODE: (),
    Target.NAMESPACE: ("namespace",),
    Target.PROFILE: ("namespace", "profile", "branch"),
    Target.DATABASE: ("namespace", "profile", "db", "branch"),
}
_FORMAT = {
    "type": "string",
    "enum": ["concise", "detailed"],
    "default": "concise",
    "description": "How much of each result to give.",
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """The address that calls need not repeat."""

    namespace: str | None = None
    profile: str | None = None
    db: str | None = None
    """Where the credential is for one database that is no profile."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a request's sender reaches: through which door, and the address that need not be repeated."""

    door: Door
    defaults: Defaults


def chosen(choice: ToolChoice) -> list[Operation]:
    """The operations that a server lists.

    Raises:
        InvalidRequest: a toolset or tool that does not exist.
    """
    toolsets = {operation.toolset for operation in OPERATIONS.values()}
    _require_known("toolset", choice.toolsets, toolsets | {ALL, DEFAULT})
    _require_known("tool", choice.tools | choice.excluded, OPERATIONS.keys())
    listed = []
    for operation in OPERATIONS.values():
        wanted = (
            ALL in choice.toolsets
            or operation.toolset in choice.toolsets
            or (DEFAULT in choice.toolsets and operation.default_tool)
            or operation.name in choice.tools
        )
        if wanted and operation.name not in choice.excluded and (operation.read_only or not choice.read_only):
            listed.append(operation)
    return listed


def _require_known(what: str, given: frozenset[str], known: Any) -> None:
    unknown = sorted(given - set(known))
    if unknown:
        raise InvalidRequest(f"there is no {what} {unknown[0]!r}; there are {', '.join(sorted(known))}")


def as_tool(operation: Operation, defaults: Defaults) -> Tool:
    return Tool(
        name=operation.name,
        title=operation.title,
        description=operation.description,
        input_schema=_input_schema(operation, defaults),
        output_schema=_output_schema(operation),
        annotations=ToolAnnotations(
            title=operation.title,
            read_only_hint=operation.read_only,
            destructive_hint=operation.destructive,
            idempotent_hint=operation.idempotent,
            open_world_hint=operation.open_world,
        ),
    )


def _input_schema(operation: Operation, defaults: Defaults) -> dict[str, Any]:
    schema = inlined(request_schema(operation.request))
    address = {part: dict(_ADDRESS[part]) for part in _parts(operation)}
    required = []
    for part in address.keys() & {"namespace", "profile"}:
        default = getattr(defaults, part)
        if default is not None:
            address[part]["default"] = default
        elif "db" not in address:
            required.append(part)
    properties = {**schema.get("properties", {}), **address}
    if operation.concise is not None:
        properties["response_format"] = _FORMAT
    return {
        "type": "object",
        "properties": properties,
        "required": [*schema.get("required", []), *sorted(required)],
        "additionalProperties": False,
    }


def _parts(operation: Operation) -> tuple[str, ...]:
    parts = _PARTS[operation.target]
    return tuple(part for part in parts if part != "branch") if operation.whole_database else parts


def _output_schema(operation: Operation) -> dict[str, Any]:
    result = inlined(response_schema(operation.response))
    if "txid" in result.get("properties", {}):
        del result["properties"]["txid"]
        result["required"] = [name for name in result.get("required", []) if name != "txid"]
    if operation.concise_response is not None:
        result = {"anyOf": [inlined(response_schema(operation.concise_response)), result]}
    if operation.missing is not None:
        flag = {name: {"type": "boolean"} for name in operation.missing}
        absent = {"type": "object", "properties": flag, "required": list(flag), "additionalProperties": False}
        result["properties"] |= flag
        result = {"anyOf": [absent, result]}
    return {
        "type": "object",
        "properties": {
            "txid": {
                "anyOf": [{"type": "integer"}, {"type": "null"}],
                "description": "The transaction that the result reflects.",
            },
            "result": result,
        },
        "required": ["txid", "result"],
    }


async def call(door: Door, operation: Operation, arguments: Mapping[str, Any], defaults: Defaults) -> CallToolResult:
    """Run a tool. Every failure is a result with `isError`, the envelope as text and in `_meta`."""
    try:
        rest = dict(arguments)
        address = _address(operation, rest, defaults)
        detailed = operation.concise is None or _detailed(rest)
        if operation.fill_defaults is not None:
            rest = operation.fill_defaults(rest, default_source())
        try:
            reply = await door.call(operation, address, rest)
        except NotFound:
            if operation.missing is None:
                raise
            return _success(dict(operation.missing), None)
        return _success(_result(operation, reply, detailed), reply.txid)
    except MemoturnError as error:
        envelope = dict(error.envelope())
        return CallToolResult(content=[_text(envelope)], is_error=True, _meta=envelope)


def _result(operation: Operation, reply: Reply, detailed: bool) -> dict[str, Any]:
    value = reply.value if detailed or operation.concise is None else operation.concise(reply.value)
    result = {key: blob.to_json(item) if isinstance(item, bytes) else item for key, item in value.items()}
    result.pop("txid", None)
    if operation.missing is not None:
        result = {**dict.fromkeys(operation.missing, True), **result}
    return result


def _success(result: dict[str, Any], txid: int | None) -> CallToolResult:
    answer = {"txid": txid, "result": result}
    return CallToolResult(content=[_text(answer)], structured_content=answer)


def _text(value: Any) -> TextContent:
    return TextContent(type="text", text=to_json(value).decode())


def _address(operation: Operation, arguments: dict[str, Any], defaults: Defaults) -> Address:
    """Take the address out of the arguments."""
    given = {part: _taken(arguments, part) for part in _parts(operation)}
    if operation.target is Target.NODE:
        return NODE
    profile = any(given.get(part) is not None for part in ("namespace", "profile"))
    if "db" in given:
        if profile and given["db"] is not None:
            raise InvalidRequest("db: give it, or namespace and profile")
        database = given["db"] or (None if profile else defaults.db)
        if database is not None:
            return Address.of_database(database, given.get("branch"))
    if operation.target is Target.NAMESPACE:
        return Address.of_namespace(_needed("namespace", given, defaults))
    namespace, profile_name = (_needed(part, given, defaults) for part in ("namespace", "profile"))
    return Address.of_profile(namespace, profile_name, given.get("branch"))


def _taken(arguments: dict[str, Any], part: str) -> str | None:
    value = arguments.pop(part, None)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{part}: should be a string")
    return value


def _needed(part: str, given: Mapping[str, str | None], defaults: Defaults) -> str:
    value = given[part] if given[part] is not None else getattr(defaults, part)
    if value is None:
        raise InvalidRequest(f"{part}: is required; give it, or set MEMOTURN_{part.upper()} for the server")
    return str(value)


def _detailed(arguments: dict[str, Any]) -> bool:
    wanted = arguments.pop("response_format", "concise")
    if wanted not in ("concise", "detailed"):
        raise InvalidRequest("response_format: should be 'concise' or 'detailed'")
    return bool(wanted == "detailed")
