"""`memoturn pattern ...`: what was learnt from episodes, what it recommends, and what became of that.

Each command is one operation. Called by `main`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from memoturn_mcp.cli.flags import Format, Reach, Yes, on_a_profile
from memoturn_mcp.cli.learning_flags import (
    Applied,
    AtMost,
    Domain,
    Framework,
    Language,
    OfKind,
    OfTaskType,
    Tags,
    Task,
)
from memoturn_mcp.cli.single import agree, answer
from memoturn_schemas.errors import NotFound

app = typer.Typer(
    help="Look at what was learnt from episodes, and use it.", no_args_is_help=True, rich_markup_mode=None
)

_HINT = {NotFound: "`memoturn pattern list` shows the patterns"}
MinStrength = Annotated[
    float | None, typer.Option("--min-strength", metavar="0...1", help="Only patterns that are as strong as this.")
]


@app.command("list")
@on_a_profile
def list_(
    reach: Reach,
    output: Format | None,
    query: Annotated[str | None, typer.Argument(metavar="[WORDS]", help="Tools, errors, actions to look for.")] = None,
    kind: OfKind = None,
    domain: Domain = None,
    task_type: OfTaskType = None,
    min_strength: MinStrength = None,
    limit: AtMost = None,
) -> None:
    """List patterns, the strongest first, or those that have these words."""
    flags = {
        "query": query,
        "kind": kind,
        "domain": domain,
        "task_type": task_type,
        "min_strength": min_strength,
        "limit": limit,
    }
    answer("search_patterns", flags, reach, output)


@app.command()
@on_a_profile
def view(
    reach: Reach,
    output: Format | None,
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="The pattern's id.")],
    limit: AtMost = None,
) -> None:
    """Show one pattern with the episodes that it rests on."""
    answer("get_pattern", {"pattern_id": pattern, "limit": limit}, reach, output, hints=_HINT)


@app.command()
@on_a_profile
def analyze(
    reach: Reach,
    output: Format | None,
    domain: Domain = None,
    task_type: OfTaskType = None,
    kind: OfKind = None,
    min_strength: MinStrength = None,
    limit: AtMost = None,
) -> None:
    """Show what was learnt so far: by kind, by domain, the strongest, the newest, what is decaying."""
    flags = {
        "domain": domain,
        "task_type": task_type,
        "kind": kind,
        "min_strength": min_strength,
        "limit": limit,
    }
    answer("analyze_patterns", flags, reach, output)


@app.command()
@on_a_profile
def recommend(
    reach: Reach,
    output: Format | None,
    task: Task,
    task_type: OfTaskType = None,
    domain: Domain = None,
    language: Language = None,
    framework: Framework = None,
    tags: Tags = None,
    limit: AtMost = None,
    episode: Annotated[str | None, typer.Option("--episode", metavar="ID", help="The episode that it is for.")] = None,
) -> None:
    """Recommend what worked on tasks like this one, and warn of what did not."""
    answer(
        "recommend_patterns",
        {**_task(task, task_type, domain, language, framework, tags), "limit": limit, "episode_id": episode},
        reach,
        output,
    )


@app.command()
@on_a_profile
def feedback(
    reach: Reach,
    output: Format | None,
    recommendation: Annotated[str, typer.Argument(metavar="RECOMMENDATION", help="What `recommend` answered.")],
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="One of the patterns that it offered.")],
    outcome: Annotated[Applied, typer.Argument(metavar="OUTCOME", help="What came of it.", show_choices=True)],
    step: Annotated[
        int | None, typer.Option("--step", metavar="NUMBER", help="The step at which it was applied.")
    ] = None,
    episode: Annotated[
        str | None, typer.Option("--episode", metavar="ID", help="The episode in which it was applied.")
    ] = None,
) -> None:
    """Say what came of a pattern that was recommended: helped, no_effect, hindered or pending."""
    said = {"pattern_id": pattern, "outcome": outcome, **({} if step is None else {"applied_at_step": step})}
    flags = {"recommendation_id": recommendation, "feedback": [said], "episode_id": episode}
    answer("record_feedback", flags, reach, output)


@app.command()
@on_a_profile
def playbook(
    reach: Reach,
    output: Format | None,
    task: Task,
    task_type: OfTaskType = None,
    domain: Domain = None,
    language: Language = None,
    framework: Framework = None,
    tags: Tags = None,
) -> None:
    """Plan a task by those that were like it: steps, pitfalls, and how long it may take."""
    answer("recommend_playbook", _task(task, task_type, domain, language, framework, tags), reach, output)


@app.command()
@on_a_profile
def effectiveness(
    reach: Reach, output: Format | None, domain: Domain = None, kind: OfKind = None, limit: AtMost = None
) -> None:
    """Show which recommendations were taken, and what came of them."""
    answer("get_pattern_effectiveness", {"domain": domain, "kind": kind, "limit": limit}, reach, output)


@app.command()
@on_a_profile
def decay(
    reach: Reach,
    output: Format | None,
    below: Annotated[float, typer.Option("--below", metavar="0...1", help="Patterns that are weaker than this.")],
    delete: Annotated[bool, typer.Option("--delete", help="Delete them, with what they rest on.")] = False,
    domain: Domain = None,
    kind: OfKind = None,
    limit: AtMost = None,
    yes: Yes = False,
) -> None:
    """Show the patterns that have become weak; with --delete forget them."""
    if delete:
        agree(yes, f"forget all patterns that are weaker than {below}?")
    flags = {"below": below, "domain": domain, "kind": kind, "dry_run": not delete, "limit": limit}
    answer("decay_patterns", flags, reach, output)


def _task(
    task: str,
    task_type: str | None,
    domain: str | None,
    language: str | None,
    framework: str | None,
    tags: list[str] | None,
) -> dict[str, object]:
    return {
        "task_description": task,
        "task_type": task_type,
        "domain": domain,
        "language": language,
        "framework": framework,
        "tags": tags or None,
    }
