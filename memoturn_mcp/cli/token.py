"""`memoturn token ...`: who may do what on a node with auth on.

Each command is one operation of the control plane. Here they work with the node's own configuration, which
says where its signing key is; with --url, by the platform key. Called by `main`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from memoturn_mcp.cli.flags import Format, Reach, on_a_node
from memoturn_mcp.cli.single import answer
from memoturn_schemas.errors import MemoturnError, NotFound

app = typer.Typer(help="Make access tokens, and revoke them.", no_args_is_help=True, rich_markup_mode=None)


class Scope(StrEnum):
    """As `memoturn_schemas.tokens` has it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


ScopeFlag = Annotated[Scope, typer.Option("--scope", help="What it allows; write includes read, admin both.")]
ExpiresIn = Annotated[
    int | None, typer.Option("--expires-in", metavar="SECONDS", help="How long it lives; 3600 by default.")
]


@app.command()
@on_a_node
def create(
    reach: Reach,
    output: Format | None,
    db: Annotated[str, typer.Argument(metavar="DB", help="The database; that of a profile is NAMESPACE--PROFILE.")],
    scope: ScopeFlag,
    expires_in: ExpiresIn = None,
) -> None:
    """Make a token that opens one database with all its branches."""
    where = Reach(reach.url, reach.data_dir, None, db=db)
    answer("token_create", {"scope": str(scope), "expires_in": expires_in}, where, output, mints=True)


@app.command("create-ns")
@on_a_node
def create_ns(
    reach: Reach,
    output: Format | None,
    namespace: Annotated[str, typer.Argument(metavar="NS", help="The namespace.")],
    scope: ScopeFlag,
    expires_in: ExpiresIn = None,
) -> None:
    """Make a token that opens every profile of a namespace."""
    where = Reach(reach.url, reach.data_dir, namespace)
    answer("token_create_ns", {"scope": str(scope), "expires_in": expires_in}, where, output, mints=True)


@app.command()
@on_a_node
def revoke(
    reach: Reach,
    output: Format | None,
    jti: Annotated[str, typer.Argument(metavar="JTI", help="The token's id, as it was answered.")],
) -> None:
    """Refuse a token from now on, and what was made with it."""
    hints: dict[type[MemoturnError], str] = {NotFound: "the id is the jti that `memoturn token create` answered with"}
    answer("token_revoke", {"jti": jti}, reach, output, mints=True, hints=hints)
