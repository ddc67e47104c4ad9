"""`memoturn config ...`: the settings of this environment, their check, and a file to begin with.

Called by `main`.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from memoturn_mcp.cli import environment
from memoturn_mcp.cli.flags import Output
from memoturn_mcp.variables import VARIABLES
from memoturn_schemas.errors import AlreadyExists, InvalidRequest, Unavailable

app = typer.Typer(
    help="Show the settings, check them, begin a file of them.", no_args_is_help=True, rich_markup_mode=None
)

_MASKED = "********"
_HEAD = """\
# Settings of Memoturn. Take the # from what you set; what is left out is as it says here.
# `memoturn --env-file FILE serve` reads this file, and so does a shell: `set -a; . FILE`.
"""


@app.command()
def show(output: Output = None) -> None:
    """Show each setting, its value and where that is from; secrets are not shown."""
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.settings import PREFIX

    names = [*VARIABLES, *sorted(name for name in os.environ if name.startswith(PREFIX) and name not in VARIABLES)]
    settings = [{"name": name, "value": _value(name), "source": _source(name)} for name in names]
    show("config_show", Reply({"settings": settings}), output)


@app.command()
def validate(output: Output = None) -> None:
    """Check all settings as a node does at its start; the exit code is 2 where one is wrong, which is named."""
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.settings import ALL, PREFIX, Settings
    from memoturn_mcp.tools import chosen

    chosen(Settings.from_environment(os.environ).tool_choice(ALL))
    names = sorted(name for name in os.environ if name.startswith(PREFIX))
    show("config_validate", Reply({"valid": True, "set": names}), output)


@app.command()
def init(
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The file to make, for its owner alone; else stdout.")
    ] = None,
) -> None:
    """Write a file of all settings with what they mean and their defaults, to be filled in."""
    from memoturn_mcp.cli.output import write

    if out is None:
        write(template(), "utf-8")
        return
    try:
        with os.fdopen(os.open(Path(out), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(template())
    except FileExistsError:
        raise AlreadyExists(f"--out: {out} exists") from None
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise InvalidRequest(f"--out: {out} cannot be written: {error.strerror}") from None
    except OSError as error:
        raise Unavailable(f"--out: {out} cannot be written: {error.strerror}") from None


def template() -> str:
    """The text of a file that sets nothing."""
    parts = [_HEAD]
    for name, variable in VARIABLES.items():
        meaning = textwrap.fill(variable.meaning, 100, initial_indent="# ", subsequent_indent="# ")
        parts.append(f"{meaning}\n#{name}={variable.default or ''}\n")
    return "\n".join(parts)


def _value(name: str) -> str | None:
    given, variable = os.environ.get(name), VARIABLES.get(name)
    if given:
        # A name that is none of ours may be a misspelt secret's.
        return _MASKED if variable is None or variable.secret else re.sub(r"//[^/@]*@", f"//{_MASKED}@", given)
    if name == "MEMOTURN_DATA_DIR":
        from memoturn_mcp.settings import default_data_dir

        return str(default_data_dir())
    return None if variable is None else variable.default


def _source(name: str) -> str:
    if not os.environ.get(name):
        return "default"
    if name not in VARIABLES:
        return "environment, and there is no such setting"
    return "file" if name in environment.LOADED else "environment"
