"""How a node with auth on may start: half a configuration is refused by the name of its variable."""

from __future__ import annotations

import pytest

from contract.access import ANOTHER_KEY, SIGNING_KEY
from memoturn_core.access.keys import encoded
from memoturn_mcp.settings import Settings
from memoturn_schemas.errors import InvalidRequest

ON = {"MEMOTURN_AUTH": "on", "MEMOTURN_SINGLE_NODE": "1", "MEMOTURN_PLATFORM_KEY": "platform-secret"}


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(InvalidRequest) as refused:
        Settings.from_environment(environment)
    said = str(refused.value)
    assert "secret" not in said
    return said


def test_with_everything_there_auth_is_on():
    keys = {"MEMOTURN_AUTH_KEY": encoded(SIGNING_KEY), "MEMOTURN_AUTH_KEY_PREVIOUS": encoded(ANOTHER_KEY)}
    settings = Settings.from_environment(ON | keys | {"MEMOTURN_CLUSTER_KEY": "cluster-secret"})
    assert settings.access is not None
    assert settings.access.platform_key == "platform-secret"
    for secret in ("secret", *keys.values()):
        assert secret not in repr(settings)
    assert Settings.from_environment({}).access is None


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"MEMOTURN_PLATFORM_KEY": ""}, "MEMOTURN_PLATFORM_KEY"),
        ({"MEMOTURN_PLATFORM_KEY": "a secret"}, "MEMOTURN_PLATFORM_KEY"),
        ({"MEMOTURN_PLATFORM_KEY": "sécret-secret"}, "MEMOTURN_PLATFORM_KEY"),
        ({"MEMOTURN_CLUSTER_KEY": "platform-secret"}, "MEMOTURN_CLUSTER_KEY"),
        ({"MEMOTURN_CLUSTER_KEY": "cluster\nsecret"}, "MEMOTURN_CLUSTER_KEY"),
        ({"MEMOTURN_SINGLE_NODE": "0"}, "MEMOTURN_SINGLE_NODE"),
        ({"MEMOTURN_AUTH_KEY": "secret"}, "MEMOTURN_AUTH_KEY"),
        ({"MEMOTURN_AUTH_KEY_PREVIOUS": "secret"}, "MEMOTURN_AUTH_KEY_PREVIOUS"),
        ({"MEMOTURN_PERSIST_AUTH_KEY": "perhaps"}, "MEMOTURN_PERSIST_AUTH_KEY"),
        ({"MEMOTURN_CONTROL_RATE": "0"}, "MEMOTURN_CONTROL_RATE"),
        ({"MEMOTURN_AUTH": "yes"}, "MEMOTURN_AUTH"),
    ],
)
def test_items_126_and_139_half_a_configuration_is_refused(changes, variable):
    assert refusal(ON | changes).startswith(f"{variable}: ")


@pytest.mark.parametrize("variable", ["PLATFORM_KEY", "CLUSTER_KEY", "AUTH_KEY", "AUTH_KEY_PREVIOUS"])
def test_a_key_without_auth_is_refused_for_the_node_would_start_open(variable):
    name = f"MEMOTURN_{variable}"
    for auth in ({}, {"MEMOTURN_AUTH": "off"}):
        said = refusal({name: "secret", **auth})
        assert said.startswith(f"{name}: ")
        assert "MEMOTURN_AUTH=on" in said


def test_beyond_loopback_a_node_needs_auth_or_to_be_told_that_it_needs_none():
    everywhere = {"MEMOTURN_LISTEN": "0.0.0.0:8787"}
    assert "MEMOTURN_AUTH=on" in refusal(everywhere)
    assert Settings.from_environment(everywhere | ON).host == "0.0.0.0"
    assert Settings.from_environment(everywhere | {"MEMOTURN_INSECURE": "1"}).access is None
