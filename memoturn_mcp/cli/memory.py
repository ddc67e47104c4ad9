"""`memoturn memory ...`: what agents do through MCP, for people and scripts.

Each command turns its flags into the arguments of one operation; what was not given is left to the
operation's own defaults. Called by `main`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from memoturn_mcp.cli.flags import AsOf, Format, Kind, Reach, as_moment, as_unix_ms, on_a_namespace, on_a_profile
from memoturn_mcp.cli.single import answer, given
from memoturn_schemas.errors import InvalidRequest

app = typer.Typer(help="Keep, search and look at memories.", no_args_is_help=True, rich_markup_mode=None)

MemoryId = Annotated[str, typer.Argument(metavar="ID", help="The memory's id, mem_ and 32 hex digits.")]


@app.command()
@on_a_profile
def ingest(
    reach: Reach,
    output: Format | None,
    summary: Annotated[
        str | None, typer.Argument(metavar="SUMMARY", help="One line that says it all; recall searches it.")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--type", help="By default a fact where there is a topic, else an event.")
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option("--topic", metavar="KEY", help="What it is about, e.g. user.city; replaces what was known."),
    ] = None,
    content: Annotated[
        str | None, typer.Option("--content", metavar="JSON", help="The details; by default the summary.")
    ] = None,
    keywords: Annotated[
        str | None, typer.Option("--keywords", metavar="WORDS", help="Further words by which to find it.")
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="The conversation it comes from.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="Who says so. [MEMOTURN_SOURCE]")
    ] = None,
    ttl: Annotated[int | None, typer.Option("--ttl", metavar="SECONDS", help="How long a task lives.")] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Memories as JSON Lines, as an array or as {'memories': [...]}; - is stdin. All are checked before"
            " the first is kept. --session and --source then fill in for those that have none.",
        ),
    ] = None,
) -> None:
    """Keep a memory, or a file of them."""
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli import batch, inputs
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import Ask, run
    from memoturn_schemas.memory import BATCH_LIMIT

    memory = given(
        {
            "type": kind,
            "topic_key": topic,
            "summary": summary,
            "content": content,
            "keywords": keywords,
            "ttl": ttl,
        }
    )
    if file is not None:
        for name in memory:
            _refuse(True, f"{name}: leave it out with --file, whose memories have their own")
        placed = batch.read_file(file)
    else:
        _refuse(summary is None, "SUMMARY: is required; give it, or --file with memories")
        memory["type"] = str(kind or (Kind.EVENT if topic is None else Kind.FACT))
        if content is not None:
            memory["content"] = inputs.parse(content, "--content")
        placed = [("", memory)]
    origin = given({"session": session, "source": source})
    memories = batch.checked(placed, session=origin.get("session"), source=origin.get("source"))

    async def keep(ask: Ask) -> Reply:
        answers, txid = await inputs.in_batches(
            memories, BATCH_LIMIT, "memories", lambda part: ask("memory_ingest", {"memories": part})
        )
        return Reply({**answers[-1], "results": [result for each in answers for result in each["results"]]}, txid)

    show("memory_ingest", run(reach, keep), output)


@app.command()
@on_a_profile
def recall(
    reach: Reach,
    output: Format | None,
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="What to look for, in plain words.")] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="KEY", help="An exact topic; its memory comes first.")
    ] = None,
    kinds: Annotated[
        list[Kind] | None, typer.Option("--type", help="Only memories of this type; may be given several times.")
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Only memories of this conversation.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only from this source.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Only those made at or after it: an ISO date or time, or Unix milliseconds."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only those made before it.")] = None,
    k: Annotated[int | None, typer.Option("-k", metavar="COUNT", help="How many at most; 8 by default.")] = None,
    include_superseded: Annotated[
        bool, typer.Option("--include-superseded", help="Also what later memories have replaced.")
    ] = False,
    turns: Annotated[bool, typer.Option("--turns", help="Also search the transcript.")] = False,
    as_of: AsOf = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also say what made each score.")] = False,
    explain_id: Annotated[
        str | None,
        typer.Option("--explain-id", metavar="ID", help="Also say why this memory was found, or why it was not."),
    ] = None,
) -> None:
    """Search the memories; best first."""
    _refuse(query is None and topic is None, "QUERY: is required; give words to look for, or --topic")
    arguments = {
        "query": query,
        "topic_key": topic,
        "types": [str(kind) for kind in kinds] if kinds else None,
        "session_id": session,
        "source": source,
        "since": None if since is None else as_unix_ms("--since", since),
        "until": None if until is None else as_unix_ms("--until", until),
        "k": k,
        "include_superseded": include_superseded or None,
        "include_turns": turns or None,
        "explain": explain or None,
        "explain_id": explain_id,
        "as_of": None if as_of is None else as_moment("--as-of", as_of),
    }
    answer("memory_recall", arguments, reach, output)


@app.command()
@on_a_profile
def get(
    reach: Reach,
    output: Format | None,
    id: MemoryId,
    as_of: AsOf = None,
) -> None:
    """Show one memory in full, with its topic's history."""
    arguments = {"id": id, "as_of": None if as_of is None else as_moment("--as-of", as_of)}
    answer("memory_get", arguments, reach, output)


@app.command()
@on_a_profile
def forget(
    reach: Reach,
    output: Format | None,
    id: MemoryId,
) -> None:
    """Delete one memory for good."""
    answer("memory_forget", {"id": id}, reach, output)


@app.command()
@on_a_profile
def sessions(
    reach: Reach,
    output: Format | None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="COUNT", help="How many at most; 100 by default.")
    ] = None,
) -> None:
    """List the conversations, most recently active first."""
    answer("memory_sessions_list", {"limit": limit}, reach, output)


@app.command()
@on_a_namespace
def profiles(
    reach: Reach,
    output: Format | None,
) -> None:
    """List the profiles of a namespace."""
    answer("memory_profiles_list", {}, reach, output)


def _refuse(wrong: bool, message: str) -> None:
    if wrong:
        raise InvalidRequest(message)
