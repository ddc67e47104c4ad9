"""How this program starts processes of its own: which modules they find, and an environment without anything else."""

from __future__ import annotations

import os
import sys


def command(module: str, *arguments: str) -> list[str]:
    """Runs a module of this program; nothing is imported from the directory that it runs in."""
    return [sys.executable, "-sP", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """What a child gets instead of this process's own, in which there may be secrets."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
