"""`memoturn storage ...` and `memoturn sync`: what the object store has of a branch, and getting it back.

`inspect`, `stats`, `vacuum` and `sync` are operations, here or by a node; `health`, `restore` and `segments` read the
object store themselves (`rescue`), so that they work where no node does any more. Called by `main`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from memoturn_mcp.cli.flags import Format, Reach, as_moment, on_a_branch, on_the_store
from memoturn_mcp.cli.single import answer, reply_of

app = typer.Typer(
    help="Look at what object storage holds, and get it back.", no_args_is_help=True, rich_markup_mode=None
)

At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="MOMENT", help="As of then: a checkpoint, a transaction or a time; the newest by default."
    ),
]


@on_a_branch
def sync(
    reach: Reach,
    output: Format | None,
) -> None:
    """Wait until object storage has everything written so far."""
    answer("sync", {}, reach, output)


@app.command()
@on_a_branch
def inspect(
    reach: Reach,
    output: Format | None,
) -> None:
    """Show the objects that a branch consists of, its checkpoints, and how far back it can go."""
    answer("storage_inspect", {}, reach, output)


@app.command()
@on_a_branch
def stats(reach: Reach, output: Format | None) -> None:
    """Count the objects that a branch consists of and what they take, by kind."""
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.output import show

    reply = reply_of("storage_inspect", {}, reach)
    show("storage_stats", Reply(_counted(reply.value), reply.txid), output)


def _counted(stored: Mapping[str, Any]) -> dict[str, Any]:
    def sum_of(entries: list[Any]) -> dict[str, int]:
        return {"objects": len(entries), "bytes": sum(entry["bytes"] for entry in entries)}

    levels = sorted({entry["level"] for entry in stored["segments"]})
    return {
        **{name: stored[name] for name in ("database", "branch", "oldest_txid", "head_txid")},
        "snapshots": sum_of(stored["snapshots"]),
        "segments": [
            {"level": level, **sum_of([entry for entry in stored["segments"] if entry["level"] == level])}
            for level in levels
        ],
        "bytes": stored["bytes"],
        "checkpoints": len(stored["checkpoints"]),
    }


@app.command()
@on_a_branch
def vacuum(reach: Reach, output: Format | None) -> None:
    """Give back the room of what was deleted; the whole branch is shipped anew."""
    answer("storage_vacuum", {}, reach, output)


@app.command()
@on_the_store
def health(reach: Reach, output: Format | None) -> None:
    """Restore a branch from object storage into memory and check it; the exit code is 1 where that fails.

    Needs the object store alone, and leaves it and whoever uses it as they are.
    """
    from memoturn_mcp.cli import rescue
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import run_beside

    reply = run_beside(reach, rescue.drill)
    show("storage_health", reply, output)
    if reply.value["status"] != "ok":
        raise SystemExit(1)


@app.command()
@on_the_store
def restore(
    reach: Reach,
    output: Format | None,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The SQLite file to make.")],
    at: At = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Restore a branch from object storage into a SQLite file, verified.

    Needs the object store alone, and leaves it and whoever uses it as they are.
    """
    from memoturn_mcp.cli import rescue
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import run_beside

    moment = None if at is None else as_moment("--at", at)
    reply = run_beside(reach, lambda node, address: rescue.restore(node, address, moment, out, force=force))
    show("storage_restore", reply, output)


@app.command()
@on_the_store
def segments(
    reach: Reach,
    output: Format | None,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where to; made if need be, and must be empty.")],
    at: At = None,
    whole: Annotated[
        bool, typer.Option("--all", help="From the oldest state that is there, instead of from the newest snapshot.")
    ] = False,
) -> None:
    """Write a branch as LTX files, one a transaction, from which `ltx apply` makes the database."""
    from memoturn_mcp.cli import rescue
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import run_beside

    moment = None if at is None else as_moment("--at", at)
    reply = run_beside(reach, lambda node, address: rescue.write_segments(node, address, moment, out, whole=whole))
    show("storage_segments", reply, output)
