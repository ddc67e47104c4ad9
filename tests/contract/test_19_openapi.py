"""Items 191 to 194 and 131: what the description says, held against the contract and against a live node."""

from __future__ import annotations

import re
from typing import Any

import pytest

from contract.statuses import STATUSES
from memoturn_mcp import openapi
from memoturn_mcp.routes import all_routes

PROFILE, DATABASE, CONTROL = "/v1/memory/{namespace}/{profile}", "/v1/db/{db}", "/v1/databases"
OF_EVERY_REQUEST = {400, 403, 408, 500}
OF_A_DATABASE = OF_EVERY_REQUEST | {401, 404, 502, 503}

# Method, path, and the statuses that the contract names for it beyond those of every request to a database.
STATED: dict[tuple[str, str], set[int]] = {
    ("POST", f"{PROFILE}/memories"): {201, 413, 429},
    ("GET", f"{PROFILE}/memories/{{id}}"): {200},
    ("DELETE", f"{PROFILE}/memories/{{id}}"): {204, 429},
    ("POST", f"{PROFILE}/recall"): {200, 413},
    ("POST", f"{PROFILE}/ask"): {200, 413},
    ("POST", f"{PROFILE}/extract"): {200, 201, 413, 429},
    ("GET", f"{PROFILE}/sessions"): {200},
    ("DELETE", f"{PROFILE}/sessions/{{session}}"): {204, 429},
    ("POST", f"{DATABASE}/memory/{{session}}/turns"): {201, 413, 429},
    ("GET", f"{DATABASE}/memory/{{session}}/turns"): {200},
    ("POST", f"{DATABASE}/memory/{{session}}/search"): {200, 413},
    ("POST", f"{DATABASE}/docs/{{collection}}/insert"): {201, 409, 413, 429},
    ("POST", f"{DATABASE}/docs/{{collection}}/find"): {200, 413},
    ("POST", f"{DATABASE}/docs/{{collection}}/update"): {200, 413, 429},
    ("POST", f"{DATABASE}/docs/{{collection}}/delete"): {200, 413, 429},
    ("POST", f"{DATABASE}/docs/{{collection}}/indexes"): {201, 413, 429},
    ("PUT", f"{DATABASE}/kv/{{ns}}/{{key}}"): {200, 413, 429},
    ("GET", f"{DATABASE}/kv/{{ns}}/{{key}}"): {200},
    ("DELETE", f"{DATABASE}/kv/{{ns}}/{{key}}"): {204, 429},
    ("GET", f"{DATABASE}/kv/{{ns}}"): {200},
    ("POST", f"{DATABASE}/vectors/{{collection}}"): {200, 413, 429},
    ("POST", f"{DATABASE}/vectors/{{collection}}/search"): {200, 413},
    ("POST", f"{DATABASE}/sql"): {200, 413, 429},
    ("POST", f"{DATABASE}/branches"): {201, 409, 413},
    ("GET", f"{DATABASE}/branches"): {200},
    ("DELETE", f"{DATABASE}/branches/{{branch}}"): {204},
    ("POST", f"{DATABASE}/branches/{{branch}}/checkpoint"): {200, 413},
    ("POST", f"{DATABASE}/branches/{{branch}}/rewind"): {200, 409, 413},
    ("POST", f"{DATABASE}/sync"): {200, 413, 429},
    ("DELETE", f"{CONTROL}/{{db}}"): {204, 429},
    ("GET", f"{CONTROL}/{{db}}/usage"): {200, 429},
    ("POST", f"{CONTROL}/{{db}}/tokens"): {201, 413, 429},
}
STATED_ELSEWHERE: dict[tuple[str, str], set[int]] = {
    ("POST", CONTROL): {201, 400, 401, 409, 413, 429},
    ("GET", CONTROL): {200, 400, 401, 429},
    ("POST", "/v1/namespaces/{namespace}/tokens"): {201, 400, 401, 413, 429},
    ("GET", "/v1/memory/{namespace}"): {200, 400, 401, 403},
}
"""Those that are about no one database."""

SCOPES = {
    "read": "memory_recall memory_ask memory_get memory_sessions_list memory_window memory_search memory_profiles_list"
    " docs_find kv_get kv_list vector_search query",
    "write": "memory_ingest memory_forget memory_session_end memory_extract memory_append docs_insert docs_update"
    " docs_delete docs_index kv_put kv_delete vector_upsert sync",
    "admin": "branch_create branch_list branch_delete branch_checkpoint branch_rewind provision_database"
    " list_databases db_delete db_usage token_create token_create_ns",
}


