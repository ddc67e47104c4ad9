"""Replies about episodes and what is learnt from them for people, as `tables` shows those of the memories.

Called by `tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memoturn_mcp.cli.tables import age, count, plain, table

_WORDS = 80
"""Characters of a text that are shown in a table's cell."""


def _short(text: str) -> Text:
    line = " ".join(text.split())
    return plain(line if len(line) <= _WORDS else f"{line[: _WORDS - 1]}…")


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _measured(value: Mapping[str, Any], digits: int = 2) -> str:
    if value["value"] is None:
        return f"not known: {value['reason']}"
    return f"{value['value']:.{digits}f} (of {value['cases']})"


def _grid(fields: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        if value not in (None, "", []):
            grid.add_row(Text(name, "bold"), plain(value))
    return grid


def _listed(title: str, lines: Iterable[str]) -> list[RenderableType]:
    found = [plain(f"  {line}") for line in lines]
    return [Text(title, "bold"), *found] if found else []


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
    return [part for name, lines in reflection.items() for part in _listed(name, lines)]


def _completed(value: Mapping[str, Any], _: int) -> RenderableType:
    learnt = f"{count(len(value['pattern_ids']), 'pattern')}, {count(len(value['heuristic_ids']), 'heuristic')}"
    fields = {
        "episode": value["episode_id"],
        "reward": _reward(value["reward"]),
        "quality": _number(value["quality"]),
        "learnt": learnt,
        "summary": value["summary"]["text"],
    }
    return Group(_grid(fields), *_reflection(value["reflection"]))


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
        "quality": _number(episode["quality"]),
        "summary": None if episode["summary"] is None else episode["summary"]["text"],
        "patterns": len(episode["pattern_ids"]) or None,
        "checkpoints": ", ".join(each["checkpoint_id"] for each in episode["checkpoints"]),
    }
    parts: list[RenderableType] = [_grid(fields)]
    if value["steps"]:
        made = table("step", "tool", "action", "result", "ms")
        for step in value["steps"]:
            result = step["result"] or {"type": "pending"}
            said = result.get("message") or result.get("output") or ""
            made.add_row(
                plain(step["step_number"]),
                plain(step["tool"]),
                _short(step["action"]),
                _short(f"{result['type']} {said}"),
                plain(step["latency_ms"]),
            )
        parts += [plain(""), made]
    if episode["reflection"] is not None:
        parts += _reflection(episode["reflection"])
    return Group(*parts)


