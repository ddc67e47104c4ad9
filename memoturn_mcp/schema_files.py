"""The generated files under `schemas/`: what the program says of itself, for people and other tools.

    python -m memoturn_mcp.schema_files [DIRECTORY]

writes them; a test fails when they are stale. `openapi.json` is what `/openapi.json` serves, `tools.json`
every MCP tool as `tools/list` gives it without defaults.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from memoturn_mcp import openapi, tools
from memoturn_mcp.settings import ALL, ToolChoice
from memoturn_mcp.tools import Defaults


def contents() -> dict[str, str]:
    """File name to text."""
    every = ToolChoice(toolsets=frozenset({ALL}))
    listed = [tools.as_tool(operation, Defaults()) for operation in tools.chosen(every)]
    described = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed]
    return {
        "openapi.json": json.dumps(openapi.document(), indent=2, ensure_ascii=False) + "\n",
        "tools.json": json.dumps({"tools": described}, indent=2, ensure_ascii=False) + "\n",
    }


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "schemas")
    for name, text in contents().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
