"""Collections as tables: documents as JSONB in order of insertion, and indexes on paths in them.

A collection's name is never part of SQL: the registry gives it a number, and its table is named by that.
Called by `documents`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import apsw
import orjson
from ulid import ULID

from memoturn_core.documents import paths
from memoturn_core.documents.filters import Condition
from memoturn_core.documents.updates import Update
from memoturn_schemas.documents import CollectionEntry
from memoturn_schemas.errors import AlreadyExists, Conflict, PayloadTooLarge
from memoturn_storage.ambient import Ambient
from memoturn_storage.handle import Transaction

INDEX_LIMIT = 64
"""Indexes of a collection at most; every write pays for each."""

DOCUMENT_BYTES = 16 << 20
ANSWER_BYTES = 32 << 20
"""As JSON. A document is less, so that each can be read alone."""


@dataclass(frozen=True, slots=True)
class Collection:
    number: int
    name: str

    @property
    def table(self) -> str:
        return f"__memoturn_docs_{self.number}"


def find(connection: apsw.Connection, name: str) -> Collection | None:
    number = connection.execute("SELECT id FROM __memoturn_collections WHERE name = ?", (name,)).get
    return None if number is None else Collection(cast(int, number), name)


def find_or_make(connection: apsw.Connection, name: str) -> Collection:
    found = find(connection, name)
    if found is not None:
        return found
    connection.execute("INSERT INTO __memoturn_collections (name) VALUES (?)", (name,))
    made = Collection(connection.last_insert_rowid(), name)
    # _id has no type, for a column of texts would turn the number that a filter asks for into one.
    connection.execute(f"CREATE TABLE {made.table} (seq INTEGER PRIMARY KEY, _id NOT NULL UNIQUE, body BLOB NOT NULL)")
    return made


def every(connection: apsw.Connection) -> list[CollectionEntry]:
    """All collections by name, with their indexes in the order of their making."""
    found: list[Any] = connection.execute("SELECT id, name FROM __memoturn_collections ORDER BY name").fetchall()
    return [
        CollectionEntry(
            name=name,
            documents=cast(int, connection.execute(f"SELECT count(*) FROM {Collection(number, name).table}").get),
            indexes=_indexes(connection, number),
        )
        for number, name in found
    ]


# --- documents -----------------------------------------------------------------------------------


def insert(transaction: Transaction, collection: Collection, documents: Sequence[dict[str, Any]]) -> list[str]:
    """Add documents to the end; their ids, new ones included.

    Raises:
        AlreadyExists: one of the ids is taken.
        PayloadTooLarge: a document is over the limit.
    """
    connection = transaction.connection
    statement = f"INSERT INTO {collection.table} (_id, body) VALUES (?, jsonb(?))"
    ids: list[str] = []
    for index, document in enumerate(documents):
        id_ = document.get("_id")
        if id_ is None:
            id_ = new_id(transaction.ambient)
            document = {"_id": id_, **document}
        body = orjson.dumps(document)
        _require_small(body, f"docs[{index}]")
        try:
            connection.execute(statement, (id_, body.decode()))
        except apsw.ConstraintError:
            raise AlreadyExists(f"docs[{index}]._id: {collection.name} has a document {id_!r}") from None
        ids.append(id_)
    return ids


def select(
    connection: apsw.Connection, collection: Collection, condition: Condition, order: str, limit: int, skip: int
) -> list[dict[str, Any]]:
    """The documents that match.

    Raises:
        PayloadTooLarge: together they are over the limit of an answer.
    """
    count = len(condition.parameters)
    rows = connection.execute(
        f"SELECT CAST(json(body) AS BLOB) FROM {collection.table} WHERE {condition.sql} ORDER BY {order}"
        f" LIMIT +?{count + 1} OFFSET +?{count + 2}",
        (*condition.parameters, limit, skip),
    )
    documents = []
    size = 0
    for (body,) in cast("Any", rows):
        size += len(body)
        if size > ANSWER_BYTES:
            raise PayloadTooLarge(f"limit: the documents are over the {ANSWER_BYTES} bytes of an answer; ask for fewer")
        documents.append(orjson.loads(body))
    return documents


def update(
    connection: apsw.Connection, collection: Collection, condition: Condition, change: Update, *, multi: bool
) -> int:
    """Change those that match, or the first of them; how many are different now.

    Raises:
        InvalidRequest: the update does not fit one of them.
        PayloadTooLarge: one of them would be over the limit of a document.
    """
    matching = cast("list[tuple[int]]", _matching(connection, collection, condition, multi=multi))
    modified = 0
    for (seq,) in matching:
        before = cast(
            bytes,
            connection.execute(f"SELECT CAST(json(body) AS BLOB) FROM {collection.table} WHERE seq = ?", (seq,)).get,
        )
        document = orjson.loads(before)
        change.apply(document)
        after = orjson.dumps(document)
        if after != before:
            _require_small(after, f"document {document['_id']!r}")
            connection.execute(f"UPDATE {collection.table} SET body = jsonb(?) WHERE seq = ?", (after.decode(), seq))
            modified += 1
    return modified


def delete(connection: apsw.Connection, collection: Collection, condition: Condition, *, multi: bool) -> int:
    """Remove those that match, or the first of them; how many."""
    matching = _matching(connection, collection, condition, multi=multi)
    connection.executemany(f"DELETE FROM {collection.table} WHERE seq = ?", matching)
    return len(matching)


def _matching(connection: apsw.Connection, collection: Collection, condition: Condition, *, multi: bool) -> list[Any]:
    limit = "" if multi else " LIMIT 1"
    return connection.execute(
        f"SELECT seq FROM {collection.table} WHERE {condition.sql} ORDER BY seq{limit}", condition.parameters
    ).fetchall()


def new_id(ambient: Ambient) -> str:
    """A ULID of now."""
    return str(ULID(ambient.now_ms().to_bytes(6, "big") + ambient.token(10)))


def _require_small(body: bytes, which: str) -> None:
    if len(body) > DOCUMENT_BYTES:
        raise PayloadTooLarge(f"{which}: is over the {DOCUMENT_BYTES} bytes of a document")


# --- indexes -------------------------------------------------------------------------------------


def index(connection: apsw.Connection, collection: Collection, path: paths.Path) -> None:
    """Have an index on a path, for the documents that are there too.

    Raises:
        Conflict: the collection has as many as it may.
    """
    existing = _indexes(connection, collection.number)
    if path.is_id or path.text in existing:
        return
    if len(existing) >= INDEX_LIMIT:
        raise Conflict(f"path: {collection.name} has {INDEX_LIMIT} indexes, and may not have more")
    connection.execute(
        "INSERT INTO __memoturn_collection_indexes (collection, path) VALUES (?, ?)", (collection.number, path.text)
    )
    name = f"{collection.table}_by_{connection.last_insert_rowid()}"
    connection.execute(f"CREATE INDEX {name} ON {collection.table} ({path.value})")


def _indexes(connection: apsw.Connection, number: int) -> list[str]:
    found: list[Any] = connection.execute(
        "SELECT path FROM __memoturn_collection_indexes WHERE collection = ? ORDER BY id", (number,)
    ).fetchall()
    return [path for (path,) in found]
