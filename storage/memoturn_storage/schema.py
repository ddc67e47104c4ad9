"""What a database file must contain, as numbered migrations, and how a file gets it.

Storage knows no table but its own, `__memoturn_txid`; whoever composes the program passes the
migrations of the layers above. The version of a file is its `user_version`:

- a new file is a copy of a template at the newest version, made in one atomic step;
- a file of an older version is read through a migrated copy in memory, without being written, and
  is migrated inside its first write transaction, also after a rewind has brought an old version back;
- a file of a newer version is refused: this program does not know what a write must keep.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import apsw

from memoturn_schemas.errors import Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.connection import PAGE_SIZE, configure, open_memory, wal_mode

APPLICATION_ID = 0x4D54524E
"""`MTRN`: lets `file(1)` and people tell these files from other SQLite databases."""

_STORAGE_TABLES = "CREATE TABLE __memoturn_txid (txid INTEGER NOT NULL); INSERT INTO __memoturn_txid VALUES (0);"


@dataclass(frozen=True)
class Schema:
    """The migrations in order; the version of a file is how many of them it has."""

    migrations: Sequence[str]

    @property
    def version(self) -> int:
        return len(self.migrations)

    def version_of(self, connection: apsw.Connection) -> int:
        version = connection.execute("PRAGMA user_version").get
        if not isinstance(version, int) or version > self.version:
            raise Unavailable(
                f"the database has schema version {version}, newer than this program's {self.version}; upgrade Memoturn"
            )
        return version

    def migrate(self, connection: apsw.Connection) -> None:
        """Bring the file to the newest version; inside the caller's transaction where there is one."""
        version = self.version_of(connection)
        if version < self.version:
            for migration in self.migrations[version:]:
                connection.execute(migration)
            connection.pragma("user_version", self.version)

    @cached_property
    def template(self) -> bytes:
        """The image of a new file, in WAL mode, with txid 0."""
        connection = apsw.Connection(":memory:")
        try:
            configure(connection)
            connection.pragma("page_size", PAGE_SIZE)
            connection.pragma("application_id", APPLICATION_ID)
            connection.execute(_STORAGE_TABLES)
            self.migrate(connection)
            return wal_mode(connection.serialize("main"))
        finally:
            connection.close()

    def create(self, path: Path, ambient: Ambient) -> None:
        """Make the file at `path` unless another process has: it appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{ambient.token(6).hex()}.tmp")
        try:
            temporary.write_bytes(self.template)
            os.link(temporary, path)
        except FileExistsError:
            return
        finally:
            temporary.unlink(missing_ok=True)

    def migrated_copy(self, connection: apsw.Connection) -> apsw.Connection:
        """An in-memory copy of an older file, at the newest version."""
        copy = open_memory(connection.serialize("main"))
        try:
            self.migrate(copy)
        except BaseException:
            copy.close()
            raise
        return copy

    def empty(self) -> apsw.Connection:
        """What a reader sees of a database that nobody has written to."""
        return open_memory(self.template)
