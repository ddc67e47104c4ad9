"""A served node with a sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.live_node import Live, serve
from memoturn_core.code.sandbox import Sandbox
from memoturn_storage.ambient import SystemAmbient
from sandbox.built import built_guest
from sandbox.snippets import Snippets


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def guest() -> Path:
    return built_guest()


@pytest.fixture(scope="module")
def live(guest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A node that runs snippets and lists the tool."""
    with serve(tmp_path_factory.mktemp("node"), toolsets="code") as served:
        served.node.sandbox = Sandbox(guest, SystemAmbient())
        yield served


@pytest.fixture(scope="module")
def snippets(live: Live) -> Snippets:
    return Snippets(live.http)
