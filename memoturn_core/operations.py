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
from dataclasses import dataclass, fields
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

    @property
    def prefix(self) -> str:
        """The beginning of its operations' paths in REST; `{names}` in it are parts of the address."""
        return _PREFIXES[self]


_PREFIXES = {
    Target.NODE: "/v1",
    Target.NAMESPACE: "/v1/memory/{namespace}",
    Target.PROFILE: "/v1/memory/{namespace}/{profile}",
    Target.DATABASE: "/v1/db/{db}",
}


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
    """Of an operation on a database: under which other path it is also served below a profile."""
    in_profile: bool = False
    """Whether it is also served below a profile, which it may create, under the same path."""
    at: str | None = None
    """The prefix instead of the target's."""
    also_at: str | None = None
    """A further prefix under which the same path is served."""
    raw_body: str | None = None
    """The field of the request that is the body itself, byte for byte; the others come from path and query."""
    raw_reply: str | None = None
    """The field of the reply that is the body itself."""

    @property
    def below_profile(self) -> str | None:
        """The path below a profile under which it is also served."""
        return self.path if self.in_profile else self.profile_path

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


DECLARED: dict[str, Operation] = {}
"""Filled by the decorator; read by `memoturn_core.registry`, which has them in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What an operation is, but for its handler; calling it with the handler declares the operation.

    Used as a decorator, under the name `operation`.
    """

    name: str
    """Unique; the tool's name in MCP."""
    title: str
    """For people."""
    target: Target
    """What it acts on; decides the handler's first argument and the address on each surface."""
    scope: Scope
    """What the caller needs."""
    toolset: str
    """The group under which MCP offers it."""
    request: type[RequestModel]
    """The model that validates its arguments."""
    response: Any
    """The typed dictionary of `Reply.value`, for the schemas."""
    rest: Rest | None
    """Where REST serves it, or None."""
    default_tool: bool = False
    """Whether MCP lists it without being asked to."""
    read_only: bool = False
    """This and the next three are what MCP clients show before they allow a call."""
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = False
    durable: bool = False
    """Whether a request may ask that it is acknowledged only once it is shipped; others ignore it."""
    conflicts: bool = False
    """Whether it may meet a name that is taken, or a state that does not allow it."""
    whole_database: bool = False
    """Whether it is about all branches of a database, so that a branch in the address means nothing."""
    asleep: bool = False
    """Whether it does not need the database open, and so runs in any process."""
    control: bool = False
    """Whether it belongs to the control plane: the platform key opens it, and it has a rate limit."""
    queued: bool = False
    """Whether requests wait for a place, and are refused where too many do."""
    available: Callable[[Any], bool] | None = None
    """Says of a node whether it has what the operation needs; where not, MCP does not list it."""
    missing: Mapping[str, Any] | None = None
    """The answer for agents where REST says 404 of the thing itself, e.g. `{"found": False}`."""
    concise: Callable[[Any], Mapping[str, Any]] | None = None
    """Makes the short answer for agents."""
    concise_response: Any = None
    """The shape of the short answer."""
    fill_defaults: FillDefaults | None = None
    """Completes arguments that agents and people may leave out; takes them and the default source."""

    def __call__(self, handler: Handler) -> Handler:
        if self.name in DECLARED:
            raise ValueError(f"operation {self.name} is declared twice")
        declared = {field.name: getattr(self, field.name) for field in fields(self)}
        description = inspect.cleandoc(handler.__doc__ or "")
        DECLARED[self.name] = Operation(**declared, description=description, handler=handler)
        return handler


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Declaration):
    """One operation, for every surface."""

    description: str
    """The handler's docstring; its first line says when to call it."""
    handler: Handler

    @property
    def summary(self) -> str:
        return self.description.split("\n", 1)[0]


operation = Declaration
