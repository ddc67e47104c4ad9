"""`memoturn eval ...`: whether the learning is worth something, and a snippet run in the sandbox.

Each command is one operation. Called by `main`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from memoturn_mcp.cli.flags import Format, Reach, on_a_node, on_a_profile
from memoturn_mcp.cli.learning_flags import Domain
from memoturn_mcp.cli.single import reply_of
from memoturn_schemas.errors import InvalidRequest

app = typer.Typer(help="Measure what is learnt; run code in the sandbox.", no_args_is_help=True, rich_markup_mode=None)


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
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="restrictive, default or permissive.")
    ] = None,
) -> None:
    """Run Python in the sandbox; the exit code is 1 where it did not succeed."""
    from memoturn_mcp.cli.inputs import parse, read_text
    from memoturn_mcp.cli.output import show

    if (source is None) == (file is None):
        raise InvalidRequest("CODE: give it, or --file; not both, and not none of them")
    flags = {
        "code": source if source is not None else read_text(file or ""),
        "input": None if input_ is None else parse(input_, "--input"),
        "preset": preset,
    }
    reply = reply_of("execute_code", flags, reach)
    show("execute_code", reply, output)
    if reply.value["type"] != "success":
        raise SystemExit(1)


def _show_part(part: str, reach: Reach, output: Format | None, domain: str | None) -> None:
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.output import show

    reply = reply_of("evaluate_learning", {"domain": domain}, reach)
    show(f"eval {part}", Reply(reply.value[part], reply.txid), output)
