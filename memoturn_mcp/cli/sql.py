"""`memoturn sql`: the user's own tables. One operation; all of its statements are one transaction. Called by `main`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from memoturn_mcp.cli.flags import Format, Reach, on_a_branch
from memoturn_mcp.cli.single import answer
from memoturn_schemas.errors import InvalidRequest

_NAMED = re.compile(r":?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
"""JSON never begins so."""


@on_a_branch
def sql(
    reach: Reach,
    output: Format | None,
    statements: Annotated[
        list[str] | None,
        typer.Argument(metavar="STATEMENT...", help="SQL of SQLite; several all take effect, or none does."),
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="JSON",
            help="A value for the next ? of the one statement, or NAME=JSON for :NAME. Once for each of them; text"
            """ in quotes: '"Rome"'.""",
        ),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="Take the SQL from here; - is stdin.")
    ] = None,
) -> None:
    """Run SQL over the profile's own tables, or those of a database."""
    from memoturn_mcp.cli.inputs import read_text

    if bool(statements) == (file is not None):
        raise InvalidRequest("STATEMENT: give one or more, or --file; not both, and not none of them")
    texts = statements or [read_text(file or "")]
    if params and len(texts) > 1:
        raise InvalidRequest("--param: give it with one statement; several in one text take the values in turn")
    stmts: list[dict[str, Any]] = []
    for number, text in enumerate(texts, start=1):
        if re.search("[\ud800-\udfff]", text):
            raise InvalidRequest(f"STATEMENT {number}: is not valid UTF-8")
        stmts.append({"q": text})
    if params:
        stmts[0]["params"] = _parsed(params)
    answer("query", {"stmts": stmts}, reach, output)


def _parsed(params: list[str]) -> list[Any] | dict[str, Any]:
    from memoturn_mcp.cli.inputs import parse

    named = [_NAMED.fullmatch(text) for text in params]
    if not any(named):
        return [parse(text, "--param") for text in params]
    values: dict[str, Any] = {}
    for match in named:
        if match is None:
            raise InvalidRequest("--param: give all values by NAME=JSON, or none of them")
        name, text = match.groups()
        if name in values:
            raise InvalidRequest(f"--param: {name} is given twice")
        values[name] = parse(text, f"--param {name}")
    return values
