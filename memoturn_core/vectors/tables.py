"""The vectors of all collections, float32 little-endian, and the dimension that the first of each fixed."""

from __future__ import annotations

TABLES = """
CREATE TABLE __memoturn_vector_collections (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  dimension INTEGER NOT NULL
);
CREATE TABLE __memoturn_vectors (
  rowid INTEGER PRIMARY KEY,
  collection INTEGER NOT NULL,
  id TEXT NOT NULL,
  embedding BLOB NOT NULL,
  UNIQUE (collection, id)
);
"""
