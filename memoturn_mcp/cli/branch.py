"""`memoturn branch ...`: try things on a branch, name a moment, go back to it.

Each command is one operation, as in `memory`. What discards something asks first, but only where a person
sits at the terminal: a program that pipes is never waited for. Called by `main`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from memoturn_mcp.cli.flags import (
    Branch,
    DataDir,
    Format,
    Namespace,
    Output,
    Profile,
    Url,
    as_moment,
)
from memoturn_mcp.cli.single import run_and_show
from memoturn_schemas.errors import BranchNotFound, Conflict, InvalidRequest

app = typer.Typer(help="Try things on a branch, and go back.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The branch.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]

_MAIN = "main"


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it: letters, digits, - and _.")],
    parent: Annotated[
        str | None, typer.Option("--from", metavar="BRANCH", help="The branch that it starts from; main by default.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="NAME", help="Start from this checkpoint of it.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="MOMENT", help="Start from this moment of it: a transaction, a time or a checkpoint."
        ),
    ] = None,
    ttl: Annotated[
        int | None, typer.Option("--ttl", metavar="SECONDS", help="How long it lives; for good by default.")
    ] = None,
    namespace: Namespace = None,
    profile: Profile = None,
    url: Url = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Make a branch: all that its parent has, to change without touching the parent."""
    arguments = {
        "name": name,
        "from": parent,
        "checkpoint": checkpoint,
        "at": None if at is None else as_moment("--at", at),
        "ttl": ttl,
    }
    _run("branch_create", arguments, output, url, data_dir, namespace, profile)


@app.command("list")
def list_(
    namespace: Namespace = None,
    profile: Profile = None,
    url: Url = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """List the branches beside main."""
    _run("branch_list", {}, output, url, data_dir, namespace, profile)


@app.command()
def delete(
    name: Name,
    namespace: Namespace = None,
    profile: Profile = None,
    url: Url = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Delete a branch, with what was written only there."""
    _run("branch_delete", {"branch": name}, output, url, data_dir, namespace, profile)


@app.command()
def checkpoint(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call this moment; one that exists moves here.")],
    branch: Branch = None,
    namespace: Namespace = None,
    profile: Profile = None,
    url: Url = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Name the newest state, to come back to it at any time."""
    arguments = {"name": name, "branch": branch or _MAIN}
    _run("branch_checkpoint", arguments, output, url, data_dir, namespace, profile)


@app.command()
def rewind(
    to: Annotated[
        str, typer.Argument(metavar="TO", help="Where to: a checkpoint, a transaction or a time like 2026-01-31T09:30.")
    ],
    branch: Branch = None,
    yes: Yes = False,
    namespace: Namespace = None,
    profile: Profile = None,
    url: Url = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Go back to an earlier state; what came after it is discarded."""
    arguments = {"to": as_moment("TO", to), "branch": branch or _MAIN}
    which = _which(url, data_dir, namespace, profile)
    _agree(yes, f"Rewind {branch or _MAIN} of {which} to {to}? What came after it is discarded.")
    _run("branch_rewind", arguments, output, url, data_dir, namespace, profile)


@app.command()
def promote(
    name: Name,
    keep_as: Annotated[
        str | None, typer.Option("--keep-as", metavar="NAME", help="Keep what main was as a branch of this name.")
    ] = None,
    yes: Yes = False,
    namespace: Namespace = None,
    profile: Profile = None,
    url: Url = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Make a branch's state that of main; the branch stays."""
    which = _which(url, data_dir, namespace, profile)
    fate = "discarded" if keep_as is None else f"kept as {keep_as}"
    _agree(yes, f"Make {name} the main branch of {which}? What main was is {fate}.")
    _run("branch_promote", {"branch": name, "keep_as": keep_as}, output, url, data_dir, namespace, profile)


def _run(
    name: str,
    arguments: Mapping[str, Any],
    output: Format | None,
    url: str | None,
    data_dir: str | None,
    namespace: str | None,
    profile: str | None,
) -> None:
    """Run one operation and show what it answers, with a hint where it is refused."""
    given = {key: value for key, value in arguments.items() if value is not None}
    for key, value in given.items():
        # A shell passes on bytes that are not UTF-8; none of these can hold anything but ASCII.
        if isinstance(value, str) and not value.isascii():
            raise InvalidRequest(f"{key}: must be ASCII")
    try:
        run_and_show(name, given, output, url, data_dir, namespace, profile)
    except BranchNotFound as error:
        error.add_note("`memoturn branch list` shows the branches, `memoturn storage inspect` a branch's checkpoints")
        raise
    except Conflict as error:
        if type(error) is Conflict:
            error.add_note("`memoturn storage inspect` shows how far the history goes; a time needs a colon")
        raise


def _which(url: str | None, data_dir: str | None, namespace: str | None, profile: str | None) -> str:
    """The profile that the flags mean, as a person calls it."""
    from memoturn_mcp.cli.reach import Reach, addressed, settings_of

    address = addressed(Reach(url, data_dir, namespace, profile), settings_of(url=url, data_dir=data_dir))
    return (address.database or "").replace("--", "/")


def _agree(yes: bool, question: str) -> None:
    """Ask a person who is there; where it is a program, or `yes`, go on."""
    from memoturn_mcp.cli.printable import one_line

    if yes or not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        return
    print(f"{one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing was changed", file=sys.stderr)
        raise typer.Exit(1)
