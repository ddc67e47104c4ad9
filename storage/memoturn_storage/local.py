"""The files of a branch on this machine's disk, which are a cache of the object store and more.

Beside the database file and SQLite's `-wal` and `-shm` lies a small one, `{branch}.json`, which says of
which history the file is a copy: its `lineage`, and the `base` that it was restored from. By these a node
that wakes a branch knows whether commits that it finds in the WAL, and not in the object store, continue
the manifest (they are kept and shipped) or belong to a history that was left: rewound, or carried on by
another owner (they are discarded).

Nothing here waits for the disk, for the object store has what matters. So it also says in which `boot` of
the machine the file was written: after another start, which a power cut may have been, the file is believed
only once its checksum was compared with the manifest's. Written by
`memoturn_storage.waking` alone, with the lease held; `memoturn_storage.upkeep` looks at what is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from memoturn_storage.ambient import Ambient
from memoturn_storage.manifest import BranchRef, Manifest


@dataclass(frozen=True, slots=True)
class Base:
    """The manifest from which a file was restored, as far as it tells it from every other."""

    lineage: str
    epoch: int
    head_txid: int

    @classmethod
    def of(cls, manifest: Manifest) -> Base:
        return cls(manifest.lineage, manifest.epoch, manifest.head_txid)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a local file is a copy of."""

    lineage: str
    base: Base | None
    """None where the file was made here, from nothing."""
    boot: str
    """As of `Ambient.boot`."""

    def continues(self, manifest: Manifest) -> bool:
        """Whether everything in the manifest is in the local file too, and the file may hold more."""
        begun = manifest.epoch > 0  # an empty manifest of epoch 0 only says that there is a database
        return manifest.lineage == self.lineage or Base.of(manifest) == self.base or (self.base is None and not begun)


def local_branches(directory: Path) -> Iterator[BranchRef]:
    """The branches that have a file in the directory `databases` of a node."""
    for path in directory.glob("??/*/*.db"):
        yield BranchRef(path.parent.name, path.stem)


class LocalFiles:
    """The files of one branch in the directory `databases` of a node."""

    def __init__(self, directory: Path, ref: BranchRef) -> None:
        folder = directory / ref.uuid[:2] / ref.uuid
        self.database = folder / f"{ref.branch}.db"
        self.wal = folder / f"{ref.branch}.db-wal"
        self._shared_memory = folder / f"{ref.branch}.db-shm"
        self._origin = folder / f"{ref.branch}.json"

    def exist(self) -> bool:
        # A power cut can leave a file without content: nothing was shipped of it or everything.
        return self.database.exists() and self.database.stat().st_size > 0

    def has_log(self) -> bool:
        """Whether there are commits in the log, which may not be shipped."""
        return self.wal.exists() and self.wal.stat().st_size > 0

    def origin(self) -> Origin | None:
        """What the file is a copy of; None where nothing readable says so."""
        try:
            body = orjson.loads(self._origin.read_bytes())
            base = None if body["base"] is None else Base(**body["base"])
            return Origin(body["lineage"], base, str(body["boot"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def set_origin(self, origin: Origin, ambient: Ambient) -> None:
        """Say what the file is, or is about to be, a copy of.

        Where a power cut takes this, the file is taken for a stranger and restored.
        """
        self.database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self._origin, orjson.dumps(origin), ambient)

    def install(self, image: bytes | bytearray, origin: Origin, ambient: Ambient) -> None:
        """Make the file from an image. What was there before must have been discarded."""
        self.set_origin(origin, ambient)
        _write(self.database, image, ambient)

    def discard(self) -> None:
        """Remove the files. In this order a WAL never meets a database file that it does not belong to."""
        for path in (self.wal, self._shared_memory, self.database, self._origin):
            path.unlink(missing_ok=True)


def _write(path: Path, data: bytes | bytearray, ambient: Ambient) -> None:
    temporary = path.with_name(f"{path.name}.{ambient.token(6).hex()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
