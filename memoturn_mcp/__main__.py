"""`memoturn-mcp`: the MCP server over stdio, the entry that people paste into an MCP client."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

from memoturn_mcp.settings import Settings
from memoturn_schemas.errors import MemoturnError


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="memoturn-mcp", description="A memory for AI agents, as an MCP server over stdin and stdout."
    )
    add_tool_flags(parser)
    run(vars(parser.parse_args(arguments)))


def add_tool_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--toolsets", metavar="NAMES", help="toolsets to list, separated by commas, or 'all'")
    parser.add_argument("--tools", metavar="NAMES", help="single tools to list, separated by commas")
    parser.add_argument("--exclude-tools", metavar="NAMES", help="tools not to list, separated by commas")
    parser.add_argument("--read-only", action="store_true", help="list only tools that change nothing")


def run(flags: dict[str, object]) -> None:
    """Serve stdio; flags win over the environment. Exits with the code of the error where one occurs."""
    try:
        settings = Settings.from_environment(os.environ)
        from memoturn_mcp.logs import configure_logging
        from memoturn_mcp.serving import serve_stdio

        configure_logging(settings.log_level, json=False, file=settings.log_file)
        serve_stdio(_with_flags(settings, flags))
    except MemoturnError as error:
        print(f"memoturn-mcp: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _with_flags(settings: Settings, flags: dict[str, object]) -> Settings:
    def names(flag: str, otherwise: frozenset[str]) -> frozenset[str]:
        given = flags.get(flag)
        return frozenset(name.strip() for name in given.split(",")) if isinstance(given, str) else otherwise

    return replace(
        settings,
        toolsets=names("toolsets", settings.toolsets),
        tools=names("tools", settings.tools),
        excluded_tools=names("exclude_tools", settings.excluded_tools),
        read_only=bool(flags.get("read_only")) or settings.read_only,
    )


if __name__ == "__main__":
    main()
