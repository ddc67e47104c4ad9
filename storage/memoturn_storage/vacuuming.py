"""Vacuum: a branch's file is written anew without the pages that nothing uses any more.

It is no transaction that could be captured, for it has no txid of its own: what was committed before is shipped first,
and the history goes on from a snapshot of the new file, as after any break between the log and the object store
(`Handle.restart_tail`). A process that dies in between leaves a file with the same content and other pages, which the
next owner ships whole. Called by `memoturn_core.durability`, on a thread that may wait, by the owner of the database.
"""

from __future__ import annotations

from dataclasses import dataclass

from memoturn_storage.branch import Branch
from memoturn_storage.engine import Engine
from memoturn_storage.manifest import BranchRef


@dataclass(frozen=True, slots=True)
class Vacuumed:
    txid: int
    bytes_before: int
    bytes_after: int


def vacuum(engine: Engine, ref: BranchRef) -> Vacuumed:
    """Vacuum the branch while none of its jobs runs; what it is now is shipped soon, and can be waited for.

    Raises:
        StoreUnavailable: what was committed before could not be shipped; nothing was changed.
        BranchNotFound, OwnedElsewhere.
    """

    def run(branch: Branch) -> Vacuumed:
        if branch.handle is None:
            return Vacuumed(0, 0, 0)
        engine.publisher.ship_alone(branch)
        before = branch.handle.size
        branch.handle.vacuum()
        engine.publisher.notice(branch)
        return Vacuumed(branch.handle.txid, before, branch.handle.size)

    return engine.exclusive(ref, run).result()
