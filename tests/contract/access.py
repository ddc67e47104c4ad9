"""A node with auth on, and credentials for it: minted by its routes, or made here with its key, right or wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contract.live_node import Live, serve
from memoturn_core.access.keys import encoded
from memoturn_core.access.settings import AccessSettings

PLATFORM_KEY = "the-platform-key-of-the-tests"
CLUSTER_KEY = "the-cluster-key-of-the-tests"
SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
ANOTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)

PLATFORM = {"Authorization": f"Bearer {PLATFORM_KEY}"}
CLUSTER = {"X-Memoturn-Internal": CLUSTER_KEY}


def access(**given: Any) -> AccessSettings:
    keys = {"platform_key": PLATFORM_KEY, "cluster_key": CLUSTER_KEY, "signing_key": encoded(SIGNING_KEY)}
    return AccessSettings(**keys | given)


@contextlib.contextmanager
def closed_node(directory: Path, settings: AccessSettings | None = None, **options: Any) -> Iterator[Live]:
    """A node with auth on."""
    with serve(directory, access=settings or access(), **options) as live:
        yield live


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def minted(live: Live, path: str, scope: str, **more: Any) -> dict[str, Any]:
    """A token by its route; `path` is a database's or a namespace's."""
    response = live.http.post(f"/v1/{path}/tokens", json={"scope": scope, **more}, headers=PLATFORM)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def of_database(live: Live, name: str, scope: str, **more: Any) -> dict[str, str]:
    return bearer(minted(live, f"databases/{name}", scope, **more)["token"])


def of_namespace(live: Live, name: str, scope: str, **more: Any) -> dict[str, str]:
    return bearer(minted(live, f"namespaces/{name}", scope, **more)["token"])


def made(
    now_s: int, *, key: Any = SIGNING_KEY, algorithm: str = "EdDSA", header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """A token with these claims in place of the usual ones; those that are None are left out."""
    usual = {"db": "acme--alice", "scope": "admin", "iat": now_s, "exp": now_s + 3_600}
    payload = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(payload, key, algorithm=algorithm, headers=header)


def keep(http: httpx.Client, profile: str, headers: dict[str, str], summary: str = "Met Ann") -> httpx.Response:
    """Ingest into a profile of namespace acme."""
    body = {"memories": [{"type": "event", "summary": summary, "content": {"text": summary}}]}
    return http.post(f"/v1/memory/acme/{profile}/memories", json=body, headers=headers)


def recall(http: httpx.Client, profile: str, headers: dict[str, str]) -> httpx.Response:
    return http.post(f"/v1/memory/acme/{profile}/recall", json={"query": "Ann"}, headers=headers)