def _episodes(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["episodes"]:
        return plain("no episodes")
    made = table("episode", "type", "domain", "steps", "outcome", "reward", "began")
    for each in value["episodes"]:
        task = _short(each["task_description"])
        task.append(f"\n{each['episode_id']}", "dim")
        made.add_row(
            task,
            plain(each["task_type"]),
            plain(each["domain"]),
            plain(each["step_count"]),
            plain(each["outcome"] or "open"),
            plain(_number(each["reward"])),
            plain(age(each["start_time"], now)),
        )
    if value["next_cursor"] is None:
        return made
    return Group(made, plain(f"there are more: --cursor {value['next_cursor']}", "dim"))


def _found(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["episodes"]:
        return plain(value["explanation"]["text"] if "explanation" in value else "nothing found")
    made = table("episode", "score", "outcome", "reward", "began")
    for each in value["episodes"]:
        task = _short(each["task_description"])
        task.append(f"\n{each['episode_id']}", "dim")
        made.add_row(
            task,
            plain(_number(each["score"], 3)),
            plain((each["outcome"] or {"type": "open"})["type"]),
            plain(_number((each["reward"] or {"total": None})["total"])),
            plain(age(each["start_time"], now)),
        )
    patterns = (f"{each['text']} ({each['strength']:.2f})" for each in value["patterns"])
    insights = (each["text"] for each in value["insights"])
    return Group(made, *_listed("patterns", patterns), *_listed("insights", insights))


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
        _grid(fields),
        *_listed("decisions", (each["decision"] for each in pack["decisions"])),
        *_listed("failures", failures),
        *_listed("remaining", pack["state"]["remaining"]),
        plain("--format json gives what `memoturn episode resume` takes", "dim"),
    )


# --- patterns ------------------------------------------------------------------------------------


def _pattern_rows(patterns: Iterable[Mapping[str, Any]]) -> Table:
    made = table("pattern", "kind", "domain", "strength", "seen")
    for each in patterns:
        text = plain(each["text"])
        text.append(f"\n{each['pattern_id']}", "dim")
        made.add_row(
            text,
            plain(each["kind"]),
            plain(each["domain"]),
            plain(_number(each["strength"])),
            plain(each["occurrences"]),
        )
    return made


def _patterns(value: Mapping[str, Any], _: int) -> RenderableType:
    return _pattern_rows(value["patterns"]) if value["patterns"] else plain(value["explanation"] or "no patterns")


def _pattern(value: Mapping[str, Any], now: int) -> RenderableType:
    pattern = value["pattern"]
    feedback = ", ".join(f"{count} {name}" for name, count in pattern["feedback"].items() if count)
    fields = {
        "pattern": pattern["pattern_id"],
        "says": pattern["text"],
        "kind": pattern["kind"],
        "domain": pattern["domain"],
        "strength": f"{pattern['strength']:.2f} of {pattern['goes_with']}",
        "seen": f"{pattern['occurrences']} times: {pattern['successes']} successes, {pattern['failures']} failures",
        "feedback": feedback,
        "last seen": age(pattern["last_seen"], now),
    }
    if value["heuristic"] is not None:
        fields["heuristic"] = f"{value['heuristic']['condition']}: {value['heuristic']['action']}"
    episodes = (f"{each['episode_id']} {each['outcome']} {age(each['seen_at'], now)}" for each in value["evidence"])
    return Group(_grid(fields), *_listed("rests on", episodes))


def _analysis(value: Mapping[str, Any], _: int) -> RenderableType:
    if value["explanation"] is not None:
        return plain(value["explanation"])
    counted = [count(value[name], name[:-1]) for name in ("patterns", "candidates", "episodes")]
    counts = f"{counted[0]} and {counted[1]} from {counted[2]}"
    groups = table("kind or domain", "patterns", "strongest")
    for each in (*value["by_kind"], *value["by_domain"]):
        groups.add_row(plain(each["name"]), plain(each["patterns"]), plain(_number(each["strongest"])))
    parts: list[RenderableType] = [plain(counts), groups]
    for name in ("strongest", "newest", "decaying"):
        if value[name]:
            parts += [plain(""), Text(name, "bold"), _pattern_rows(value[name])]
    rules = (f"{each['condition']}: {each['action']} ({each['confidence']:.2f})" for each in value["heuristics"])
    return Group(*parts, *_listed("heuristics", rules))


def _recommended(value: Mapping[str, Any], _: int) -> RenderableType:
    if value["explanation"] is not None:
        return plain(value["explanation"])
    parts: list[RenderableType] = []
    for name in ("recommended", "avoid"):
        if value[name]:
            made = table(name, "score", "why")
            for each in value[name]:
                text = plain(each["text"])
                text.append(f"\n{each['pattern_id']}", "dim")
                made.add_row(text, plain(_number(each["score"])), plain("; ".join(each["reasons"])))
            parts.append(made)
    return Group(*parts, plain(f"say what came of it: memoturn pattern feedback {value['recommendation_id']} …", "dim"))


def _fed_back(value: Mapping[str, Any], _: int) -> RenderableType:
    made = table("pattern", "outcome", "strength now")
    for each in value["feedback"]:
        made.add_row(plain(each["pattern_id"]), plain(each["outcome"]), plain(_number(each["strength"])))
    return made


def _playbook(value: Mapping[str, Any], _: int) -> RenderableType:
    if value["explanation"] is not None:
        return plain(value["explanation"])
    made = table("step", "tool", "action", "support")
    for each in value["steps"]:
        made.add_row(
            plain(each["order"]), plain(each["tool"]), _short(each["action"] or ""), plain(_number(each["support"]))
        )
    fields = {
        "expected steps": _measured(value["expected_steps"], 0),
        "expected seconds": _measured(value["expected_seconds"], 1),
        "confidence": _measured(value["confidence"]),
    }
    pitfalls = (each["text"] + (f" -> {each['remedy']}" if each["remedy"] else "") for each in value["pitfalls"])
    return Group(made, _grid(fields), *_listed("pitfalls", pitfalls))


def _effects(value: Mapping[str, Any], _: int) -> RenderableType:
    if not value["patterns"]:
        return plain(value["explanation"] or "nothing was recommended yet")
    made = table("pattern", "offered", "applied", "helped", "no effect", "hindered", "difference")
    for each in value["patterns"]:
        text = plain(each["text"])
        text.append(f"\n{each['pattern_id']}", "dim")
        counts = (each[name] for name in ("offered", "applied", "helped", "no_effect", "hindered"))
        made.add_row(text, *(plain(count) for count in counts), plain(_measured(each["difference"])))
    return made


def _decayed(value: Mapping[str, Any], _: int) -> RenderableType:
    if not value["count"]:
        return plain("no pattern is as weak as that")
    said = f"{value['count']} {'forgotten' if value['deleted'] else 'are as weak as that; --delete forgets them'}"
    return Group(_pattern_rows(value["patterns"]), plain(said))


# --- evaluation ----------------------------------------------------------------------------------


def _stats(value: Mapping[str, Any], _: int) -> RenderableType:
    counts = ", ".join(f"{count} {name}" for name, count in value["episodes"].items() if count)
    fields = {
        "episodes": counts or "none",
        "mean reward": _measured(value["reward"]),
        "success rate": _measured(value["success_rate"]),
        "steps to success": _measured(value["steps_to_success"], 1),
    }
    halves = table("", "episodes", "mean reward", "success rate", "steps to success")
    for name, half in value["over_time"].items():
        halves.add_row(
            plain(name.replace("_", " ")),
            plain(half["episodes"]),
            plain(_measured(half["reward"])),
            plain(_measured(half["success_rate"])),
            plain(_measured(half["steps_to_success"], 1)),
        )
    domains = (f"{each['domain']}: {_measured(each['reward'])}" for each in value["reward_by_domain"])
    return Group(_grid(fields), plain(""), halves, *_listed("mean reward by domain", domains))


def _calibration(value: Mapping[str, Any], _: int) -> RenderableType:
    if value["brier"] is None:
        return plain(f"not known: {value['reason']}")
    fields = {
        "cases": value["cases"],
        "Brier score": _number(value["brier"], 3),
        "of the base rate": f"{_number(value['brier_of_base_rate'], 3)} (always {_number(value['base_rate'])})",
    }
    bins = table("strength", "cases", "mean strength", "helped")
    for each in value["bins"]:
        bins.add_row(
            plain(f"{each['from_strength']:.1f}-{each['to_strength']:.1f}"),
            plain(each["cases"]),
            plain(_number(each["mean_strength"])),
            plain(_number(each["helped"])),
        )
    return Group(_grid(fields), plain(""), bins)


def _executed(value: Mapping[str, Any], _: int) -> RenderableType:
    kind = value["type"]
    parts = [plain(value[name]) for name in ("stdout", "partial_output") if value.get(name)]
    parts += [plain(value["stderr"], "yellow")] if value.get("stderr") else []
    if kind == "success":
        shown = [] if value["output"] is None else [plain(repr(value["output"]))]
        return Group(*parts, *shown, plain(f"{value['execution_time_ms']:.1f} ms", "dim"))
    if kind == "timeout":
        return Group(*parts, plain(f"stopped after {value['elapsed_ms'] / 1_000:.1f} s", "red"))
    said = value["message"] if kind == "error" else value["reason"]
    return Group(*parts, plain(f"{value.get('error_type') or value.get('violation_type')}: {said}", "red"))


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
    "search_patterns": _patterns,
    "get_pattern": _pattern,
    "analyze_patterns": _analysis,
    "recommend_patterns": _recommended,
    "record_feedback": _fed_back,
    "recommend_playbook": _playbook,
    "get_pattern_effectiveness": _effects,
    "decay_patterns": _decayed,
    "eval stats": _stats,
    "eval calibration": _calibration,
    "execute_code": _executed,
}
