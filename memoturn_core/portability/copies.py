"""Copies of one state, kept on this machine while somebody fetches them part by part, or sends them.

A cursor names a copy, its transaction and a place in it; the processes on a data directory share the copies. One
is removed once it was fetched to its end or restored, and after an hour in which nobody has asked for it. Each
database has its own, so that a cursor is of no use for another. Called by `records` and `backups`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from memoturn_core.profiles import Profile
from memoturn_schemas.errors import Conflict

_FORGOTTEN_AFTER_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Place:
    """What a cursor says."""

    copy: str
    txid: int
    offset: int

    @classmethod
    def of(cls, cursor: str) -> Self:
        copy, txid, offset = cursor.split(".")
        return cls(copy, int(txid), int(offset))

    def cursor_at(self, offset: int) -> str:
        return f"{self.copy}.{self.txid}.{offset}"


class Copies:
    """Those of one branch."""

    def __init__(self, profile: Profile) -> None:
        self._branch = hashlib.sha256(f"{profile.name}@{profile.address.branch}".encode()).hexdigest()[:32]
        self._directory = profile.node.directory / "copies"
        self._ambient = profile.node.ambient

    def new(self) -> str:
        """The name of a copy that is to be made; those that were forgotten are removed."""
        self._sweep()
        return self._ambient.token(16).hex()

    def path(self, copy: str) -> Path:
        return self._directory / f"{self._branch}-{copy}"

    @contextmanager
    def made(self, copy: str) -> Iterator[Path]:
        """The file of a new copy, which is removed where the block fails."""
        path = self.path(copy)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            yield path
            self.touch(copy)
        except BaseException:
            self.remove(copy)
            raise

    def read(self, place: Place, count: int) -> tuple[bytes, int]:
        """Bytes from a place on, and the size of the whole.

        Raises:
            Conflict: the copy is gone.
        """
        try:
            with self.path(place.copy).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(place.offset)
                data = file.read(count)
        except FileNotFoundError:
            raise Conflict("cursor: what it was to go on with is gone; begin again") from None
        self.touch(place.copy)
        return data, size

    def touch(self, copy: str) -> None:
        """It was used now, by the node's clock."""
        now = self._ambient.now_ms() / 1_000
        with suppress(FileNotFoundError):  # somebody else has fetched it to its end
            os.utime(self.path(copy), (now, now))

    def remove(self, copy: str) -> None:
        self.path(copy).unlink(missing_ok=True)

    def _sweep(self) -> None:
        before = self._ambient.now_ms() - _FORGOTTEN_AFTER_MS
        for path in self._directory.glob("*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime * 1_000 < before:
                    path.unlink()
