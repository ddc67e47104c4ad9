"""One served node for each module, a fresh profile for each test, and no settings from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from contract.branches import KeptStore
from contract.live_node import Live, Memory, RawMcp, serve
from memoturn_storage.ambient import ManualAmbient


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A node without providers, on a clock that stands still; it lists the tools of the module's `TOOLSETS`."""
    with serve(tmp_path_factory.mktemp("node"), toolsets=getattr(request.module, "TOOLSETS", None)) as served:
        yield served


@pytest.fixture(scope="module")
def mcp(live: Live) -> RawMcp:
    """One MCP session on the module's node."""
    return RawMcp(live.http)


@pytest.fixture
def memory(live: Live) -> Memory:
    """A profile of the module's node that nobody has used."""
    return live.memory()


@pytest.fixture
def ambient() -> ManualAmbient:
    """The clock of nodes and stores of the test's own."""
    return ManualAmbient()


@pytest.fixture
def store(ambient: ManualAmbient) -> KeptStore:
    """The object store of nodes of the test's own, which outlives them."""
    return KeptStore(ambient)


@pytest.fixture
def kept(live: Live) -> KeptStore:
    """The object store of the module's node, where the module has given it one to look into."""
    assert isinstance(live.node.store, KeptStore)
    return live.node.store
