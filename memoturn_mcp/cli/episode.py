"""`memoturn episode ...`: what agents tried and how it went, for people and scripts.

Each command is one operation. Called by `main`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from memoturn_mcp.cli.flags import AsOf, Cursor, Format, Reach, Yes, as_moment, as_unix_ms, on_a_profile
from memoturn_mcp.cli.learning_flags import (
    AtMost,
    Complexity,
    Domain,
    EpisodeId,
    Framework,
    Language,
    OfTaskType,
    Outcome,
    Session,
    Since,
    State,
    Tags,
    Task,
    Until,
)
from memoturn_mcp.cli.single import agree, answer, reply_of
from memoturn_schemas.errors import InvalidRequest, MemoturnError, NotFound

app = typer.Typer(
    help="Record how tasks go, and find those that are like another.", no_args_is_help=True, rich_markup_mode=None
)

_HINT: dict[type[MemoturnError], str] = {NotFound: "`memoturn episode list` shows the episodes"}
Metadata = Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="Any JSON object.")]


@app.command()
@on_a_profile
def create(
    reach: Reach,
    output: Format | None,
    task: Task,
    task_type: OfTaskType = None,
    domain: Domain = None,
    language: Language = None,
    framework: Framework = None,
    complexity: Annotated[Complexity | None, typer.Option("--complexity", help="How hard it looks.")] = None,
    tags: Tags = None,
    session: Session = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Who does it.")] = None,
    start: Annotated[str | None, typer.Option("--start", metavar="TIME", help="When it began; now by default.")] = None,
    metadata: Metadata = None,
) -> None:
    """Begin an episode."""
    answer(
        "create_episode",
        {
            "task_description": task,
            "task_type": task_type,
            "domain": domain,
            "language": language,
            "framework": framework,
            "complexity": complexity,
            "tags": tags or None,
            "session_id": session,
            "source": source,
            "start_time": None if start is None else as_unix_ms("--start", start),
            "metadata": _json(metadata, "--metadata"),
        },
        reach,
        output,
    )


@app.command("log-step")
@on_a_profile
def log_step(
    reach: Reach,
    output: Format | None,
    episode: EpisodeId,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="The tool that was used.")],
    action: Annotated[str, typer.Argument(metavar="ACTION", help="What was done with it.")],
    success: Annotated[
        str | None, typer.Option("--success", metavar="OUTPUT", help="It succeeded and gave this.")
    ] = None,
    error: Annotated[str | None, typer.Option("--error", metavar="MESSAGE", help="It failed with this error.")] = None,
    timeout: Annotated[bool, typer.Option("--timeout", help="It did not end in time.")] = False,
    number: Annotated[
        int | None, typer.Option("--number", metavar="NUMBER", help="Its place; the next one by default.")
    ] = None,
    parameters: Annotated[
        str | None, typer.Option("--parameters", metavar="JSON", help="The tool's arguments, a JSON object.")
    ] = None,
    latency: Annotated[
        int | None, typer.Option("--latency", metavar="MS", help="How long it took, in milliseconds.")
    ] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", metavar="COUNT", help="Tokens that it took.")] = None,
    metadata: Metadata = None,
) -> None:
    """Record one step of an open episode; without --success, --error and --timeout its result is not known."""
    if (success is not None) + (error is not None) + timeout > 1:
        raise InvalidRequest("--success, --error and --timeout: give one of them at most")
    result = None
    if success is not None:
        result = {"type": "success", "output": success}
    elif error is not None:
        result = {"type": "error", "message": error}
    elif timeout:
        result = {"type": "timeout"}
    answer(
        "add_step",
        {
            "episode_id": episode,
            "step_number": number,
            "tool": tool,
            "action": action,
            "parameters": _json(parameters, "--parameters"),
            "result": result,
            "latency_ms": latency,
            "tokens_used": tokens,
            "metadata": _json(metadata, "--metadata"),
        },
        reach,
        output,
        hints=_HINT,
    )


@app.command()
@on_a_profile
def complete(
    reach: Reach,
    output: Format | None,
    episode: EpisodeId,
    outcome: Annotated[Outcome, typer.Argument(metavar="OUTCOME", help="How it ended.", show_choices=True)],
    said: Annotated[str, typer.Argument(metavar="TEXT", help="What was achieved; of a failure or an abstention why.")],
    artifacts: Annotated[
        list[str] | None, typer.Option("--artifact", metavar="NAME", help="Of a success: what was made.")
    ] = None,
    completed: Annotated[
        list[str] | None, typer.Option("--completed", metavar="TEXT", help="Of a partial success: what is done.")
    ] = None,
    failed: Annotated[
        list[str] | None, typer.Option("--failed", metavar="TEXT", help="Of a partial success: what is not.")
    ] = None,
    details: Annotated[
        str | None, typer.Option("--details", metavar="TEXT", help="Of a failure: the error itself.")
    ] = None,
    stopped: Annotated[
        int | None, typer.Option("--stopped-at-step", metavar="NUMBER", help="Of an abstention: after how many steps.")
    ] = None,
    signals: Annotated[
        list[str] | None, typer.Option("--signal", metavar="TEXT", help="Of an abstention: what showed it.")
    ] = None,
    end: Annotated[str | None, typer.Option("--end", metavar="TIME", help="When it ended; now by default.")] = None,
) -> None:
    """Say how an episode ended: success, partial_success, failure or abstained. Shows what is made of it."""
    words = "verdict" if outcome in (Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS) else "reason"
    flags = {
        "artifacts": artifacts,
        "completed": completed,
        "failed": failed,
        "error_details": details,
        "stopped_at_step": stopped,
        "infeasibility_signals": signals,
    }
    given = {name: value for name, value in flags.items() if value not in (None, [])}
    answer(
        "complete_episode",
        {
            "episode_id": episode,
            "outcome": {"type": outcome, words: said, **given},
            "end_time": None if end is None else as_unix_ms("--end", end),
        },
        reach,
        output,
        hints=_HINT,
    )


@app.command("list")
@on_a_profile
def list_(
    reach: Reach,
    output: Format | None,
    domain: Domain = None,
    task_type: OfTaskType = None,
    outcome: Annotated[State | None, typer.Option("--outcome", help="Only those that ended so.")] = None,
    tags: Tags = None,
    session: Session = None,
    since: Since = None,
    until: Until = None,
    limit: AtMost = None,
    cursor: Cursor = None,
    as_of: AsOf = None,
) -> None:
    """List episodes, the latest to begin first."""
    answer(
        "list_episodes",
        {
            "domain": domain,
            "task_type": task_type,
            "outcome": outcome,
            "tags": tags or None,
            "session_id": session,
            "since": None if since is None else as_unix_ms("--since", since),
            "until": None if until is None else as_unix_ms("--until", until),
            "limit": limit,
            "cursor": cursor,
            "as_of": None if as_of is None else as_moment("--as-of", as_of),
        },
        reach,
        output,
    )


@app.command()
@on_a_profile
def view(reach: Reach, output: Format | None, episode: EpisodeId, as_of: AsOf = None) -> None:
    """Show one episode with its steps, reward and reflection."""
    moment = None if as_of is None else as_moment("--as-of", as_of)
    answer("get_episode", {"episode_id": episode, "as_of": moment}, reach, output, hints=_HINT)


@app.command()
@on_a_profile
def search(
    reach: Reach,
    output: Format | None,
    task: Task,
    domain: Domain = None,
    task_type: OfTaskType = None,
    outcome: Annotated[State | None, typer.Option("--outcome", help="Only those that ended so.")] = None,
    tags: Tags = None,
    since: Since = None,
    until: Until = None,
    limit: AtMost = None,
    as_of: AsOf = None,
) -> None:
    """Find the episodes whose tasks are like this one, with their patterns and insights."""
    answer(
        "query_memory",
        {
            "query": task,
            "domain": domain,
            "task_type": task_type,
            "outcome": outcome,
            "tags": tags or None,
            "since": None if since is None else as_unix_ms("--since", since),
            "until": None if until is None else as_unix_ms("--until", until),
            "limit": limit,
            "as_of": None if as_of is None else as_moment("--as-of", as_of),
        },
        reach,
        output,
    )


@app.command()
@on_a_profile
def timeline(
    reach: Reach, output: Format | None, episode: EpisodeId, limit: AtMost = None, cursor: Cursor = None
) -> None:
    """Show what happened in an episode, in order of time."""
    flags = {"episode_id": episode, "limit": limit, "cursor": cursor}
    answer("get_episode_timeline", flags, reach, output, hints=_HINT)


@app.command()
@on_a_profile
def tag(
    reach: Reach,
    output: Format | None,
    episode: EpisodeId,
    add: Annotated[list[str] | None, typer.Option("--add", metavar="TAG", help="A tag that it is to have.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="TAG", help="A tag that it is not to have.")
    ] = None,
) -> None:
    """Change the tags of an episode."""
    flags = {"episode_id": episode, "add": add or None, "remove": remove or None}
    answer("episode_tags", flags, reach, output, hints=_HINT)


@app.command()
@on_a_profile
def checkpoint(
    reach: Reach,
    output: Format | None,
    episode: EpisodeId,
    note: Annotated[str | None, typer.Argument(metavar="[NOTE]", help="Why it is worth coming back to.")] = None,
) -> None:
    """Mark how far an open episode is, so that it can be handed over from there."""
    answer("checkpoint_episode", {"episode_id": episode, "note": note}, reach, output, hints=_HINT)


@app.command()
@on_a_profile
def handoff(
    reach: Reach,
    output: Format | None,
    episode: EpisodeId,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="ID", help="As it stood there; as it stands by default.")
    ] = None,
) -> None:
    """Give all that another agent needs to go on with an episode."""
    answer("get_handoff_pack", {"episode_id": episode, "checkpoint_id": checkpoint}, reach, output, hints=_HINT)


@app.command()
@on_a_profile
def resume(
    reach: Reach,
    output: Format | None,
    file: Annotated[str, typer.Option("--file", metavar="FILE", help="What `handoff` gave, as JSON; - is stdin.")],
    session: Session = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Who goes on.")] = None,
) -> None:
    """Begin an episode that goes on where another one was handed over."""
    from memoturn_mcp.cli.inputs import BOM, parse, read_bytes

    pack = parse(read_bytes(file).removeprefix(BOM), "--file")
    if isinstance(pack, dict) and "pack" in pack:
        pack = pack["pack"]
    answer("resume_from_handoff", {"pack": pack, "session_id": session, "source": source}, reach, output)


@app.command()
@on_a_profile
def delete(reach: Reach, output: Format | None, episode: EpisodeId, yes: Yes = False) -> None:
    """Delete an episode for good, with what was learnt from it alone."""
    agree(yes, f"delete the episode {episode} and what was learnt from it alone?")
    from memoturn_mcp.cli.output import show

    show("delete_episode", reply_of("delete_episode", {"episode_id": episode}, reach, hints=_HINT), output)


def _json(text: str | None, flag: str) -> object:
    if text is None:
        return None
    from memoturn_mcp.cli.inputs import parse

    return parse(text, flag)
