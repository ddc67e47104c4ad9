"""What a database holds, by kind, and how often it was read: what `GET …/usage` counts. Contract item 145.

The bytes are those of the pages of a file, from SQLite's `dbstat`; to which kind a table belongs is told by its
name. The reads are counted in a value that is cached beside the open file, and so begin anew where it is closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import apsw

from memoturn_schemas.databases import PerSurface
from memoturn_storage.handle import Snapshot

T = TypeVar("T")

_KINDS = {
    "__memoturn_memories": "memories",
    "__memoturn_memory_": "memories",
    "__memoturn_turn": "turns",
    "__memoturn_sessions": "turns",
    "__memoturn_docs_": "documents",
    "__memoturn_collection": "documents",
    "__memoturn_kv": "kv",
    "__memoturn_vector": "vectors",
    "__memoturn_episode": "episodes",
    "__memoturn_pattern": "episodes",
    "__memoturn_recommendations": "episodes",
}
"""By the beginning of a table's name; what else begins like ours is nobody's."""

_COUNTED = {
    "__memoturn_memories", "__memoturn_turns", "__memoturn_kv", "__memoturn_vectors", "__memoturn_episodes"
}  # fmt: skip
"""The tables of which a row is one thing that a user has put there; beside these, collections and user tables."""


@dataclass(slots=True)
class Traffic:
    """What an open database was used for since it was first read in this process."""

    since_ms: int
    since_txid: int
    reads: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    rows: PerSurface
    bytes: PerSurface
    size: int
    traffic: Traffic | None
    """None where nothing was ever written, for then there is no file to be open."""


def counted(work: Callable[[Snapshot], T]) -> Callable[[Snapshot], T]:
    """`work`, counted as a read of its database."""

    def counting(snapshot: Snapshot) -> T:
        if snapshot.txid:
            traffic(snapshot).reads += 1
        return work(snapshot)

    return counting


def traffic(snapshot: Snapshot) -> Traffic:
    return snapshot.cached(Traffic, lambda _: Traffic(snapshot.ambient.now_ms(), snapshot.txid))


def contents(snapshot: Snapshot) -> Contents:
    """Everything that can be counted in the file; reads all of it, so it may take long."""
    connection = snapshot.connection
    sizes: list[Any] = connection.execute(
        "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) WHERE aggregate = TRUE GROUP BY 1"
    ).fetchall()
    held: Counter[str | None] = Counter()
    for table, size in sizes:
        held[_kind(table)] += size
    rows: Counter[str | None] = Counter()
    for name in _tables(connection):
        kind = _kind(name)
        if name in _COUNTED or name.startswith("__memoturn_docs_") or kind == "tables":
            rows[kind] += _count(connection, name)
    pages, page_size = cast("int", connection.pragma("page_count")), cast("int", connection.pragma("page_size"))
    return Contents(
        rows=_per_surface(rows),
        bytes=_per_surface(held),
        size=pages * page_size,
        traffic=traffic(snapshot) if snapshot.txid else None,
    )


def _kind(table: str) -> str | None:
    """To which kind a table belongs; None for what is SQLite's and ours alone."""
    if table.startswith("sqlite_"):
        return None
    if not table.startswith("__memoturn_"):
        return "tables"
    return next((kind for beginning, kind in _KINDS.items() if table.startswith(beginning)), None)


def _per_surface(found: Counter[Any]) -> PerSurface:
    return PerSurface(
        memories=found["memories"],
        turns=found["turns"],
        documents=found["documents"],
        kv=found["kv"],
        vectors=found["vectors"],
        episodes=found["episodes"],
        tables=found["tables"],
    )


def _tables(connection: apsw.Connection) -> list[str]:
    """The ordinary tables; those that a virtual table keeps its rows in are no users'."""
    found: list[Any] = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
    ).fetchall()
    return [name for (name,) in found]


def _count(connection: apsw.Connection, table: str) -> int:
    quoted = '"' + table.replace('"', '""') + '"'
    return cast("int", connection.execute(f"SELECT count(*) FROM {quoted}").get)
