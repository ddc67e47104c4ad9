"""The table of the key-value store: one row a key, with its value beside it.

Without a rowid a small value is on the one page that its key leads to, so a write ships few pages.
"""

from __future__ import annotations

TABLES = """
CREATE TABLE __memoturn_kv (
  ns TEXT NOT NULL,
  key TEXT NOT NULL,
  expires_at INTEGER,
  value BLOB NOT NULL,
  PRIMARY KEY (ns, key)
) WITHOUT ROWID;
CREATE INDEX __memoturn_kv_expiry ON __memoturn_kv (expires_at) WHERE expires_at IS NOT NULL;
"""
