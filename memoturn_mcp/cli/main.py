"""`memoturn`: a node, the MCP server, the memories, their branches and storage, and a check-up, from a shell.

What a command answers goes to stdout: a table where a person looks, JSON where a program reads. All
else goes to stderr. The exit code is the error's own (`memoturn_schemas.errors`), 2 for wrong usage,
130 for Ctrl-C. The console script calls `main`, and so does `python -m memoturn_mcp.cli.main`.

Whatever takes long to import is imported inside the commands, so that `--help` and shell completion
answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from memoturn_mcp.cli import branch, doctor, memory, servers, storage
from memoturn_mcp.cli.failures import report
from memoturn_schemas.errors import MemoturnError

app = typer.Typer(
    help="A memory for AI agents: run it, look into it, check it.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help costs a tenth of a second less
    pretty_exceptions_enable=False,
)
app.command()(servers.serve)
app.command()(servers.mcp)
app.add_typer(memory.app, name="memory")
app.add_typer(branch.app, name="branch")
app.command()(storage.sync)
app.add_typer(storage.app, name="storage")
app.command()(doctor.doctor)


def main() -> None:
    try:
        app(prog_name="memoturn")
    except MemoturnError as error:
        report(error)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"memoturn {version('memoturn')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command; the version is printed while they are read."""


if __name__ == "__main__":
    main()
