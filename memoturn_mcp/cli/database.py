"""`memoturn db ...`: databases that belong to no profile, and what any database uses.

Each command is one operation of the control plane. Called by `main`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from memoturn_mcp.cli.flags import Cursor, Format, Limit, Reach, Yes, on_a_node
from memoturn_mcp.cli.single import agree, answer
from memoturn_schemas.errors import AlreadyExists

app = typer.Typer(
    help="Create databases, list and delete them, see what they use.", no_args_is_help=True, rich_markup_mode=None
)


class Durability(StrEnum):
    """As `memoturn_schemas.databases` has it."""

    STANDARD = "standard"
    DURABLE = "durable"


@app.command()
@on_a_node
def create(
    reach: Reach,
    output: Format | None,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it: lower case letters, digits, - and _.")],
    ttl: Annotated[
        int | None, typer.Option("--ttl", metavar="SECONDS", help="How long it lives; for good by default.")
    ] = None,
    durability: Annotated[
        Durability | None,
        typer.Option("--durability", help="durable: each write waits for object storage. standard by default."),
    ] = None,
) -> None:
    """Create an empty database; profiles need it not, their first write creates them."""
    flags = {"name": name, "ttl": ttl, "durability": None if durability is None else str(durability)}
    answer("provision_database", flags, reach, output, hints={AlreadyExists: "`memoturn db list` shows the databases"})


@app.command("list")
@on_a_node
def list_(reach: Reach, output: Format | None, cursor: Cursor = None, limit: Limit = None) -> None:
    """List the databases by name, profiles too."""
    answer("list_databases", {"cursor": cursor, "limit": limit}, reach, output)


@app.command()
@on_a_node
def delete(
    reach: Reach,
    output: Format | None,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The database; that of a profile is NAMESPACE--PROFILE.")],
    yes: Yes = False,
) -> None:
    """Delete a database with all its branches, for good."""
    agree(yes, f"Delete {name} with everything in it and all its branches?")
    answer("db_delete", {}, _of(reach, name), output)


@app.command()
@on_a_node
def usage(
    reach: Reach,
    output: Format | None,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME[@BRANCH]", help="The database; that of a profile is NAMESPACE--PROFILE."),
    ],
) -> None:
    """Count what a database holds and uses, by kind."""
    answer("db_usage", {}, _of(reach, name), output)


def _of(reach: Reach, name: str) -> Reach:
    return Reach(reach.url, reach.data_dir, None, db=name)
