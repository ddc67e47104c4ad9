"""schemathesis on every operation that OpenAPI describes, against live nodes: what they answer is what is described.

Requests are made from the description, right and wrong, from a fixed seed. Names are often those of things
that exist, or nothing but 404 would ever be seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from contract.access import bearer, closed_node, made
from contract.live_node import Live, fact, serve
from examples import examples
from memoturn_core.code.sandbox import Sandbox
from memoturn_mcp import openapi
from memoturn_mcp.routes import all_routes
from memoturn_storage.ambient import SystemAmbient
from sandbox.built import built_guest

EXAMPLES = examples(7)
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DATABASE = "acme--alice"
NAMES = {
    "namespace": ["acme"],
    "profile": ["alice", "nobody"],
    "db": [DATABASE, f"{DATABASE}@dev", "unknown"],
    "id": ["one"],
    "session": ["s1", "a%2Fb", "..%2Fx"],
    "collection": ["notes", "images"],
    "branch": ["dev", "main"],
    "ns": ["n"],
    "key": ["k", "a%2Fb"],
    "jti": ["0" * 40],
}
"""Parts of paths that mean something, as they stand in a path; the first of each is there."""
VECTOR = [1.0, 0.0]
UNKNOWN = {
    "episode_id": f"{'0' * 8}-0000-0000-0000-{'0' * 12}",
    "pattern_id": f"pat_{'0' * 32}",
    "recommendation_id": f"rec_{'0' * 32}",
}
"""Names of what a node names itself; those that are there are in `Asked.names`."""
TASK = {"task_description": "mend the login test", "domain": "web-api"}
EPISODE = {
    **TASK,
    "tags": ["login"],
    "steps": [
        {"tool": "pytest", "action": "run it", "result": {"type": "error", "message": "AssertionError: 401"}},
        {"tool": "edit", "action": "freeze the clock", "result": {"type": "success", "output": "ok"}},
        {"tool": "pytest", "action": "run it", "result": {"type": "success", "output": "1 passed"}},
    ],
    "outcome": {"type": "success", "verdict": "it passes", "artifacts": ["test_login.py"]},
}
RIGHT: dict[str, dict[str, Any]] = {
    "memory_recall": {"body": {"query": "Rome", "embedding": VECTOR, "include_turns": True}},
    "memory_ingest": {"body": {"memories": [fact("user.city", "Ann lives in Oslo")]}},
    "memory_append": {"body": {"role": "user", "content": "hello", "embedding": VECTOR}},
    "memory_search": {"body": {"vector": VECTOR}},
    "query": {"body": {"stmts": [{"q": "SELECT 1, 'a', 0.5, NULL, x'00'"}, {"q": "CREATE TABLE IF NOT EXISTS t (a)"}]}},
    "docs_insert": {"body": {"docs": [{"n": 1}]}},
    "docs_find": {"body": {"filter": {"n": {"$gte": 1}}}},
    "docs_update": {"body": {"filter": {"n": 1}, "update": {"$set": {"m": 2}}, "multi": True}},
    "docs_delete": {"body": {"filter": {"m": 2}}},
    "docs_index": {"body": {"path": "n"}},
    "kv_put": {"body": b"\x00\xff"},
    "kv_get": {"key": "kept"},
    "vector_upsert": {"collection": "images", "body": {"id": "two", "embedding": VECTOR}},
    "vector_search": {"collection": "images", "body": {"vector": VECTOR}},
    "import_records": {"body": {"records": [{"kind": "kv", "ns": "n", "key": "imported", "value": "v"}, {}]}},
    "restore_database": {"body": {"data": "AAAA"}},
    "branch_create": {"body": {"name": "made", "ttl": 60}},
    "branch_create_in_control": {"body": {"name": "made-too"}},
    "branch_checkpoint": {"body": {"name": "before"}},
    "branch_rewind": {"body": {"to": "before"}},
    "provision_database": {"body": {"name": "plain"}},
    "create_episode": {"body": {**TASK, "embedding": VECTOR}},
    "bulk_episodes": {"body": {"episodes": [EPISODE, TASK]}},
    "query_memory": {"body": {"query": "login"}},
    "search_patterns": {"body": {"query": "pytest"}},
    "decay_patterns": {"body": {"below": 1, "domain": "doomed", "dry_run": False}},
    "recommend_patterns": {"body": TASK},
    "recommend_playbook": {"body": TASK},
    "branch_delete": {"branch": "doomed"},
    "db_delete": {"db": "doomed"},
    "execute_code": {"body": {"code": "print(1)\ninput_data", "input": {"a": [None]}}},
}
"""What makes a request to an operation a right one, where the first of the names do not."""
DELETES = {"branch_delete", "db_delete", "delete_episode"}
"""They are only aimed at what is right to be deleted, for others would miss the rest."""
UNCONFIGURED = {"memory_ask", "memory_extract"}
"""Without a language model they are 503."""
NEVER_RIGHT = UNCONFIGURED | {"token_create", "token_create_ns", "token_revoke"}
"""There are no tokens while auth is off."""

BARE = {(route.rest.method, route.bare) for route in all_routes() if route.bare is not None}
DESCRIBED = {
    (method.upper(), path): operation["operationId"]
    for path, methods in openapi.document()["paths"].items()
    for method, operation in methods.items()
}


@dataclass(frozen=True)
class Asked:
    """A node that is asked."""

    live: Live
    http: requests.Session
    names: dict[str, list[str]]
    """`NAMES`, and those that the node gave."""
    right: dict[str, dict[str, Any]]
    """`RIGHT`, and what is right of what the node named."""

    def ask(self, case: Any, operation: str) -> int:
        """The status of an answer that is as it is described."""
        response = case.call(base_url=self.live.url, session=self.http)
        if response.content == b"Invalid HTTP request received.":
            return 400  # with such header fields it is not HTTP, and nothing of a node has seen it
        if response.status_code == 503:
            unconfigured = operation in UNCONFIGURED and response.json()["code"] == "unconfigured"
            assert unconfigured or "Memoturn-Min-Txid" in case.headers, response.text
        else:
            assert response.status_code < 500, response.text
        case.validate_response(response, checks=CHECKS)
        return int(response.status_code)

    def ask_rightly(self, operation: Any, operation_id: str) -> None:
        """One request that succeeds, so that there is an answer to compare."""
        name = operation_of(operation_id)
        right = self.right.get(operation_id) or self.right.get(name, {})
        names = [parameter.name for parameter in operation.path_parameters]
        path = {each: right.get(each, self.names[each][0]) for each in names}
        body = {"body": right["body"], "media_type": media_type(operation)} if "body" in right else {}
        status = self.ask(operation.Case(path_parameters=path, **body), name)
        assert name in NEVER_RIGHT or 200 <= status < 300, f"{operation_id}: {status}"

    def explore(self, operation: Any, operation_id: str, examples: int) -> None:
        """Ask what schemathesis makes up, right and wrong."""
        for mode in modes(operation):

            @seed(20)
            @settings(
                max_examples=examples,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(generation_mode=mode), st.data())
            def conforms(case: Any, data: st.DataObject) -> None:
                self.aim(case, operation_id, data)
                self.ask(case, operation_id)

            conforms()

    def aim(self, case: Any, operation_id: str, data: st.DataObject) -> None:
        """Have most requests get past their names: one that is wrong hides whatever else is."""
        for name in case.path_parameters or {}:
            if data.draw(st.integers(0, 7)):
                case.path_parameters[name] = data.draw(st.sampled_from(self.names[name]))
        if operation_of(operation_id) in DELETES:
            case.path_parameters |= self.right[operation_of(operation_id)]
        for place, name in (
            *(("query", "branch"), ("headers", "Memoturn-Branch")),
            *(("body", "as_of"), ("query", "as_of"), ("body", "dry_run")),
        ):
            fields = getattr(case, place)
            if isinstance(fields, Mapping) and name in fields and data.draw(st.integers(0, 3)):
                setattr(case, place, {key: value for key, value in fields.items() if key != name})
        if isinstance(case.body, Mapping):
            named = case.body.keys() & UNKNOWN.keys()
            case.body = {**case.body, **{name: data.draw(st.sampled_from(self.names[name])) for name in sorted(named)}}


def operation_of(operation_id: str) -> str:
    """The operation, at whichever of its paths."""
    return operation_id.removesuffix("_bare").removesuffix("_in_profile").removesuffix("_in_control")


def modes(operation: Any) -> list[GenerationMode]:
    """Right and wrong requests; of a path alone there is nothing wrong to make."""
    wrong = [GenerationMode.NEGATIVE] if operation.query or operation.headers or operation.body else []
    return [GenerationMode.POSITIVE, *wrong]


def media_type(operation: Any) -> str:
    [found] = operation.definition.raw["requestBody"]["content"]
    return str(found)


@contextlib.contextmanager
def asked(live: Live, headers: dict[str, str]) -> Iterator[Asked]:
    """The node with one of everything in `DATABASE`, whoever asks sending these headers."""
    kept = live.http.post(
        "/v1/memory/acme/alice/memories",
        json={"memories": [fact("user.city", "Ann lives in Rome", session_id="s1")]},
        headers=headers,
    )
    below = f"/v1/db/{DATABASE}"
    for path, body in (
        ("memory/s1/turns", {"role": "user", "content": "hello", "embedding": VECTOR}),
        ("docs/notes/insert", {"docs": [{"_id": "one", "n": 1}]}),
        ("vectors/images", {"id": "one", "embedding": VECTOR}),
        ("branches", {"name": "dev"}),
        ("branches/dev/checkpoint", {"name": "before"}),
    ):
        assert live.http.post(f"{below}/{path}", json=body, headers=headers).is_success
    assert live.http.put(f"{below}/kv/n/kept", content=b"value", headers=headers).is_success
    memory = {"id": kept.json()["results"][0]["id"]}
    names, right = learnt(live, headers)
    with requests.Session() as http:
        http.trust_env = False
        http.headers.update(headers)
        yield Asked(live, http, NAMES | names, {**RIGHT, "memory_get": memory, "memory_forget": memory, **right})


def learnt(live: Live, headers: dict[str, str]) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """Keep episodes, what was learnt from them and a recommendation: their names, and right requests that use them."""

    def asked(path: str, body: Any = None) -> Any:
        method = "GET" if body is None else "POST"
        response = live.http.request(method, f"/v1/memory/acme/alice/{path}", json=body, headers=headers)
        assert response.is_success, response.text
        return response.json()

    episodes = [EPISODE, EPISODE, *[TASK] * 5, {**EPISODE, "domain": "doomed"}]
    done, target, begun, stepped, completed, marked, doomed, _ = asked("episodes/bulk", {"episodes": episodes})[
        "episode_ids"
    ]
    offered = asked("patterns/recommend", TASK)
    pattern = offered["recommended"][0]["pattern_id"]
    named = {"episode_id": done, "pattern_id": pattern, "recommendation_id": offered["recommendation_id"]}
    names = {name: [there, UNKNOWN[name]] for name, there in named.items()}
    names["episode_id"].append(begun)
    feedback = {"recommendation_id": offered["recommendation_id"]}
    return names, {
        "delete_episode": {"episode_id": doomed},
        "add_step": {"episode_id": stepped, "body": EPISODE["steps"][0]},
        "complete_episode": {"episode_id": completed, "body": {"outcome": EPISODE["outcome"]}},
        "checkpoint_episode": {"episode_id": marked, "body": {"note": "half way"}},
        "episode_tags": {"body": {"add": ["urgent"], "remove": ["login"]}},
        "episode_relationships": {"body": {"add": [{"target": target, "type": "depends_on", "reason": "it waits"}]}},
        "resume_from_handoff": {"body": asked(f"episodes/{done}/handoff")},
        "record_feedback": {"body": {**feedback, "feedback": [{"pattern_id": pattern, "outcome": "helped"}]}},
    }


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A node without auth."""
    with serve(tmp_path_factory.mktemp("node")) as live, asked(live, {}) as found:
        live.node.sandbox = Sandbox(built_guest(), SystemAmbient())
        live.http.post("/v1/databases", json={"name": "doomed"})
        yield found


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A node with auth on, and a token for one database."""
    with closed_node(tmp_path_factory.mktemp("node")) as live:
        token = bearer(made(live.ambient.now_ms() // 1_000, db=DATABASE))
        with asked(live, token) as found:
            yield found


@pytest.fixture(scope="module")
def operations() -> dict[tuple[str, str], Any]:
    """What schemathesis makes of the description."""
    schema = schemathesis.openapi.from_dict(openapi.document())
    schema.validate()
    schema.config.generation.update(with_security_parameters=False)
    found = [result.ok() for result in schema.get_all_operations()]
    return {(operation.method.upper(), operation.path): operation for operation in found}


@pytest.mark.parametrize("shape", [shape for shape in DESCRIBED if shape not in BARE], ids=" ".join)
def test_a_node_answers_as_it_is_described(opened, operations, shape):
    opened.ask_rightly(operations[shape], DESCRIBED[shape])
    opened.explore(operations[shape], DESCRIBED[shape], EXAMPLES)


@pytest.mark.parametrize("shape", [shape for shape in DESCRIBED if shape in BARE], ids=" ".join)
def test_with_a_token_for_its_database_a_bare_path_is_answered_as_it_is_described(closed, operations, shape):
    closed.ask_rightly(operations[shape], DESCRIBED[shape])
    closed.explore(operations[shape], DESCRIBED[shape], EXAMPLES // 4)
