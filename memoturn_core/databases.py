"""The control plane: databases are created, listed and deleted by name, and say what they use.

A profile's database is one of them; it is made by the profile's first write and has its name from it.
Contract items 92 to 94, 116, 117, 136 and 145; how a deletion goes is said in `memoturn_storage.deletion`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import structlog

from memoturn_core.address import MAIN
from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.usage import contents
from memoturn_schemas.databases import (
    DatabaseCreateRequest,
    DatabaseDeleted,
    DatabaseEntry,
    DatabaseList,
    DatabaseListRequest,
    DatabaseRequest,
    DatabaseUsage,
)
from memoturn_schemas.errors import DatabaseNotFound, InvalidRequest, MemoturnError
from memoturn_schemas.names import check_database
from memoturn_storage import deletion
from memoturn_storage.entries import Entry
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.store import StoreUnavailable

log = structlog.get_logger("memoturn")

_CONTROL = "/v1/databases/{db}"

_FRESHEN_S = 0.1
"""How long a first page waits to learn what other machines have done; the next one has what took longer."""


@operation(
    name="provision_database",
    title="Create a database",
    target=Target.NODE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=DatabaseCreateRequest,
    response=DatabaseEntry,
    rest=Rest("POST", "/databases", status=201),
    conflicts=True,
    control=True,
)
async def create(node: Node, request: DatabaseCreateRequest) -> Reply:
    """Create an empty database; call it before SQL, documents or vectors that belong to no profile.

    Profiles need not be created: their first write does it.
    """

    def made() -> Entry:
        before = node.catalog.refresh(request.name)
        if before is not None and before.live:
            if before.exists(node.ambient.now_ms()):
                deletion.moved_on(node.catalog, node.engine.manifests, before)  # finishes what stopped half-way
            else:
                deletion.delete(node.catalog, node.branching, before)
        ttl_ms = None if request.ttl is None else 1_000 * request.ttl
        return node.catalog.create_new(request.name, ttl_ms=ttl_ms, durability=request.durability)

    return Reply(_entry(await node.wait_for(made)))


@operation(
    name="list_databases",
    title="List databases",
    target=Target.NODE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=DatabaseListRequest,
    response=DatabaseList,
    rest=Rest("GET", "/databases"),
    read_only=True,
    idempotent=True,
    control=True,
)
async def listing(node: Node, request: DatabaseListRequest) -> Reply:
    """List the databases by name, profiles too; call it to see what there is."""
    after = "" if request.cursor is None else _name_of(request.cursor)
    if request.cursor is None:
        await _freshen(node)
    found = await node.wait_for(lambda: node.catalog.page(after, request.limit + 1))
    page = DatabaseList(databases=[_entry(entry) for entry in found[: request.limit]])
    if len(found) > request.limit:
        page["next_cursor"] = _cursor(found[request.limit - 1].name)
    return Reply(page)


@operation(
    name="db_delete",
    title="Delete a database",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=DatabaseRequest,
    response=DatabaseDeleted,
    rest=Rest("DELETE", "", status=204, at=_CONTROL),
    destructive=True,
    idempotent=True,
    control=True,
    asleep=True,
    missing={"deleted": False},
)
async def delete(profile: Profile, _request: DatabaseRequest) -> Reply:
    """Delete a profile with everything in it and all its branches, for good; call it only when asked to.

    Its name may be used again, and then begins empty. Tokens that were issued before can no longer write to it.
    """
    if profile.address.branch != MAIN:
        raise InvalidRequest("branch: a database is deleted with all its branches; give none")
    node, name = profile.node, profile.name

    def deleted() -> bool:
        entry = node.catalog.refresh(name)
        if entry is None:
            return False
        if not entry.live:
            return deletion.finish(node.catalog, node.branching, entry)
        existed = entry.exists(node.ambient.now_ms())
        deletion.delete(node.catalog, node.branching, entry)
        return existed

    if not await node.wait_for(deleted):
        raise DatabaseNotFound(f"there is no database {name}")
    return Reply(DatabaseDeleted(deleted=True))


@operation(
    name="db_usage",
    title="Show what a database uses",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=DatabaseRequest,
    response=DatabaseUsage,
    rest=Rest("GET", "/usage", at=_CONTROL),
    read_only=True,
    idempotent=True,
    control=True,
)
async def usage(profile: Profile, _request: DatabaseRequest) -> Reply:
    """Count what a profile holds and uses, by kind; call it when something is large or slow."""
    ref, node = profile.ref, profile.node
    found = await profile.read(contents, long=True)
    stored = await node.wait_for(lambda: _stored(node, ref))
    traffic, unknown = found.value.traffic, dict(stored.unknown)
    if traffic is None:
        unknown |= dict.fromkeys(("reads", "counted_since"), "reads are counted from the first write on")
    value = DatabaseUsage(
        **_entry(profile.entry),
        branch=ref.branch,
        txid=found.txid,
        rows=found.value.rows,
        bytes=found.value.bytes,
        size=found.value.size,
        reads=None if traffic is None else traffic.reads,
        writes=0 if traffic is None else found.txid - traffic.since_txid,
        counted_since=None if traffic is None else traffic.since_ms,
        branches=stored.branches,
        segments=stored.segments,
        snapshots=stored.snapshots,
        shipped_txid=stored.shipped_txid,
        bytes_shipped=stored.bytes_shipped,
        bytes_stored=stored.bytes_stored,
        unknown=unknown,
    )
    return Reply(value, found.txid)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the object store has of a database, and why something of it is not known."""

    branches: int | None = None
    segments: int | None = None
    snapshots: int | None = None
    shipped_txid: int | None = None
    bytes_shipped: int | None = None
    bytes_stored: int | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)


