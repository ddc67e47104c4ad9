"""Replies for people: tables of what one would look for, ages in words, ids whole so that they can be copied.

`of` makes something rich can print from an operation's reply, `render` the text for this terminal.
Called by `output` and `doctor`, where a table is wanted.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memoturn_mcp.cli import explanations
from memoturn_mcp.cli.printable import printable
from memoturn_storage.ambient import SystemAmbient

_LISTED_RESULTS = 50
"""Results of an ingest that are listed; more are only counted."""

_ID_WIDTH = 36
_SCORE_WIDTH = 6
_AGE_WIDTH = 10
_GAP = 2
"""Cells of a terminal: ids, scores, the longest word pair of an age, and what stands between columns."""

_UNITS = (
    ("year", 365 * 86_400),
    ("month", 30 * 86_400),
    ("day", 86_400),
    ("hour", 3_600),
    ("minute", 60),
    ("second", 1),
)


def render(renderable: RenderableType) -> str:
    """The text, with the colours and the width that stdout takes; lines of mere text are the terminal's to wrap."""
    console = _console()
    with console.capture() as captured:
        console.print(renderable, soft_wrap=isinstance(renderable, Text))
    return captured.get()


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False)


def terminal_width() -> int:
    return _console().width


def of(name: str, value: Mapping[str, Any]) -> RenderableType:
    """What the operation or command `name` answered, as a person wants to see it."""
    from memoturn_mcp.cli import (  # made of the parts below
        tables_of_backups,
        tables_of_data,
        tables_of_episodes,
        tables_of_node,
        tables_of_patterns,
    )

    tables = _TABLES | tables_of_data.TABLES | tables_of_node.TABLES | tables_of_backups.TABLES
    tables |= tables_of_episodes.TABLES | tables_of_patterns.TABLES
    return tables[name](value, SystemAmbient().now_ms())


def age(ms: int, now: int) -> str:
    """How long ago a time in Unix milliseconds was, or how far ahead it is, in its greatest unit."""
    seconds = abs(now - ms) // 1_000
    for unit, length in _UNITS:
        count = seconds // length
        if count:
            words = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"{words} ago" if ms <= now else f"in {words}"
    return "just now"


