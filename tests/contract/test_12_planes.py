"""Item 128: the platform key opens the control plane and nothing else."""

from __future__ import annotations

from pathlib import Path

from contract.access import CLUSTER, PLATFORM, bearer, closed_node, keep

CONTROL = [
    ("POST", "/v1/databases"),
    ("GET", "/v1/databases"),
    ("GET", "/v1/databases/acme--alice/usage"),
    ("POST", "/v1/databases/acme--alice/tokens"),
    ("GET", "/v1/databases/acme--alice/branches"),
    ("POST", "/v1/namespaces/acme/tokens"),
    ("DELETE", "/v1/databases/acme--alice"),
]
DATA = [
    ("GET", "/v1/memory/acme"),
    ("POST", "/v1/memory/acme/alice/recall"),
    ("GET", "/v1/memory/acme/alice/sessions"),
    ("POST", "/v1/db/acme--alice/sql"),
    ("GET", "/v1/db/acme--alice/branches"),
    ("PUT", "/v1/db/acme--alice/kv/n/k"),
    ("POST", "/v1/sql"),
]


def test_item_128_the_platform_key_opens_the_control_plane_and_not_the_data_plane(tmp_path: Path) -> None:
    with closed_node(tmp_path) as live:
        assert keep(live.http, "alice", CLUSTER).status_code == 201
        key = PLATFORM["Authorization"].removeprefix("Bearer ")
        for headers in ({}, bearer("wrong"), bearer(key[:-1]), bearer(key + "x"), {"Authorization": key}):
            for method, path in CONTROL:
                response = live.http.request(method, path, headers=headers)
                assert (response.status_code, response.json()["code"]) == (401, "unauthorized"), f"{method} {path}"
        for method, path in DATA:
            response = live.http.request(method, path, headers=PLATFORM)
            assert (response.status_code, response.json()["code"]) == (401, "unauthorized"), f"{method} {path}"
        for method, path in CONTROL:
            response = live.http.request(method, path, headers=PLATFORM)
            assert response.status_code in (200, 204, 400), f"{method} {path}: {response.text}"  # 400: it has no body
