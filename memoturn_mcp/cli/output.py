"""What a command answers: its value on stdout, the transaction it reflects on stderr.

Called by the commands with an operation's reply.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO, cast

from memoturn_core.operations import Reply
from memoturn_mcp.cli.flags import Format, wants_table
from memoturn_schemas.errors import Unavailable

BROKEN_PIPE = 141
"""The exit code of a program that SIGPIPE ends, as `head` does it to those before it."""


def show(name: str, reply: Reply, given: Format | None) -> None:
    """Print the reply of the operation `name`, then its txid where it has one."""
    if wants_table(given):
        from memoturn_mcp.cli import tables

        write(tables.render(tables.of(name, reply.value)))
    else:
        write(as_data(reply.value, given), "utf-8")
    show_txid(reply)


def show_txid(reply: Reply) -> None:
    if reply.txid is not None:
        print(f"txid {reply.txid}", file=sys.stderr)


def as_data(value: Any, given: Format | None) -> str:
    """For a program: a compact JSON document and a line end, or YAML; bytes in it are as `memoturn_schemas.blob` has
    them.
    """
    from pydantic_core import from_json, to_json

    from memoturn_schemas import blob

    if isinstance(value, Mapping):
        value = {name: blob.to_json(field) if isinstance(field, bytes) else field for name, field in value.items()}
    data = to_json(value)
    if given is not Format.YAML:
        return data.decode() + "\n"
    from memoturn_mcp.cli.yaml_text import as_yaml

    return as_yaml(from_json(data))


def write(text: str, encoding: str | None = None) -> None:
    """Write to stdout, in its own encoding or in `encoding`, as `write_bytes` does."""
    stdout = cast("TextIO | None", sys.stdout)
    if stdout is not None:
        write_bytes(text.encode(encoding or stdout.encoding, "replace"))


def write_bytes(data: bytes) -> None:
    """Write exactly this to stdout; ends the program quietly where nobody reads on.

    Raises:
        Unavailable: the disk that stdout goes to is full, or the like.
    """
    stdout = cast("TextIO | None", sys.stdout)
    if stdout is None:  # it was closed before we started
        return
    try:
        # Not through stdout's own buffer: with PYTHONUNBUFFERED it has none and may write but a part.
        with open(stdout.fileno(), "wb", closefd=False) as out:
            out.write(data)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise SystemExit(BROKEN_PIPE) from None
        failure = Unavailable(f"the answer cannot be written: {error.strerror}")
        failure.add_note("what the command was to do is done; only its answer is lost")
        raise failure from None
