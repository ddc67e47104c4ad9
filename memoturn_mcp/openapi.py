"""The OpenAPI 3.1 description of the REST surface, made from the registry, the wire models and the errors.

An operation says what it can answer: the statuses of success that its declaration has, and of failures
those that requests of its kind can meet. What many operations share is a component. Served as
`/openapi.json`, kept in `schemas/` and shown by `docs_page`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any, get_args

from memoturn_core.operations import Operation, Scope, Target
from memoturn_mcp.responses import REQUEST_ID, TXID
from memoturn_mcp.routes import Route, all_routes
from memoturn_schemas.errors import ErrorCode, MemoturnError
from memoturn_schemas.json_schema import request_schema, response_schema
from memoturn_schemas.names import BRANCH_RULE, NAME_RULE

Schema = dict[str, Any]

_ABOUT = """\
A memory that AI agents can operate on.

Every failed request answers with `{"error", "code"}`. Times are Unix milliseconds. `Memoturn-Txid` on an
answer is the transaction that it reflects.

With auth on, every operation names the credentials that open it and the scope that a token needs
(`read` < `write` < `admin`); with auth off, all are open.

Paths below `/v1/db/{db}` are served without `/db/{db}` too.
"""
_MEANT = """\
The database is the one that the Host names, as `{db}.` before a host of MEMOTURN_ALLOWED_HOSTS, or else the one of
the token; with neither it is 400."""
_OPEN = {"/health": "ok", "/healthz": "ok", "/readyz": "ok"}

_TEXT: Schema = {"type": "string"}
_BINARY: Schema = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_TRANSACTION: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}

_ADDRESS = {
    "namespace": f"Who the memories belong to: {NAME_RULE}.",
    "profile": f"Whose memories: one user, agent or project; {NAME_RULE}.",
    "db": f"A database ({NAME_RULE}), or a profile as `namespace--profile`; `name@branch` addresses a branch.",
}
_PARAMETERS: dict[str, Schema] = {
    "branch": {
        "name": "branch",
        "in": "query",
        "description": f"A branch of the database, main if left out: {BRANCH_RULE}.",
        "schema": _TEXT,
    },
    "Memoturn-Branch": {
        "name": "Memoturn-Branch",
        "in": "header",
        "description": "The branch, where neither the query nor the path names one.",
        "schema": _TEXT,
    },
    "Memoturn-Min-Txid": {
        "name": "Memoturn-Min-Txid",
        "in": "header",
        "description": "Never answer from a state older than this transaction: 503 where there is no newer one yet.",
        "schema": _TRANSACTION,
    },
    "Memoturn-Consistency": {
        "name": "Memoturn-Consistency",
        "in": "header",
        "description": "`primary` asks the owner of the database; `cached` may be behind it.",
        "schema": {"type": "string", "enum": ["primary", "cached"]},
    },
    "Memoturn-Durability": {
        "name": "Memoturn-Durability",
        "in": "header",
        "description": "`durable` answers only once object storage has what was written.",
        "schema": {"type": "string", "enum": ["standard", "durable"], "default": "standard"},
    },
}
_HEADERS: dict[str, Schema] = {
    TXID: {"description": "The transaction that the answer reflects.", "required": True, "schema": _TRANSACTION},
    f"{TXID}-If-Any": {
        "description": "The transaction that the answer reflects, where it reflects one.",
        "schema": _TRANSACTION,
    },
    REQUEST_ID: {
        "description": "Finds the request in the node's log.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "Retry-After": {
        "description": "Seconds after which there may be room.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "Where a client learns which credentials there are.",
        "required": True,
        "schema": _TEXT,
    },
}
_FAILURES = {
    400: ("InvalidRequest", "The request can never succeed as it stands; the message names the field."),
    401: ("Unauthorized", "No credential, one that does not verify, or one that opens other paths."),
    403: ("Forbidden", "The credential does not cover this, or the request asks for what nobody may."),
    404: ("NotFound", "The thing, the database or the branch is not there."),
    408: ("RequestTimeout", "The request's time budget ran out."),
    409: ("Conflict", "The name is taken, or the state of the database does not allow it."),
    413: ("PayloadTooLarge", "The body is over the limit."),
    429: ("Overloaded", "Too much is waiting already; nothing was begun."),
    500: ("Internal", "A fault of the node; the log has it under the request id."),
    502: ("UpstreamFailure", "A provider, or the process that owns the database, failed."),
    503: ("Unavailable", "Something the request needs is down, behind or not configured."),
}
_HEADERS_OF_FAILURES = {401: "WWW-Authenticate", 429: "Retry-After"}
_SECURITY_SCHEMES: dict[str, Schema] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the database or of its namespace, with the scope that the operation names.",
    },
    "platformKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "The platform key opens the control plane, and nothing else.",
    },
    "clusterKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Memoturn-Internal",
        "description": "What nodes show each other; opens everything.",
    },
}


@cache
def document() -> Schema:
    """The whole description; equal for equal versions of the program."""
    schemas: dict[str, Schema] = {"ErrorEnvelope": _envelope()}
    paths: dict[str, dict[str, Any]] = {path: {"get": _open(path, text)} for path, text in _OPEN.items()}
    for route in all_routes():
        method = route.rest.method.lower()
        paths.setdefault(route.path, {})[method] = _operation(route, schemas)
        if route.bare is not None:
            paths.setdefault(route.bare, {})[method] = _operation(route, schemas, bare=True)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Memoturn",
            "version": version("memoturn"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {name: _failure(status, text) for status, (name, text) in _FAILURES.items()},
            "parameters": _PARAMETERS | {name: _address(name, text) for name, text in _ADDRESS.items()},
            "headers": _HEADERS,
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _open(path: str, text: str) -> Schema:
    content = {"text/plain": {"schema": {"type": "string", "const": text}}}
    return {
        "operationId": path.strip("/"),
        "summary": "Whether the node answers.",
        "security": [],
        "responses": {
            "200": {"description": text, "headers": _named(REQUEST_ID), "content": content},
            "403": _reference("responses", "Forbidden"),
        },
    }


def _operation_id(route: Route, *, bare: bool) -> str:
    """The operation's name, and on its further paths where they are."""
    name, rest = route.operation.name, route.rest
    if bare:
        return f"{name}_bare"
    if route.path == (rest.at or route.operation.target.prefix) + rest.path:
        return name
    return f"{name}_in_profile" if route.path.startswith(Target.PROFILE.prefix) else f"{name}_in_control"


