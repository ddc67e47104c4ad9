"""A command that is one operation. Called by the commands; imports what takes long only when one runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from memoturn_mcp.cli.flags import Format, Reach
from memoturn_schemas.errors import InvalidRequest, MemoturnError

if TYPE_CHECKING:
    from memoturn_core.operations import Reply


def answer(name: str, flags: Mapping[str, Any], reach: Reach, output: Format | None, **options: Any) -> None:
    """Run one operation with the flags that were given, as `reply_of`, and show what it answers."""
    from memoturn_mcp.cli.output import show

    show(name, reply_of(name, flags, reach, **options), output)


def reply_of(
    name: str,
    flags: Mapping[str, Any],
    reach: Reach,
    *,
    mints: bool = False,
    hints: Mapping[type[MemoturnError], str] | None = None,
) -> Reply:
    """What one operation answers with the flags that were given; `hints` go with errors of exactly these kinds."""
    from memoturn_mcp.cli.reach import run

    arguments = given(flags)
    try:
        return run(reach, lambda ask: ask(name, arguments), mints=mints)
    except MemoturnError as error:
        if hints and type(error) in hints:
            error.add_note(hints[type(error)])
        raise


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that have a value. A shell passes on bytes that are not UTF-8; no request can carry them as text.

    Raises:
        InvalidRequest: names the flag that is no text.
    """
    found = {name: value for name, value in flags.items() if value is not None}
    for name, value in found.items():
        _require_text(name, value)
    return found


def _require_text(where: str, value: Any) -> None:
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidRequest(f"{where}: is not valid UTF-8") from None
        case Mapping():
            for name, field in value.items():
                _require_text(f"{where}.{name}", field)
        case list():
            for place, item in enumerate(value):
                _require_text(f"{where}[{place}]", item)


def agree(yes: bool, question: str) -> None:
    """Ask a person who is there; where it is a program, or `yes`, go on. Ends the program where the answer is no."""
    from memoturn_mcp.cli.printable import one_line

    if yes or not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        return
    print(f"{one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing was changed", file=sys.stderr)
        raise typer.Exit(1)
