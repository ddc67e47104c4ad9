"""Opening a database file the one way Memoturn opens it.

Every connection to a file comes from `open_database`, so that the pragmas on which durability and
capture rest are set in one place; the catalogue folds its WAL with a `FoldingLog`, a
branch's file as `memoturn_storage.handle` says.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import apsw

PAGE_SIZE = 1024
"""Bytes. The smallest page that SQLite takes well ships the fewest bytes a memory."""

BUSY_TIMEOUT_MS = 5_000
"""How long a writer waits for another process on the same file."""

CHECKPOINT_FRAMES = 4_096
"""Frames in the WAL (4 MiB of pages) above which it is folded back into the file."""


def turn_lookaside_off() -> None:
    """Save the 86 KB that SQLite otherwise sets aside for each connection, process-wide.

    SQLite takes this setting only before its first use, so this does nothing where the process has
    connections already (a program that embeds us may).
    """
    if apsw.connections():
        return
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_LOOKASIDE, 0, 0)
    apsw.initialize()


def open_database(path: Path, *, sync: bool = True) -> apsw.Connection:
    """A writer connection to an existing file (`memoturn_storage.schema` makes new ones), in WAL mode.

    SQLite makes no checkpoints of its own on it. Without `sync` it never waits for the disk either: a process
    that dies loses nothing, but after a power cut nothing in the file may be believed unseen.

    Raises:
        apsw.Error: CantOpen, NotADB, Corrupt, Busy or IOError.
    """
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        configure(connection)
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
        connection.execute(f"PRAGMA synchronous={'NORMAL' if sync else 'OFF'}")
    except BaseException:
        connection.close()
        raise
    return connection


class FoldingLog:
    """The WAL of a connection from `open_database`: knows its length and folds it back when it is long.

    It takes the connection's WAL hook, which `PRAGMA wal_autocheckpoint` would silently remove.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._frames = 0
        connection.set_wal_hook(self._note_length)

    def fold_if_long(self) -> None:
        """To be called after a commit; never waits."""
        if self._frames < CHECKPOINT_FRAMES:
            return
        # What another process still reads, or is folding itself, is left for later.
        with suppress(apsw.BusyError):
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._frames = 0

    def _note_length(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        self._frames = frames
        return apsw.SQLITE_OK


def open_memory(image: bytes) -> apsw.Connection:
    """A private in-memory database that starts as the file `image`."""
    connection = apsw.Connection(":memory:")
    configure(connection)
    connection.deserialize("main", rollback_journal_mode(image))
    return connection


def configure(connection: apsw.Connection) -> None:
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    connection.execute("PRAGMA temp_store=MEMORY")


# Bytes 18 and 19 of the header say which journal the file uses: 1 a rollback journal, 2 a WAL
# (https://sqlite.org/fileformat2.html#file_format_version_numbers). An in-memory database takes
# only the first; a file that is born with the second needs no statement to switch it over.
def wal_mode(image: bytes) -> bytes:
    return image[:18] + b"\x02\x02" + image[20:]


def rollback_journal_mode(image: bytes) -> bytes:
    return image[:18] + b"\x01\x01" + image[20:]
