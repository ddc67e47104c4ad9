"""`memoturn eval ...`: whether the learning is worth something, and a snippet run in the sandbox.

Each command is one operation. Called by `main`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memoturn_mcp.cli.flags import Format, Reach, on_a_node, on_a_profile
from memoturn_mcp.cli.learning_flags import Domain, Preset
from memoturn_mcp.cli.single import given, reply_of
from memoturn_schemas.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.reach import Ask

app = typer.Typer(help="Measure what is learnt; run code in the sandbox.", no_args_is_help=True, rich_markup_mode=None)

_PREPARED_WITHIN_S = 180.0
"""How long a snippet waits for the sandbox, which is built once and takes half a minute of CPU time."""
_ASK_AGAIN_S = 1.0
"""A node holds a request for a while itself before it says that the sandbox is being prepared."""


@app.command()
@on_a_profile
def stats(reach: Reach, output: Format | None, domain: Domain = None) -> None:
    """Show how episodes ended and what they earned, and whether it gets better."""
    _show_part("stats", reach, output, domain)


@app.command()
@on_a_profile
def calibration(reach: Reach, output: Format | None, domain: Domain = None) -> None:
    """Show whether patterns helped as often as their strength said they would."""
    _show_part("calibration", reach, output, domain)


@app.command()
@on_a_node
def code(
    reach: Reach,
    output: Format | None,
    source: Annotated[str | None, typer.Argument(metavar="[CODE]", help="Python, unless --file has it.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="Take the code from here; - is stdin.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="What the code has as `input_data`.")
    ] = None,
    preset: Annotated[Preset | None, typer.Option("--preset", help="How much time and memory it may take.")] = None,
) -> None:
    """Run Python in the sandbox; the exit code is 1 where it did not succeed."""
    from memoturn_mcp.cli.inputs import parse, read_text
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import run

    if (source is None) == (file is None):
        raise InvalidRequest("CODE: give it, or --file" if file is None else "CODE: leave it out with --file")
    flags = {
        "code": source if source is not None else read_text(file or ""),
        "input": None if input_ is None else parse(input_, "--input"),
        "preset": preset,
    }
    arguments = given(flags)
    reply = run(reach, lambda ask: _run(ask, arguments, told=_tell_if_unprepared(reach)))
    show("execute_code", reply, output)
    if reply.value["type"] != "success":
        raise SystemExit(1)


def _tell_if_unprepared(reach: Reach) -> bool:
    """Say so where this machine's sandbox was never ready, for then it takes a while before anything is heard."""
    from memoturn_core.code.guest_file import GuestFile, missing
    from memoturn_mcp.cli.reach import settings_of

    settings = settings_of(url=reach.url, data_dir=reach.data_dir)
    if settings.url is not None or settings.code == "off" or missing() is not None:
        return False
    try:
        if GuestFile.fitting(settings.data_dir / "sandbox").is_tested():
            return False
    except OSError:  # running the snippet says what is wrong with it
        return False
    _tell()
    return True


def _tell() -> None:
    print("the sandbox is being prepared, once for this version; this may take a minute", file=sys.stderr, flush=True)


async def _run(ask: Ask, arguments: Mapping[str, Any], *, told: bool) -> Reply:
    """Run the snippet; while the sandbox is being prepared, say so once, unless that was `told`, and ask again.

    Raises:
        Unavailable: it did not become ready in time, or cannot.
    """
    import asyncio

    from memoturn_storage.ambient import SystemAmbient

    ambient = SystemAmbient()
    until = ambient.monotonic() + _PREPARED_WITHIN_S
    while True:
        try:
            return await ask("execute_code", arguments)
        except Unavailable as error:
            if error.retry_after_s is None or ambient.monotonic() >= until:
                raise
        if not told:
            _tell()
            told = True
        await asyncio.sleep(_ASK_AGAIN_S)


def _show_part(part: str, reach: Reach, output: Format | None, domain: str | None) -> None:
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.output import show

    reply = reply_of("evaluate_learning", {"domain": domain}, reach)
    show(f"eval {part}", Reply(reply.value[part], reply.txid), output)
