"""The OpenAPI 3.1 description of the REST surface, made from the registry and the wire models."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any, get_args

from memoturn_core.operations import Target
from memoturn_mcp.responses import TXID
from memoturn_mcp.routes import Route, all_routes
from memoturn_schemas.errors import ErrorCode
from memoturn_schemas.json_schema import request_schema, response_schema

Schema = dict[str, Any]

_TEXTS = {
    "namespace": "Who the memories belong to.",
    "profile": "Whose memories: one user, agent or project.",
    "db": "A database, or a profile as `{namespace}--{profile}`; `name@branch` addresses a branch.",
}
_ERRORS = {
    "400": "The request can never succeed as it stands; the message names the field.",
    "404": "The thing, the database or the branch is not there.",
    "408": "The request's time budget ran out.",
    "413": "The body is over the limit.",
    "429": "A bounded queue is full; `Retry-After` says when to come back.",
    "500": "A fault of the node; the log has it under the request id.",
    "502": "A provider failed.",
    "503": "Something the request needs is down, behind or not configured.",
}
_OPEN = {"/health": "ok", "/healthz": "ok", "/readyz": "ok"}


@cache
def document() -> Schema:
    """The whole description; equal for equal versions of the program."""
    components: dict[str, Schema] = {"ErrorEnvelope": _envelope()}
    paths: dict[str, dict[str, Any]] = {}
    for path, text in _OPEN.items():
        paths[path] = {
            "get": {
                "operationId": path.strip("/"),
                "summary": "Whether the node answers.",
                "responses": {
                    "200": {"description": text, "content": {"text/plain": {"schema": {"type": "string"}}}},
                },
            }
        }
    for route in all_routes():
        operation_id = _operation_id(route, paths)
        paths.setdefault(route.path, {})[route.rest.method.lower()] = _operation(route, operation_id, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Memoturn",
            "version": version("memoturn"),
            "description": "A memory that AI agents can operate on.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation_id(route: Route, paths: dict[str, dict[str, Any]]) -> str:
    taken = {operation["operationId"] for path in paths.values() for operation in path.values()}
    name = route.operation.name
    return f"{name}_in_profile" if name in taken else name


def _operation(route: Route, operation_id: str, components: dict[str, Schema]) -> Schema:
    operation = route.operation
    request = request_schema(operation.request)
    fields: dict[str, Schema] = request.get("properties", {})
    described: Schema = {
        "operationId": operation_id,
        "summary": operation.summary,
        "description": operation.description,
        "tags": [operation.toolset],
        "parameters": _parameters(route, fields),
        "responses": _responses(route, components),
    }
    if route.rest.raw_body is not None:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        described["requestBody"] = {"required": True, "content": content}
    elif route.rest.has_body:
        schema = _without(request, set(route.parameters), components)
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _parameters(route: Route, fields: dict[str, Schema]) -> list[Schema]:
    parameters = []
    for name in route.parameters:
        schema = {key: value for key, value in fields.get(name, {"type": "string"}).items() if key != "description"}
        text = _TEXTS.get(name) or fields[name]["description"]
        parameters.append({"name": name, "in": "path", "required": True, "description": text, "schema": schema})
    if not route.rest.has_body or route.rest.raw_body is not None:
        for name, field in fields.items():
            if name not in route.parameters and name != route.rest.raw_body:
                schema = {key: value for key, value in field.items() if key != "description"}
                parameters.append({"name": name, "in": "query", "description": field["description"], "schema": schema})
    if route.operation.target in (Target.PROFILE, Target.DATABASE):
        branch = {"type": "string", "default": "main"}
        txid = {"type": "integer", "minimum": 0}
        parameters += [
            {"name": "branch", "in": "query", "description": "A branch of the database.", "schema": branch},
            {
                "name": "Memoturn-Min-Txid",
                "in": "header",
                "description": "Never answer a read from a state older than this transaction.",
                "schema": txid,
            },
        ]
    return parameters


def _responses(route: Route, components: dict[str, Schema]) -> Schema:
    schema = _without(response_schema(route.operation.response), set(), components)
    headers = {TXID: {"description": "The transaction that the answer reflects.", "schema": {"type": "integer"}}}
    responses: Schema = {}
    for status in (route.rest.status, *route.rest.other_statuses):
        response: Schema = {"description": route.operation.title, "headers": headers}
        if route.rest.raw_reply is not None:
            response["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        elif status != 204:
            response["content"] = {"application/json": {"schema": schema}}
        responses[str(status)] = response
    envelope = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}}
    return responses | {status: {"description": text, "content": envelope} for status, text in _ERRORS.items()}


def _without(schema: Schema, names: set[str], components: dict[str, Schema]) -> Schema:
    """The schema without some properties, its `$defs` moved to the components."""
    for name, definition in schema.get("$defs", {}).items():
        components[name] = _moved(definition)
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
