"""Replies about what was learnt from episodes for people, and how a snippet ended. Called by `tables`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memoturn_mcp.cli.tables import age, count, plain, table
from memoturn_mcp.cli.tables_of_episodes import grid, listed, measured, named, number, short, with_id


def _pattern_rows(patterns: Iterable[Mapping[str, Any]]) -> Table:
    made = named("pattern", "kind", "domain", "strength", "seen")
    for each in patterns:
        made.add_row(
            with_id(plain(each["text"]), each["pattern_id"]),
            plain(each["kind"]),
            plain(each["domain"]),
            plain(number(each["strength"])),
            plain(each["occurrences"]),
        )
    return made


def _patterns(value: Mapping[str, Any], _: int) -> RenderableType:
    return _pattern_rows(value["patterns"]) if value["patterns"] else plain(value["explanation"] or "no patterns")


def _pattern(value: Mapping[str, Any], now: int) -> RenderableType:
    pattern = value["pattern"]
    feedback = ", ".join(f"{times} {name}" for name, times in pattern["feedback"].items() if times)
    fields = {
        "pattern": pattern["pattern_id"],
        "says": pattern["text"],
        "kind": pattern["kind"],
        "domain": pattern["domain"],
        "strength": f"{pattern['strength']:.2f} of {pattern['goes_with']}",
        "seen": f"{count(pattern['occurrences'], 'time')}: {pattern['successes']} succeeded,"
        f" {pattern['failures']} failed",
        "feedback": feedback,
        "last seen": age(pattern["last_seen"], now),
    }
    if value["heuristic"] is not None:
        fields["heuristic"] = f"{value['heuristic']['condition']}: {value['heuristic']['action']}"
    episodes = (f"{each['episode_id']} {each['outcome']} {age(each['seen_at'], now)}" for each in value["evidence"])
    return Group(grid(fields), *listed("rests on", episodes))


def _analysis(value: Mapping[str, Any], _: int) -> RenderableType:
    if value["explanation"] is not None:
        return plain(value["explanation"])
    counted = [count(value[name], name[:-1]) for name in ("patterns", "candidates", "episodes")]
    counts = f"{counted[0]} and {counted[1]} from {counted[2]}"
    groups = table("kind or domain", "patterns", "strongest")
    for each in (*value["by_kind"], *value["by_domain"]):
        groups.add_row(plain(each["name"]), plain(each["patterns"]), plain(number(each["strongest"])))
    parts: list[RenderableType] = [plain(counts), groups]
    for name in ("strongest", "newest", "decaying"):
        if value[name]:
            parts += [plain(""), Text(name, "bold"), _pattern_rows(value[name])]
    rules = (f"{each['condition']}: {each['action']} ({each['confidence']:.2f})" for each in value["heuristics"])
    return Group(*parts, *listed("heuristics", rules))


def _recommended(value: Mapping[str, Any], _: int) -> RenderableType:
    if value["explanation"] is not None:
        return plain(value["explanation"])
    parts: list[RenderableType] = []
    for name in ("recommended", "avoid"):
        if value[name]:
            made = named(name, "score", "why")
            for each in value[name]:
                text = with_id(plain(each["text"]), each["pattern_id"])
                made.add_row(text, plain(number(each["score"])), plain("; ".join(each["reasons"])))
            parts.append(made)
    return Group(*parts, plain(f"say what came of it: memoturn pattern feedback {value['recommendation_id']} …", "dim"))


def _fed_back(value: Mapping[str, Any], _: int) -> RenderableType:
    made = named("pattern", "outcome", "strength now")
    for each in value["feedback"]:
        made.add_row(plain(each["pattern_id"]), plain(each["outcome"]), plain(number(each["strength"])))
    return made


def _playbook(value: Mapping[str, Any], _: int) -> RenderableType:
    if value["explanation"] is not None:
        return plain(value["explanation"])
    made = table("step", "tool", "action", "support")
    for each in value["steps"]:
        made.add_row(
            plain(each["order"]), plain(each["tool"]), short(each["action"] or ""), plain(number(each["support"]))
        )
    fields = {
        "expected steps": measured(value["expected_steps"], 0),
        "expected seconds": measured(value["expected_seconds"], 1),
        "confidence": measured(value["confidence"]),
    }
    pitfalls = (each["text"] + (f" -> {each['remedy']}" if each["remedy"] else "") for each in value["pitfalls"])
    return Group(made, grid(fields), *listed("pitfalls", pitfalls))


def _effects(value: Mapping[str, Any], _: int) -> RenderableType:
    if not value["patterns"]:
        return plain(value["explanation"] or "nothing was recommended yet")
    made = named("pattern", "offered", "applied", "came of it", "difference")
    for each in value["patterns"]:
        came = ", ".join(
            f"{each[name]} {name}" for name in ("helped", "no_effect", "hindered", "pending") if each[name]
        )
        difference = each["difference"]["value"]
        made.add_row(
            with_id(plain(each["text"]), each["pattern_id"]),
            plain(each["offered"]),
            plain(each["applied"]),
            plain(came),
            plain("not known" if difference is None else f"{difference:+.2f}"),
        )
    return made


def _decayed(value: Mapping[str, Any], _: int) -> RenderableType:
    if not value["count"]:
        return plain("no pattern is as weak as that")
    said = f"{value['count']} {'forgotten' if value['deleted'] else 'are as weak as that; --delete forgets them'}"
    return Group(_pattern_rows(value["patterns"]), plain(said))


# --- evaluation ----------------------------------------------------------------------------------


def _stats(value: Mapping[str, Any], _: int) -> RenderableType:
    counts = ", ".join(f"{times} {name}" for name, times in value["episodes"].items() if times)
    fields = {
        "episodes": counts or "none",
        "mean reward": measured(value["reward"]),
        "success rate": measured(value["success_rate"]),
        "steps to success": measured(value["steps_to_success"], 1),
    }
    halves = table("", "episodes", "mean reward", "success rate", "steps to success")
    for name, half in value["over_time"].items():
        halves.add_row(
            plain(name.replace("_", " ")),
            plain(half["episodes"]),
            plain(measured(half["reward"])),
            plain(measured(half["success_rate"])),
            plain(measured(half["steps_to_success"], 1)),
        )
    domains = (f"{each['domain']}: {measured(each['reward'])}" for each in value["reward_by_domain"])
    return Group(grid(fields), plain(""), halves, *listed("mean reward by domain", domains))


def _calibration(value: Mapping[str, Any], _: int) -> RenderableType:
    if value["brier"] is None:
        return plain(f"not known: {value['reason']}")
    fields = {
        "cases": value["cases"],
        "Brier score": number(value["brier"], 3),
        "of the base rate": f"{number(value['brier_of_base_rate'], 3)} (always {number(value['base_rate'])})",
    }
    bins = table("strength", "cases", "mean strength", "helped")
    for each in value["bins"]:
        bins.add_row(
            plain(f"{each['from_strength']:.1f}-{each['to_strength']:.1f}"),
            plain(each["cases"]),
            plain(number(each["mean_strength"])),
            plain(number(each["helped"])),
        )
    return Group(grid(fields), plain(""), bins)


def _executed(value: Mapping[str, Any], _: int) -> RenderableType:
    kind = value["type"]
    parts = [plain(value[name].removesuffix("\n")) for name in ("stdout", "partial_output") if value.get(name)]
    parts += [plain(value["stderr"].removesuffix("\n"), "yellow")] if value.get("stderr") else []
    if kind == "success":
        shown = [] if value["output"] is None else [plain(repr(value["output"]))]
        return Group(*parts, *shown, plain(f"{value['execution_time_ms']:.1f} ms", "dim"))
    if kind == "timeout":
        return Group(*parts, plain(f"stopped after {value['elapsed_ms'] / 1_000:.1f} s", "red"))
    said = value["message"] if kind == "error" else value["reason"]
    return Group(*parts, plain(f"{value.get('error_type') or value.get('violation_type')}: {said}", "red"))


TABLES: dict[str, Callable[[Mapping[str, Any], int], RenderableType]] = {
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
