"""Replies of export, import and backup for people. Called by `tables`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group, RenderableType

from memoturn_mcp.cli.tables import age, plain, size, table

_LISTED = 50
"""Refused lines that are listed; more are only counted."""


def _exported(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain(f"{value['records']} records, {size(value['bytes'])}")


def _imported(value: Mapping[str, Any], _: int) -> RenderableType:
    counts = table("kind", "imported", "unchanged")
    for kind in [*value["imported"], *(kind for kind in value["unchanged"] if kind not in value["imported"])]:
        counts.add_row(
            plain(kind), plain(str(value["imported"].get(kind, 0))), plain(str(value["unchanged"].get(kind, 0)))
        )
    parts: list[RenderableType] = [counts]
    if value["refused"]:
        refused = table("line", "kind", "why it was refused")
        for each in value["refused"][:_LISTED]:
            refused.add_row(plain(str(each["line"])), plain(each["kind"]), plain(each["reason"]))
        parts.append(refused)
        if len(value["refused"]) > _LISTED:
            parts.append(plain(f"and {len(value['refused']) - _LISTED} more", "dim"))
    if not value["complete"]:
        parts.append(plain("the file is cut off: its last line is missing"))
    return Group(*parts)


def _backups(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["backups"]:
        return plain("no backups")
    listed = table("backup", "made", "transaction", "records", "size")
    for each in value["backups"]:
        if "damaged" in each:
            listed.add_row(plain(each["name"]), plain(each["damaged"]), plain(""), plain(""), plain(""))
            continue
        listed.add_row(
            plain(each["name"]),
            plain(age(each["created_at"], now)),
            plain(str(each["txid"])),
            plain(str(each["records"])),
            plain(size(each["bytes"])),
        )
    return listed


def _verified(value: Mapping[str, Any], now: int) -> RenderableType:
    return Group(_backups(value, now), plain("all of them are sound"))


def _restored(value: Mapping[str, Any], _: int) -> RenderableType:
    return plain(f"{value['into']} holds {sum(value['rows'].values())} rows of {value['name']}")


TABLES: dict[str, Callable[[Mapping[str, Any], int], RenderableType]] = {
    "export": _exported,
    "import": _imported,
    "backup_create": _backups,
    "backup_list": _backups,
    "backup_verify": _verified,
    "backup_restore": _restored,
}
"""By command."""
