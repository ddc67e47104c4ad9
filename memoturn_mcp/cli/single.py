"""A command that is one operation. Called by the commands; imports what takes long only when one runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memoturn_mcp.cli.flags import Format


def run_and_show(
    name: str,
    arguments: Mapping[str, Any],
    output: Format | None,
    url: str | None,
    data_dir: str | None,
    namespace: str | None,
    profile: str | None = None,
    branch: str | None = None,
) -> None:
    """Run one operation and show what it answers."""
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import Reach, run

    show(name, run(Reach(url, data_dir, namespace, profile, branch), lambda ask: ask(name, arguments)), output)
