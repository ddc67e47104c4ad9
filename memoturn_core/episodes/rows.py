"""Episodes as rows: the columns and the body, and their tags and words with them.

Whoever inserts or changes an episode does it here, so that the tables never disagree. The steps of the
episode `e` have the rowids `e << 20 | number`: they lie together, in order, and need no index.

Called by every module of episodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self, cast

import apsw
from pydantic_core import from_json, to_json

from memoturn_core.episodes import words
from memoturn_core.episodes.experience import Experience
from memoturn_core.memory.rows import bound
from memoturn_core.memory.words import EpisodeWords
from memoturn_schemas.episodes import Context, Episode, Outcome, OutcomeType, Step, TaskType
from memoturn_schemas.errors import NotFound
from memoturn_storage.ambient import Ambient
from memoturn_storage.handle import Transaction

_NUMBER_BITS = 20
_NUMBERS = (1 << _NUMBER_BITS) - 1

_OF_EPISODE = f"rowid BETWEEN episode.rowid << {_NUMBER_BITS} AND episode.rowid << {_NUMBER_BITS} | {_NUMBERS}"

STEP_COUNT = f"coalesce(episode.step_count, (SELECT count(*) FROM __memoturn_episode_steps WHERE {_OF_EPISODE}))"
"""The steps of an `episode`: those of an open one are counted, as no step touches the episode's row."""

_COLUMNS = (
    "rowid, id, task_type, domain, description, session_id, source, started_at, ended_at, "
    f"{STEP_COUNT}, outcome, reward, quality, words, body"
)


def as_text(body: dict[str, Any]) -> str:
    """JSON as it is stored, its fields in the order in which they came."""
    return to_json(body).decode()


# --- ids -----------------------------------------------------------------------------------------


def new_episode_id(ambient: Ambient, now: int) -> bytes:
    """A UUID of version 7, whose order is that of creation: new ones lie together in the index."""
    time = (now & (1 << 48) - 1).to_bytes(6)
    chance = bytearray(ambient.token(10))
    chance[0] = 0x70 | chance[0] & 0x0F
    chance[2] = 0x80 | chance[2] & 0x3F
    return time + bytes(chance)


def format_episode_id(key: bytes) -> str:
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def parse_episode_id(text: str) -> bytes:
    """The 16 bytes; `text` is an `EpisodeUuid`."""
    return bytes.fromhex(text.replace("-", ""))


# --- the row -------------------------------------------------------------------------------------