def _stored(node: Node, ref: BranchRef) -> _Stored:
    try:
        held = [held.manifest for held in node.engine.manifests.branches(ref.uuid)]
        everything = sum(info.size for info in node.metered.list(f"v1/{ref.uuid}/"))
    except StoreUnavailable:
        names = [each.name for each in fields(_Stored) if each.name != "unknown"]
        return _Stored(unknown=dict.fromkeys(names, "the object store does not answer"))
    now_ms = node.ambient.now_ms()
    living = [manifest for manifest in held if manifest.deleted_at is None and not manifest.expired(now_ms)]
    this = next((manifest for manifest in living if manifest.branch == ref.branch), None)
    sizes = {snapshot.key: snapshot.bytes for manifest in living for snapshot in manifest.snapshots}
    sizes |= {segment.key: segment.bytes for manifest in living for segment in manifest.segments}
    return _Stored(
        branches=len({MAIN, *(manifest.branch for manifest in living)}),
        segments=0 if this is None else len(this.segments),
        snapshots=0 if this is None else len(this.snapshots),
        shipped_txid=0 if this is None else this.head_txid,
        bytes_shipped=sum(sizes.values()),
        bytes_stored=everything,
    )


# --- entries and pages ---------------------------------------------------------------------------


def _entry(entry: Entry) -> DatabaseEntry:
    shown = DatabaseEntry(name=entry.name, uuid=entry.uuid, created_at=entry.created_at, durability=entry.durability)
    if entry.ttl_at is not None:
        shown["ttl_at"] = entry.ttl_at
    return shown


async def _freshen(node: Node) -> None:
    """Learn of other machines' databases, but do not wait for it where there are very many."""

    async def learn() -> None:
        try:
            await node.wait_for(node.catalog.learn)
        except MemoturnError as error:
            log.warning("other machines' databases not learnt of", error=str(error))

    learning = asyncio.ensure_future(learn())
    await asyncio.wait((learning,), timeout=_FRESHEN_S)


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _name_of(cursor: str) -> str:
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        return check_database(name)
    except ValueError:
        raise InvalidRequest("cursor: should be next_cursor of an earlier page") from None
