"""A real SQLite database whose commits are read from its WAL as they happen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.connection import PAGE_SIZE, open_database
from memoturn_storage.formats.checksums import PageChecksums
from memoturn_storage.formats.ltx import LtxFile, apply_to_image
from memoturn_storage.formats.wal import (
    FRAME_HEADER,
    HEADER,
    WalCommit,
    WalHeader,
    commits,
    frame_offset,
    read_header,
)
from memoturn_storage.schema import Schema

SCHEMA = Schema(
    (
        "CREATE TABLE items (id INTEGER PRIMARY KEY, value BLOB);"
        "CREATE VIRTUAL TABLE words USING fts5(value);"
        "INSERT INTO words (words, rank) VALUES ('pgsz', 970);",
    )
)


class Captured:
    """A database in `directory`, with an image and a chain of LTX files made of nothing but its commits."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "main.db"
        SCHEMA.create(self.path, ManualAmbient())
        self.image = bytearray(self.path.read_bytes())
        self.checksums = PageChecksums.of_image(self.image, PAGE_SIZE)
        pages = {at // PAGE_SIZE + 1: bytes(self.image[at:][:PAGE_SIZE]) for at in range(0, len(self.image), PAGE_SIZE)}
        self.files = [LtxFile(PAGE_SIZE, len(pages), 1, 1, 0, 0, self.checksums.rolling, pages)]
        self.connection = open_database(self.path)
        self.connection.set_wal_hook(self._note_length)
        self._length = 0
        self._header: WalHeader | None = None
        self._last: WalCommit | None = None

    @property
    def log(self) -> bytes:
        path = self.path.with_name("main.db-wal")
        return path.read_bytes() if path.exists() else b""

    def capture(self) -> list[WalCommit]:
        """Follow what was committed since the last time; to be called before a checkpoint can restart the log."""
        length, self._length = self._length, 0
        if length == 0:
            return []
        log = self.log
        header = read_header(log)
        if self._header is None or header.salts != self._header.salts:
            self._header, self._last = header, None
        first = self._last.end_frame if self._last else 0
        frames = memoryview(log)[frame_offset(first, PAGE_SIZE) : frame_offset(length, PAGE_SIZE)]
        found = commits(frames, header, first, verify=False)
        previous = self._last.checksum if self._last else None
        assert commits(frames, header, first, previous_checksum=previous) == found
        for commit in found:
            before = self.checksums.rolling
            self.checksums.apply(commit.pages, commit.commit)
            txid = self.files[-1].max_txid + 1
            after = self.checksums.rolling
            self.files.append(LtxFile(PAGE_SIZE, commit.commit, txid, txid, 0, before, after, commit.pages))
            apply_to_image(self.image, self.files[-1])
            self._last = commit
        return found

    def checkpointed(self, directory: Path) -> bytes:
        """What SQLite makes of a copy of the file and its log, as they are now."""
        return checkpointed(directory, self.path.read_bytes(), self.log)

    def _note_length(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        self._length = frames
        return apsw.SQLITE_OK


@contextmanager
def captured(directory: Path) -> Iterator[Captured]:
    database = Captured(directory)
    try:
        yield database
    finally:
        database.connection.close()


def checkpointed(directory: Path, image: bytes, log: bytes) -> bytes:
    """The file `image` after SQLite has recovered `log` and folded it in."""
    path = directory / "copy.db"
    path.write_bytes(image)
    path.with_name("copy.db-wal").write_bytes(log)
    connection = apsw.Connection(str(path))
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        return path.read_bytes()
    finally:
        connection.close()


def frames_of(log: bytes) -> list[bytes]:
    size = FRAME_HEADER + PAGE_SIZE
    return [log[at : at + size] for at in range(HEADER, len(log), size)]
