"""Nodes that tests start and kill."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.nodes import Launcher, forking


@pytest.fixture(scope="session")
def _forks() -> Iterator[subprocess.Popen[str]]:
    with forking() as process:
        yield process


@pytest.fixture
def launch(_forks: subprocess.Popen[str], tmp_path: Path) -> Iterator[Launcher]:
    """Starts nodes, which do not outlive the test."""
    launcher = Launcher(_forks, tmp_path)
    try:
        yield launcher
    finally:
        launcher.kill_all()
