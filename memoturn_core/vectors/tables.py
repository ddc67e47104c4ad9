"""The vectors of all collections, float32 little-endian, and the dimension that the first of each fixed.

The vectors of a collection have the rowids from `id << 40` on, in the order in which they came. So they lie together
in the file, and its index is built by reading just them, front to back.
"""

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


def rowids(collection: int) -> range:
    """Those that the vectors of a collection may have."""
    return range(collection << 40, (collection + 1) << 40)
