"""`memoturn storage ...` and `memoturn sync`: what the object store has of a branch, and getting it back.

`inspect` and `sync` are operations, here or by a node; `restore` and `segments` read the object store
themselves (`rescue`), so that they work where no node does any more. Called by `main`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from memoturn_mcp.cli.flags import Branch, DataDir, Namespace, Output, Profile, Url, as_moment
from memoturn_mcp.cli.single import run_and_show

app = typer.Typer(
    help="Look at what object storage holds, and get it back.", no_args_is_help=True, rich_markup_mode=None
)

At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="MOMENT", help="As of then: a checkpoint, a transaction or a time; the newest by default."
    ),
]
NoUrl = Annotated[str | None, typer.Option("--url", hidden=True)]
"""Refused with the reason, where the flag alone would be unknown."""


def sync(
    namespace: Namespace = None,
    profile: Profile = None,
    branch: Branch = None,
    url: Url = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Wait until object storage has everything written so far."""
    run_and_show("sync", {}, output, url, data_dir, namespace, profile, branch)


@app.command()
def inspect(
    namespace: Namespace = None,
    profile: Profile = None,
    branch: Branch = None,
    url: Url = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Show the objects that a branch consists of, its checkpoints, and how far back it can go."""
    run_and_show("storage_inspect", {}, output, url, data_dir, namespace, profile, branch)


@app.command()
def restore(
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The SQLite file to make.")],
    at: At = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    namespace: Namespace = None,
    profile: Profile = None,
    branch: Branch = None,
    url: NoUrl = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Restore a branch from object storage into a SQLite file, verified.

    Needs the object store alone, and leaves it and whoever uses it as they are.
    """
    from memoturn_mcp.cli import rescue
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import Reach, run_beside

    moment = None if at is None else as_moment("--at", at)
    reach = Reach(url, data_dir, namespace, profile, branch)
    reply = run_beside(reach, lambda node, address: rescue.restore(node, address, moment, out, force=force))
    show("storage_restore", reply, output)


@app.command()
def segments(
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where to; made if need be, and must be empty.")],
    at: At = None,
    whole: Annotated[
        bool, typer.Option("--all", help="From the oldest state that is there, instead of from the newest snapshot.")
    ] = False,
    namespace: Namespace = None,
    profile: Profile = None,
    branch: Branch = None,
    url: NoUrl = None,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Write a branch as LTX files, one a transaction, from which `ltx apply` makes the database."""
    from memoturn_mcp.cli import rescue
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import Reach, run_beside

    moment = None if at is None else as_moment("--at", at)
    reach = Reach(url, data_dir, namespace, profile, branch)
    reply = run_beside(reach, lambda node, address: rescue.write_segments(node, address, moment, out, whole=whole))
    show("storage_segments", reply, output)
