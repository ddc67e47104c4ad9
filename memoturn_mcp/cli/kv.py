"""`memoturn kv ...`: values under exact keys, byte for byte.

Each command is one operation. In JSON a value is its text, or `{"$base64": …}` where it is none. Called by `main`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from memoturn_mcp.cli.flags import Cursor, Format, Limit, Reach, on_a_branch
from memoturn_mcp.cli.single import answer, reply_of
from memoturn_schemas.errors import InvalidRequest, NotFound, Unavailable

app = typer.Typer(help="Keep values under exact keys.", no_args_is_help=True, rich_markup_mode=None)

Ns = Annotated[str, typer.Argument(metavar="NS", help="The group of keys: any text.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key in it: any text.")]


@app.command()
@on_a_branch
def put(
    reach: Reach,
    output: Format | None,
    ns: Ns,
    key: Key,
    value: Annotated[str | None, typer.Argument(metavar="VALUE", help="The value, unless --file has it.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="Take the value from here, as it is; - is stdin.")
    ] = None,
    ttl: Annotated[
        int | None, typer.Option("--ttl", metavar="SECONDS", help="How long it lives; for good by default.")
    ] = None,
) -> None:
    """Keep a value under a key, instead of what is there."""
    from memoturn_mcp.cli.inputs import read_bytes

    if (value is None) == (file is None):
        raise InvalidRequest("VALUE: give it, or --file; not both, and not none of them")
    data = os.fsencode(value) if value is not None else read_bytes(file or "")
    answer("kv_put", {"ns": ns, "key": key, "value": data, "ttl": ttl}, reach, output)


@app.command()
@on_a_branch
def get(
    reach: Reach,
    output: Format | None,
    ns: Ns,
    key: Key,
    raw: Annotated[bool, typer.Option("--raw", help="Write exactly the value, and nothing after it.")] = False,
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="FILE", help="Write exactly the value to this file.")
    ] = None,
) -> None:
    """Show the value under a key."""
    from memoturn_mcp.cli.output import show, show_txid, write_bytes

    if output is not None and (raw or out is not None):
        raise InvalidRequest("--format: leave it out with --raw and --out, which write the value alone")
    if raw and out is not None:
        raise InvalidRequest("--raw: leave it out with --out, which writes the value to the file")
    reply = reply_of("kv_get", {"ns": ns, "key": key}, reach, hints={NotFound: "`memoturn kv list NS` shows the keys"})
    if not raw and out is None:
        show("kv_get", reply, output)
        return
    if out is None:
        write_bytes(reply.value["value"])
    else:
        try:
            Path(out).write_bytes(reply.value["value"])
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Unavailable(f"--out: {out} cannot be written: {reason}") from None
    show_txid(reply)


@app.command()
@on_a_branch
def delete(reach: Reach, output: Format | None, ns: Ns, key: Key) -> None:
    """Delete a key and its value."""
    answer("kv_delete", {"ns": ns, "key": key}, reach, output)


@app.command("list")
@on_a_branch
def list_(
    reach: Reach,
    output: Format | None,
    ns: Ns,
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="TEXT", help="Only keys that begin with this.")
    ] = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List keys in order."""
    answer("kv_list", {"ns": ns, "prefix": prefix, "limit": limit, "cursor": cursor}, reach, output)
