"""The environment, read and checked as a whole before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from memoturn_mcp.settings import ALL, DEFAULT, Settings
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.engine import Limits


def test_nothing_set_is_a_node_on_loopback_in_the_users_data_directory():
    settings = Settings.from_environment({})
    assert (settings.host, settings.port) == ("127.0.0.1", 8787)
    assert settings.data_dir.is_absolute()
    assert settings.data_dir.name == "memoturn"
    assert settings.providers.embedding is None
    assert (settings.object_store, settings.durable) == (None, False)
    assert settings.limits == Limits(hot_cap=1_024)


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("localhost:9000", "localhost", 9000), ("[::1]:80", "::1", 80)],
)
def test_an_address_is_host_and_port(listen, host, port):
    settings = Settings.from_environment({"MEMOTURN_LISTEN": listen})
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MEMOTURN_LISTEN", "8787", "HOST:PORT"),
        ("MEMOTURN_LISTEN", "127.0.0.1:port", "HOST:PORT"),
        ("MEMOTURN_LISTEN", "127.0.0.1:70000", "HOST:PORT"),
        ("MEMOTURN_LISTEN", "0.0.0.0:8787", "reachable from other machines"),
        ("MEMOTURN_LISTEN", "192.168.1.7:8787", "reachable from other machines"),
        ("MEMOTURN_LISTEN", "memory.example:8787", "reachable from other machines"),
        ("MEMOTURN_NAMESPACE", "Acme", "1-64 of"),
        ("MEMOTURN_PROFILE", "../x", "1-64 of"),
        ("MEMOTURN_URL", "127.0.0.1:8787", "http://"),
        ("MEMOTURN_HOT_CAP", "0", "at least 1"),
        ("MEMOTURN_MAX_BODY_BYTES", "32MiB", "whole number"),
        ("MEMOTURN_REQUEST_TIMEOUT_MS", "-1", "whole number"),
        ("MEMOTURN_READ_ONLY", "maybe", "one of"),
        ("MEMOTURN_LOG_LEVEL", "loud", "one of"),
        ("MEMOTURN_AUTH", "on", "MEMOTURN_PLATFORM_KEY: must be set"),
        ("MEMOTURN_DURABILITY", "certain", "one of standard, durable"),
        ("MEMOTURN_OBJECT_STORE", "ftp://host/directory", "one of file://, s3://, gs://, az://, mem://"),
        ("MEMOTURN_OBJECT_STORE", "/var/lib/objects", "one of file://"),
        ("MEMOTURN_BACKLOG_BYTES", "1048575", "at least 1048576"),
        ("MEMOTURN_IDLE_SECS", "0", "at least 1"),
        ("MEMOTURN_COLD_SECS", "1h", "whole number"),
        ("MEMOTURN_GC_GRACE_SECS", "0", "at least 1"),
        ("MEMOTURN_PITR_RETENTION_SECS", "0.5", "whole number"),
        ("MEMOTURN_PITR_SNAPSHOT_RETENTION_SECS", "-1", "at least 0"),
        ("MEMOTURN_MAINTENANCE_SECS", "0", "at least 1"),
        ("MEMOTURN_PLATFORM_KEY", "secret-value", "means nothing while auth is off"),
        ("MEMOTURN_LISTENN", "x", "did you mean MEMOTURN_LISTEN?"),
        ("MEMOTURN_EMBED_PROVIDER", "hal", "one of"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_the_name_of_its_variable(variable, value, says):
    with pytest.raises(InvalidRequest) as refused:
        Settings.from_environment({variable: value})
    assert variable.removesuffix("N") in str(refused.value)
    assert says in str(refused.value)
    assert "secret-value" not in str(refused.value)


def test_what_a_node_may_use_and_how_long_it_keeps_things_can_be_set():
    settings = Settings.from_environment(
        {
            "MEMOTURN_OBJECT_STORE": "s3://bucket/prefix",
            "MEMOTURN_DURABILITY": "Durable",
            "MEMOTURN_ENGINE_THREADS": "3",
            "MEMOTURN_HOT_CAP": "5",
            "MEMOTURN_WRITE_QUEUE_DEPTH": "7",
            "MEMOTURN_BACKLOG_BYTES": "1048576",
            "MEMOTURN_IDLE_SECS": "11",
            "MEMOTURN_COLD_SECS": "13",
            "MEMOTURN_GC_GRACE_SECS": "1",
            "MEMOTURN_PITR_RETENTION_SECS": "17",
            "MEMOTURN_PITR_SNAPSHOT_RETENTION_SECS": "19",
            "MEMOTURN_MAINTENANCE_SECS": "23",
        }
    )
    assert (settings.object_store, settings.durable) == ("s3://bucket/prefix", True)
    assert settings.limits == Limits(
        threads=3,
        hot_cap=5,
        queue_depth=7,
        backlog_bytes=1_048_576,
        idle_s=11,
        cold_s=13,
        grace_s=1,
        fine_s=17,
        snapshots_s=19,
        upkeep_s=23,
    )


def test_listening_beyond_loopback_has_to_be_asked_for():
    environment = {"MEMOTURN_LISTEN": "0.0.0.0:8787", "MEMOTURN_INSECURE": "1"}
    assert Settings.from_environment(environment).host == "0.0.0.0"


def test_the_harness_of_existing_clients_starts_a_node(tmp_path: Path):
    environment = {
        "MEMOTURN_LISTEN": "127.0.0.1:0",
        "MEMOTURN_DATA_DIR": str(tmp_path),
        "MEMOTURN_SINGLE_NODE": "1",
        "PATH": "/bin",
    }
    assert Settings.from_environment(environment).data_dir == tmp_path


def test_credentials_are_not_in_the_representation():
    settings = Settings.from_environment(
        {
            "MEMOTURN_URL": "http://127.0.0.1:1",
            "MEMOTURN_TOKEN": "token-secret",
            "MEMOTURN_EMBED_PROVIDER": "openai",
            "MEMOTURN_EMBED_API_KEY": "key-secret",
        }
    )
    assert settings.token == "token-secret"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("environment", "toolsets", "tools"),
    [
        ({}, {DEFAULT}, set()),
        ({"MEMOTURN_TOOLSETS": "memory, transcript"}, {"memory", "transcript"}, set()),
        ({"MEMOTURN_TOOLS": "memory_get"}, set(), {"memory_get"}),
        ({"MEMOTURN_TOOLSETS": ALL, "MEMOTURN_TOOLS": "memory_get"}, {ALL}, {"memory_get"}),
    ],
)
def test_tools_that_are_asked_for_take_the_place_of_the_default_ones(environment, toolsets, tools):
    choice = Settings.from_environment(environment).tool_choice(DEFAULT)
    assert (choice.toolsets, choice.tools) == (toolsets, tools)
