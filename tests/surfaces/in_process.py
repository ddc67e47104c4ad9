"""`memoturn` run in this process, for what no process of its own is needed to see: ten times as fast as a shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from memoturn_mcp.cli.main import main
from surfaces.shell import Done


@dataclass(frozen=True)
class InProcess:
    """Runs `memoturn` with a data directory of its own, and stdout that is no terminal."""

    home: Path
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, **variables: str) -> Done:
        with self.monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
                patch.delenv(name)
            for name, value in {"MEMOTURN_DATA_DIR": str(self.home), **variables}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["memoturn", *arguments])
            self.capfd.readouterr()
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            out, err = self.capfd.readouterr()
        return Done(code, out, err)


@contextmanager
def in_process(home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[InProcess]:
    yield InProcess(home, monkeypatch, capfd)
    structlog.reset_defaults()  # a command logs to the stderr that it found
