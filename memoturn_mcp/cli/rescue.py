"""Getting a branch back out of the object store: into a SQLite file, or into LTX files for other tools.

Only the object store is read: the catalogue's entry, the branch's manifest, the objects that this names. No
lease is taken, nothing is woken or shipped, and the data directory may be gone; so what an owner has not
shipped yet is not in it. Every checksum is verified on the way. Called by `storage`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from memoturn_core.address import MAIN, Address
from memoturn_core.node import Node
from memoturn_core.operations import Reply
from memoturn_mcp.cli.printable import one_line
from memoturn_schemas.errors import (
    AlreadyExists,
    BranchNotFound,
    Conflict,
    DatabaseNotFound,
    InvalidRequest,
    MemoturnError,
    Unavailable,
)
from memoturn_storage.branching import Moment
from memoturn_storage.catalog import NAMES_PREFIX, Entry
from memoturn_storage.drill import Drill, fault_of
from memoturn_storage.formats.ltx import LtxFile, encode
from memoturn_storage.manifest import BranchRef, Manifest, Plan, Position
from memoturn_storage.objects.store import ObjectMissing
from memoturn_storage.restore import Damaged, Restorer

_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database file; of another file, it would be read into the new one."""


def restore(node: Node, address: Address, moment: str | None, out: str, *, force: bool) -> Reply:
    """Make the SQLite file `out` of the state at `moment`, or of the newest that was shipped.

    Raises:
        AlreadyExists: `out` is there, and not `force`.
        DatabaseNotFound, BranchNotFound: the object store knows no such thing.
        Conflict: nothing was shipped yet, or the moment is not in the history.
        Damaged: an object is missing or not what the manifest says; or SQLite finds the state unsound.
        Unavailable: the store does not answer, or `out` cannot be written.
    """
    began_at = node.ambient.monotonic()
    file = Path(out)
    _refuse_taken(file, force)
    manifest, end = _found(node, address, moment)
    image = bytes(node.engine.restorer.image(manifest, end.txid))
    fault = fault_of(image)
    if fault is not None:
        damaged = Damaged(f"the state after transaction {end.txid} is complete and unsound: {fault}")
        damaged.add_note("`memoturn storage segments` writes it all the same, and with --at an earlier state")
        raise damaged
    _write(node, file, image, force)
    seconds = node.ambient.monotonic() - began_at
    value = {
        "database": address.database,
        "branch": address.branch,
        "txid": end.txid,
        "at": end.at,
        "bytes": len(image),
        "seconds": round(seconds, 3),
    }
    return Reply(value, end.txid)


def drill(node: Node, address: Address) -> Reply:
    """Try out whether the newest state that was shipped would come back: `status` ok, damaged or unknown, and why.

    Raises:
        DatabaseNotFound, BranchNotFound, Conflict, Unavailable: as `restore`.
    """
    manifest, _ = _found(node, address, None)
    found = Drill(node.engine.manifests, node.engine.restorer, node.ambient).run(manifest.ref)
    value = {
        "database": address.database,
        "branch": address.branch,
        "status": "unknown" if found.ok is None else "ok" if found.ok else "damaged",
        "problem": found.problem,
        "txid": found.txid,
        "bytes": found.bytes,
        "seconds": round(found.seconds, 3),
    }
    return Reply(value, found.txid)


def write_segments(node: Node, address: Address, moment: str | None, out: str, *, whole: bool) -> Reply:
    """Write the snapshot and the transactions after it that lead to `moment` into the directory `out`.

    The names of the files sort as they have to be applied. With `whole` they begin at the oldest snapshot
    from which the history leads there without a gap, otherwise at the newest.

    Raises:
        As `restore`; InvalidRequest: `out` is no directory. What was written before an object turned out
        to be damaged stays, and is sound.
    """
    directory = Path(out)
    with _writing(directory):
        if directory.is_dir() and any(directory.iterdir()):
            raise AlreadyExists(f"--out: {one_line(out)} is not empty; give a directory that is, or a new one")
    manifest, end = _found(node, address, moment)
    plan = _plan(manifest, end.txid, whole)
    with _writing(directory):
        directory.mkdir(mode=0o700, exist_ok=True)
    files = size = 0
    reached = 0
    try:
        for file in _files(node, manifest, plan, end):
            data = encode(file)
            with _writing(directory):
                _create(directory / f"{file.min_txid:016x}-{file.max_txid:016x}.ltx", data)
            files, size, reached = files + 1, size + len(data), file.max_txid
    except MemoturnError as error:
        if reached:
            error.add_note(f"the files up to transaction {reached} are written, and sound")
        raise
    value = {
        "database": address.database,
        "branch": address.branch,
        "snapshot_txid": plan.snapshot.txid,
        "txid": end.txid,
        "at": end.at,
        "files": files,
        "bytes": size,
    }
    return Reply(value, end.txid)


