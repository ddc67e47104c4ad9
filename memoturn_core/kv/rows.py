"""The key-value store's rows, and the cache that mirrors them.

Whoever writes a row does it here, so that the cache keeps in step. Called by `store` and by
`memoturn_core.sweeping`.
"""

from __future__ import annotations

from typing import Any, cast

from memoturn_core.kv.cache import Entry, KvCache
from memoturn_schemas.kv import KEY_BYTES
from memoturn_storage.handle import Snapshot, Transaction

_HIGHEST = "\U0010ffff" * (KEY_BYTES // 4)
"""No key is greater: in UTF-8 the order of bytes is the order of code points, and none is greater than this one."""


def find(snapshot: Snapshot, ns: str, key: str) -> Entry:
    """What the key holds, expired or not."""
    cache = snapshot.cached(KvCache, KvCache.empty)
    entry = cache.find(ns, key)
    KvCache.lookups.note(entry is not None)
    if entry is None:
        row: Any = snapshot.connection.execute(
            "SELECT value, expires_at FROM __memoturn_kv WHERE ns = ? AND key = ?", (ns, key)
        ).fetchone()
        entry = Entry(None, None) if row is None else Entry(*row)
        cache.keep(ns, key, entry)
    return entry


def put(transaction: Transaction, ns: str, key: str, value: bytes, expires_at: int | None) -> None:
    """Have the key hold the value."""
    transaction.connection.execute(
        "INSERT OR REPLACE INTO __memoturn_kv (ns, key, expires_at, value) VALUES (?, ?, ?, ?)",
        (ns, key, expires_at, value),
    )
    transaction.maintain(KvCache, lambda cache: cache.keep(ns, key, Entry(value, expires_at)))


def delete(transaction: Transaction, ns: str, key: str) -> None:
    """Have the key hold nothing."""
    transaction.connection.execute("DELETE FROM __memoturn_kv WHERE ns = ? AND key = ?", (ns, key))
    transaction.maintain(KvCache, lambda cache: cache.drop(ns, key))


def keys(snapshot: Snapshot, ns: str, prefix: str, after: str | None, count: int) -> list[str]:
    """The first `count` keys that have not expired and begin with `prefix`, in order; those after `after`."""
    first = prefix if after is None else max(prefix, after + "\0")
    found: list[Any] = snapshot.connection.execute(
        "SELECT key FROM __memoturn_kv WHERE ns = ? AND key BETWEEN ? AND ?"
        " AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?",
        (ns, first, prefix + _HIGHEST, snapshot.ambient.now_ms(), count),
    ).fetchall()
    return [cast("str", key) for (key,) in found]
