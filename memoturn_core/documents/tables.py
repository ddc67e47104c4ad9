"""The registry of document collections; each has a table of its own, made on its first insert."""

from __future__ import annotations

TABLES = """
CREATE TABLE __memoturn_collections (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);
"""
