"""How a database ends: by a request, or because its time has run out; also where that stops half-way.

The effects, in this order, and what a crash leaves behind each of them:

1. a mark, in the object store: the upkeep of every node knows what to finish. Left alone: nothing has happened.
2. the fence: main's manifest becomes a tombstone that nobody creates over. From here on the database cannot be
   opened, and what is open elsewhere can no longer ship. Left alone: whoever is told `BranchNotFound`, and the
   upkeep of any node, goes on with 3 (`moved_on`), for there is no way back.
3. the name becomes a tombstone, by compare-and-swap. The name is free, and cannot have been a moment earlier,
   so nothing is ever seen of the old database under it. Left alone: the upkeep goes on.
4. the other branches become tombstones, and the local files go.
5. later, by the upkeep: the collector removes the objects, a grace period after they were needed last, main's
   manifest last of all, and then the mark.

Each step may be repeated, by anybody. A machine that knows an old entry finds out when it opens the database:
it is told so by the fence, or by there being nothing at all, and then asks for the name again.
Called by `memoturn_core`, and by `memoturn_storage.upkeep`.
"""

from __future__ import annotations

from memoturn_storage.branching import Branching
from memoturn_storage.catalog import Catalog
from memoturn_storage.collector import Collector, CollectReport
from memoturn_storage.entries import Entry
from memoturn_storage.manifest import BranchRef
from memoturn_storage.manifests import Manifests


def delete(catalog: Catalog, branching: Branching, entry: Entry) -> None:
    """Delete this database, for good; returns when nobody can open it any more.

    Raises:
        OwnedElsewhere: the process that has it open must do it.
        StoreUnavailable: it may be deleted or not; repeating it finishes it.
    """
    began = catalog.mark(entry)
    branching.fence(entry.uuid, began)
    catalog.bury(entry)
    branching.bury(entry.uuid)


def finish(catalog: Catalog, branching: Branching, tombstone: Entry) -> bool:
    """Do what a deletion of which only the tombstone is there has left undone; whether there was anything.

    Raises:
        OwnedElsewhere, StoreUnavailable.
    """
    return catalog.marked(tombstone.uuid) is not None and branching.bury(tombstone.uuid)


def moved_on(catalog: Catalog, manifests: Manifests, entry: Entry) -> bool:
    """Whether a name means another database than this by now, or none; for who finds that it cannot be opened.

    Raises:
        StoreUnavailable.
    """
    now = catalog.refresh(entry.name)
    if now is not None and now.live and now.uuid == entry.uuid:
        main = manifests.read(BranchRef(entry.uuid))
        if main is None or main.manifest.deleted_at is None:
            return False
        catalog.bury(now)
    return True


def is_gone(catalog: Catalog, manifests: Manifests, uuid: str) -> bool:
    """Whether this database is known to be deleted; False also where its uuid is strange.

    For who finds files of it that are not shipped: where all else is collected, nothing tells but the name.

    Raises:
        StoreUnavailable.
    """
    if catalog.gone(uuid):
        return True
    entry = catalog.with_uuid(uuid)
    return entry is not None and (not entry.live or moved_on(catalog, manifests, entry))


def clear(
    catalog: Catalog, branching: Branching, manifests: Manifests, collector: Collector, uuid: str
) -> CollectReport | None:
    """Go on with a marked deletion, until nothing is left of the database; None where nothing is collected yet.

    To be called now and then, by any node.

    Raises:
        StoreUnavailable and others: the next call goes on.
    """
    mark = catalog.marked(uuid)
    if mark is None:
        return None
    entry = catalog.refresh(mark.name)
    if entry is not None and entry.live and entry.uuid == uuid and not moved_on(catalog, manifests, entry):
        return None  # only marked: somebody is at it, or has given up
    if collector.nothing_left(uuid):
        catalog.unmark(uuid)
        return None
    branching.entomb(uuid)
    return collector.collect(uuid)