def _operation(route: Route, schemas: dict[str, Schema], *, bare: bool = False) -> Schema:
    """One method of one path; `bare` is where the path goes without its database."""
    operation = route.operation
    request = request_schema(operation.request)
    fields: dict[str, Schema] = request.get("properties", {})
    described: Schema = {
        "operationId": _operation_id(route, bare=bare),
        "summary": operation.summary,
        "description": operation.description + (f"\n\n{_MEANT}" if bare else ""),
        "tags": [operation.toolset],
        "x-scope": operation.scope.name.lower(),
        "security": _security(route),
        "parameters": [*_parameters(route, fields, bare=bare)],
        "responses": _responses(route, schemas),
    }
    if route.rest.raw_body is not None:
        text = f"The {route.rest.raw_body} itself, byte for byte, of any content type."
        described["requestBody"] = {"required": True, "description": text, "content": _BINARY}
    elif route.rest.has_body:
        schema = _without(request, set(route.parameters), schemas)
        content = {"application/json": {"schema": schema}}
        described["requestBody"] = {"required": bool(schema.get("required")), "content": content}
    return described


# --- what a request holds ------------------------------------------------------------------------


def _security(route: Route) -> list[dict[str, list[str]]]:
    operation = route.operation
    if operation.scope is Scope.NONE:
        return []
    for_all = route.control and operation.target is Target.NODE and operation.scope is Scope.ADMIN
    token = [] if for_all else [{"token": [operation.scope.name.lower()]}]
    platform: list[dict[str, list[str]]] = [{"platformKey": []}] if route.control else []
    return [*token, *platform, {"clusterKey": []}]


def _parameters(route: Route, fields: dict[str, Schema], *, bare: bool) -> Iterator[Schema]:
    rest = route.rest
    for name in route.parameters:
        if not (bare and name == "db"):
            yield _reference("parameters", name) if name in _ADDRESS else _parameter("path", name, fields[name])
    if not rest.has_body or rest.raw_body is not None:
        for name, field in fields.items():
            if name not in route.parameters and name != rest.raw_body:
                yield _parameter("query", name, field)
    for name in _applicable(route.operation):
        yield _reference("parameters", name)


def _applicable(operation: Operation) -> Iterator[str]:
    """Which of the shared parameters mean something to it."""
    if _in_one_branch(operation):
        yield from ("branch", "Memoturn-Branch")
        if operation.read_only or operation.scope is Scope.READ:
            yield from ("Memoturn-Min-Txid", "Memoturn-Consistency")
    if operation.durable:
        yield "Memoturn-Durability"


