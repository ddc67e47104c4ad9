"""One served node for each module, a fresh profile for each test, and no settings from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from contract.live_node import Live, Memory, serve


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A node without providers, on a clock that stands still."""
    with serve(tmp_path_factory.mktemp("node")) as served:
        yield served


@pytest.fixture
def memory(live: Live) -> Memory:
    """A profile of the module's node that nobody has used."""
    return live.memory()
