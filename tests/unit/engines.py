"""An engine over databases of one table, jobs to give it, and a way to make jobs wait together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import Ambient, ManualAmbient, SystemAmbient
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.leases.file import FileLeases
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.store import ObjectStore
from memoturn_storage.schema import Schema

ITEMS = Schema(("CREATE TABLE items (id INTEGER PRIMARY KEY, value);",))
WAIT = 20
"""Seconds after which something that should have happened counts as hung."""

RUNAWAY_SELECT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
RUNAWAY_INSERT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO items (value) SELECT i FROM n"
)

inline_and_threaded = pytest.mark.parametrize("threads", [0, 1, 2])


class Hurried(ManualAmbient):
    """A clock that moves on by a second whenever it is looked at, so that no budget outlasts a runaway."""

    def monotonic(self) -> float:
        self.advance(seconds=1)
        return super().monotonic()


def engine(
    directory: Path,
    *,
    schema: Schema = ITEMS,
    ambient: Ambient | None = None,
    store: ObjectStore | None = None,
    **limits: Any,
) -> closing[Engine]:
    """An engine whose files, leases and (without `store`) objects lie in `directory`, as those of a node do."""
    world = ambient or SystemAmbient()
    databases = directory / "databases"
    objects = store or FileStore(directory / "objects", world, sync=False)
    return closing(Engine(schema, world, databases, objects, FileLeases(databases, "this one"), Limits(**limits)))


def files(directory: Path, database: BranchRef) -> LocalFiles:
    """Where that engine has the database's files."""
    return LocalFiles(directory / "databases", database)


def put(value: object) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        transaction.connection.execute("INSERT INTO items (value) VALUES (?)", (value,))

    return work


def run(sql: str) -> Callable[[Transaction | Snapshot], list[Any]]:
    return lambda state: state.connection.execute(sql).fetchall()


def refuse(transaction: Transaction) -> None:
    put("refused")(transaction)
    raise InvalidRequest("this one never passes")


def values(snapshot: Snapshot) -> list[Any]:
    return [value for (value,) in snapshot.connection.execute("SELECT value FROM items ORDER BY id")]


@contextmanager
def held(running: Engine, database: BranchRef) -> Iterator[None]:
    """Keep the thread of `database` busy, so that what is queued meanwhile is there together."""
    entered, released = threading.Event(), threading.Event()

    def hold(_: Snapshot) -> None:
        entered.set()
        assert released.wait(WAIT)

    holding = running.read(database, hold)
    assert entered.wait(WAIT)
    try:
        yield
    finally:
        released.set()
        holding.result(WAIT)