def _parameter(place: str, name: str, field: Schema) -> Schema:
    schema = {key: value for key, value in field.items() if key != "description"}
    parameter = {"name": name, "in": place, "description": field.get("description", ""), "schema": schema}
    if schema.get("type") == "array":
        parameter |= {"style": "form", "explode": False}  # a name that is repeated is refused
    return parameter | ({"required": True} if place == "path" else {})


def _address(name: str, text: str) -> Schema:
    return _parameter("path", name, _TEXT | {"description": text})


# --- what it is answered with --------------------------------------------------------------------


def _responses(route: Route, schemas: dict[str, Schema]) -> Schema:
    operation, rest = route.operation, route.rest
    schema = _without(response_schema(operation.response), set(), schemas)
    headers = _named(*_txid_header(operation, schema), REQUEST_ID)
    responses: Schema = {}
    for status in (rest.status, *rest.other_statuses):
        response: Schema = {"description": operation.title, "headers": headers}
        if rest.raw_reply is not None:
            response["content"] = _BINARY
        elif status != 204:
            response["content"] = {"application/json": {"schema": schema}}
        responses[str(status)] = response
    return responses | {str(status): _reference("responses", _FAILURES[status][0]) for status in _statuses(route)}


def _statuses(route: Route) -> list[int]:
    """The statuses of failure that a request to the route can meet; of the contract's, 405 is no route's own."""
    operation = route.operation
    statuses = {400, 403, 408, 500}
    if operation.scope is not Scope.NONE:
        statuses |= {401, 503}
    if _in_database(operation):
        statuses.add(404)
    if _in_database(operation) and not operation.asleep:
        statuses.add(502)
    if any(name not in _ADDRESS for name in route.parameters):
        statuses.add(404)
    if operation.conflicts or "as_of" in operation.request.model_fields:
        statuses.add(409)
    if route.rest.has_body:
        statuses.add(413)
    if route.control or operation.queued or (_in_one_branch(operation) and not operation.read_only):
        statuses.add(429)
    return sorted(statuses)


def _txid_header(operation: Operation, answer: Schema) -> list[str]:
    """On every answer that has the transaction in its body too; on others as the operation sees fit."""
    if answer.get("properties", {}).get("txid", {}).get("type") == "integer" and "txid" in answer["required"]:
        return [TXID]
    return [f"{TXID}-If-Any"] if _in_one_branch(operation) else []


def _failure(status: int, text: str) -> Schema:
    codes = [code for code in get_args(ErrorCode) if (code, status) in _CODES]
    schema = _reference("schemas", "ErrorEnvelope") | {"properties": {"code": {"enum": codes}}}
    headers = [_HEADERS_OF_FAILURES[status]] if status in _HEADERS_OF_FAILURES else []
    return {
        "description": text,
        "headers": _named(*headers, REQUEST_ID),
        "content": {"application/json": {"schema": schema}},
    }


def _kinds(kind: type[MemoturnError]) -> Iterator[type[MemoturnError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


_CODES = frozenset((kind.code, kind.status) for kind in _kinds(MemoturnError))


def _envelope() -> Schema:
    return {
        "type": "object",
        "description": "What every failed request answers with.",
        "properties": {
            "error": {"type": "string", "description": "What is wrong and where, for a person."},
            "code": {"type": "string", "enum": list(get_args(ErrorCode))},
        },
        "required": ["error", "code"],
    }


# --- schemas and references ----------------------------------------------------------------------


def _in_database(operation: Operation) -> bool:
    return operation.target in (Target.PROFILE, Target.DATABASE)


def _in_one_branch(operation: Operation) -> bool:
    return _in_database(operation) and not (operation.whole_database or operation.asleep)


def _named(*headers: str) -> Schema:
    return {name.removesuffix("-If-Any"): _reference("headers", name) for name in headers}


def _reference(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _without(schema: Schema, names: set[str], schemas: dict[str, Schema]) -> Schema:
    """The schema without some properties, its `$defs` moved to the components."""
    for name, definition in schema.get("$defs", {}).items():
        schemas[name] = _moved(definition)
    remaining: Schema = _moved({key: value for key, value in schema.items() if key != "$defs"})
    properties = remaining.get("properties", {})
    remaining["properties"] = {name: field for name, field in properties.items() if name not in names}
    required = [name for name in remaining.get("required", []) if name not in names]
    return {key: value for key, value in remaining.items() if key != "required"} | (
        {"required": required} if required else {}
    )


def _moved(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: value.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _moved(value)
            for key, value in node.items()
        }
    return [_moved(item) for item in node] if isinstance(node, list) else node
