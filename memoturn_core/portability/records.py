"""Export and import: everything that a database holds, as records that people and other programs can read.

An export is of one state, whatever is written meanwhile: its lines are written to a copy on this machine in one
read, beside the engine, and then handed out page by page.
"""

from __future__ import annotations

from typing import Any

import orjson

from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.portability import exporting, importing
from memoturn_core.portability.copies import Copies, Place
from memoturn_core.profiles import Profile
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import InvalidRequest, RequestTimeout
from memoturn_schemas.portability import (
    BackupRequest,
    ExportRequest,
    ExportResponse,
    ImportRequest,
    ImportResponse,
    RefusedRecord,
)
from memoturn_storage.ambient import Ambient
from memoturn_storage.handle import Snapshot, Transaction

_PAGE_BYTES = 1 << 20
_SHORT_PAGES = 256
"""Of a file that is told in a few milliseconds; a longer one is read where nobody waits."""
_FEW = 50
"""Records that are taken in a few milliseconds."""


@operation(
    name="export_records",
    title="Export a database",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="admin",
    request=ExportRequest,
    response=ExportResponse,
    rest=Rest("GET", "/export", in_profile=True),
    read_only=True,
    idempotent=True,
    conflicts=True,
)
async def export(profile: Profile, request: ExportRequest) -> Reply:
    """Read everything that a profile holds as records, page by page; call it to take a profile elsewhere.

    All pages are of the state at the first one. Go on with next_cursor until there is none.
    """
    copies = Copies(profile)
    require_one_state(request)
    if request.cursor is not None:
        place = Place.of(request.cursor)
        return await profile.node.wait_for(lambda: _page(copies, place))
    copy = copies.new()

    def write(snapshot: Snapshot) -> None:
        step_aside(snapshot)
        with copies.made(copy) as path, path.open("wb") as file:
            file.writelines(exporting.lines(snapshot.connection))

    written = await profile.read(write, as_of=request.as_of, long=True)
    return await profile.node.wait_for(lambda: _page(copies, Place(copy, written.txid, 0)))


@operation(
    name="import_records",
    title="Import into a database",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=ImportRequest,
    response=ImportResponse,
    rest=Rest("POST", "/import", in_profile=True),
    idempotent=True,
    durable=True,
)
async def import_(profile: Profile, request: ImportRequest) -> Reply:
    """Add records of an export to a profile, as they were; call it with each page in turn.

    A record is added whole, is there already, or is refused with the reason; nothing that is there is changed.
    One request is one transaction.
    """
    if profile.address.may_create and not profile.exists():
        rehearsed = await profile.node.wait_for(lambda: _rehearse(request.records, profile.node.ambient))
        if not rehearsed.taken:
            return _imported(rehearsed, 0)

    def work(transaction: Transaction) -> importing.Outcome:
        if transaction.hurried and len(request.records) > _FEW:
            raise RequestTimeout("many records are imported where fewer wait for them")
        return importing.take(transaction, request.records)

    done = await profile.write(work, long=True)
    return _imported(done.value, done.txid)


def _rehearse(records: list[Any], ambient: Ambient) -> importing.Outcome:
    """What would become of the records in a new profile: where all are refused, none is made."""
    connection = SCHEMA.empty()
    try:
        connection.execute("BEGIN")
        return importing.take(Transaction(connection, ambient), records)
    finally:
        connection.close()


def _imported(outcome: importing.Outcome, txid: int) -> Reply:
    refused = [RefusedRecord(index=index, kind=kind, reason=reason) for index, kind, reason in outcome.refused]
    value = ImportResponse(txid=txid, imported=dict(outcome.taken), unchanged=dict(outcome.unchanged), refused=refused)
    return Reply(value, txid)


def require_one_state(request: ExportRequest | BackupRequest) -> None:
    if request.cursor is not None and request.as_of is not None:
        raise InvalidRequest("as_of: leave it out with cursor, which goes on in the state of the first answer")


def step_aside(snapshot: Snapshot) -> None:
    """Raise `RequestTimeout` where others wait and the state is large: it is then read where nobody does."""
    pages = snapshot.connection.pragma("page_count")
    if snapshot.hurried and isinstance(pages, int) and pages > _SHORT_PAGES:
        raise RequestTimeout("a large database is copied where nobody waits for it")


def _page(copies: Copies, place: Place) -> Reply:
    data, size = copies.read(place, _PAGE_BYTES)
    if place.offset + len(data) < size:
        # Whole lines, and one at least.
        end = data.rfind(b"\n") + 1
        while not end:
            more, _ = copies.read(Place(place.copy, place.txid, place.offset + len(data)), _PAGE_BYTES)
            end = len(data) + more.find(b"\n") + 1 if b"\n" in more else 0
            data += more
        data = data[:end]
    value = ExportResponse(txid=place.txid, records=[orjson.loads(line) for line in data.splitlines()])
    if place.offset + len(data) < size:
        value["next_cursor"] = place.cursor_at(place.offset + len(data))
    else:
        copies.remove(place.copy)
    return Reply(value, place.txid)
