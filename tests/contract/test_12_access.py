"""Items 126 to 139 and 194: tokens, what they open, and what ends them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import jwt
import pytest

from contract.access import (
    ANOTHER_KEY,
    CLUSTER,
    PLATFORM,
    PLATFORM_KEY,
    SIGNING_KEY,
    access,
    bearer,
    closed_node,
    keep,
    made,
    minted,
    of_database,
    of_namespace,
    recall,
)
from contract.branches import KeptStore
from contract.live_node import Live, serve
from memoturn_core.access.keys import encoded
from memoturn_storage.ambient import ManualAmbient


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with closed_node(tmp_path_factory.mktemp("node"), allowed_hosts=frozenset({"memory.example"})) as live:
        for profile in ("alice", "bob"):
            assert keep(live.http, profile, CLUSTER).status_code == 201
        assert live.http.post("/v1/databases", json={"name": "plain"}, headers=PLATFORM).status_code == 201
        yield live


@pytest.fixture
def http(closed):
    return closed.http


# --- minting -------------------------------------------------------------------------------------


def test_item_129_a_token_is_201_and_lives_3600_seconds_by_default(closed):
    for path in ("databases/acme--alice", "databases/plain", "namespaces/acme", "namespaces/new"):
        answer = minted(closed, path, "read")
        assert set(answer) >= {"token", "expires_in"}
        assert answer["expires_in"] == 3_600
        said = jwt.decode(
            answer["token"], SIGNING_KEY.public_key(), ["EdDSA"], options={"verify_exp": False, "verify_aud": False}
        )
        assert said["exp"] - said["iat"] == 3_600
        assert said["jti"] == answer["jti"]
        assert said["iat"] == closed.ambient.now_ms() // 1_000
        kind, name = path.split("/")
        assert (said["db"], said.get("ns")) == ((name, None) if kind == "databases" else ("", name))


def test_item_129_expires_in_is_kept_and_has_bounds(closed, http):
    assert minted(closed, "databases/plain", "write", expires_in=7)["expires_in"] == 7
    year = 365 * 86_400
    assert minted(closed, "databases/plain", "write", expires_in=year)["expires_in"] == year
    for wrong in (0, -1, year + 1, 1.5, "60", True, [], 10**30):
        body = {"scope": "read", "expires_in": wrong}
        response = http.post("/v1/databases/plain/tokens", json=body, headers=PLATFORM)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
        assert response.json()["error"].startswith("expires_in: ")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "scope"),
        ({"scope": "root"}, "scope"),
        ({"scope": None}, "scope"),
        ({"scope": "none"}, "scope"),
        ({"scope": ["read"]}, "scope"),
        ({"scope": "read", "db": "acme--bob"}, "db"),
        ({"scope": "read", "ttl": 7}, "ttl"),
    ],
)
def test_item_129_a_bad_request_for_a_token_is_400_and_names_the_field(http, body, field):
    for path in ("databases/plain", "namespaces/acme"):
        response = http.post(f"/v1/{path}/tokens", json=body, headers=PLATFORM)
        assert response.status_code in (400,), response.text
        assert response.json()["error"].startswith(f"{field}: ") or field == "db"


def test_item_129_an_unknown_database_is_404(http):
    for name in ("nobody", "acme--nobody"):
        response = http.post(f"/v1/databases/{name}/tokens", json={"scope": "read"}, headers=PLATFORM)
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")


def test_item_129_with_auth_off_there_are_no_tokens(live):
    live.http.post("/v1/databases", json={"name": "plain"})
    for method, path in (
        ("POST", "databases/plain/tokens"),
        ("POST", "databases/nobody/tokens"),
        ("POST", "namespaces/acme/tokens"),
        ("DELETE", "tokens/x"),
    ):
        response = live.http.request(method, f"/v1/{path}", json={"scope": "read"} if method == "POST" else None)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
        assert "auth is off" in response.json()["error"]


def test_an_administrator_of_a_namespace_mints_for_its_profiles_and_for_nobody_else(closed, http):
    admin = of_namespace(closed, "acme", "admin", expires_in=100)
    response = http.post("/v1/databases/acme--alice/tokens", json={"scope": "read"}, headers=admin)
    assert (response.status_code, response.json()["expires_in"]) == (201, 100)
    child = bearer(response.json()["token"])
    assert recall(http, "alice", child).status_code == 200
    assert recall(http, "bob", child).status_code == 403
    for path in ("databases/plain", "databases/acmex--alice", "namespaces/acme", "namespaces/acmex"):
        assert http.post(f"/v1/{path}/tokens", json={"scope": "read"}, headers=admin).status_code == 401
    body = {"scope": "read", "expires_in": 101}
    response = http.post("/v1/databases/acme--alice/tokens", json=body, headers=admin)
    assert (response.status_code, response.json()["error"][:12]) == (400, "expires_in: ")


# --- what a credential opens ---------------------------------------------------------------------


def test_item_130_a_branch_is_within_its_databases_token_and_no_other(closed, http):
    admin = of_database(closed, "acme--alice", "admin")
    made_branch = http.post("/v1/db/acme--alice/branches", json={"name": "dev"}, headers=admin)
    assert made_branch.status_code == 201
    for spec in ("acme--alice@dev", "acme--alice@main"):
        assert http.get(f"/v1/db/{spec}/memory/s/turns", headers=admin).status_code == 200
    for spec in ("acme--bob@dev", "plain@dev", "acme--bob", "nobody@x"):
        response = http.get(f"/v1/db/{spec}/memory/s/turns", headers=admin)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert recall(http, "alice", admin | {"Memoturn-Branch": "dev"}).status_code == 200
    assert recall(http, "bob", admin | {"Memoturn-Branch": "dev"}).status_code == 403


@pytest.mark.parametrize(
    "name",
    ["acme--a--b", "acme---bob", "acmex--alice", "acme", "acme--", "plain", "--acme", "ACME--alice", "acme--a b"],
)
def test_item_133_a_namespaces_token_covers_its_valid_profiles_only(closed, http, name):
    admin = of_namespace(closed, "acme", "admin")
    for path in ("memory/s/turns", "branches"):
        response = http.get(f"/v1/db/{name}/{path}", headers=admin)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    for profile in ("alice", "bob"):
        assert http.get(f"/v1/db/acme--{profile}/branches", headers=admin).status_code == 200


def test_item_134_the_profiles_of_a_namespace_need_that_namespaces_token(closed, http):
    for headers, status in (
        (of_namespace(closed, "acme", "read"), 200),
        (of_namespace(closed, "acmex", "admin"), 403),
        (of_database(closed, "acme--alice", "admin"), 403),
        (PLATFORM, 401),
        ({}, 401),
    ):
        assert http.get("/v1/memory/acme", headers=headers).status_code == status


def test_nobody_without_access_learns_what_exists(closed, http):
    """Known or not, the answer to whom it is none of is the same but for the name."""
    stranger = of_namespace(closed, "strangers", "admin")
    for headers in ({}, bearer("garbage"), stranger, PLATFORM):
        for path in ("/v1/memory/acme/{}/sessions", "/v1/db/acme--{}/branches", "/v1/db/acme--{}/memory/s/turns"):
            known, unknown = (http.get(path.format(name), headers=headers) for name in ("alice", "nobody"))
            assert known.status_code == unknown.status_code in (401, 403)
            assert known.text.replace("alice", "nobody") == unknown.text


def test_who_is_refused_has_no_body_read(closed):
    head = "POST /v1/memory/acme/alice/memories HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", closed.port)) as sender:
        sender.settimeout(20)
        sender.sendall(head.encode())
        assert sender.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_a_header_that_comes_twice_is_refused(closed, http):
    for name, value in (("Authorization", f"Bearer {PLATFORM_KEY}"), ("X-Memoturn-Internal", "x")):
        response = http.request("GET", "/v1/databases", headers=[(name, value), (name, value)])
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


def test_what_is_open_stays_open(http):
    for path in ("/health", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/health"):
        for headers in ({}, bearer("garbage")):
            assert http.get(path, headers=headers).status_code == 200, path


def test_item_138_internal_routes_need_the_cluster_key(closed, http, live):
    for path in ("/internal/replica/ingest", "/internal/replica/subscribe", "/internal/x"):
        for headers in ({}, PLATFORM, {"X-Memoturn-Internal": "wrong"}, of_namespace(closed, "acme", "admin")):
            response = http.post(path, headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert http.post(path, headers=CLUSTER).status_code == 404
        assert live.http.post(path).status_code == 404


def test_item_138_a_forwarded_request_is_let_through_by_the_cluster_key(http):
    assert recall(http, "alice", CLUSTER).status_code == 200
    assert http.get("/v1/databases", headers=CLUSTER).status_code == 200
    assert recall(http, "alice", CLUSTER | {"X-Memoturn-Internal": "wrong"}).status_code == 401


def test_errors_hold_no_credential(closed, http):
    token = minted(closed, "databases/plain", "read")["token"]
    for shown in (token, made(0, key=ANOTHER_KEY), PLATFORM_KEY + "x", "garbage"):
        response = recall(http, "alice", bearer(shown))
        assert response.status_code in (401, 403)
        assert shown not in response.text + str(response.headers)


def test_a_host_or_origin_that_is_not_ours_is_refused_whatever_the_credential(closed, http):
    for headers in ({"Host": "evil.test"}, {"Origin": "http://evil.test"}, {"Host": "a b.memory.example"}):
        for path in ("/v1/databases", "/mcp", "/sse", "/.well-known/oauth-protected-resource"):
            response = http.get(path, headers=PLATFORM | headers)
            assert (response.status_code, response.json()["code"]) == (403, "forbidden")


# --- the end of a token --------------------------------------------------------------------------


def test_items_135_and_137_deleting_a_database_revokes_what_was_minted_before_for_writing(tmp_path):
    with closed_node(tmp_path) as live:
        http = live.http
        keep(http, "alice", CLUSTER)
        old = {scope: of_database(live, "acme--alice", scope) for scope in ("read", "write", "admin")}
        old_ns = of_namespace(live, "acme", "admin")
        keep(http, "bob", old_ns)
        live.ambient.advance(seconds=1)
        assert http.delete("/v1/databases/acme--alice", headers=PLATFORM).status_code == 204
        for headers in (old["write"], old["admin"], old_ns):
            for response in (
                keep(http, "alice", headers),
                http.put("/v1/db/acme--alice/kv/n/k", content=b"v", headers=headers),
                http.put("/v1/memory/acme/alice/kv/n/k", content=b"v", headers=headers),
                http.post("/v1/db/acme--alice/sync", headers=headers),
                http.delete("/v1/memory/acme/alice/sessions/s", headers=headers),
            ):
                assert (response.status_code, response.json()["code"]) == (403, "forbidden"), response.text
                assert "token revoked" in response.json()["error"]
        for headers in (*old.values(), old_ns):
            response = recall(http, "alice", headers)
            assert (response.status_code, response.json()["memories"]) == (200, [])
        names = [entry["name"] for entry in http.get("/v1/databases", headers=PLATFORM).json()["databases"]]
        assert names == ["acme--bob"]
        assert keep(http, "bob", old_ns, "Met Bob").status_code == 201
        same_second = of_namespace(live, "acme", "write")
        assert keep(http, "alice", same_second).status_code == 403
        live.ambient.advance(seconds=1.001)
        new = of_namespace(live, "acme", "write")
        assert keep(http, "alice", new).status_code == 201
        # Monotonic: that there is such a database again makes no old token good.
        for headers in (old["write"], old_ns, same_second):
            assert keep(http, "alice", headers).status_code == 403
        assert len(recall(http, "alice", old["read"]).json()["memories"]) == 1


def test_item_137_sql_of_a_revoked_token_only_reads(tmp_path):
    with closed_node(tmp_path) as live:
        http = live.http
        create, look = ({"stmts": [{"q": q}]} for q in ("CREATE TABLE t (a)", "SELECT 1"))
        http.post("/v1/databases", json={"name": "plain"}, headers=PLATFORM)
        old = of_database(live, "plain", "admin")
        assert http.post("/v1/db/plain/sql", json=look, headers=old).status_code == 200
        live.ambient.advance(seconds=1)
        http.delete("/v1/databases/plain", headers=PLATFORM)
        live.ambient.advance(seconds=1)
        http.post("/v1/databases", json={"name": "plain"}, headers=PLATFORM)
        assert http.post("/v1/db/plain/sql", json=look, headers=old).status_code == 200
        refused = http.post("/v1/db/plain/sql", json=create, headers=old)
        assert (refused.status_code, "token revoked" in refused.json()["error"]) == (403, True)
        new = of_database(live, "plain", "write")
        assert http.post("/v1/db/plain/sql", json=create, headers=new).status_code == 200


def test_item_136_a_fresh_machine_knows_what_was_deleted(tmp_path):
    ambient = ManualAmbient()
    store = KeptStore(ambient)
    with closed_node(tmp_path / "a", ambient=ambient, store=store) as live:
        keep(live.http, "alice", CLUSTER)
        old = of_database(live, "acme--alice", "write")
        ambient.advance(seconds=1)
        live.http.delete("/v1/databases/acme--alice", headers=PLATFORM)
        ambient.advance(seconds=5)
        with closed_node(tmp_path / "b", ambient=ambient, store=store) as other:
            assert keep(other.http, "alice", old).status_code == 403
            assert other.http.get("/v1/databases", headers=PLATFORM).json()["databases"] == []
            keep(other.http, "alice", of_namespace(other, "acme", "write"))
        assert keep(live.http, "alice", old).status_code == 403


def test_one_token_can_be_revoked(closed, http):
    first, second = (minted(closed, "databases/acme--alice", "write") for _ in range(2))
    assert http.delete(f"/v1/tokens/{first['jti']}", headers=PLATFORM).status_code == 204
    assert http.delete(f"/v1/tokens/{first['jti']}", headers=PLATFORM).status_code == 204
    response = recall(http, "alice", bearer(first["token"]))
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert recall(http, "alice", bearer(second["token"])).status_code == 200
    own = http.delete(f"/v1/tokens/{second['jti']}", headers=bearer(second["token"]))
    assert own.status_code == 204
    assert recall(http, "alice", bearer(second["token"])).status_code == 401
    assert http.delete("/v1/tokens/nonsense", headers=PLATFORM).status_code == 404


def test_a_revocation_reaches_every_process_and_machine_within_seconds(tmp_path):
    ambient = ManualAmbient()
    store = KeptStore(ambient)
    with (
        closed_node(tmp_path / "a", ambient=ambient, store=store) as one,
        closed_node(tmp_path / "a", ambient=ambient, store=store) as process,
        closed_node(tmp_path / "b", ambient=ambient, store=store) as machine,
    ):
        token = minted(one, "namespaces/acme", "write")
        for live in (one, process, machine):
            assert recall(live.http, "alice", bearer(token["token"])).status_code == 200
        assert one.http.delete(f"/v1/tokens/{token['jti']}", headers=PLATFORM).status_code == 204
        assert recall(one.http, "alice", bearer(token["token"])).status_code == 401
        ambient.advance(seconds=4)
        for live in (process, machine):
            assert recall(live.http, "alice", bearer(token["token"])).status_code == 401


def test_a_token_expires(tmp_path):
    with closed_node(tmp_path) as live:
        token = of_namespace(live, "acme", "write", expires_in=60)
        assert keep(live.http, "alice", token).status_code == 201
        live.ambient.advance(seconds=64)
        assert recall(live.http, "alice", token).status_code == 200
        live.ambient.advance(seconds=1)
        assert recall(live.http, "alice", token).status_code == 401


def test_keys_rotate_without_a_token_being_lost(tmp_path):
    with closed_node(tmp_path) as live:
        old = of_namespace(live, "acme", "write")
        keep(live.http, "alice", old)
    rotating = access(signing_key=encoded(ANOTHER_KEY), previous_key=encoded(SIGNING_KEY))
    with closed_node(tmp_path, rotating) as live:
        new = of_namespace(live, "acme", "write")
        for headers in (old, new):
            assert recall(live.http, "alice", headers).status_code == 200
    with closed_node(tmp_path, access(signing_key=encoded(ANOTHER_KEY))) as live:
        assert recall(live.http, "alice", new).status_code == 200
        assert recall(live.http, "alice", old).status_code == 401


def test_item_190_a_fresh_node_with_the_same_store_takes_the_same_tokens_where_the_key_is_kept_there(tmp_path):
    ambient = ManualAmbient()
    store = KeptStore(ambient)
    kept = access(signing_key=None, persist=True)
    with closed_node(tmp_path / "a", kept, ambient=ambient, store=store) as live:
        token = of_namespace(live, "acme", "write")
        keep(live.http, "alice", token)
        live.http.post("/v1/db/acme--alice/sync", headers=token)
    with closed_node(tmp_path / "b", kept, ambient=ambient, store=store) as fresh:
        assert len(recall(fresh.http, "alice", token).json()["memories"]) == 1


def test_two_processes_on_one_data_directory_take_each_others_tokens(tmp_path):
    own = access(signing_key=None)
    with closed_node(tmp_path, own) as one, closed_node(tmp_path, own) as two:
        token = of_namespace(one, "acme", "write")
        assert keep(one.http, "alice", token).status_code == 201
        # The owner is the other process, which learns who asks.
        assert keep(two.http, "alice", token, "Met Bob").status_code == 201
        assert recall(two.http, "bob", of_namespace(two, "acmex", "read")).status_code == 403


# --- bare addressing -----------------------------------------------------------------------------


def test_item_194_a_token_for_one_database_says_which_one_is_meant(closed, http):
    for name in ("plain", "acme--alice"):
        token = of_database(closed, name, "admin")
        assert http.put("/v1/kv/n/k", content=name.encode(), headers=token).status_code == 200
        assert http.get("/v1/kv/n/k", headers=token).content == name.encode()
        assert http.get(f"/v1/db/{name}/kv/n/k", headers=token).content == name.encode()
        assert http.get("/v1/branches", headers=token).status_code == 200
        assert http.post("/v1/sync", headers=token).status_code == 200
        assert http.post("/v1/docs/c/find", json={}, headers=token).status_code == 200
        assert http.post("/v1/vectors/c/search", json={"vector": [1.0]}, headers=token).status_code == 200
        assert http.get("/v1/memory/s/turns", headers=token).status_code == 200
        assert http.get("/v1/kv/n/k", params={"branch": "nope"}, headers=token).status_code == 404
    reader = of_database(closed, "plain", "read")
    assert http.put("/v1/kv/n/k", content=b"v", headers=reader).status_code == 403
    assert http.get("/v1/branches", headers=reader).status_code == 403


def test_item_194_a_host_says_which_database_is_meant(closed, http):
    token = of_namespace(closed, "acme", "write")
    for host in ("acme--bob.memory.example", "ACME--Bob.memory.example:8787"):
        headers = token | {"Host": host}
        assert http.put("/v1/kv/n/k", content=b"bob's", headers=headers).status_code == 200
        assert http.get("/v1/kv/n/k", headers=headers).content == b"bob's"
    # The host is what the sender chose, so it wins over what its token could mean.
    bound = of_database(closed, "acme--alice", "write")
    assert http.get("/v1/kv/n/k", headers=bound | {"Host": "acme--bob.memory.example"}).status_code == 403
    assert http.get("/v1/kv/n/k", headers=bound | {"Host": "acme--alice.memory.example"}).status_code in (200, 404)
    assert http.get("/v1/kv/n/k", headers=token | {"Host": "plain.memory.example"}).status_code == 403
    for host in ("a.b.memory.example", "bad_.name-.memory.example", "acme--bob.elsewhere.example"):
        assert http.get("/v1/kv/n/k", headers=token | {"Host": host}).json()["code"] == "forbidden"


def test_item_194_without_either_it_is_400_and_says_what_would_help(closed, http, live):
    response = http.get("/v1/kv/n/k", headers=of_namespace(closed, "acme", "read"))
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert "/v1/db/{db}/" in response.json()["error"]
    assert live.http.get("/v1/kv/n/k").status_code == 400
    for headers in ({}, bearer("garbage")):
        assert http.get("/v1/kv/n/k", headers=headers).status_code == 401
    for path in ("/v1/nonsense", "/v1/", "/v1//kv/n/k", "/v1/db", "/v1/tokens", "/v1/usage"):
        assert live.http.get(path).json()["code"] == "not_found", path
    assert live.http.patch("/v1/kv/n/k").status_code == 405


def test_item_194_a_host_names_a_database_with_auth_off_too(tmp_path):
    with serve(tmp_path, allowed_hosts=frozenset({"memory.example"})) as live:
        live.http.post("/v1/databases", json={"name": "plain"})
        at = {"Host": "plain.memory.example"}
        assert live.http.put("/v1/kv/n/k", content=b"v", headers=at).status_code == 200
        assert live.http.get("/v1/db/plain/kv/n/k").content == b"v"
        assert live.http.get("/v1/kv/n/k", headers={"Host": "nobody.memory.example"}).status_code == 404


# --- what a client learns of it ------------------------------------------------------------------


def test_a_401_says_where_the_resource_is_described(closed, http):
    at = f"{closed.url}/.well-known/oauth-protected-resource"
    response = http.get("/v1/databases")
    assert response.headers["WWW-Authenticate"] == f'Bearer resource_metadata="{at}"'
    response = http.get("/v1/databases", headers=bearer("garbage"))
    assert response.headers["WWW-Authenticate"] == f'Bearer error="invalid_token", resource_metadata="{at}"'
    for path in ("", "/mcp"):
        described = http.get(f"/.well-known/oauth-protected-resource{path}")
        assert described.status_code == 200
        assert described.json()["resource"] == closed.url + path
        assert described.json()["scopes_supported"] == ["read", "write", "admin"]


def test_with_auth_off_there_is_nothing_to_describe(live):
    assert live.http.get("/.well-known/oauth-protected-resource").status_code == 404


def test_credentials_are_ignored_while_auth_is_off(live):
    memory = live.memory()
    body = {"memories": [{"type": "event", "summary": "x", "content": json.loads("{}")}]}
    assert live.http.post(f"{memory.path}/memories", json=body, headers=bearer("whatever")).status_code == 201
