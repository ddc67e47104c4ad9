"""The tables of memories and transcripts. They were released: changes are migrations of their own, as `EXPIRY` is.

Ids are stored as their 16 bytes. Vectors are float32, little-endian. The full-text indexes are
external-content FTS5 over the rows they index, with pages that fit the file's (1 024 bytes).
"""

from __future__ import annotations

_FTS_OPTIONS = """
INSERT INTO {fts}({fts}, rank) VALUES ('pgsz', 970), ('automerge', 8), ('crisismerge', 64);
"""

_MEMORIES = """
CREATE TABLE __memoturn_settings (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE __memoturn_memories (
  rowid INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  type TEXT NOT NULL,
  topic_key TEXT,
  summary TEXT NOT NULL,
  content TEXT NOT NULL,
  keywords TEXT NOT NULL,
  session_id TEXT,
  source TEXT,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  superseded_at INTEGER,
  superseded_by BLOB
);
CREATE INDEX __memoturn_memories_topic ON __memoturn_memories (topic_key, type) WHERE topic_key IS NOT NULL;
CREATE UNIQUE INDEX __memoturn_memories_active ON __memoturn_memories (topic_key, type)
  WHERE topic_key IS NOT NULL AND superseded_at IS NULL;
CREATE INDEX __memoturn_memories_session ON __memoturn_memories (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX __memoturn_memories_successor ON __memoturn_memories (superseded_by) WHERE superseded_by IS NOT NULL;

CREATE TABLE __memoturn_memory_vectors (rowid INTEGER PRIMARY KEY, embedding BLOB NOT NULL);

CREATE VIRTUAL TABLE __memoturn_memories_fts USING fts5(
  summary, keywords,
  content='__memoturn_memories', content_rowid='rowid', tokenize='porter unicode61 remove_diacritics 2'
);
"""

_TRANSCRIPT = """
CREATE TABLE __memoturn_sessions (
  rowid INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  last_active_at INTEGER NOT NULL
);

CREATE TABLE __memoturn_turns (
  rowid INTEGER PRIMARY KEY,
  session_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  role TEXT NOT NULL,
  content TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  UNIQUE (session_id, seq)
);

CREATE TABLE __memoturn_turn_vectors (rowid INTEGER PRIMARY KEY, embedding BLOB NOT NULL);

CREATE VIRTUAL TABLE __memoturn_turns_fts USING fts5(
  content,
  content='__memoturn_turns', content_rowid='rowid', tokenize='porter unicode61 remove_diacritics 2'
);
"""

TABLES = (
    _MEMORIES
    + _FTS_OPTIONS.format(fts="__memoturn_memories_fts")
    + _TRANSCRIPT
    + _FTS_OPTIONS.format(fts="__memoturn_turns_fts")
)
"""Version 1 of the file."""

EXPIRY = """
CREATE INDEX __memoturn_memories_expiry ON __memoturn_memories (expires_at) WHERE expires_at IS NOT NULL;
"""
"""Of version 2: finds the tasks that have expired."""

SPACES = """
CREATE TABLE __memoturn_spaces (id INTEGER PRIMARY KEY, model TEXT, dimension INTEGER NOT NULL);
INSERT INTO __memoturn_spaces
  SELECT 0, (SELECT value FROM __memoturn_settings WHERE key = 'embedding_model'), value
  FROM __memoturn_settings WHERE key = 'embedding_dimension';
DELETE FROM __memoturn_settings WHERE key = 'embedding_model' AND value IS NULL;
"""
"""Of version 2: by which models the vectors are (`memoturn_core.memory.vectors`); those of version 1 are in space 0."""

WORDS = """
CREATE VIRTUAL TABLE __memoturn_memories_words USING fts5vocab(__memoturn_memories_fts, instance);
CREATE VIRTUAL TABLE __memoturn_turns_words USING fts5vocab(__memoturn_turns_fts, instance);
"""
"""Of version 2: in which rows the full-text indexes have a word; views of them, without pages of their own."""
