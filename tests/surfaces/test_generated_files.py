"""What the program says of itself: generated files, and every surface listing the same operations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from memoturn_core.operations import Target
from memoturn_core.registry import OPERATIONS
from memoturn_mcp import docs_page, openapi, routes, schema_files, tools
from memoturn_mcp.settings import ToolChoice
from memoturn_schemas.errors import ErrorCode

SCHEMAS = Path(__file__).parents[2] / "schemas"


@pytest.mark.parametrize("name", sorted(schema_files.contents()))
def test_the_generated_file_is_up_to_date(name):
    assert (SCHEMAS / name).read_text(encoding="utf-8") == schema_files.contents()[name], "run: make schemas"


def test_every_operation_is_a_tool_and_a_route():
    listed = {operation.name for operation in tools.chosen(ToolChoice(toolsets=frozenset({"all"})))}
    assert listed == set(OPERATIONS)
    routed = {route.operation.name for route in routes.all_routes()}
    assert routed == set(OPERATIONS)


def test_the_default_toolset_is_lean():
    assert len(tools.chosen(ToolChoice())) <= 12


def test_openapi_references_resolve_and_codes_are_complete():
    document = openapi.document()
    known = document["components"]["schemas"]
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}:
        assert reference in known
    assert "$defs" not in text
    assert known["ErrorEnvelope"]["properties"]["code"]["enum"] == list(get_args(ErrorCode))
    assert len(get_args(ErrorCode)) == 14
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_every_operation_says_when_to_call_it_and_every_field_what_it_is():
    for operation in OPERATIONS.values():
        assert "call it" in operation.summary
        for name, field in operation.request.model_fields.items():
            described = field.description or any(getattr(each, "description", None) for each in field.metadata)
            assert described, f"{operation.name}.{name} has no description"


def test_the_docs_page_shows_every_route_and_loads_nothing_from_elsewhere():
    html = docs_page.page(openapi.document())
    for path in openapi.document()["paths"]:
        assert path.replace("&", "&amp;") in html
    assert "<script" not in html
    assert "http://" not in html.replace("http://127.0.0.1", "")


def test_only_operations_on_databases_have_a_second_path():
    for operation in OPERATIONS.values():
        if operation.rest is not None and operation.rest.below_profile is not None:
            assert operation.target is Target.DATABASE
