"""The registry of document collections and their indexes.

Each collection has a table of its own, made on its first insert or index (`memoturn_core.documents.rows`).
"""

from __future__ import annotations

TABLES = """
CREATE TABLE __memoturn_collections (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);

CREATE TABLE __memoturn_collection_indexes (
  id INTEGER PRIMARY KEY,
  collection INTEGER NOT NULL REFERENCES __memoturn_collections (id),
  path TEXT NOT NULL,
  UNIQUE (collection, path)
);
"""
