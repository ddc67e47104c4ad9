"""Replies about episodes for people, as `tables` shows those of the memories. Called by `tables`.

What shows texts, numbers and ids is used by `tables_of_patterns` too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memoturn_mcp.cli.printable import printable
from memoturn_mcp.cli.tables import age, count, plain, table, terminal_width

_WORDS = 80
"""Characters of a text that are shown in a table's cell."""
_ID_WIDTH = 36
"""Characters of the ids of episodes and of patterns."""
_AGE_WIDTH = 10


def short(text: str) -> Text:
    line = " ".join(text.split())
    return plain(line if len(line) <= _WORDS else f"{line[: _WORDS - 1]}…")


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def measured(value: Mapping[str, Any], digits: int = 2) -> str:
    if value["value"] is None:
        return f"not known: {value['reason']}"
    return f"{value['value']:.{digits}f} (of {value['cases']})"


def grid(fields: Mapping[str, Any]) -> Table:
    made = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        if value not in (None, "", []):
            made.add_row(Text(name, "bold"), plain(value))
    return made


def listed(title: str, lines: Iterable[str]) -> list[RenderableType]:
    found = [Padding(plain(line), (0, 0, 0, 2)) for line in lines]
    return [Text(title, "bold"), *found] if found else []


def named(column: str, *columns: str) -> Table:
    """A table whose first column has an id below each text, which is kept whole so that it can be copied."""
    made = table(column, *columns)
    made.columns[0].width = max(_ID_WIDTH, terminal_width() * 2 // 5)
    return made


def with_id(text: Text, identifier: str) -> Text:
    return text.append(f"\n{printable(identifier)}", "dim")


# --- episodes ------------------------------------------------------------------------------------


def _created(value: Mapping[str, Any], _: int) -> RenderableType:
    skipped = " (its embedding has another dimension than the profile's)" if "embedding" in value else ""
    return plain(f"{value['episode_id']} is begun{skipped}")


def _step_added(value: Mapping[str, Any], _: int) -> RenderableType:
    there = "was there already" if value["status"] == "duplicate" else "is kept"
    return plain(f"step {value['step_number']} {there}, {value['step_count']} in all")


def _reward(reward: Mapping[str, Any]) -> str:
    factors = " x ".join(f"{name} {reward[name]:.2f}" for name in ("base", "efficiency", "complexity", "quality"))
    return f"{reward['total']:.2f} = {factors} + learning {reward['learning']:.2f}"


def _reflection(reflection: Mapping[str, Any]) -> list[RenderableType]:
    return [part for name, lines in reflection.items() for part in listed(name, lines)]


def _completed(value: Mapping[str, Any], _: int) -> RenderableType:
    learnt = f"{count(len(value['pattern_ids']), 'pattern')}, {count(len(value['heuristic_ids']), 'heuristic')}"
    fields = {
        "episode": value["episode_id"],
        "reward": _reward(value["reward"]),
        "quality": number(value["quality"]),
        "learnt": learnt,
        "summary": value["summary"]["text"],
    }
    return Group(grid(fields), *_reflection(value["reflection"]))


def _viewed(value: Mapping[str, Any], now: int) -> RenderableType:
    episode = value["episode"]
    context = episode["context"]
    of = [context["domain"], context["language"], context["framework"], context["complexity"]]
    outcome = episode["outcome"]
    fields = {
        "episode": episode["episode_id"],
        "task": episode["task_description"],
        "type": episode["task_type"],
        "context": ", ".join(each for each in of if each),
        "tags": ", ".join(context["tags"]),
        "session": episode["session_id"],
        "source": episode["source"],
        "began": age(episode["start_time"], now),
        "ended": None if episode["end_time"] is None else age(episode["end_time"], now),
        "outcome": "open"
        if outcome is None
        else f"{outcome['type']}: {outcome.get('verdict') or outcome.get('reason') or ''}",
        "reward": None if episode["reward"] is None else _reward(episode["reward"]),
        "quality": number(episode["quality"]),
        "summary": None if episode["summary"] is None else episode["summary"]["text"],
        "patterns": len(episode["pattern_ids"]) or None,
        "checkpoints": ", ".join(each["checkpoint_id"] for each in episode["checkpoints"]),
    }
    parts: list[RenderableType] = [grid(fields)]
    if value["steps"]:
        made = table("step", "tool", "action", "result", "ms")
        for step in value["steps"]:
            result = step["result"] or {"type": "pending"}
            said = result.get("message") or result.get("output") or ""
            made.add_row(
                plain(step["step_number"]),
                plain(step["tool"]),
                short(step["action"]),
                short(f"{result['type']} {said}"),
                plain(step["latency_ms"]),
            )
        parts += [plain(""), made]
    if episode["reflection"] is not None:
        parts += _reflection(episode["reflection"])
    return Group(*parts)


def _episodes(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["episodes"]:
        return plain("no episodes")
    made = named("episode", "work", "outcome", "began")
    made.columns[3].max_width = _AGE_WIDTH
    for each in value["episodes"]:
        reward = "" if each["reward"] is None else f"{number(each['reward'])}, "
        made.add_row(
            with_id(short(each["task_description"]), each["episode_id"]),
            plain(f"{each['task_type']}\n{each['domain']}"),
            plain(f"{each['outcome'] or 'open'}\n{reward}{count(each['step_count'], 'step')}"),
            plain(age(each["start_time"], now)),
        )
    if value["next_cursor"] is None:
        return made
    return Group(made, plain(f"there are more: --cursor {value['next_cursor']}", "dim"))


def _found(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["episodes"]:
        return plain(value["explanation"]["text"] if "explanation" in value else "nothing found")
    made = named("episode", "score", "outcome", "reward", "began")
    for each in value["episodes"]:
        made.add_row(
            with_id(short(each["task_description"]), each["episode_id"]),
            plain(number(each["score"], 3)),
            plain((each["outcome"] or {"type": "open"})["type"]),
            plain(number((each["reward"] or {"total": None})["total"])),
            plain(age(each["start_time"], now)),
        )
    patterns = (f"{each['text']} ({each['strength']:.2f})" for each in value["patterns"])
    insights = (each["text"] for each in value["insights"])
    return Group(made, *listed("patterns", patterns), *listed("insights", insights))


def _timeline(value: Mapping[str, Any], _: int) -> RenderableType:
    made = table("after", "event")
    for event in value["events"]:
        said = plain(event["type"])
        if "step" in event:
            step = event["step"]
            marks = "".join(f" [{mark}]" for mark in step["marks"])
            said = plain(f"{step['step_number']} {step['tool']}: {step['action']} ({step['result']}){marks}")
        elif "checkpoint" in event:
            said = plain(f"checkpoint {event['checkpoint']['checkpoint_id']}: {event['checkpoint']['note'] or ''}")
        elif "outcome" in event:
            said = plain(f"end: {event['outcome']}")
        made.add_row(plain(f"{event['offset_ms'] / 1_000:.1f} s"), said)
    if value["next_cursor"] is None:
        return made
    return Group(made, plain(f"there are more: --cursor {value['next_cursor']}", "dim"))


def _pack(value: Mapping[str, Any], _: int) -> RenderableType:
    pack = value["pack"]
    fields = {
        "pack": pack["pack_id"],
        "task": pack["task"]["task_description"],
        "state": f"{pack['state']['step_count']} steps, {pack['state']['outcome'] or 'open'}",
        "summary": pack["summary"],
    }
    failures = (f"{each['step_number']} {each['tool']}: {each['error']}" for each in pack["failures"])
    return Group(
        grid(fields),
        *listed("decisions", (each["decision"] for each in pack["decisions"])),
        *listed("failures", failures),
        *listed("remaining", pack["state"]["remaining"]),
        plain("--format json gives what `memoturn episode resume` takes", "dim"),
    )


TABLES: dict[str, Callable[[Mapping[str, Any], int], RenderableType]] = {
    "create_episode": _created,
    "add_step": _step_added,
    "complete_episode": _completed,
    "get_episode": _viewed,
    "list_episodes": _episodes,
    "query_memory": _found,
    "get_episode_timeline": _timeline,
    "episode_tags": lambda value, _: plain(", ".join(value["tags"]) or "no tags"),
    "checkpoint_episode": lambda value, _: plain(f"{value['checkpoint']['checkpoint_id']} is kept"),
    "get_handoff_pack": _pack,
    "resume_from_handoff": lambda value, _: plain(f"{value['episode_id']} goes on"),
    "delete_episode": lambda _, __: plain("deleted"),
}
