"""Items 128 to 133: every route of the node, with every kind of credential and every scope.

What each should find is computed from the table below, which is the contract's (131) and not the program's.
An answer other than 401 and 403 counts as admitted, whatever the operation then makes of an empty request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from contract.access import ANOTHER_KEY, CLUSTER, PLATFORM, bearer, closed_node, keep, made
from contract.live_node import Live
from memoturn_mcp.routes import Route, all_routes

SCOPES = ("read", "write", "admin")
PROFILE, DATABASE = r"/v1/memory/\{namespace\}/\{profile\}", r"/v1/db/\{db\}"
EITHER = f"(?:{PROFILE}|{DATABASE})"

# Method and path of what needs less than admin; all other shapes are admin (131).
READ = [
    f"GET {EITHER}/kv/.*",
    f"POST {EITHER}/docs/[^/]*/find",
    f"POST {EITHER}/.*search",
    f"GET ({PROFILE}/sessions|{DATABASE}/memory)/[^/]*/turns",
    f"POST {PROFILE}/(recall|ask)",
    f"GET {PROFILE}/(memories/[^/]*|sessions|policy|erasures.*)",
    f"POST {EITHER}/sql",
    "GET " + r"/v1/memory/\{namespace\}",
    # Beyond the contract.
    f"GET {EITHER}/(docs|vectors)",
    f"GET {EITHER}/export",
    f"GET {DATABASE}/storage",
    f"GET {PROFILE}/episodes(/[^/]*)?",
    f"GET {PROFILE}/episodes/[^/]*/(timeline|relationships|handoff)",
    f"GET {PROFILE}/patterns(/[^/]*)?",
    f"GET {PROFILE}/evaluation",
    f"POST {PROFILE}/patterns/playbook",
    f"POST {PROFILE}/episodes/query",
    "DELETE " + r"/v1/tokens/\{jti\}",
]
NODE = ["POST /v1/code/execute"]
"""What concerns no memory, and so is open to every token that has the scope, whatever it is bound to."""
WRITE = [
    f"(PUT|DELETE) {EITHER}/kv/.*",
    f"POST {EITHER}/docs/[^/]*/(insert|update|delete|indexes)",
    f"POST {EITHER}/vectors/[^/]*",
    f"POST ({PROFILE}/sessions|{DATABASE}/memory)/[^/]*/turns",
    f"POST {DATABASE}/sync",
    f"POST {PROFILE}/(memories|extract|erasures)",
    f"DELETE {PROFILE}/(memories|sessions)/[^/]*",
    # Beyond the contract.
    *NODE,
    f"DELETE {EITHER}/vectors/[^/]*/[^/]*",
    f"POST {PROFILE}/episodes(/bulk|/[^/]*/(steps|complete))?",
    f"DELETE {PROFILE}/episodes/[^/]*",
    f"POST {PROFILE}/episodes/([^/]*/(tags|relationships|checkpoints)|resume)",
    f"POST {PROFILE}/patterns/(decay|recommend|feedback)",
]
OPEN = ["GET /v1/(health|metrics)"]
OWN = [
    r"DELETE /v1/databases/\{db\}",
    r"GET /v1/databases/\{db\}/usage",
    r"POST /v1/databases/\{db\}/tokens",
    r"GET /v1/namespaces/\{namespace\}/(policy|audit)",
]
"""What an administrator of a namespace may do of the control plane."""


@dataclass(frozen=True)
class Credential:
    """What a request shows, and what it is: a binding with a scope where it is a token that verifies."""

    name: str
    headers: dict[str, str]
    scope: str | None = None
    database: str | None = None
    namespace: str | None = None


def credentials(now_s: int) -> Iterator[Credential]:
    yield Credential("none", {})
    yield Credential("garbage", bearer("garbage"))
    yield Credential("another scheme", {"Authorization": "Basic " + "YTpi"})
    yield Credential("the wrong cluster key", {"X-Memoturn-Internal": "wrong"} | PLATFORM)
    yield Credential("platform", PLATFORM)
    yield Credential("cluster", CLUSTER)
    for scope in SCOPES:
        yield Credential(f"expired {scope}", bearer(made(now_s, scope=scope, iat=now_s - 99, exp=now_s - 9)))
        yield Credential(f"another key's {scope}", bearer(made(now_s, scope=scope, key=ANOTHER_KEY)))
        for database in ("acme--alice", "acme--bob", "acmex--alice", "plain"):
            token = made(now_s, scope=scope, db=database)
            yield Credential(f"{database} {scope}", bearer(token), scope, database=database)
        for namespace in ("acme", "acmex", "alice"):
            token = made(now_s, scope=scope, db="", ns=namespace)
            yield Credential(f"namespace {namespace} {scope}", bearer(token), scope, namespace=namespace)


def needed(route: Route) -> str:
    shape = f"{route.rest.method} {route.path}"
    for scope, shapes in (("open", OPEN), ("read", READ), ("write", WRITE)):
        if any(re.fullmatch(known, shape) for known in shapes):
            return scope
    return "admin"


def expected(route: Route, credential: Credential, database: str | None) -> int | None:
    """401, 403, or None for what is admitted. `database` is what the path names, or None."""
    need = needed(route)
    shape = f"{route.rest.method} {route.path}"
    if need == "open":
        return None
    if credential.name == "cluster":
        return None
    revoking = route.path == "/v1/tokens/{jti}"
    control = revoking or route.path.startswith(("/v1/databases", "/v1/namespaces"))
    if credential.name == "platform":
        return None if control else 401
    if credential.scope is None:
        return 401
    if revoking:
        return 403  # the token in the path is nobody's
    if shape in NODE:
        covered = True
    elif database is not None:
        covered = database == credential.database or (
            credential.namespace is not None and database.startswith(f"{credential.namespace}--")
        )
    else:
        covered = credential.namespace == "acme" and "{namespace}" in route.path
    may = covered and SCOPES.index(credential.scope) >= SCOPES.index(need)
    if not control:
        return None if may else 403
    own = any(re.fullmatch(known, shape) for known in OWN)
    branches = "/branches" in route.path
    return None if may and (branches or (own and credential.namespace is not None)) else 401


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with closed_node(tmp_path_factory.mktemp("node")) as live:
        for profile in ("alice", "bob"):
            assert keep(live.http, profile, CLUSTER).status_code == 201
        assert live.http.post("/v1/databases", json={"name": "plain"}, headers=PLATFORM).status_code == 201
        yield live


def request(http: httpx.Client, route: Route, database: str, headers: dict[str, str]) -> httpx.Response:
    given = {"namespace": "acme", "profile": "alice", "db": database, "jti": "0" * 40, "id": "mem_" + "0" * 32}
    path = re.sub(r"\{(\w+)\}", lambda name: given.get(name[1], "x"), route.path)
    return http.request(route.rest.method, path, headers=headers)


ROUTES = {f"{route.rest.method} {route.path}": route for route in all_routes()}


@pytest.mark.parametrize("shape", ROUTES)
def test_every_route_admits_whom_the_contract_admits_and_nobody_else(closed, shape):
    route = ROUTES[shape]
    databases = ("acme--alice", "plain", "acme--alice@dev") if "{db}" in route.path else (None,)
    if shape == "DELETE /v1/databases/{db}":
        databases = ("acme--carl",)  # what is not there cannot be deleted under the other tests
    for named in databases:
        database = named.partition("@")[0] if named else "acme--alice" if "{profile}" in route.path else None
        for credential in credentials(closed.ambient.now_ms() // 1_000):
            response = request(closed.http, route, named or "", credential.headers)
            refused = response.status_code if response.status_code in (401, 403) else None
            said = f"{shape} of {named} with {credential.name}: {response.status_code} {response.text}"
            assert refused == expected(route, credential, database), said
            if refused == 401:
                assert "resource_metadata=" in response.headers["WWW-Authenticate"], said
                assert response.json()["code"] == "unauthorized", said
            elif refused == 403:
                assert response.json()["code"] == "forbidden", said


def test_the_registry_asks_for_the_scope_that_the_contract_has():
    for shape, route in ROUTES.items():
        declared = {0: "open", 1: "read", 2: "write", 3: "admin"}[route.operation.scope]
        assert declared == needed(route), shape


def test_the_matrix_leaves_nothing_behind_that_it_should_not(tmp_path: Path):
    """Who is refused creates nothing: not even a profile by a token that may only read it."""
    with closed_node(tmp_path) as live:
        now_s = live.ambient.now_ms() // 1_000
        for route in ROUTES.values():
            for credential in credentials(now_s):
                database = "acme--alice" if {"{db}", "{profile}"} & set(re.findall(r"\{\w+\}", route.path)) else None
                if expected(route, credential, database) is not None:
                    request(live.http, route, "acme--alice", credential.headers)
        assert live.http.get("/v1/databases", headers=PLATFORM).json()["databases"] == []
