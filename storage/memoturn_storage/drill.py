"""The restore drill: whether what the object store has of a branch would really bring it back.

It restores the head as a new machine would, every checksum verified on the way, opens the result in
memory, and has SQLite check the file and every full-text index in it. Damage is a result, not an
exception, so that a pass over many databases comes to its end. Called by the upkeep of a node and by
`memoturn doctor`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import apsw

from memoturn_schemas.errors import BranchNotFound, Internal, Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.connection import open_memory
from memoturn_storage.manifest import BranchRef
from memoturn_storage.manifests import Manifests
from memoturn_storage.restore import Restorer

_FTS5 = re.compile(r"\busing\s+[\"'`\[]?fts5\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DrillResult:
    """What a drill found."""

    ref: BranchRef
    ok: bool | None
    """None where nothing was found out: the store did not answer, or the branch is gone."""
    txid: int
    """Of the head; 0 where nothing was ever written, or the manifest could not be read."""
    seconds: float
    bytes: int
    """Of the restored file."""
    problem: str | None = None
    """What is wrong, with the object that is to blame."""


class Drill:
    """Tries restores out.

    Args:
        restorer: reads the objects and verifies their checksums.
    """

    def __init__(self, manifests: Manifests, restorer: Restorer, ambient: Ambient) -> None:
        self._manifests = manifests
        self._restorer = restorer
        self._ambient = ambient

    def run(self, ref: BranchRef) -> DrillResult:
        """Restore the branch's head and check it; nothing is written anywhere."""
        began_at = self._ambient.monotonic()
        ok: bool | None = None
        txid, size = 0, 0
        problem: str | None
        try:
            manifest = self._manifests.require(ref).manifest
            txid = manifest.head_txid
            image = b"" if manifest.empty else bytes(self._restorer.image(manifest))
            size = len(image)
            fault = fault_of(image) if image else None
            ok = fault is None
            problem = None if ok else f"the state of {ref.manifest_key} after transaction {txid} is damaged: {fault}"
        except (Unavailable, BranchNotFound) as error:
            problem = str(error)
        except Internal as error:
            ok, problem = False, str(error)
        return DrillResult(ref, ok, txid, self._ambient.monotonic() - began_at, size, problem)


def fault_of(image: bytes) -> str | None:
    """What SQLite finds wrong with a database file, its full-text indexes included; None where it is sound."""
    try:
        connection = open_memory(image)
        try:
            found = connection.execute("PRAGMA integrity_check(1)").get
            if found != "ok":
                return str(found)
            for name, statement in connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"):
                if statement is not None and _FTS5.search(statement):
                    quoted = '"' + name.replace('"', '""') + '"'
                    connection.execute(f"INSERT INTO {quoted}({quoted}) VALUES ('integrity-check')")
        finally:
            connection.close()
    except apsw.Error as error:
        return str(error)
    return None
