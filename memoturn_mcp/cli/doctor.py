"""`memoturn doctor`: what works here, what does not, and what to do; also the entry for an MCP client."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memoturn_mcp.cli.flags import DataDir, Output, wants_table

if TYPE_CHECKING:
    from rich.table import Table

    from memoturn_mcp.cli.finding import Finding

_PASTED_VARIABLES = ("MEMOTURN_DATA_DIR", "MEMOTURN_NAMESPACE", "MEMOTURN_PROFILE", "MEMOTURN_SOURCE", "MEMOTURN_URL")
"""What says which memories are meant. A client starts the server without the shell's environment."""

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(data_dir: DataDir = None, output: Output = None) -> None:
    """Check the configuration and the memories of this machine.

    Prints what an MCP client needs, too. The exit code is 1 where there is a problem.
    """
    from memoturn_mcp.cli.checks import examine
    from memoturn_mcp.cli.output import as_data, write

    findings = list(examine(data_dir))
    problems = sum(finding.status == "problem" for finding in findings)
    entry = client_entry(data_dir)
    if wants_table(output):
        from memoturn_mcp.cli.tables import render

        write(f"{render(_lines(findings))}\nFor an MCP client, paste:\n\n{json.dumps(entry, indent=2)}\n")
    else:
        checks = [
            {"check": each.check, "status": each.status, "found": each.found, "advice": each.advice}
            for each in findings
        ]
        write(as_data({"checks": checks, "problems": problems, "mcp": entry}, output), "utf-8")
    if problems:
        raise SystemExit(1)


def client_entry(data_dir: str | None) -> dict[str, Any]:
    """What to paste into an MCP client so that it starts this installation on these memories."""
    entry = _command()
    environment = {name: os.environ[name] for name in _PASTED_VARIABLES if os.environ.get(name)}
    if data_dir is not None:
        environment.pop("MEMOTURN_URL", None)
        environment["MEMOTURN_DATA_DIR"] = data_dir
    if "MEMOTURN_DATA_DIR" in environment:
        environment["MEMOTURN_DATA_DIR"] = str(Path(environment["MEMOTURN_DATA_DIR"]).expanduser().absolute())
    if environment:
        entry["env"] = environment
    return {"mcpServers": {"memoturn": entry}}


def _command() -> dict[str, Any]:
    """The installed script by its absolute path, or the module where the script is not installed."""
    import shutil
    import sys
    import sysconfig

    installed = Path(sysconfig.get_path("scripts")) / "memoturn-mcp"
    script = str(installed) if os.access(installed, os.X_OK) else shutil.which("memoturn-mcp")
    if script is None:
        return {"command": sys.executable, "args": ["-m", "memoturn_mcp"]}
    return {"command": str(Path(script).absolute())}


def _lines(findings: list[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from memoturn_mcp.cli.tables import plain

    lines = Table.grid(padding=(0, 2))
    for finding in findings:
        found = plain(finding.found)
        if finding.advice is not None:
            found.append(f"\n-> {finding.advice}")
        lines.add_row(Text(finding.status, _STYLES[finding.status]), plain(finding.check), found)
    return lines
