"""The kinds of records that there are, in the order in which a record only points to those before it.

A table of ours that is neither told here nor made from what is (`DERIVED`) would be lost: a test looks that
there is none. Called by `exporting` and `importing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import apsw
import orjson

from memoturn_core.documents import paths
from memoturn_core.documents import rows as documents
from memoturn_core.episodes.patterns.known import packed, unpacked
from memoturn_core.memory.identity import format_id, memory_key, parse_id
from memoturn_core.memory.rows import bound
from memoturn_core.memory.vectors import EMBEDDED, EpisodeVectors, MemoryVectors
from memoturn_core.portability import values
from memoturn_core.portability.kinds import (
    VECTOR,
    Column,
    Kind,
    Record,
    Rows,
    identifier,
    json_text,
    reference,
)
from memoturn_core.portability.values import Refused
from memoturn_core.vectors.tables import rowids
from memoturn_schemas import blob
from memoturn_schemas.errors import MemoturnError
from memoturn_schemas.memory import MemoryType
from memoturn_storage.handle import Transaction

_STEP_BITS = 20
_STEPS = 1 << _STEP_BITS


def _prefixed(prefix: str) -> Column:
    spelt = re.compile(rf"{prefix}[0-9a-f]{{32}}")
    return identifier(
        lambda key: prefix + key.hex(),
        lambda text: bytes.fromhex(text.removeprefix(prefix)) if spelt.fullmatch(text) else None,
        f"{prefix}0123456789abcdef0123456789abcdef",
    )


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _uuid(key: bytes) -> str:
    text = key.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


_MEMORY_ID = identifier(format_id, parse_id, "mem_0123456789abcdef0123456789abcdef")
_EPISODE_ID = identifier(
    _uuid,
    lambda text: bytes.fromhex(text.replace("-", "")) if _UUID.fullmatch(text) else None,
    "01234567-89ab-cdef-0123-456789abcdef",
)
_PATTERN_ID = _prefixed("pat_")
_RECOMMENDATION_ID = _prefixed("rec_")
_CANONICAL = json_text(values.canonical)
_ORDERED = json_text(values.ordered)
_EPISODE = reference("__memoturn_episodes", _EPISODE_ID)
_PATTERN = reference("__memoturn_patterns", _PATTERN_ID)
_RECOMMENDATION = reference("__memoturn_recommendations", _RECOMMENDATION_ID)


def _value_inward(_connection: apsw.Connection, name: str, value: Any) -> bytes:
    try:
        return blob.from_json(value)
    except ValueError as error:
        raise Refused(f"{name}: {error}") from None


_BLOB = Column(lambda _, value: blob.to_json(value), _value_inward)


# --- memories and episodes -----------------------------------------------------------------------


_UNTOLD_SETTINGS = tuple(each.setting for each in EMBEDDED)
"""Rowids, which are found anew."""


def _check_setting(row: Mapping[str, Any]) -> None:
    if row["key"] in _UNTOLD_SETTINGS:
        raise Refused(f"key: {row['key']} is found by each database itself")


def _check_memory(row: Mapping[str, Any]) -> None:
    if row["type"] not in get_args(MemoryType):
        raise Refused(f"type: should be one of {', '.join(get_args(MemoryType))}")
    if row["content"] is None:
        raise Refused("content: is required")
    if row["id"] != memory_key(row["type"], row["topic_key"], row["content"]):
        raise Refused("id: is not that of a memory of this type, topic and content")


class _Episodes(Rows):
    """Their tags are told with them."""

    def taken(self, connection: apsw.Connection, rowid: int, row: Mapping[str, Any]) -> None:
        tags = _object("body", row["body"]).get("tags", [])
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise Refused("body.tags: should be a list of texts")
        connection.executemany(
            "INSERT INTO __memoturn_episode_tags (tag, episode) VALUES (?, ?)",
            [(tag, rowid) for tag in sorted(set(tags))],
        )


class _Steps(Rows):
    """A step's rowid is its episode's and its number."""

    def placed(self, connection: apsw.Connection, record: Record) -> tuple[str, Sequence[Any]]:
        _, (episode, number) = super().placed(connection, record)
        if episode is None or number is None:
            raise Refused(f"{'episode' if episode is None else 'step_number'}: is required")
        return "t.rowid = ?", (episode << _STEP_BITS | number,)

    def place(self, connection: apsw.Connection, row: dict[str, Any]) -> None:  # noqa: ARG002 - others look there
        row["rowid"] = row.pop("episode") << _STEP_BITS | row.pop("step_number")


def _step_number(_connection: apsw.Connection, name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _STEPS:
        raise Refused(f"{name}: should be an integer of 1 to {_STEPS - 1}")
    return value


def _object(name: str, text: str | None) -> dict[str, Any]:
    found = None if text is None else orjson.loads(text)
    if not isinstance(found, dict):
        raise Refused(f"{name}: should be an object")
    return found


class _Patterns(Rows):
    """Their kind is told under another name, for every record has a kind."""

    def place(self, connection: apsw.Connection, row: dict[str, Any]) -> None:  # noqa: ARG002 - others look there
        row["kind"] = row.pop("pattern_kind")


def _text(_connection: apsw.Connection, name: str, value: Any) -> str:
    return _name(name, value)


def _patterns_outward(connection: apsw.Connection, held: bytes) -> list[str]:
    rowids = unpacked(held)
    if not rowids:
        return []
    ids: Any = connection.execute(
        "SELECT rowid, id FROM __memoturn_patterns WHERE rowid IN carray(?)", (bound(rowids),)
    ).fetchall()
    known = dict(ids)
    return [_PATTERN_ID.outward(connection, known[rowid]) for rowid in rowids]


def _patterns_inward(connection: apsw.Connection, name: str, told: Any) -> bytes:
    return packed([_PATTERN.inward(connection, f"{name}[{place}]", id_) for place, id_ in _list(name, told)])


def _candidates_outward(connection: apsw.Connection, held: bytes) -> list[str]:
    return [_PATTERN_ID.outward(connection, held[start : start + 16]) for start in range(0, len(held), 16)]


def _candidates_inward(connection: apsw.Connection, name: str, told: Any) -> bytes:
    return b"".join(_PATTERN_ID.inward(connection, f"{name}[{place}]", id_) for place, id_ in _list(name, told))


def _list(name: str, told: Any) -> Iterator[tuple[int, Any]]:
    if not isinstance(told, list):
        raise Refused(f"{name}: should be a list")
    return enumerate(told)


# --- vectors -------------------------------------------------------------------------------------


class _Vectors(Rows):
    """Those of a collection lie together, and are all of one dimension."""

    def place(self, connection: apsw.Connection, row: dict[str, Any]) -> None:
        found: Any = connection.execute(
            "SELECT id, dimension FROM __memoturn_vector_collections WHERE id = ?", (row["collection"],)
        ).fetchone()
        if found is None:
            raise Refused("collection: is required")
        number, dimension = found
        if row["embedding"] is not None and len(row["embedding"]) != 4 * dimension:
            raise Refused(
                f"embedding: has {len(row['embedding']) // 4} numbers, but those of the collection {dimension}"
            )
        own = rowids(number)
        newest = connection.execute(
            "SELECT max(rowid) FROM __memoturn_vectors WHERE rowid BETWEEN ? AND ?", (own.start, own.stop - 1)
        ).get
        row["rowid"] = own.start if newest is None else int(newest) + 1


def _collection_named(connection: apsw.Connection, name: str, value: Any) -> int:
    found = connection.execute("SELECT id FROM __memoturn_vector_collections WHERE name = ?", (str(value),)).get
    if not isinstance(found, int):
        raise Refused(f"{name}: there is no collection {value!r} here")
    return found


# --- documents -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Collections:
    """Collections of documents, with the paths that are indexed."""

    name: str = "collection"

    def records(self, connection: apsw.Connection) -> Iterator[Record]:
        found: list[Any] = connection.execute("SELECT id, name FROM __memoturn_collections ORDER BY id").fetchall()
        for number, name in found:
            indexed: list[Any] = connection.execute(
                "SELECT path FROM __memoturn_collection_indexes WHERE collection = ? ORDER BY id", (number,)
            ).fetchall()
            yield {"name": name, "indexes": [path for (path,) in indexed]}

    def find(self, connection: apsw.Connection, record: Record) -> Record | None:
        name = _name("name", record.get("name"))
        return next((found for found in self.records(connection) if found["name"] == name), None)

    def take(self, transaction: Transaction, record: Record) -> None:
        _only(record, {"name", "indexes"})
        connection = transaction.connection
        made = documents.find_or_make(connection, record["name"])
        indexes = record.get("indexes", [])
        if not isinstance(indexes, list):
            raise Refused("indexes: should be a list of paths")
        for position, path in enumerate(indexes):
            where = f"indexes[{position}]"
            try:
                documents.index(connection, made, paths.parse(_name(where, path), where))
            except MemoturnError as error:
                raise Refused(str(error)) from None


@dataclass(frozen=True)
class _Documents:
    """The documents of all collections, those of each in the order in which they came."""

    name: str = "document"

    def records(self, connection: apsw.Connection) -> Iterator[Record]:
        found: list[Any] = connection.execute("SELECT id, name FROM __memoturn_collections ORDER BY id").fetchall()
        for number, name in found:
            table = documents.Collection(number, name).table
            rows: Any = connection.execute(f"SELECT json(body) FROM {table} ORDER BY seq")
            for (body,) in rows:
                yield {"collection": name, "body": values.outward_json(body, values.compact)}

    def find(self, connection: apsw.Connection, record: Record) -> Record | None:
        collection, id_, _ = self._place(connection, record)
        body = connection.execute(f"SELECT json(body) FROM {collection.table} WHERE _id = ?", (id_,)).get
        if not isinstance(body, str):
            return None
        return {"collection": collection.name, "body": values.outward_json(body, values.compact)}

    def take(self, transaction: Transaction, record: Record) -> None:
        _only(record, {"collection", "body"})
        connection = transaction.connection
        collection, id_, body = self._place(connection, record)
        if len(body.encode()) > documents.DOCUMENT_BYTES:
            raise Refused(f"body: is over the {documents.DOCUMENT_BYTES} bytes of a document")
        connection.execute(f"INSERT INTO {collection.table} (_id, body) VALUES (?, jsonb(?))", (id_, body))

    def _place(self, connection: apsw.Connection, record: Record) -> tuple[documents.Collection, str, str]:
        name = _name("collection", record.get("collection"))
        collection = documents.find(connection, name)
        if collection is None:
            raise Refused(f"collection: there is no {name!r} here")
        document, body = values.inward_object("body", record.get("body"), values.compact)
        return collection, _name("body._id", document.get("_id")), body


def _name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Refused(f"{field}: should be a text")
    return value


def _only(record: Record, known: set[str]) -> None:
    for name in record:
        if name not in known:
            raise Refused(f"{name}: unknown field")


# --- all of them ---------------------------------------------------------------------------------


KINDS: tuple[Kind, ...] = (
    Rows(
        "setting", "__memoturn_settings", ("key",),
        where=f"t.key NOT IN ({', '.join(map(repr, _UNTOLD_SETTINGS))})", order="t.key", check=_check_setting,
    ),
    Rows("space", "__memoturn_spaces", ("model", "dimension"), untold=frozenset({"id"}), order="t.id"),
    Rows("session", "__memoturn_sessions", ("id",)),
    Rows(
        "turn", "__memoturn_turns", ("session_id", "seq"),
        words=("__memoturn_turns_fts", ("content",)), vectors="__memoturn_turn_vectors",
    ),
    Rows(
        "memory", "__memoturn_memories", ("id",),
        {"id": _MEMORY_ID, "content": _CANONICAL, "superseded_by": _MEMORY_ID},
        words=("__memoturn_memories_fts", ("summary", "keywords")), vectors="__memoturn_memory_vectors",
        embedded=MemoryVectors, check=_check_memory,
    ),
    Rows("kv", "__memoturn_kv", ("ns", "key"), {"value": _BLOB}, order="t.ns, t.key"),
    _Collections(),
    _Documents(),
    Rows("vector_collection", "__memoturn_vector_collections", ("name",), untold=frozenset({"id"}), order="t.id"),
    _Vectors(
        "vector", "__memoturn_vectors", ("collection", "id"),
        {
            "collection": Column(
                lambda _, name: name, _collection_named,
                "(SELECT name FROM __memoturn_vector_collections WHERE id = t.{})",
            ),
            "embedding": VECTOR,
        },
    ),
    _Episodes(
        "episode", "__memoturn_episodes", ("id",), {"id": _EPISODE_ID, "body": _ORDERED},
        words=("__memoturn_episodes_fts", ("description", "words")), vectors="__memoturn_episode_vectors",
        embedded=EpisodeVectors,
    ),
    _Steps(
        "step", "__memoturn_episode_steps", ("episode", "step_number"),
        {
            "episode": Column(
                _EPISODE.outward, _EPISODE.inward,
                f"(SELECT id FROM __memoturn_episodes WHERE rowid = t.rowid >> {_STEP_BITS})",
            ),
            "step_number": Column(lambda _, number: number, _step_number, f"t.rowid & {_STEPS - 1}"),
            "body": _ORDERED,
        },
    ),
    Rows(
        "link", "__memoturn_episode_links", ("episode", "type", "target"),
        {"episode": _EPISODE, "target": _EPISODE}, order="t.episode, t.type, t.target",
    ),
    _Patterns(
        "pattern", "__memoturn_patterns", ("id",),
        {"id": _PATTERN_ID, "body": _ORDERED, "pattern_kind": Column(lambda _, kind: kind, _text, "t.kind")},
        untold=frozenset({"kind"}),
    ),
    Rows(
        "candidate", "__memoturn_pattern_candidates", ("id",),
        {"id": _PATTERN_ID, "episode": _EPISODE}, order="t.id",
    ),
    Rows(
        "evidence", "__memoturn_pattern_evidence", ("episode",),
        {
            "episode": _EPISODE,
            "patterns": Column(_patterns_outward, _patterns_inward),
            "candidates": Column(_candidates_outward, _candidates_inward),
        },
    ),
    Rows(
        "recommendation", "__memoturn_recommendations", ("id",),
        {"id": _RECOMMENDATION_ID, "episode": _EPISODE, "body": _ORDERED},
    ),
    Rows(
        "feedback", "__memoturn_pattern_feedback", ("pattern", "recommendation"),
        {"pattern": _PATTERN, "recommendation": _RECOMMENDATION, "episode": _EPISODE},
        order="t.pattern, t.recommendation",
    ),
)  # fmt: skip

DERIVED = frozenset(
    {
        "__memoturn_txid",
        "__memoturn_memory_vectors",
        "__memoturn_turn_vectors",
        "__memoturn_episode_vectors",
        "__memoturn_episode_tags",
        "__memoturn_collection_indexes",
    }
)
"""Tables that the kinds above tell with other things, and the number of the last transaction."""
