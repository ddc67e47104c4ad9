"""`memoturn branch ...`: try things on a branch, see what came of them and take it over, name a moment, go back to it.

Each command is one operation, as in `memory`. What discards something asks first, but only where a person
sits at the terminal: a program that pipes is never waited for. Called by `main`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memoturn_mcp.cli.flags import Format, Limit, Reach, Yes, as_moment, on_a_branch, on_a_database
from memoturn_mcp.cli.single import agree, answer, given
from memoturn_schemas.errors import BranchNotFound, Conflict, InvalidRequest, MemoturnError

if TYPE_CHECKING:
    from memoturn_core.address import Address


class OnConflict(StrEnum):
    """As `memoturn_schemas.merging` has it."""

    OURS = "ours"
    THEIRS = "theirs"
    NEWEST = "newest"
    FAIL = "fail"


app = typer.Typer(help="Try things on a branch, and go back.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The branch.")]

Hints = Mapping[type[MemoturnError], str]

_HINTS: Hints = {
    BranchNotFound: "`memoturn branch list` shows the branches, `memoturn storage inspect` a branch's checkpoints",
    Conflict: "`memoturn storage inspect` shows how far the history goes; a time needs a colon",
}
_MERGE_HINTS: Hints = {
    **_HINTS,
    Conflict: "`memoturn branch diff` shows both sides; --on-conflict or --topic and --id choose among them",
}


@app.command()
@on_a_database
def create(
    reach: Reach,
    output: Format | None,
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
) -> None:
    """Make a branch: all that its parent has, to change without touching the parent."""
    arguments = {
        "name": name,
        "from": parent,
        "checkpoint": checkpoint,
        "at": None if at is None else as_moment("--at", at),
        "ttl": ttl,
    }
    _run("branch_create", arguments, reach, output)


@app.command("list")
@on_a_database
def list_(
    reach: Reach,
    output: Format | None,
) -> None:
    """List the branches beside main."""
    _run("branch_list", {}, reach, output)


@app.command()
@on_a_database
def delete(
    reach: Reach,
    output: Format | None,
    name: Name,
) -> None:
    """Delete a branch, with what was written only there."""
    _run("branch_delete", {"branch": name}, reach, output)


@app.command()
@on_a_branch
def checkpoint(
    reach: Reach,
    output: Format | None,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call this moment; one that exists moves here.")],
) -> None:
    """Name the newest state, to come back to it at any time."""
    arguments = {"name": name, "branch": _addressed(reach).branch}
    _run("branch_checkpoint", arguments, reach, output)


@app.command()
@on_a_branch
def rewind(
    reach: Reach,
    output: Format | None,
    to: Annotated[
        str, typer.Argument(metavar="TO", help="Where to: a checkpoint, a transaction or a time like 2026-01-31T09:30.")
    ],
    yes: Yes = False,
) -> None:
    """Go back to an earlier state; what came after it is discarded."""
    address = _addressed(reach)
    arguments = {"to": as_moment("TO", to), "branch": address.branch}
    agree(yes, f"Rewind {address.branch} of {_called(address)} to {to}? What came after it is discarded.")
    _run("branch_rewind", arguments, reach, output)


@app.command()
@on_a_database
def promote(
    reach: Reach,
    output: Format | None,
    name: Name,
    keep_as: Annotated[
        str | None, typer.Option("--keep-as", metavar="NAME", help="Keep what main was as a branch of this name.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Make a branch's state that of main; the branch stays."""
    fate = "discarded" if keep_as is None else f"kept as {keep_as}"
    agree(yes, f"Make {name} the main branch of {_called(_addressed(reach))}? What main was is {fate}.")
    _run("branch_promote", {"branch": name, "keep_as": keep_as}, reach, output)


@app.command()
@on_a_database
def diff(
    reach: Reach,
    output: Format | None,
    name: Name,
    against: Annotated[
        str | None, typer.Option("--against", metavar="BRANCH", help="The branch to compare it with; main by default.")
    ] = None,
    limit: Limit = None,
) -> None:
    """Show what two branches have learnt and forgotten since they parted."""
    _run("branch_diff", {"branch": name, "against": against, "limit": limit}, reach, output)


@app.command()
@on_a_database
def merge(
    reach: Reach,
    output: Format | None,
    name: Name,
    into: Annotated[
        str | None, typer.Option("--into", metavar="BRANCH", help="The branch that takes it over; main by default.")
    ] = None,
    topics: Annotated[
        list[str] | None, typer.Option("--topic", metavar="KEY", help="Only this topic; may be given several times.")
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="Only this memory; may be given several times.")
    ] = None,
    on_conflict: Annotated[
        OnConflict | None,
        typer.Option("--on-conflict", help="What to keep where both changed a topic; ours is what --into has."),
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Also forget what the branch has forgotten.")] = False,
    yes: Yes = False,
) -> None:
    """Take what a branch has learnt into another; the branch stays."""
    for topic in topics or ():
        given({"topic": topic})
    if forget:
        agree(yes, f"Forget on {into or 'main'} of {_called(_addressed(reach))} what was forgotten on {name}?")
    arguments = {
        "branch": name,
        "into": into,
        "topics": topics or None,
        "ids": ids or None,
        "on_conflict": on_conflict,
        "forget": forget or None,
    }
    _run("branch_merge", arguments, reach, output, _MERGE_HINTS)


def _run(name: str, arguments: Mapping[str, Any], reach: Reach, output: Format | None, hints: Hints = _HINTS) -> None:
    """Run one operation and show what it answers, with a hint where it is refused."""
    for key, value in arguments.items():
        # A shell passes on bytes that are not UTF-8; none of these can hold anything but ASCII.
        if isinstance(value, str) and not value.isascii():
            raise InvalidRequest(f"{key}: must be ASCII")
    answer(name, arguments, reach, output, hints=hints)


def _addressed(reach: Reach) -> Address:
    from memoturn_mcp.cli.reach import addressed, settings_of

    return addressed(reach, settings_of(url=reach.url, data_dir=reach.data_dir))


def _called(address: Address) -> str:
    """The database, as a person calls it."""
    return (address.database or "").replace("--", "/")