# --- in the object store -------------------------------------------------------------------------


def _found(node: Node, address: Address, moment: str | None) -> tuple[Manifest, Position]:
    """The branch's manifest, and where in its history `moment` is."""
    ref = BranchRef(_uuid(node, address), address.branch)
    held = node.engine.manifests.read(ref)
    if held is None or held.manifest.deleted_at is not None:
        if ref.branch != MAIN:
            raise BranchNotFound(f"{address.database} has no branch {ref.branch} in the object store")
        held = None
    if held is None or held.manifest.empty:
        raise Conflict(f"the object store knows {address.database} by name, and nothing of {ref.branch} was shipped")
    manifest = held.manifest
    txid = manifest.head_txid if moment is None else node.branching.resolve(manifest, Moment.of(moment))
    return manifest, node.engine.restorer.position(manifest, txid)


def _uuid(node: Node, address: Address) -> str:
    # Not by the catalogue itself, which would note in its index on this machine what it finds.
    key = f"{NAMES_PREFIX}{address.database}"
    try:
        entry = Entry.decode(node.store.get(key).data, key)
    except ObjectMissing:
        missing = DatabaseNotFound(f"the object store has no database {address.database}")
        missing.add_note("MEMOTURN_OBJECT_STORE names the object store; without it, it is in the data directory")
        raise missing from None
    if not entry.exists(node.ambient.now_ms()):
        raise DatabaseNotFound(f"the database {address.database} was deleted")
    return entry.uuid


def _plan(manifest: Manifest, txid: int, whole: bool) -> Plan:
    if whole:
        for snapshot in manifest.snapshots:
            with suppress(Conflict):  # a gap in the history
                return replace(manifest, snapshots=(snapshot,)).plan(txid)
    return manifest.plan(txid)


def _files(node: Node, manifest: Manifest, plan: Plan, end: Position) -> Iterator[LtxFile]:
    """What the plan consists of; its last file leads to `end`."""
    checksum: int | None = None
    for file in Restorer(node.store).files(plan):  # one object at a time: a whole history may be large
        yield file
        checksum = file.post_apply
    if checksum != end.checksum:
        raise Damaged(f"{manifest.ref.manifest_key}: its objects do not lead to transaction {end.txid}")


# --- on the disk ---------------------------------------------------------------------------------


def _refuse_taken(file: Path, force: bool) -> None:
    with _writing(file):
        if file.is_dir():
            raise InvalidRequest(f"--out: {one_line(str(file))} is a directory; give a file")
        taken = [path for path in (file, *_beside(file)) if path.exists()]
    if taken and not force:
        refused = AlreadyExists(f"--out: {one_line(str(taken[0]))} exists")
        refused.add_note("--force replaces it; a program that has it open must be stopped before")
        raise refused


def _write(node: Node, file: Path, image: bytes, force: bool) -> None:
    """Give the whole file its name at once, and only once it is on the disk."""
    temporary = file.with_name(f".{file.name}.{node.ambient.token(6).hex()}.tmp")
    with _writing(file):
        try:
            _create(temporary, image, sync=True)
            if force:
                for path in _beside(file):
                    path.unlink(missing_ok=True)
                temporary.replace(file)
            else:
                file.hardlink_to(temporary)  # fails where somebody has made it meanwhile
        finally:
            temporary.unlink(missing_ok=True)


def _beside(file: Path) -> list[Path]:
    return [file.with_name(f"{file.name}{suffix}") for suffix in _BESIDE]


def _create(path: Path, data: bytes, *, sync: bool = False) -> None:
    # Nobody but the owner may read memories.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say of what the operating system refuses that it is about `--out`."""
    try:
        yield
    except FileExistsError:
        raise AlreadyExists(f"--out: {one_line(str(path))} exists") from None
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise InvalidRequest(f"--out: {one_line(str(path))} cannot be written: {error.strerror}") from None
    except OSError as error:
        raise Unavailable(f"--out: {one_line(str(path))} cannot be written: {error.strerror}") from None