def size(count: float) -> str:
    """Bytes in a unit that leaves few digits."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1_024:
            return f"{count:.0f} {unit}"
        count /= 1_024
    return f"{count:.1f} TiB"


def count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def plain(text: Any, style: str = "") -> Text:
    """Text of others: no markup, nothing that acts on the terminal."""
    return Text("" if text is None else printable(str(text)), style)


def table(*columns: str) -> Table:
    made = Table(box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def _ingested(value: Mapping[str, Any], _: int) -> RenderableType:
    results = value["results"]
    counts = Counter(result["status"] for result in results)
    superseded = sum(len(result["superseded"]) for result in results)
    total = ", ".join(f"{count} {status}" for status, count in counts.items()) or "nothing to keep"
    line = plain(total + (f", {superseded} superseded" if superseded else ""))
    if len(results) > _LISTED_RESULTS:
        return line
    listed = table("id", "status", "supersedes")
    listed.columns[0].no_wrap = True
    for result in results:
        listed.add_row(plain(result["id"]), plain(result["status"]), plain(" ".join(result["superseded"]), "dim"))
    return Group(listed, line) if results else line


def _recalled(value: Mapping[str, Any], now: int) -> RenderableType:
    parts: list[RenderableType] = []
    if value["memories"]:
        parts.append(_hits(value["memories"], now))
    else:
        parts.append(plain("nothing found" + ("; the profile has no memories yet" if value.get("txid") == 0 else "")))
    if "turns" in value:
        parts.append(_turns(value["turns"]) if value["turns"] else plain("no turns of the transcript match"))
    if value.get("degraded"):
        parts.append(plain(f"searched without: {', '.join(value['degraded'])}", "yellow"))
    if "explain" in value:
        parts += [plain(line) for line in explanations.of_recall(value["explain"], lambda ms: age(ms, now))]
    return Group(*parts)


def _hits(hits: list[Any], now: int) -> Table:
    made = table("memory", "type", "topic", "score", "age")
    _, type_, topic, score, when = made.columns
    type_.no_wrap = score.no_wrap = True
    # Room for a whole id in the first column comes first, then the topics may have what is left.
    width = terminal_width()
    when.max_width = _AGE_WIDTH
    others = _ID_WIDTH + max(len(hit["type"]) for hit in hits) + _SCORE_WIDTH + _AGE_WIDTH + 4 * _GAP
    topic.max_width = max(_AGE_WIDTH, width - others)
    for hit in hits:
        memory = plain(hit["summary"])
        memory.append(f"\n{printable(hit['id'])}", "dim")
        if hit["superseded_by"] is not None:
            memory.append("\nsuperseded", "yellow")
        if "explanation" in hit:
            memory.append(f"\n{printable(explanations.of_hit(hit['explanation']))}", "dim")
        made.add_row(
            memory,
            plain(hit["type"]),
            plain(hit["topic_key"]),
            plain(f"{hit['score']:.4f}"),
            plain(age(hit["created_at"], now)),
        )
    return made


def _turns(turns: list[Any]) -> Table:
    made = table("session", "turn", "role", "said", "distance")
    for turn in turns:
        distance = "" if turn["distance"] is None else f"{turn['distance']:.3f}"
        made.add_row(
            plain(turn["session_id"]), plain(turn["seq"]), plain(turn["role"]), plain(turn["content"]), plain(distance)
        )
    return made


def _record(value: Mapping[str, Any], now: int) -> RenderableType:
    fields = {
        "id": value["id"],
        "type": value["type"],
        "topic": value["topic_key"],
        "summary": value["summary"],
        "content": json.dumps(value["content"], indent=2, ensure_ascii=False),
        "keywords": value["keywords"],
        "session": value["session_id"],
        "source": value["source"],
        "created": _moment(value["created_at"], now),
        "expires": _moment(value["expires_at"], now),
        "superseded": _moment(value["superseded_at"], now),
        "by": value["superseded_by"],
        "supersedes": "\n".join(value["supersedes"]),
    }
    made = Table.grid(padding=(0, 2))
    for name, text in fields.items():
        if text not in (None, ""):
            made.add_row(Text(name, "bold"), plain(text))
    if len(value["chain"]) <= 1:
        return made
    history = table("history", "id", "created", "superseded")
    _, id_, created, superseded = history.columns
    id_.no_wrap = True
    created.max_width = superseded.max_width = _AGE_WIDTH
    for link in value["chain"]:
        until = link["superseded_at"]
        history.add_row(
            plain(link["summary"]),
            plain(link["id"], "dim"),
            plain(age(link["created_at"], now)),
            plain("" if until is None else age(until, now)),
        )
    return Group(made, history)


def _moment(ms: int | None, now: int) -> str | None:
    if ms is None:
        return None
    try:
        local = datetime.fromtimestamp(ms / 1_000).astimezone()
    except (ValueError, OverflowError, OSError):  # farther off than calendars go
        return age(ms, now)
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({age(ms, now)})"


def _forgotten(_: Mapping[str, Any], __: int) -> RenderableType:
    return plain("forgotten")


def _sessions(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["sessions"]:
        return plain("no sessions yet")
    made = table("session", "turns", "open tasks", "last active", "started")
    for session in value["sessions"]:
        made.add_row(
            plain(session["id"]),
            plain(session["turns"]),
            plain(session["tasks"]),
            plain(age(session["last_active_at"], now)),
            plain(age(session["created_at"], now)),
        )
    return made


def _profiles(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["profiles"]:
        return plain(f"namespace {value['namespace']} has no profiles yet")
    made = table("profile", "database", "created")
    for profile in value["profiles"]:
        made.add_row(plain(profile["profile"]), plain(profile["database"]), plain(age(profile["created_at"], now)))
    return made


def _branch_created(value: Mapping[str, Any], now: int) -> RenderableType:
    expires = "" if value["ttl_at"] is None else f"; it goes away {age(value['ttl_at'], now)}"
    return plain(f"{value['spec']}, from {value['parent']} after transaction {value['fork_txid']}{expires}")


def _branches(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["branches"]:
        return plain("no branches beside main")
    made = table("branch", "from", "after txid", "head", "created", "expires")
    for branch in value["branches"]:
        made.add_row(
            plain(branch["branch"]),
            plain(branch["parent"]),
            plain(branch["fork_txid"]),
            plain(branch["head_txid"]),
            plain(age(branch["created_at"], now)),
            plain("" if branch["ttl_at"] is None else age(branch["ttl_at"], now)),
        )
    return made


def _branch_deleted(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain("deleted" if value["deleted"] else "there is no such branch")


def _checkpointed(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain(f"{value['checkpoint']} is transaction {value['txid']}")


def _rewound(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain(f"back at transaction {value['rewound_to']}")


def _promoted(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain(f"main is what {value['promoted']} is, after transaction {value['txid']}")


def _differing(value: Mapping[str, Any], _: int) -> RenderableType:
    parts: list[RenderableType] = []
    for side in (value["branch"], value["against"]):
        made = table("what", "summary", "topic", "id")
        made.columns[3].no_wrap = True
        for what in ("created", "revived", "superseded", "forgotten"):
            for memory in side[what]:
                made.add_row(
                    plain(what), plain(memory.get("summary")), plain(memory["topic_key"]), plain(memory["id"], "dim")
                )
        counts = ", ".join(f"{count} {what}" for what, count in side["counts"].items() if count)
        parts.append(plain(f"{side['branch']} since transaction {value['fork_txid']}: {counts or 'nothing'}", "bold"))
        parts += [made, plain("")] if counts else []
    if value["conflict_count"]:
        made = table("topic", value["branch"]["branch"], value["against"]["branch"])
        for conflict in value["conflicts"]:
            made.add_row(
                plain(conflict["topic_key"]),
                plain(conflict["branch"]["summary"]),
                plain(conflict["against"]["summary"]),
            )
        parts += [plain(f"both changed {value['conflict_count']} of the topics", "bold"), made]
    return Group(*parts)


def _merged(value: Mapping[str, Any], now: int) -> RenderableType:
    parts = [_ingested(value, now)]
    for conflict in value["conflicts"]:
        owner = value["branch"] if conflict["taken"] == "theirs" else value["into"]
        parts.append(plain(f"{conflict['topic_key']} is what {owner} has come to"))
    if value["forgotten"]:
        parts.append(plain(f"{len(value['forgotten'])} forgotten"))
    return Group(*parts, plain(f"{value['into']} had {value['unchanged']} already", "dim"))


def _synced(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain(f"object storage has everything up to transaction {value['txid']}")


def _stored(value: Mapping[str, Any], now: int) -> RenderableType:
    oldest = value["oldest_txid"]
    fields = {
        "database": value["database"],
        "uuid": value["uuid"],
        "branch": value["branch"],
        "epoch": value["epoch"],
        "history": "nothing was written yet" if oldest is None else f"transactions {oldest} to {value['head_txid']}",
        "size": size(value["bytes"]),
        "checkpoints": "\n".join(f"{name} is transaction {txid}" for name, txid in value["checkpoints"].items()),
    }
    grid = Table.grid(padding=(0, 2))
    for name, text in fields.items():
        if text != "":
            grid.add_row(Text(name, "bold"), plain(text))
    if oldest is None:
        return grid
    objects = table("holds", "level", "size", "committed", "object")
    entries = [(entry["txid"], 0, "snapshot", entry) for entry in value["snapshots"]]
    entries += [(entry["max"], 1, entry["level"], entry) for entry in value["segments"]]
    for txid, is_segment, level, entry in sorted(entries, key=lambda row: row[:2]):
        holds = f"{entry['min'] + 1} to {txid}" if is_segment else f"all at {txid}"
        key = entry["key"].removeprefix(f"v1/{value['uuid']}/")
        objects.add_row(
            plain(holds), plain(level), plain(size(entry["bytes"])), plain(age(entry["at"], now)), plain(key, "dim")
        )
    return Group(grid, plain(""), objects)


def _restored(value: Mapping[str, Any], now: int) -> RenderableType:
    return plain(
        f"{value['database']}@{value['branch']} after transaction {value['txid']}, of {_moment(value['at'], now)}:"
        f" {size(value['bytes'])} in {value['seconds']:.3f} s, sound"
    )


def _cut(value: Mapping[str, Any], now: int) -> RenderableType:
    return plain(
        f"{value['database']}@{value['branch']} after transaction {value['txid']}, of {_moment(value['at'], now)}:"
        f" {value['files']} files from the snapshot at {value['snapshot_txid']}, {size(value['bytes'])}"
    )


_TABLES: dict[str, Callable[[Mapping[str, Any], int], RenderableType]] = {
    "memory_ingest": _ingested,
    "memory_recall": _recalled,
    "memory_get": _record,
    "memory_forget": _forgotten,
    "memory_sessions_list": _sessions,
    "memory_profiles_list": _profiles,
    "branch_create": _branch_created,
    "branch_list": _branches,
    "branch_delete": _branch_deleted,
    "branch_checkpoint": _checkpointed,
    "branch_rewind": _rewound,
    "branch_promote": _promoted,
    "branch_diff": _differing,
    "branch_merge": _merged,
    "sync": _synced,
    "storage_inspect": _stored,
    "storage_restore": _restored,
    "storage_segments": _cut,
}
