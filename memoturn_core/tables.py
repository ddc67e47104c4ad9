"""What a database's file contains, as numbered migrations. Never edit one that was released: add one.

The tables of each part are written down beside it. Every name of ours begins with `__memoturn_`, and no
statement of a user reaches such a table (`memoturn_core.sql.guard`).
"""

from __future__ import annotations

from memoturn_core.documents import tables as documents
from memoturn_core.episodes import tables as episodes
from memoturn_core.kv import tables as kv
from memoturn_core.memory import tables as memory
from memoturn_core.vectors import tables as vectors
from memoturn_storage.schema import Schema

SCHEMA = Schema(
    (
        memory.TABLES,
        memory.EXPIRY + memory.SPACES + memory.WORDS + kv.TABLES + documents.TABLES + vectors.TABLES,
        episodes.TABLES,
    )
)
