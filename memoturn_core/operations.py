"""The registry of operations: each is defined once and every surface is made from its definition.

An operation is an asynchronous function over a `Profile` (or a `Node` or a namespace) and a validated
request. Its declaration says everything a surface needs: MCP lists it as a tool, REST routes it, the
CLI makes a command of it, OpenAPI and the JSON Schemas describe it. The first line of its docstring
says when to call it.

The modules that declare operations are imported by `memoturn_core.registry`, which holds them all.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Literal

from memoturn_schemas.common import RequestModel


class Scope(IntEnum):
    """What a caller may do; each includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


class Target(StrEnum):
    """What an operation acts on, and so how a surface addresses it."""

    NODE = "node"
    NAMESPACE = "namespace"
    PROFILE = "profile"
    """`/v1/memory/{namespace}/{profile}`; its first write creates it."""
    DATABASE = "database"
    """`/v1/db/{db}`, which must exist, or a profile."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Where REST serves an operation.

    `path` is below the target's prefix; `{names}` in it are fields of the request. Requests of GET and
    DELETE come from the path and the query string, those of POST from the path and a JSON body.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    """Further statuses of success that the operation's `Reply` may name."""
    profile_path: str | None = None
    """Of an operation on a database: where it is also served below a profile, which it may create."""

    @property
    def has_body(self) -> bool:
        return self.method in ("POST", "PUT")


@dataclass(frozen=True, slots=True)
class Reply:
    """What an operation answers: the body, the transaction it reflects, and a status other than usual."""

    value: Mapping[str, Any]
    txid: int | None = None
    status: int | None = None


Handler = Callable[[Any, Any], Awaitable[Reply]]
FillDefaults = Callable[[dict[str, Any], str | None], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, for every surface. See `operation` for the fields."""

    name: str
    title: str
    description: str
    target: Target
    scope: Scope
    toolset: str
    default_tool: bool
    request: type[RequestModel]
    response: Any
    handler: Handler
    rest: Rest | None
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    missing: Mapping[str, Any] | None
    concise: Callable[[Any], Mapping[str, Any]] | None
    concise_response: Any
    fill_defaults: FillDefaults | None

    @property
    def summary(self) -> str:
        return self.description.split("\n", 1)[0]


DECLARED: dict[str, Operation] = {}
"""Filled by the decorator; read by `memoturn_core.registry`, which has them in order."""


def operation(
    *,
    name: str,
    title: str,
    target: Target,
    scope: Scope,
    toolset: str,
    request: type[RequestModel],
    response: Any,
    rest: Rest | None,
    default_tool: bool = False,
    read_only: bool = False,
    destructive: bool = False,
    idempotent: bool = False,
    open_world: bool = False,
    missing: Mapping[str, Any] | None = None,
    concise: Callable[[Any], Mapping[str, Any]] | None = None,
    concise_response: Any = None,
    fill_defaults: FillDefaults | None = None,
) -> Callable[[Handler], Handler]:
    """Declare the decorated function as an operation.

    Args:
        name: unique; the tool's name in MCP.
        title: for people.
        target: what it acts on; decides the handler's first argument and the address on each surface.
        scope: what the caller needs.
        toolset: the group under which MCP and the CLI offer it.
        request: the model that validates its arguments.
        response: the typed dictionary of `Reply.value`, for the schemas.
        rest: where REST serves it, or None.
        default_tool: whether MCP lists it without being asked to.
        read_only, destructive, idempotent, open_world: what MCP clients show before they allow a call.
        missing: the answer for agents where REST says 404 of the thing itself, e.g. `{"found": False}`.
        concise: makes the short answer for agents; `concise_response` is its shape.
        fill_defaults: completes arguments that agents and people may leave out; takes them and the
            default source.
    """

    def declare(handler: Handler) -> Handler:
        if name in DECLARED:
            raise ValueError(f"operation {name} is declared twice")
        DECLARED[name] = Operation(
            name=name,
            title=title,
            description=inspect.cleandoc(handler.__doc__ or ""),
            target=target,
            scope=scope,
            toolset=toolset,
            default_tool=default_tool,
            request=request,
            response=response,
            handler=handler,
            rest=rest,
            read_only=read_only,
            destructive=destructive,
            idempotent=idempotent,
            open_world=open_world,
            missing=missing,
            concise=concise,
            concise_response=concise_response,
            fill_defaults=fill_defaults,
        )
        return handler

    return declare
