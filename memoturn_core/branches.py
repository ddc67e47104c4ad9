"""Branches of a database: fork, list, checkpoint, rewind, promote, delete.

An agent tries things on a branch and keeps or drops them; none of it moves data. Contract section 8.
"""

from __future__ import annotations

from typing import Any

from memoturn_core.address import MAIN
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.branches import (
    BranchCreated,
    BranchCreateRequest,
    BranchDeleted,
    BranchEntry,
    BranchList,
    BranchListRequest,
    BranchRequest,
    Checkpointed,
    CheckpointRequest,
    Promoted,
    PromoteRequest,
    RewindRequest,
    Rewound,
)
from memoturn_schemas.errors import AlreadyExists, InvalidRequest
from memoturn_storage.branching import Moment


@operation(
    name="branch_create",
    title="Create a branch",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    default_tool=True,
    request=BranchCreateRequest,
    response=BranchCreated,
    rest=Rest("POST", "/branches", status=201, also_at="/v1/databases/{db}"),
    conflicts=True,
    whole_database=True,
)
async def create(profile: Profile, request: BranchCreateRequest) -> Reply:
    """Fork a profile to try something without touching it; call it before risky or speculative changes.

    The branch starts with everything its parent has, at its newest state or an earlier one, and costs the
    same whatever the size. Address it by `branch`; what is written there stays there. With a ttl it goes
    away by itself.
    """
    if request.name == MAIN:
        raise AlreadyExists("the branch main exists")
    at = request.at
    moment = None if at is None else Moment.of(at)
    if request.checkpoint is not None:
        moment = Moment(checkpoint=request.checkpoint)
    ttl_ms = None if request.ttl is None else request.ttl * 1_000
    parent = profile.branch(request.from_)
    node = profile.node
    made = await node.wait_for(lambda: node.branching.fork(parent, request.name, moment, ttl_ms))
    return Reply(
        BranchCreated(
            branch=made.branch,
            parent=made.parent,
            fork_txid=made.fork_txid,
            ttl_at=made.ttl_at,
            spec=f"{profile.name}@{made.branch}",
        )
    )


@operation(
    name="branch_list",
    title="List branches",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    request=BranchListRequest,
    response=BranchList,
    rest=Rest("GET", "/branches", also_at="/v1/databases/{db}"),
    read_only=True,
    idempotent=True,
    whole_database=True,
)
async def listing(profile: Profile, request: BranchListRequest) -> Reply:
    """List the branches of a profile beside main; call it to see what is being tried."""
    uuid = profile.ref.uuid
    manifests = await profile.node.wait_for(lambda: profile.node.branching.list(uuid))
    entries = [
        BranchEntry(
            db_name=profile.name,
            branch=manifest.branch,
            ttl_at=manifest.ttl_at,
            created_at=manifest.created_at,
            parent=None if manifest.parent is None else manifest.parent.branch,
            fork_txid=None if manifest.parent is None else manifest.parent.fork_txid,
            head_txid=manifest.head_txid,
        )
        for manifest in manifests
    ]
    return Reply(BranchList(branches=entries))


@operation(
    name="branch_delete",
    title="Delete a branch",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    request=BranchRequest,
    response=BranchDeleted,
    rest=Rest("DELETE", "/branches/{branch}", status=204, also_at="/v1/databases/{db}"),
    destructive=True,
    idempotent=True,
    whole_database=True,
)
async def delete(profile: Profile, request: BranchRequest) -> Reply:
    """Delete a branch and everything that was written only there; call it when an attempt is over."""
    if request.branch == MAIN:
        raise InvalidRequest("branch: main cannot be deleted")
    ref = profile.branch(request.branch)
    deleted = await profile.node.wait_for(lambda: profile.node.branching.delete(ref))
    return Reply(BranchDeleted(deleted=deleted))


@operation(
    name="branch_checkpoint",
    title="Set a checkpoint",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    default_tool=True,
    request=CheckpointRequest,
    response=Checkpointed,
    rest=Rest("POST", "/branches/{branch}/checkpoint", also_at="/v1/databases/{db}"),
    conflicts=True,
    idempotent=True,
    whole_database=True,
)
async def checkpoint(profile: Profile, request: CheckpointRequest) -> Reply:
    """Name the newest state, to come back to it; call it before something that may have to be undone.

    A named state can be restored at any age, and is shipped to object storage before the answer.
    """
    ref = profile.branch(request.branch)
    txid = await profile.node.wait_for(lambda: profile.node.branching.checkpoint(ref, request.name))
    return Reply(Checkpointed(checkpoint=request.name, txid=txid), txid)


@operation(
    name="branch_rewind",
    title="Rewind a branch",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    default_tool=True,
    request=RewindRequest,
    response=Rewound,
    rest=Rest("POST", "/branches/{branch}/rewind", also_at="/v1/databases/{db}"),
    conflicts=True,
    destructive=True,
    whole_database=True,
)
async def rewind(profile: Profile, request: RewindRequest) -> Reply:
    """Go back to a checkpoint, a transaction or a time; call it to undo what was learnt since.

    What came after that moment is discarded. To only look at it, recall with as_of, or fork there.
    """
    ref = profile.branch(request.branch)
    moment = Moment.of(request.to)
    done = await profile.node.wait_for(lambda: profile.node.branching.rewind(ref, moment))
    return Reply(Rewound(rewound_to=done.txid, epoch=done.epoch), done.txid)


@operation(
    name="branch_promote",
    title="Promote a branch",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="branches",
    request=PromoteRequest,
    response=Promoted,
    rest=Rest("POST", "/branches/{branch}/promote", also_at="/v1/databases/{db}"),
    conflicts=True,
    destructive=True,
    whole_database=True,
)
async def promote(profile: Profile, request: PromoteRequest) -> Reply:
    """Make a branch's state that of main; call it when an attempt has worked.

    What main was before is discarded unless keep_as names a new branch for it. Nothing is moved, and
    the branch stays.
    """
    if request.branch == MAIN:
        raise InvalidRequest("branch: main is what branches are promoted to")
    ref = profile.branch(request.branch)
    branching = profile.node.branching

    def promoted() -> Any:
        if request.keep_as is not None:
            branching.shipped_manifest(ref)  # or nothing is made
            branching.fork(profile.branch(MAIN), request.keep_as)
        return branching.promote(ref)

    done = await profile.node.wait_for(promoted)
    return Reply(Promoted(promoted=request.branch, txid=done.txid, epoch=done.epoch), done.txid)
