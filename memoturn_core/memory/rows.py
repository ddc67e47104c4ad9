"""Memories as rows: the columns in one order, and their full-text and vector entries with them.

Whoever inserts or deletes a memory does it here, so that the three tables never disagree. Called by
`ingest`, `records` and `sessions`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, cast

import apsw
from pydantic_core import from_json

from memoturn_core.memory.identity import format_id
from memoturn_core.memory.vectors import MemoryVectors
from memoturn_core.memory.words import MemoryWords
from memoturn_core.vectors.vector import Vector
from memoturn_schemas.memory import MemoryCore, MemoryType
from memoturn_storage.handle import Transaction

COLUMNS = (
    "rowid, id, type, topic_key, summary, content, keywords, session_id, source, "
    "created_at, expires_at, superseded_at, superseded_by"
)


def bound(rowids: Iterable[int]) -> Any:
    """The rowids (one at least) as a parameter for `IN carray(?)`, so that the SQL stays the same text."""
    return apsw.carray(array("q", rowids))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the memories' table, in the order of `COLUMNS`."""

    rowid: int
    id: bytes
    type: MemoryType
    topic_key: str | None
    summary: str
    content: str
    keywords: str
    session_id: str | None
    source: str | None
    created_at: int
    expires_at: int | None
    superseded_at: int | None
    superseded_by: bytes | None

    @classmethod
    def one(cls, connection: apsw.Connection, condition: str, parameters: tuple[Any, ...]) -> Self | None:
        cursor = connection.execute(f"SELECT {COLUMNS} FROM __memoturn_memories WHERE {condition}", parameters)
        row = cursor.fetchone()
        return None if row is None else cls(*cast("Any", row))

    def expired(self, now_ms: int) -> bool:
        return self.expires_at is not None and self.expires_at <= now_ms

    def core(self) -> MemoryCore:
        return {
            "id": format_id(self.id),
            "type": self.type,
            "topic_key": self.topic_key,
            "summary": self.summary,
            "content": from_json(self.content),
            "keywords": self.keywords,
            "session_id": self.session_id,
            "source": self.source,
            "created_at": self.created_at,
            "superseded_by": None if self.superseded_by is None else format_id(self.superseded_by),
        }


def insert(transaction: Transaction, row: Row, vector: Vector | None = None, space: range | None = None) -> int:
    """Insert a new memory with its entries, and its vector where it has a space; the rowid, not that of `row`."""
    connection = transaction.connection
    connection.execute(
        "INSERT INTO __memoturn_memories (id, type, topic_key, summary, content, keywords, session_id, source,"
        " created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.id, row.type, row.topic_key, row.summary, row.content, row.keywords, row.session_id, row.source,
            row.created_at, row.expires_at,
        ),
    )  # fmt: skip
    rowid = connection.last_insert_rowid()
    MemoryWords.insert(transaction, rowid, row.session_id, (row.summary, row.keywords))
    if vector is not None and space is not None:
        MemoryVectors.insert(transaction, rowid, vector, space)
    return rowid


def delete(transaction: Transaction, row: Row) -> None:
    """Delete a memory with its entries. Ids elsewhere that point to it stay."""
    MemoryWords.delete(transaction, row.rowid, (row.summary, row.keywords))
    transaction.connection.execute("DELETE FROM __memoturn_memories WHERE rowid = ?", (row.rowid,))
    MemoryVectors.delete(transaction, [row.rowid])
