"""Backup and restore of a database as the file that it is, part by part.

What is fetched is SQLite's online backup of one state, made beside the engine. What is sent is collected, judged
whole, and takes the database's place in one ordinary transaction (`images`), so that nothing is ever half restored.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.portability import images
from memoturn_core.portability.copies import Copies, Place
from memoturn_core.portability.records import require_one_state, step_aside
from memoturn_core.profiles import Profile
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import Conflict, InvalidRequest, RequestTimeout
from memoturn_schemas.portability import BackupRequest, BackupResponse, RestoreRequest, RestoreResponse
from memoturn_storage.handle import Snapshot, Transaction

_PART_BYTES = 4 << 20
_LARGE_BYTES = 256 << 10
"""Of a file whose rows are not put back in a few milliseconds."""
_READ_BYTES = 1 << 20


@operation(
    name="backup_database",
    title="Back up a database",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=BackupRequest,
    response=BackupResponse,
    rest=Rest("GET", "/backup", in_profile=True),
    read_only=True,
    idempotent=True,
    conflicts=True,
)
async def backup(profile: Profile, request: BackupRequest) -> Reply:
    """Read a profile's database as a SQLite file, part by part; call it to keep a copy that restores exactly.

    All parts are of the state at the first one. Go on with next_cursor until there is none.
    """
    copies = Copies(profile)
    require_one_state(request)
    if request.cursor is not None:
        place = Place.of(request.cursor)
        return await profile.node.wait_for(lambda: _part(copies, place))
    copy = copies.new()

    def write(snapshot: Snapshot) -> None:
        step_aside(snapshot)
        with copies.made(copy) as path:
            images.copy_out(snapshot.connection, path)

    written = await profile.read(write, as_of=request.as_of, long=True)
    return await profile.node.wait_for(lambda: _part(copies, Place(copy, written.txid, 0)))


def _part(copies: Copies, place: Place) -> Reply:
    data, size = copies.read(place, _PART_BYTES)
    end = place.offset + len(data)
    value = BackupResponse(txid=place.txid, size=size, data=base64.b64encode(data).decode())
    if end < size:
        value["next_cursor"] = place.cursor_at(end)
    else:
        copies.remove(place.copy)
    return Reply(value, place.txid)


@operation(
    name="restore_database",
    title="Restore a database",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=RestoreRequest,
    response=RestoreResponse,
    rest=Rest("POST", "/restore", in_profile=True),
    destructive=True,
    conflicts=True,
    durable=True,
)
async def restore(profile: Profile, request: RestoreRequest) -> Reply:
    """Make a profile hold what a backup's file holds, sent part by part; call it only when asked to.

    Nothing changes until the last part, which comes with the file's sha256. It is one transaction: what the profile
    held before can be rewound to.
    """
    copies = Copies(profile)
    place = Place(copies.new(), 0, 0) if request.cursor is None else Place.of(request.cursor)
    received = await profile.node.wait_for(lambda: _append(copies, place, request.data))
    if request.sha256 is None:
        return Reply(RestoreResponse(received=received, next_cursor=place.cursor_at(received)))
    path, sha256 = copies.path(place.copy), request.sha256
    try:
        await profile.node.wait_for(lambda: _judge(path, sha256))

        def work(transaction: Transaction) -> images.Rows:
            if transaction.hurried and received > _LARGE_BYTES:
                raise RequestTimeout("a large database is restored where fewer wait for it")
            with images.opened(path) as source:
                return images.replace(transaction, source, allowed=request.replace)

        done = await profile.write(work, long=True)
    finally:
        copies.remove(place.copy)
    return Reply(RestoreResponse(received=received, txid=done.txid, rows=done.value), done.txid)


def _append(copies: Copies, place: Place, data: str) -> int:
    """Put a part in its place, also when it comes again; how much there is then."""
    try:
        part = base64.b64decode(data, validate=True)
    except ValueError:
        raise InvalidRequest("data: should be base64 with its padding") from None
    if place.offset == 0:
        with copies.made(place.copy) as path:
            path.write_bytes(part)
        return len(part)
    try:
        with copies.path(place.copy).open("r+b") as file:
            if file.seek(0, os.SEEK_END) < place.offset:
                raise InvalidRequest("cursor: the part before it did not come")
            file.truncate(place.offset)
            file.seek(place.offset)
            file.write(part)
    except FileNotFoundError:
        raise Conflict("cursor: what it was to go on with is gone; begin again") from None
    copies.touch(place.copy)
    return place.offset + len(part)


def _judge(path: Path, sha256: str) -> None:
    """Raise unless the file is what was sent, and sound; bring it to the newest version."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise InvalidRequest("sha256: is not that of the file that came")
    with images.opened(path, writable=True) as connection:
        images.check(connection)
        with connection:
            SCHEMA.migrate(connection)