@dataclass(slots=True)
class EpisodeRow:
    """One episode. Change what `save` writes and then save it; the rest stays as it began.

    `body` holds, where there is anything to hold: language, framework, complexity, tags, metadata; the whole
    outcome and reward; reflection, salient, summary, pattern_ids, heuristic_ids; applied_patterns, checkpoints.
    """

    rowid: int
    id: bytes
    task_type: TaskType
    domain: str
    description: str
    session_id: str | None
    source: str | None
    started_at: int
    ended_at: int | None = None
    step_count: int = 0
    outcome: OutcomeType | None = None
    """None while it is open."""
    reward: float | None = None
    quality: float | None = None
    deeds: str = ""
    """What was done, in words; empty until it is completed."""
    body: dict[str, Any] = field(default_factory=dict)
    _words: str = ""
    """As they are in the file, like the next."""
    _tags: frozenset[str] = frozenset()

    @classmethod
    def _of(cls, columns: Any) -> Self:
        *known, words, text = columns
        row = cls(*known)
        row.deeds, row.body = words.partition("\n")[2], from_json(text)
        row._words, row._tags = words, frozenset(row.tags)
        return row

    @classmethod
    def one(cls, connection: apsw.Connection, episode_id: str) -> Self:
        """Raises `NotFound`."""
        found = connection.execute(
            f"SELECT {_COLUMNS} FROM __memoturn_episodes AS episode WHERE id = ?", (parse_episode_id(episode_id),)
        ).fetchone()
        if found is None:
            raise NotFound(f"there is no episode {episode_id}")
        return cls._of(found)

    @classmethod
    def of_rowids(cls, connection: apsw.Connection, rowids: Iterable[int]) -> dict[int, Self]:
        """Those that are there."""
        wanted = list(rowids)
        if not wanted:
            return {}
        found: list[Any] = connection.execute(
            f"SELECT {_COLUMNS} FROM __memoturn_episodes AS episode WHERE rowid IN carray(?)", (bound(wanted),)
        ).fetchall()
        return {columns[0]: cls._of(columns) for columns in found}

    @property
    def episode_id(self) -> str:
        return format_episode_id(self.id)

    @property
    def completed(self) -> bool:
        return self.outcome is not None

    @property
    def tags(self) -> list[str]:
        tags: list[str] = self.body.get("tags", [])
        return tags

    @property
    def context(self) -> Context:
        return Context(
            domain=self.domain,
            language=self.body.get("language"),
            framework=self.body.get("framework"),
            complexity=self.body["complexity"],
            tags=self.tags,
        )

    @property
    def words(self) -> str:
        """By which it is found, beside its description."""
        return f"{words.labels(self.body.get('language'), self.body.get('framework'), self.tags)}\n{self.deeds}"

    def episode(self) -> Episode:
        body = self.body
        return Episode(
            episode_id=self.episode_id,
            task_type=self.task_type,
            task_description=self.description,
            context=self.context,
            session_id=self.session_id,
            source=self.source,
            start_time=self.started_at,
            end_time=self.ended_at,
            step_count=self.step_count,
            outcome=body.get("outcome"),
            reward=body.get("reward"),
            quality=self.quality,
            reflection=body.get("reflection"),
            salient=body.get("salient"),
            summary=body.get("summary"),
            pattern_ids=body.get("pattern_ids", []),
            heuristic_ids=body.get("heuristic_ids", []),
            applied_patterns=body.get("applied_patterns", []),
            checkpoints=body.get("checkpoints", []),
            metadata=body.get("metadata", {}),
        )

    def insert(self, transaction: Transaction) -> None:
        """Enter a new episode; it gets its rowid."""
        connection = transaction.connection
        words, tags = self.words, frozenset(self.tags)
        connection.execute(
            "INSERT INTO __memoturn_episodes (id, task_type, domain, description, words, session_id, source,"
            " started_at, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.id, self.task_type, self.domain, self.description, words, self.session_id, self.source,
                self.started_at, as_text(self.body),
            ),
        )  # fmt: skip
        self.rowid = connection.last_insert_rowid()
        EpisodeWords.insert(transaction, self.rowid, self.session_id, (self.description, words))
        _tag(connection, self.rowid, tags)
        self._words, self._tags = words, tags

    def save(self, transaction: Transaction) -> None:
        """Write how it ended, its deeds and its body, and bring its tags and its words in step."""
        connection = transaction.connection
        words, tags = self.words, frozenset(self.tags)
        connection.execute(
            "UPDATE __memoturn_episodes SET words = ?, ended_at = ?, step_count = ?, outcome = ?, reward = ?,"
            " quality = ?, body = ? WHERE rowid = ?",
            (
                words, self.ended_at, self.step_count if self.completed else None, self.outcome, self.reward,
                self.quality, as_text(self.body), self.rowid,
            ),
        )  # fmt: skip
        if words != self._words:
            EpisodeWords.replace(transaction, self.rowid, (self.description, self._words), (self.description, words))
        if tags != self._tags:
            _untag(connection, self.rowid, self._tags - tags)
            _tag(connection, self.rowid, tags - self._tags)
        self._words, self._tags = words, tags

    def remove(self, transaction: Transaction) -> None:
        """Delete the row with its steps, its tags and its words; `deletion` knows what else there is."""
        connection = transaction.connection
        EpisodeWords.delete(transaction, self.rowid, (self.description, self._words))
        _untag(connection, self.rowid, self._tags)
        connection.execute("DELETE FROM __memoturn_episode_steps WHERE rowid BETWEEN ? AND ?", steps_range(self.rowid))
        connection.execute("DELETE FROM __memoturn_episodes WHERE rowid = ?", (self.rowid,))


def _tag(connection: apsw.Connection, rowid: int, tags: Iterable[str]) -> None:
    for tag in sorted(tags):
        connection.execute("INSERT INTO __memoturn_episode_tags (tag, episode) VALUES (?, ?)", (tag, rowid))


def _untag(connection: apsw.Connection, rowid: int, tags: Iterable[str]) -> None:
    for tag in tags:
        connection.execute("DELETE FROM __memoturn_episode_tags WHERE tag = ? AND episode = ?", (tag, rowid))


# --- its steps -----------------------------------------------------------------------------------


def steps_range(rowid: int) -> tuple[int, int]:
    """The first and the last rowid that a step of the episode may have."""
    return rowid << _NUMBER_BITS, rowid << _NUMBER_BITS | _NUMBERS


def step_rowid(rowid: int, number: int) -> int:
    return rowid << _NUMBER_BITS | number


def step_number(rowid: int) -> int:
    """The number of the step with this rowid."""
    return rowid & _NUMBERS


def steps_of(connection: apsw.Connection, rowid: int) -> list[Step]:
    """The episode's steps in the order of their numbers."""
    found: list[Any] = connection.execute(
        "SELECT rowid, body FROM __memoturn_episode_steps WHERE rowid BETWEEN ? AND ? ORDER BY rowid",
        steps_range(rowid),
    ).fetchall()
    return [cast("Step", {"step_number": step_number(placed), **from_json(body)}) for placed, body in found]


def experience(row: EpisodeRow, steps: list[Step], outcome: Outcome, ended_at: int) -> Experience:
    """What the episode tells where it ends so."""
    return Experience(
        task_type=row.task_type,
        description=row.description,
        context=row.context,
        metadata=row.body.get("metadata", {}),
        steps=steps,
        outcome=outcome,
        started_at=row.started_at,
        ended_at=ended_at,
    )
