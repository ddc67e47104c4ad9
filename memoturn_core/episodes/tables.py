"""The tables of episodes and of what is learnt from them, version 3 of the file.

Ids are stored as their 16 bytes, times as Unix milliseconds, JSON as text. A step's rowid is its episode's
and its number (`memoturn_core.episodes.rows`), so that an episode's steps lie together and need no index.
What is short of an episode comes before what is long, so that a scan reads the beginning of each row only.
"""

from __future__ import annotations

_EPISODES = """
CREATE TABLE __memoturn_episodes (
  rowid INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  task_type TEXT NOT NULL,
  domain TEXT NOT NULL,
  session_id TEXT,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  step_count INTEGER,
  outcome TEXT,
  reward REAL,
  quality REAL,
  source TEXT,
  description TEXT NOT NULL,
  words TEXT NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX __memoturn_episodes_domain ON __memoturn_episodes (domain, task_type, started_at);
CREATE INDEX __memoturn_episodes_started ON __memoturn_episodes (started_at);

CREATE TABLE __memoturn_episode_steps (
  rowid INTEGER PRIMARY KEY,
  size INTEGER NOT NULL,
  body TEXT NOT NULL
);

CREATE TABLE __memoturn_episode_tags (tag TEXT NOT NULL, episode INTEGER NOT NULL, PRIMARY KEY (tag, episode))
  WITHOUT ROWID;

CREATE TABLE __memoturn_episode_links (
  episode INTEGER NOT NULL,
  type TEXT NOT NULL,
  target INTEGER NOT NULL,
  reason TEXT,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (episode, type, target)
) WITHOUT ROWID;
CREATE INDEX __memoturn_episode_links_target ON __memoturn_episode_links (target);

CREATE TABLE __memoturn_episode_vectors (rowid INTEGER PRIMARY KEY, embedding BLOB NOT NULL);

CREATE VIRTUAL TABLE __memoturn_episodes_fts USING fts5(
  description, words,
  content='__memoturn_episodes', content_rowid='rowid', tokenize='porter unicode61 remove_diacritics 2'
);
INSERT INTO __memoturn_episodes_fts(__memoturn_episodes_fts, rank)
  VALUES ('pgsz', 970), ('automerge', 8), ('crisismerge', 64);
CREATE VIRTUAL TABLE __memoturn_episodes_words USING fts5vocab(__memoturn_episodes_fts, instance);
"""

_PATTERNS = """
CREATE TABLE __memoturn_patterns (
  rowid INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  domain TEXT NOT NULL,
  body TEXT NOT NULL,
  needs INTEGER NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE __memoturn_pattern_candidates (id BLOB PRIMARY KEY, episode INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE __memoturn_pattern_evidence (
  episode INTEGER PRIMARY KEY,
  task_type TEXT NOT NULL,
  outcome TEXT NOT NULL,
  seen_at INTEGER NOT NULL,
  patterns BLOB NOT NULL,
  candidates BLOB NOT NULL
);

CREATE TABLE __memoturn_recommendations (
  rowid INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  episode INTEGER,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX __memoturn_recommendations_episode ON __memoturn_recommendations (episode) WHERE episode IS NOT NULL;

CREATE TABLE __memoturn_pattern_feedback (
  pattern INTEGER NOT NULL,
  recommendation INTEGER NOT NULL,
  episode INTEGER,
  outcome TEXT NOT NULL,
  applied_at_step INTEGER,
  said_at INTEGER NOT NULL,
  PRIMARY KEY (pattern, recommendation)
) WITHOUT ROWID;
CREATE INDEX __memoturn_pattern_feedback_recommendation ON __memoturn_pattern_feedback (recommendation);
CREATE INDEX __memoturn_pattern_feedback_episode ON __memoturn_pattern_feedback (episode) WHERE episode IS NOT NULL;
"""

TABLES = _EPISODES + _PATTERNS
