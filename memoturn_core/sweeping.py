"""Removing what has expired: values of the key-value store, and tasks.

Nobody sees either from the moment on that it expires; this gives back the space. The upkeep shows each
open branch to `due` and commits what it answers as an ordinary transaction; branches that sleep are
left alone. Given to the upkeep by `memoturn_core.node`. Contract item 110.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memoturn_core.kv import rows as kv
from memoturn_core.memory import rows as memory
from memoturn_storage.handle import Snapshot, Transaction

ROWS = 500
"""Removed of each kind at most in one pass, so that nobody waits long for it."""


def due(snapshot: Snapshot) -> Callable[[Transaction], None] | None:
    """What removes the expired rows of a branch; None where it has none."""
    found = snapshot.connection.execute(
        "SELECT EXISTS (SELECT 1 FROM __memoturn_kv WHERE expires_at <= ?1)"
        " OR EXISTS (SELECT 1 FROM __memoturn_memories WHERE expires_at <= ?1)",
        (snapshot.ambient.now_ms(),),
    ).get
    return remove if found else None


def remove(transaction: Transaction) -> None:
    """Delete what expired first."""
    for ns, key in _expired(transaction, "ns, key", "__memoturn_kv"):
        kv.delete(transaction, ns, key)
    for row in _expired(transaction, memory.COLUMNS, "__memoturn_memories"):
        memory.delete(transaction, memory.Row(*row))


def _expired(transaction: Transaction, columns: str, table: str) -> list[Any]:
    return transaction.connection.execute(
        f"SELECT {columns} FROM {table} WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
        (transaction.ambient.now_ms(), ROWS),
    ).fetchall()
