"""What the object store has of a database: waiting for it, and looking at it. Contract section 9."""

from __future__ import annotations

from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.branches import (
    StorageRequest,
    StorageResponse,
    StoredSegment,
    StoredSnapshot,
    Synced,
    SyncRequest,
    Vacuumed,
    VacuumRequest,
)
from memoturn_storage.vacuuming import vacuum as vacuumed


@operation(
    name="sync",
    title="Sync",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="branches",
    request=SyncRequest,
    response=Synced,
    rest=Rest("POST", "/sync"),
    idempotent=True,
)
async def sync(profile: Profile, request: SyncRequest) -> Reply:
    """Wait until everything written so far is in object storage; call it before a machine may go away."""
    txid = await profile.sync()
    return Reply(Synced(txid=txid), txid)


@operation(
    name="storage_inspect",
    title="Inspect a branch's storage",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="branches",
    request=StorageRequest,
    response=StorageResponse,
    rest=Rest("GET", "/storage"),
    read_only=True,
    idempotent=True,
)
async def inspect(profile: Profile, request: StorageRequest) -> Reply:
    """Show the objects that a branch consists of and how far back it can go; call it before a rewind."""
    ref = profile.ref
    manifest = await profile.node.wait_for(lambda: profile.node.branching.shipped_manifest(ref))
    sizes = {entry.key: entry.bytes for entry in manifest.snapshots}
    sizes |= {entry.key: entry.bytes for entry in manifest.segments}
    return Reply(
        StorageResponse(
            database=profile.name,
            uuid=ref.uuid,
            branch=ref.branch,
            epoch=manifest.epoch,
            head_txid=manifest.head_txid,
            oldest_txid=manifest.snapshots[0].txid if manifest.snapshots else None,
            snapshots=[
                StoredSnapshot(txid=entry.txid, at=entry.at, bytes=entry.bytes, key=entry.key)
                for entry in manifest.snapshots
            ],
            segments=[
                StoredSegment(
                    min=entry.min, max=entry.max, at=entry.at, bytes=entry.bytes, level=entry.level, key=entry.key
                )
                for entry in manifest.segments
            ],
            checkpoints=dict(manifest.checkpoints),
            bytes=sum(sizes.values()),
        ),
        manifest.head_txid,
    )


@operation(
    name="storage_vacuum",
    title="Vacuum a branch",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    request=VacuumRequest,
    response=Vacuumed,
    rest=Rest("POST", "/storage/vacuum"),
)
async def vacuum(profile: Profile, request: VacuumRequest) -> Reply:
    """Give back the room of what was deleted; call it after much was, for the whole branch is shipped anew.

    Nothing that is kept changes, and every earlier state can still be restored.
    """
    ref, engine = profile.ref, profile.node.engine
    done = await profile.node.wait_for(lambda: vacuumed(engine, ref))
    return Reply(Vacuumed(bytes_before=done.bytes_before, bytes_after=done.bytes_after, txid=done.txid), done.txid)
