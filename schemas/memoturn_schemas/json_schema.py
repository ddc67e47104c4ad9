"""JSON Schemas of the wire models, for MCP tools, OpenAPI and the generated files. Pure functions."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

Schema = dict[str, Any]


@cache
def _request(model: type[BaseModel]) -> Schema:
    return _tidy(model.model_json_schema(mode="validation"), optional=True)


@cache
def _response(shape: Any) -> Schema:
    return _tidy(TypeAdapter(shape).json_schema(mode="serialization"), optional=False)


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


def _tidy(schema: Any, *, optional: bool) -> Schema:
    """The same, shorter and plainer, for agents pay by the token and some clients know little of JSON Schema.

    Drops the titles that pydantic makes of field names, and the discriminators of unions, whose members say the same
    and whose mapping would point to where nothing is. With `optional`, a field that may be left out is
    described by what it is where it is given: null is taken for absence too, but nobody need know.
    """

    def tidy(node: Any) -> Any:
        if isinstance(node, list):
            return [tidy(item) for item in node]
        if not isinstance(node, dict):
            return node
        kept = {key: value for key, value in node.items() if not dropped(key, value)}
        for key, value in kept.items():
            if key in ("properties", "$defs"):
                kept[key] = {name: tidy(field) for name, field in value.items()}
            else:
                kept[key] = tidy(value)
        return given(kept) if optional else kept

    def dropped(key: str, value: Any) -> bool:
        return (key == "title" and isinstance(value, str)) or (key == "discriminator" and "propertyName" in value)

    def given(node: Schema) -> Schema:
        match node:
            case {"anyOf": [kind, {"type": "null"}], "default": None}:
                return {**kind, **{key: value for key, value in node.items() if key not in ("anyOf", "default")}}
        return node

    tidied: Schema = tidy(schema)
    return tidied
