"""`memoturn serve` with auth on: how it starts, when it refuses to, and what it keeps to itself."""

from __future__ import annotations

import re
import subprocess

import httpx
import pytest

from contract.access import PLATFORM, PLATFORM_KEY, SIGNING_KEY
from memoturn_core.access.keys import encoded
from surfaces.in_process import InProcess
from surfaces.shell import SCRIPT, Shell, as_error

ON = {"MEMOTURN_AUTH": "on", "MEMOTURN_SINGLE_NODE": "1", "MEMOTURN_PLATFORM_KEY": PLATFORM_KEY}


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"MEMOTURN_AUTH": "on"}, "MEMOTURN_PLATFORM_KEY"),
        (ON | {"MEMOTURN_CLUSTER_KEY": PLATFORM_KEY}, "MEMOTURN_CLUSTER_KEY"),
        ({"MEMOTURN_LISTEN": "0.0.0.0:0"}, "MEMOTURN_INSECURE=1"),
    ],
)
def test_item_139_a_node_that_may_not_start_says_why_and_makes_nothing(here, variables, names):
    done = here("serve", **{"MEMOTURN_LISTEN": "127.0.0.1:0"} | variables)
    assert names in as_error(done)
    assert done.code == 2
    assert PLATFORM_KEY not in done.err
    assert not here.home.exists()


def test_a_key_that_others_can_read_stops_the_start(here):
    here.home.mkdir(mode=0o700)
    (here.home / "auth.key").write_text(encoded(SIGNING_KEY))
    (here.home / "auth.key").chmod(0o644)
    done = here("serve", **ON, MEMOTURN_LISTEN="127.0.0.1:0")
    assert "chmod 600" in as_error(done)
    assert done.code == 6


def test_the_command_line_uses_a_token_and_no_log_has_a_secret(shell: Shell, here: InProcess):
    process = subprocess.Popen([SCRIPT, "serve"], stderr=subprocess.PIPE, env=shell.environment(**ON))
    assert process.stderr is not None
    lines = []
    while not (found := re.match(r"memoturn: listening on (\S+)", lines[-1] if lines else "")):
        lines.append(process.stderr.readline().decode())
        assert lines[-1], "the node ended before it listened"
    url = found[1]
    minted = httpx.post(f"{url}/v1/namespaces/acme/tokens", json={"scope": "write"}, headers=PLATFORM, trust_env=False)
    token = minted.json()["token"]
    there = {"MEMOTURN_URL": url, "MEMOTURN_TOKEN": token, "MEMOTURN_NAMESPACE": "acme"}
    assert here("memory", "recall", "anything", **there).json["memories"] == []
    assert here("memory", "recall", "anything", **there | {"MEMOTURN_TOKEN": "garbage"}).code == 5
    process.terminate()
    lines.append(process.communicate(timeout=60)[1].decode())
    said = "".join(lines)
    assert "auth is off" not in said
    assert (shell.home / "auth.key").stat().st_mode & 0o777 == 0o600
    for secret in (PLATFORM_KEY, token, (shell.home / "auth.key").read_text().strip()):
        assert secret not in said
