"""`memoturn` run in this process, for what no process of its own is needed to see: ten times as fast as a shell."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import structlog
import typer.main

from memoturn_mcp.cli.main import main
from surfaces.shell import Done

_built = cache(typer.main.get_command)
"""The tree of commands, which typer would make anew for each: half of the time of most."""


def captured(run: Callable[[], None], stdin: bytes | None, variables: dict[str, str]) -> Done:
    """Run it as a process of its own would: with only these of our variables, and with files as stdin and stdout."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        if stdin is not None:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        for name, file in (("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, io.TextIOWrapper(os.fdopen(os.dup(file.fileno()), "wb", 0), write_through=True))
        try:
            run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            sys.stdout.close()
            sys.stderr.close()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return Done(code, *said)


@dataclass(frozen=True)
class InProcess:
    """Runs `memoturn` with a data directory of its own, and stdout that is no terminal."""

    home: Path

    def __call__(self, *arguments: str, stdin: bytes | None = None, **variables: str) -> Done:
        def run() -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["memoturn", *arguments])
                patch.setattr(typer.main, "get_command", _built)
                main()

        return captured(run, stdin, {"MEMOTURN_DATA_DIR": str(self.home), **variables})


@contextmanager
def in_process(home: Path) -> Iterator[InProcess]:
    yield InProcess(home)
    structlog.reset_defaults()  # a command logs to the stderr that it found
