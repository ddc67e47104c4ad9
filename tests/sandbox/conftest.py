"""A served node with a sandbox, whose guest is built once for this working tree and kept in its `.cache`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.live_node import Live, serve
from memoturn_core.code.sandbox import Sandbox
from memoturn_storage.ambient import SystemAmbient
from sandbox.snippets import Snippets

CACHE = Path(__file__).parents[2] / ".cache" / "sandbox"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def guest() -> Path:
    """The directory with the built guest; building it takes half a minute of CPU time."""
    subprocess.run([sys.executable, "-m", "memoturn_core.code.build", str(CACHE)], check=True, timeout=300)
    return CACHE


@pytest.fixture(scope="module")
def live(guest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A node that runs snippets and lists the tool."""
    with serve(tmp_path_factory.mktemp("node"), toolsets="code") as served:
        served.node.sandbox = Sandbox(guest, SystemAmbient())
        yield served


@pytest.fixture(scope="module")
def snippets(live: Live) -> Snippets:
    return Snippets(live.http)