@pytest.fixture(scope="module")
def document(live) -> dict[str, Any]:
    """The description, as the node serves it."""
    response = live.http.get("/openapi.json")
    assert response.status_code == 200
    served: dict[str, Any] = response.json()
    assert served == openapi.document()
    return served


def described(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def answers(operation: dict[str, Any]) -> set[int]:
    return {int(status) for status in operation["responses"]}


def test_item_131_the_description_names_the_scope_that_each_operation_needs(document):
    said = {operation["operationId"]: operation.get("x-scope") for operation in described(document).values()}
    for scope, names in SCOPES.items():
        assert {name: said[name] for name in names.split()} == dict.fromkeys(names.split(), scope)
    for operation in described(document).values():
        needed = [scopes for alternative in operation["security"] for scopes in alternative.get("token", ())]
        assert set(needed) <= {operation.get("x-scope")}, operation["operationId"]


def test_item_191_the_description_has_the_paths_and_methods_of_the_router_and_no_others(document):
    routed = {(route.rest.method, path) for route in all_routes() for path in (route.path, route.bare) if path}
    assert {shape for shape in described(document) if shape[1].startswith("/v1")} == routed
    assert len(routed) > 30


def test_item_191_each_path_that_is_described_is_served_with_its_methods_and_no_others(live, document):
    templates = [(method, re.sub(r"\{\w+\}", "[^/]+", path)) for method, path in described(document)]
    for path in document["paths"]:
        sent = re.sub(r"\{\w+\}", "x", path)
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            response = live.http.request(method, sent, content=b"[" if method in ("POST", "PUT") else None)
            served = any(shape == method and re.fullmatch(template, sent) for shape, template in templates)
            assert (response.status_code != 405) == served, f"{method} {path}: {response.status_code}"
            assert "there is no route" not in response.text, f"{method} {path}"


def test_item_192_the_envelope_lists_the_14_codes(document):
    codes = document["components"]["schemas"]["ErrorEnvelope"]["properties"]["code"]["enum"]
    assert sorted(codes) == sorted(STATUSES)
    assert len(codes) == 14


def test_item_193_the_statuses_are_those_of_the_contract(document):
    found = described(document)
    for shape, stated in STATED.items():
        extra = answers(found[shape]) - stated - OF_A_DATABASE
        assert stated <= answers(found[shape]), shape
        assert extra <= {409}, f"{shape}: {extra}"  # by as_of, indexes and checkpoints, beyond the contract
    for shape, stated in STATED_ELSEWHERE.items():
        assert stated <= answers(found[shape]) <= stated | OF_EVERY_REQUEST | {401, 503}, shape


def test_item_193_every_failure_is_the_envelope_with_codes_that_fit_its_status(document):
    for shape, operation in described(document).items():
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            meant = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
            schema = meant["content"]["application/json"]["schema"]
            assert schema["$ref"] == "#/components/schemas/ErrorEnvelope", shape
            codes = schema["properties"]["code"]["enum"]
            assert codes == [code for code in codes if int(status) in STATUSES[code]] != [], (shape, status)
            assert ("Retry-After" in meant["headers"]) == (status == "429")


def test_item_194_what_the_contract_adds_is_described_too(document):
    found = described(document)

    def names(method: str, path: str) -> set[str]:
        parameters = found[method, path]["parameters"]
        return {each["name"] if "name" in each else each["$ref"].rsplit("/", 1)[1] for each in parameters}

    assert ("GET", f"{CONTROL}/{{db}}/usage") in found
    assert ("GET", "/healthz") in found
    assert "Memoturn-Consistency" in names("POST", f"{PROFILE}/recall")
    assert "consistency" in names("GET", f"{DATABASE}/kv/{{ns}}/{{key}}")
    assert "db" not in names("POST", "/v1/sql")
    for method, path in [shape for shape in found if shape[1].startswith(f"{DATABASE}/branches")]:
        assert (method, path.replace(DATABASE, f"{CONTROL}/{{db}}")) in found
    assert "cursor" in names("GET", CONTROL)
    create = found["POST", CONTROL]["requestBody"]["content"]["application/json"]["schema"]
    assert "ttl" in create["properties"]


def test_the_docs_page_is_served(live):
    response = live.http.get("/docs")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
