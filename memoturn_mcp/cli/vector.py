"""`memoturn vector ...`: vectors of your own in collections, searched by nearness.

Each command is one operation, but that a file may need several. Called by `main`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from memoturn_mcp.cli.flags import Format, Reach, on_a_branch
from memoturn_mcp.cli.single import answer, given
from memoturn_schemas.errors import InvalidRequest

app = typer.Typer(help="Keep vectors, search them by nearness.", no_args_is_help=True, rich_markup_mode=None)

Collection = Annotated[str, typer.Argument(metavar="COLL", help="The collection: letters, digits, - and _.")]


@app.command()
@on_a_branch
def put(
    reach: Reach,
    output: Format | None,
    collection: Collection,
    id_: Annotated[str | None, typer.Argument(metavar="ID", help="Any text; an id that is there is replaced.")] = None,
    vector: Annotated[str | None, typer.Argument(metavar="VECTOR", help="As JSON: '[0.1, -0.2]'.")] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="""Many, as JSON Lines or an array of {"id": ..., "embedding": [...]}; - is stdin. All are checked"""
            " before the first is kept, and kept 1000 at a time.",
        ),
    ] = None,
) -> None:
    """Keep a vector under an id, or a file of them."""
    from memoturn_mcp.cli import inputs

    if file is None:
        if id_ is None or vector is None:
            raise InvalidRequest("ID and VECTOR: give them, or --file with vectors")
        flags = {"collection": collection, "id": id_, "embedding": inputs.parse(vector, "VECTOR")}
        answer("vector_upsert", flags, reach, output)
        return
    if id_ is not None:
        raise InvalidRequest("ID and VECTOR: leave them out with --file, whose vectors have their own")

    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import Ask, run
    from memoturn_schemas.vectors import BATCH_LIMIT, VectorItem

    text = inputs.one_of(None, file, "VECTOR")
    found = inputs.records(text, "vectors", lambda each: VectorItem.model_validate(each, strict=True))
    if not found:
        raise InvalidRequest("--file: there are no vectors in it")
    arguments = given({"collection": collection})

    async def keep(ask: Ask) -> Reply:
        answers, txid = await inputs.in_batches(
            found, BATCH_LIMIT, "vectors", lambda batch: ask("vector_upsert", {**arguments, "vectors": batch})
        )
        return Reply(answers[-1], txid)

    show("vector_upsert", run(reach, keep), output)


@app.command()
@on_a_branch
def search(
    reach: Reach,
    output: Format | None,
    collection: Collection,
    vector: Annotated[
        str | None, typer.Argument(metavar="VECTOR", help="As JSON: '[0.1, -0.2]', unless --file has it.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", metavar="COUNT", help="How many at most; 10 by default.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="Take the vector from here; - is stdin.")
    ] = None,
) -> None:
    """Find the nearest vectors, by cosine distance; nearest first."""
    from memoturn_mcp.cli import inputs

    looked_for = inputs.parse(inputs.one_of(vector, file, "VECTOR"), "VECTOR" if file is None else "--file")
    answer("vector_search", {"collection": collection, "vector": looked_for, "k": k}, reach, output)


@app.command()
@on_a_branch
def delete(
    reach: Reach,
    output: Format | None,
    collection: Collection,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The vector's id.")],
) -> None:
    """Delete the vector under an id."""
    answer("vector_delete", {"collection": collection, "id": id_}, reach, output)


@app.command()
@on_a_branch
def collections(reach: Reach, output: Format | None) -> None:
    """List the collections, their dimensions and sizes."""
    answer("vector_collections", {}, reach, output)
