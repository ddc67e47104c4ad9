"""JSON Schemas of the wire models, for MCP tools, OpenAPI and the generated files. Pure functions."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

Schema = dict[str, Any]


@cache
def _request(model: type[BaseModel]) -> Schema:
    return _tidy(model.model_json_schema(mode="validation"))


@cache
def _response(shape: Any) -> Schema:
    return _tidy(TypeAdapter(shape).json_schema(mode="serialization"))


def request_schema(model: type[BaseModel]) -> Schema:
    """The schema of a request model, with `$defs`."""
    return dict(_request(model))


def response_schema(shape: Any) -> Schema:
    """The schema of a typed dictionary, with `$defs`."""
    return dict(_response(shape))


def inlined(schema: Schema) -> Schema:
    """The same schema without `$defs` and `$ref`, which some MCP clients cannot follow."""
    known = schema.get("$defs", {})

    def expand(node: Any) -> Any:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                target = expand(known[reference.rsplit("/", 1)[1]])
                return {**target, **{key: expand(value) for key, value in node.items() if key != "$ref"}}
            return {key: expand(value) for key, value in node.items() if key != "$defs"}
        if isinstance(node, list):
            return [expand(item) for item in node]
        return node

    expanded: Schema = expand(schema)
    return expanded


def _tidy(schema: Any) -> Schema:
    """The same, shorter, for agents pay by the token.

    Drops the titles that pydantic makes of field names, and says "or null" within `type` where it can.
    """

    def tidy(node: Any) -> Any:
        if isinstance(node, list):
            return [tidy(item) for item in node]
        if not isinstance(node, dict):
            return node
        kept = {key: value for key, value in node.items() if key != "title" or not isinstance(value, str)}
        for key, value in kept.items():
            if key in ("properties", "$defs"):
                kept[key] = {name: tidy(field) for name, field in value.items()}
            else:
                kept[key] = tidy(value)
        return nullable(kept)

    def nullable(node: Schema) -> Schema:
        match node:
            case {"anyOf": [{"type": str(kind), **rest}, {"type": "null"}]} if "enum" not in rest:
                others = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
                default = {} if node.get("default") is None else {"default": node["default"]}
                return {"type": [kind, "null"], **{str(key): value for key, value in rest.items()}, **others, **default}
        return node

    tidied: Schema = tidy(schema)
    return tidied
