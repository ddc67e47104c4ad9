"""`memoturn token` and the control plane of a node with auth on, by the keys that commands find in the environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from surfaces.in_process import InProcess, in_process
from surfaces.shell import NOBODY_LISTENS, RunningNode, Shell, as_error, start_node, stop_node

PLATFORM = {"MEMOTURN_PLATFORM_KEY": "the-platform-key-of-the-tests"}
KEYS = {"MEMOTURN_AUTH": "on", "MEMOTURN_SINGLE_NODE": "1", **PLATFORM}
"""What the node is started with."""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    running = start_node(Shell(tmp_path_factory.mktemp("closed") / "data"), **KEYS)
    yield running
    stop_node(running)


@pytest.fixture
def here(closed: RunningNode) -> Iterator[InProcess]:
    """Commands on the machine of the node, with its data directory."""
    with in_process(closed.shell.home) as made:
        yield made


def test_the_platform_key_opens_the_control_plane_and_the_tokens_it_makes_the_data(
    closed: RunningNode, here: InProcess
) -> None:
    there = ("--url", closed.url)
    assert here("db", "create", "shop", *there, **PLATFORM).json["name"] == "shop"
    made = here("token", "create", "shop", "--scope", "write", "--expires-in", "600", *there, **PLATFORM).json
    assert (made["scope"], made["expires_in"]) == ("write", 600)
    token = {"MEMOTURN_TOKEN": made["token"]}
    put = ("kv", "put", "s", "k", "v", "--db", "shop", *there)
    assert here(*put, **token).json == {"txid": 1}
    assert here(*put, **token, **PLATFORM).json == {"txid": 2}, "each plane gets its own credential"
    refused = {
        put: (5, "MEMOTURN_TOKEN"),
        ("db", "list", *there): (5, "MEMOTURN_PLATFORM_KEY"),
        ("db", "usage", "shop", *there): (5, "MEMOTURN_PLATFORM_KEY"),
    }
    for command, (code, hint) in refused.items():
        done = here(*command, MEMOTURN_TOKEN="wrong")
        assert (done.code, f"hint: {hint}" in as_error(done)) == (code, True), command
    assert here("kv", "get", "s", "k", "--db", "other", *there, **token).code == 5
    assert here("token", "revoke", made["jti"], *there, **PLATFORM).json == {"revoked": True}
    assert here(*put, **token).code == 5
    unknown = here("token", "revoke", "nobody", *there, **PLATFORM)
    assert (unknown.code, "hint: the id is the jti" in as_error(unknown)) == (3, True)


def test_a_namespaces_token_does_what_concerns_its_own_profiles(closed: RunningNode, here: InProcess) -> None:
    there = ("--url", closed.url)
    made = here("token", "create-ns", "acme", "--scope", "admin", *there, **PLATFORM).json
    token = {"MEMOTURN_TOKEN": made["token"]}
    assert here("kv", "put", "s", "k", "v", "-n", "acme", "-p", "ada", *there, **token).json == {"txid": 1}
    assert here("db", "usage", "acme--ada", *there, **token).json["rows"]["kv"] == 1
    assert here("db", "delete", "acme--ada", *there, **token).json == {"deleted": True}
    assert here("db", "list", *there, **token).code == 5


def test_on_the_nodes_machine_its_own_key_makes_tokens_that_it_takes(closed: RunningNode, here: InProcess) -> None:
    assert here("db", "create", "books", **KEYS).code == 0
    made = here("token", "create", "books", "--scope", "read", **KEYS).json
    assert made["expires_in"] == 3_600
    read = ("kv", "list", "s", "--db", "books", "--url", closed.url)
    assert here(*read, MEMOTURN_TOKEN=made["token"]).json == {"keys": []}
    missing = here("token", "create", "nope", "--scope", "read", **KEYS)
    assert (missing.code, as_error(missing).splitlines()[0]) == (3, "memoturn: there is no database nope")
    assert here("token", "revoke", made["jti"], **KEYS).json == {"revoked": True}


def test_a_credential_that_no_header_can_carry_is_refused_and_a_nodes_keys_are_not_asked_for_elsewhere(
    closed: RunningNode, here: InProcess
) -> None:
    wrong = here("kv", "list", "s", "--url", NOBODY_LISTENS, MEMOTURN_TOKEN="caf\u00e9")
    assert (wrong.code, "printable ASCII" in as_error(wrong)) == (2, True)
    half = here("db", "list", "--url", closed.url, **{**PLATFORM, "MEMOTURN_AUTH": "on"})
    assert half.code == 0, half.err
    alone = here("kv", "list", "s", **PLATFORM)
    assert (alone.code, "means nothing while auth is off" in as_error(alone)) == (2, True)
    serving = here("serve", MEMOTURN_URL=closed.url, **PLATFORM)
    assert (serving.code, "MEMOTURN_URL" in as_error(serving)) == (2, True), "it would start open"
