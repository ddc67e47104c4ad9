"""`memoturn`: a node, the MCP server, memories and other data, their branches and storage, from a shell.

What a command answers goes to stdout: a table where a person looks, JSON where a program reads. All
else goes to stderr. The exit code is the error's own (`memoturn_schemas.errors`), 2 for wrong usage,
130 for Ctrl-C. The console script calls `main`, and so does `python -m memoturn_mcp.cli.main`.

Whatever takes long to import is imported inside the commands, so that `--help` and shell completion
answer at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from memoturn_mcp.cli import (
    backup,
    branch,
    config,
    database,
    docs,
    doctor,
    environment,
    episode,
    evaluation,
    kv,
    logs,
    memory,
    node,
    pattern,
    portability,
    servers,
    sql,
    storage,
    token,
    vector,
)
from memoturn_mcp.cli.failures import report
from memoturn_schemas.errors import MemoturnError

_ORDER = (
    *("serve", "mcp", "memory", "episode", "pattern", "eval"),
    *("kv", "docs", "vector", "sql", "branch", "db", "token", "sync", "storage"),
    *("export", "import", "backup"),
    *("health", "monitor", "logs", "config", "doctor"),
)
"""How help and completion list the commands: to run, what agents keep, how it is kept, how it does."""

_SHORT = {
    "ep": "episode",
    "pat": "pattern",
    "st": "storage",
    "ev": "eval",
    "hp": "health",
    "mon": "monitor",
    "log": "logs",
    "cfg": "config",
    "bak": "backup",
}
"""Further names, under which a command is found and not listed."""


class _InOrder(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: self.commands[name] for name in sorted(self.commands, key=_ORDER.index)}
        short = [f"{alias} is {name}" for alias, name in _SHORT.items() if name in self.commands]
        self.epilog = f"In short: {', '.join(short)}."

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, _SHORT.get(cmd_name, cmd_name))


app = typer.Typer(
    cls=_InOrder,
    help="A memory for AI agents: run it, look into it, check it.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help costs a tenth of a second less
    pretty_exceptions_enable=False,
)
for command in (servers.serve, servers.mcp, sql.sql, storage.sync, node.health, node.monitor, logs.logs, doctor.doctor):
    app.command()(command)
app.command()(portability.export)
app.command("import")(portability.import_)
for name, group in {
    "memory": memory,
    "episode": episode,
    "pattern": pattern,
    "eval": evaluation,
    "kv": kv,
    "docs": docs,
    "vector": vector,
    "branch": branch,
    "db": database,
    "token": token,
    "storage": storage,
    "backup": backup,
    "config": config,
}.items():
    app.add_typer(group.app, name=name)


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


def _load(file: str | None) -> None:
    if file is not None:
        environment.load(file)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    env_file: Annotated[
        str | None,
        typer.Option(
            "--env-file",
            metavar="FILE",
            help="Settings as NAME=VALUE lines; the environment wins over it.",
            callback=_load,
        ),
    ] = None,
) -> None:
    """Options before the command, which act while they are read."""


if __name__ == "__main__":
    main()
