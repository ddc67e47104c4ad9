"""The description, operation by operation: each says what it takes and what it can answer, and no more."""

from __future__ import annotations

import re
from typing import Any

from memoturn_core.registry import OPERATIONS
from memoturn_mcp import docs_page, openapi

DOCUMENT = openapi.document()
DESCRIBED: dict[tuple[str, str], dict[str, Any]] = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
KV = "/v1/db/{db}/kv/{ns}/{key}"


def parameters(operation: dict[str, Any]) -> list[dict[str, Any]]:
    each = operation.get("parameters", [])
    return [DOCUMENT["components"]["parameters"][at["$ref"].rsplit("/", 1)[1]] if "$ref" in at else at for at in each]


def with_parameter(name: str) -> set[str]:
    return {
        operation["operationId"]
        for operation in DESCRIBED.values()
        if name in {parameter["name"] for parameter in parameters(operation)}
    }


def test_the_parameters_of_a_path_are_those_in_its_template_and_every_other_is_optional():
    for (_, path), operation in DESCRIBED.items():
        found = parameters(operation)
        assert [each["name"] for each in found if each["in"] == "path"] == re.findall(r"\{(\w+)\}", path)
        assert all(each.get("required", False) == (each["in"] == "path") for each in found), path
        assert len({(each["in"], each["name"]) for each in found}) == len(found), path


def test_413_is_of_what_takes_a_body_and_429_never_of_a_read_of_the_data_plane():
    for shape, operation in DESCRIBED.items():
        assert ("413" in operation["responses"]) == ("requestBody" in operation) == (shape[0] in ("POST", "PUT")), shape
    for name in ("memory_recall", "memory_get", "kv_get", "docs_find", "vector_search", "branch_list", "health_check"):
        [operation] = [each for each in DESCRIBED.values() if each["operationId"] == name]
        assert "429" not in operation["responses"], name


def test_a_body_is_required_where_it_has_a_field_that_is():
    for shape, operation in DESCRIBED.items():
        for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
            required = media_type != "application/json" or bool(body["schema"].get("required"))
            assert operation["requestBody"]["required"] == required, shape
    assert not DESCRIBED["POST", "/v1/db/{db}/sync"]["requestBody"]["required"]


def test_values_are_bytes_both_ways_and_their_options_are_in_the_query():
    put, get = DESCRIBED["PUT", KV], DESCRIBED["GET", KV]
    for content in (put["requestBody"]["content"], get["responses"]["200"]["content"]):
        assert content == {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    assert [each["name"] for each in parameters(put) if each["in"] == "query"] == ["ttl", "branch"]


def test_headers_are_named_where_they_mean_something():
    durable = {operation.name for operation in OPERATIONS.values() if operation.durable}
    further = "_(bare|in_profile|in_control)$"
    assert {re.sub(further, "", name) for name in with_parameter("Memoturn-Durability")} == durable
    for header in ("Memoturn-Min-Txid", "Memoturn-Consistency"):
        assert {"memory_recall", "memory_window", "query", "query_bare", "kv_get"} <= with_parameter(header)
        assert not {"memory_ingest", "kv_put", "branch_list", "list_databases", "db_delete"} & with_parameter(header)
    assert {"memory_ingest", "kv_put", "docs_find", "db_usage"} <= with_parameter("Memoturn-Branch")
    assert not {"branch_create", "provision_database", "token_create"} & with_parameter("Memoturn-Branch")
    for operation in DESCRIBED.values():
        for status, response in operation["responses"].items():
            meant = (
                DOCUMENT["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
                if "$ref" in response
                else response
            )
            assert "Memoturn-Request-Id" in meant["headers"], (operation["operationId"], status)


def test_each_operation_names_the_credentials_that_open_it():
    def schemes(method: str, path: str) -> set[str]:
        return {name for alternative in DESCRIBED[method, path]["security"] for name in alternative}

    known = DOCUMENT["components"]["securitySchemes"]
    assert known["token"] | {"description": ""} == {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "",
    }
    assert schemes("GET", "/health") == schemes("GET", "/v1/health") == set()
    assert schemes("POST", "/v1/databases") == schemes("GET", "/v1/databases") == {"platformKey", "clusterKey"}
    assert schemes("DELETE", "/v1/databases/{db}") == {"token", "platformKey", "clusterKey"}
    assert schemes("GET", "/v1/databases/{db}/branches") == {"token", "platformKey", "clusterKey"}
    assert schemes("GET", "/v1/db/{db}/branches") == schemes("POST", "/v1/sql") == {"token", "clusterKey"}
    for operation in DESCRIBED.values():
        assert {name for each in operation["security"] for name in each} <= known.keys()
        assert ("401" in operation["responses"]) == bool(operation["security"])


def test_the_docs_page_shows_the_names_of_what_is_shared():
    html = docs_page.page(DOCUMENT)
    for name in ("Memoturn-Min-Txid", "application/octet-stream", "The body is over the limit."):
        assert name in html
    assert "$ref&quot;: &quot;#/components/parameters" not in html
