"""A backup on disk: a directory with a database's file, the same as lines of JSON, and a manifest that vouches.

    manifest.json    what is in the others: names, checksums, counts, and a checksum of itself
    database.db      an ordinary SQLite file
    records.jsonl    an export of it (`exporting`)

A directory that has its name is complete: it is put together under another one. Called by `memoturn_mcp.cli.backup`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import orjson

from memoturn_core.portability import exporting, images
from memoturn_schemas.errors import InvalidRequest

MANIFEST, DATABASE, RECORDS = "manifest.json", "database.db", "records.jsonl"
_FORMAT = 1
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    database: str
    branch: str
    txid: int
    created_at: int
    """Unix milliseconds."""
    schema: int
    """The version of the tables."""
    rows: Mapping[str, int]
    """By table."""
    records: int
    """Lines of the export but its first and its last."""
    sizes: Mapping[str, int]
    """Bytes of each file."""
    sha256: Mapping[str, str]

    @property
    def size(self) -> int:
        return sum(self.sizes.values())

    def encoded(self) -> bytes:
        """The manifest's file: what it says, and a checksum of that."""
        body = {"format": _FORMAT} | {name: getattr(self, name) for name in self.__slots__}
        digest = hashlib.sha256(orjson.dumps(body)).hexdigest()
        return orjson.dumps(body | {"checksum": digest}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The manifest of a backup.

        Raises:
            InvalidRequest: there is none, or it is damaged.
        """
        try:
            data = (directory / MANIFEST).read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{MANIFEST}: cannot be read: {error.strerror}") from None
        try:
            body: dict[str, Any] = orjson.loads(data)
            version = body.pop("format")
            del body["checksum"]
            found = cls(**body)
            sound = version == _FORMAT and found.encoded() == data
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidRequest(f"{MANIFEST}: is damaged, or of a newer program") from None
        if not sound:
            raise InvalidRequest(f"{MANIFEST}: is damaged, or of a newer program: its checksum is another")
        return found


def complete(directory: Path, database: str, branch: str, txid: int, now_ms: int) -> Manifest:
    """Add to a database's file, which lies in the directory, what makes it a backup; all of it is then on the disk.

    Raises:
        InvalidRequest: the file is not sound.
    """
    with images.opened(directory / DATABASE) as connection:
        images.check(connection)
        rows = images.rows_of(connection)
        schema = connection.pragma("user_version")
        lines = 0
        with _created(directory / RECORDS) as file:
            for line in exporting.lines(connection):
                file.write(line)
                lines += 1
    manifest = Manifest(
        database=database,
        branch=branch,
        txid=txid,
        created_at=now_ms,
        schema=cast("int", schema),
        rows=rows,
        records=lines - 2,
        sizes={name: (directory / name).stat().st_size for name in (DATABASE, RECORDS)},
        sha256={name: sha256_of(directory / name) for name in (DATABASE, RECORDS)},
    )
    with _created(directory / MANIFEST) as file:
        file.write(manifest.encoded())
    for name in (DATABASE, RECORDS, MANIFEST, "."):
        _flush(directory / name)
    return manifest


def verify(directory: Path) -> Manifest:
    """What a backup holds, once everything in it was found to be as it was made.

    Raises:
        InvalidRequest: names the file, and what is wrong with it.
    """
    manifest = Manifest.read(directory)
    for name in (DATABASE, RECORDS):
        try:
            size, digest = (directory / name).stat().st_size, sha256_of(directory / name)
        except OSError as error:
            raise InvalidRequest(f"{name}: cannot be read: {error.strerror}") from None
        if size != manifest.sizes.get(name):
            raise InvalidRequest(f"{name}: has {size} bytes instead of {manifest.sizes.get(name)}")
        if digest != manifest.sha256.get(name):
            raise InvalidRequest(f"{name}: is damaged: its SHA-256 is not that of the manifest")
    try:
        with images.opened(directory / DATABASE) as connection:
            images.check(connection)
            rows = images.rows_of(connection)
    except InvalidRequest as error:
        raise InvalidRequest(f"{DATABASE}: {error}") from None
    if rows != manifest.rows:
        differing = sorted(
            name for name in rows.keys() | manifest.rows.keys() if rows.get(name) != manifest.rows.get(name)
        )
        raise InvalidRequest(f"{DATABASE}: has other rows than the manifest says in {', '.join(differing)}")
    return manifest


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _created(path: Path) -> Any:
    # Nobody but the owner may read memories.
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
