"""Completion of names in resource templates and prompts: namespaces, profiles, sessions. Called by `server`."""

from __future__ import annotations

from typing import Any

import mcp_types as types

from memoturn_core.address import Address
from memoturn_core.door import Door
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.resources import protocol_error
from memoturn_mcp.tools import Defaults
from memoturn_schemas.errors import InvalidRequest, MemoturnError, NotFound

_AT_MOST = 100
"""Values in one answer, the most that the protocol allows."""


async def complete(door: Door, defaults: Defaults, params: types.CompleteRequestParams) -> types.CompleteResult:
    """The names that begin with what was typed; none where the rest of the address is not known."""
    known = (params.context.arguments if params.context is not None else None) or {}
    namespace = known.get("namespace") or defaults.namespace
    profile = known.get("profile") or defaults.profile
    names = await _names(door, params.argument.name, namespace, profile, defaults)
    matching = [name for name in names if name.startswith(params.argument.value)]
    return types.CompleteResult(
        completion=types.Completion(values=matching[:_AT_MOST], total=len(matching), has_more=len(matching) > _AT_MOST)
    )


async def _names(
    door: Door, argument: str, namespace: str | None, profile: str | None, defaults: Defaults
) -> list[str]:
    try:
        if argument == "namespace":
            return [] if defaults.namespace is None else [defaults.namespace]
        if argument == "profile" and namespace is not None:
            listed = await _ask(door, "memory_profiles_list", Address.of_namespace(namespace), {})
            return [entry["profile"] for entry in listed["profiles"]]
        if argument == "session" and namespace is not None and profile is not None:
            address = Address.of_profile(namespace, profile)
            listed = await _ask(door, "memory_sessions_list", address, {"limit": 1_000})
            return [session["id"] for session in listed["sessions"]]
    except (InvalidRequest, NotFound):
        # A half-typed name is none yet, and there is nothing to complete below it.
        return []
    except MemoturnError as error:
        raise protocol_error(error) from error
    return []


async def _ask(door: Door, name: str, address: Address, arguments: dict[str, Any]) -> Any:
    return (await door.call(OPERATIONS[name], address, arguments)).value
