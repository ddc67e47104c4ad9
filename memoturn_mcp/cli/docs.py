"""`memoturn docs ...`: JSON documents in collections, found by their fields.

Each command is one operation, but that a file may need several inserts. Called by `main`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from memoturn_mcp.cli.flags import AsOf, Format, Limit, Reach, Yes, as_moment, on_a_branch
from memoturn_mcp.cli.single import agree, answer, given
from memoturn_schemas.errors import InvalidRequest

app = typer.Typer(help="Keep JSON documents, find them by their fields.", no_args_is_help=True, rich_markup_mode=None)

Collection = Annotated[str, typer.Argument(metavar="COLL", help="The collection: letters, digits, - and _.")]
Filter = Annotated[
    str, typer.Argument(metavar="FILTER", help="""Which documents, as JSON: '{"a.b": {"$gt": 1}}'; '{}' is all.""")
]
Multi = Annotated[bool, typer.Option("--multi", help="All that match, instead of the one inserted first.")]


@app.command()
@on_a_branch
def insert(
    reach: Reach,
    output: Format | None,
    collection: Collection,
    document: Annotated[
        str | None, typer.Argument(metavar="JSON", help="A document, or an array of them, unless --file has them.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Documents as JSON Lines or as an array; - is stdin. All are checked before the first is kept, and"
            " kept 1000 at a time.",
        ),
    ] = None,
) -> None:
    """Keep documents; those without an _id get one."""
    from pydantic import TypeAdapter

    from memoturn_core.operations import Reply
    from memoturn_mcp.cli import inputs
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import Ask, run
    from memoturn_schemas.documents import BATCH_LIMIT, Document

    check = TypeAdapter[Any](Document).validate_python
    text = inputs.one_of(document, file, "JSON")
    found = inputs.records(text, "JSON" if file is None else "docs", lambda each: check(each, strict=True))
    arguments = given({"collection": collection})

    async def keep(ask: Ask) -> Reply:
        answers, txid = await inputs.in_batches(
            found, BATCH_LIMIT, "documents", lambda batch: ask("docs_insert", {**arguments, "docs": batch})
        )
        return Reply({**answers[-1], "ids": [id_ for each in answers for id_ in each["ids"]]}, txid)

    show("docs_insert", run(reach, keep), output)


@app.command()
@on_a_branch
def find(
    reach: Reach,
    output: Format | None,
    collection: Collection,
    filter_: Annotated[
        str | None, typer.Argument(metavar="FILTER", help="""As JSON: '{"a.b": {"$gt": 1}}'; all by default.""")
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="JSON", help="""'{"a.b": -1}': 1 upwards, -1 downwards.""")
    ] = None,
    limit: Limit = None,
    skip: Annotated[int | None, typer.Option("--skip", metavar="COUNT", help="How many to leave out first.")] = None,
    as_of: AsOf = None,
) -> None:
    """Find documents by their fields."""
    flags = {
        "collection": collection,
        "filter": _json(filter_, "FILTER"),
        "sort": _json(sort, "--sort"),
        "limit": limit,
        "skip": skip,
        "as_of": None if as_of is None else as_moment("--as-of", as_of),
    }
    answer("docs_find", flags, reach, output)


@app.command()
@on_a_branch
def update(
    reach: Reach,
    output: Format | None,
    collection: Collection,
    filter_: Filter,
    change: Annotated[
        str,
        typer.Argument(metavar="UPDATE", help="""As JSON: '{"$set": {"a.b": 1}}'; also $unset, $inc, $push."""),
    ],
    multi: Multi = False,
) -> None:
    """Change fields of documents."""
    flags = {
        "collection": collection,
        "filter": _json(filter_, "FILTER"),
        "update": _json(change, "UPDATE"),
        "multi": multi or None,
    }
    answer("docs_update", flags, reach, output)


@app.command()
@on_a_branch
def delete(
    reach: Reach,
    output: Format | None,
    collection: Collection,
    filter_: Filter,
    multi: Multi = False,
    yes: Yes = False,
) -> None:
    """Delete documents."""
    flags = {"collection": collection, "filter": _json(filter_, "FILTER"), "multi": multi or None}
    agree(yes or not multi, f"Delete all documents of {collection} that match {filter_}?")
    answer("docs_delete", flags, reach, output)


@app.command()
@on_a_branch
def index(
    reach: Reach,
    output: Format | None,
    collection: Collection,
    path: Annotated[str, typer.Argument(metavar="PATH", help="What filters ask for, as a.b.")],
) -> None:
    """Make filters on a path fast."""
    answer("docs_index", {"collection": collection, "path": path}, reach, output)


@app.command()
@on_a_branch
def collections(reach: Reach, output: Format | None) -> None:
    """List the collections, their sizes and indexes."""
    answer("docs_collections", {}, reach, output)


def _json(text: str | None, where: str) -> Any:
    from memoturn_mcp.cli.inputs import parse

    value = None if text is None else parse(text, where)
    if text is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{where}: should be a JSON object")
    return value
