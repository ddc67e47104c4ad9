"""Shipping: what was committed on this machine goes into the object store, and the manifest names it.

`ship` puts the next object of a branch's tail and then links it by compare-and-swap, until nothing is
left. In the background that happens a moment after a commit, so that the commits of a moment share an
object; a durable write asks for it at once, and hears when it has landed. A store that is down costs
nothing but a longer tail: shipping is tried again, ever less often, up to a limit.

A writer whose lease has gone learns it here: the manifest carries a higher epoch or another lineage, and
nothing of it is linked (`Fenced`). Called by `memoturn_storage.worker` and by who branches and compacts.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

import structlog

from memoturn_schemas.errors import AlreadyExists, BranchNotFound, Unavailable
from memoturn_storage.ambient import Ambient
from memoturn_storage.branch import Branch, Fenced, Shipment
from memoturn_storage.errors import translate
from memoturn_storage.history import LONG
from memoturn_storage.manifest import BranchRef, Manifest, Segment, Snapshot, segment_key, snapshot_key
from memoturn_storage.manifests import Held, Manifests
from memoturn_storage.objects.store import ObjectStore
from memoturn_storage.tail import NotInTheLog, Sealed

log = structlog.get_logger("memoturn")

_RETRY_AT_MOST_S = 5.0


@dataclass(slots=True)
class PublisherStats:
    """Counters since the start."""

    objects: int = 0
    bytes: int = 0
    transactions: int = 0
    failures: int = 0
    fenced: int = 0
    last_lag_ms: int | None = None
    """From the oldest commit of the last object to its being linked; None before the first."""


@dataclass(slots=True, order=True)
class _Due:
    at: float
    order: int
    branch: Branch = field(compare=False)


class Publisher:
    """Ships the branches of one node.

    Args:
        pool: runs what is due; inline where its executor is.
        interval_s: how long a commit waits for others before it is shipped.
        alone: has an effect run while no job of the branch does (`Worker.exclusive`).
        left: told of a branch whose history went on elsewhere, to be closed here.
        long: told of a branch whose chain of segments has become long, to be compacted.
    """

    def __init__(
        self,
        store: ObjectStore,
        manifests: Manifests,
        ambient: Ambient,
        pool: Executor,
        *,
        interval_s: float,
        alone: Callable[[Branch, Callable[[Branch], None]], None],
        left: Callable[[Branch], None],
        long: Callable[[BranchRef], None],
    ) -> None:
        self._store = store
        self._manifests = manifests
        self._ambient = ambient
        self._pool = pool
        self._interval_s = interval_s
        self._alone = alone
        self._left = left
        self._long = long
        self._changed: set[str] = set()
        self._wake = threading.Condition()
        self._due: list[_Due] = []
        self._scheduled: dict[Branch, float] = {}
        self._order = 0
        self._closing = False
        self._thread: threading.Thread | None = None
        self.stats = PublisherStats()

    # --- when ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Have a thread of its own ship what is due; without it `run_due` must be called."""
        self._thread = threading.Thread(target=self._run, name="memoturn-publisher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def notice(self, branch: Branch) -> None:
        """The branch has commits to ship: soon, or at once where somebody waits for them."""
        if branch.tail.awaited:
            self._schedule(branch, self._ambient.monotonic())
            if self._thread is None:
                self.run_due()
        elif branch.failures == 0:
            self._schedule(branch, self._ambient.monotonic() + self._interval_s)

    def run_due(self) -> float | None:
        """Start shipping what is due; returns in how many seconds something will be, None for never."""
        while True:
            with self._wake:
                now = self._ambient.monotonic()
                while self._due and self._scheduled.get(self._due[0].branch) != self._due[0].at:
                    heapq.heappop(self._due)
                if not self._due:
                    return None
                if self._due[0].at > now:
                    return self._due[0].at - now
                branch = heapq.heappop(self._due).branch
                del self._scheduled[branch]
            self._pool.submit(self._try_to_ship, branch)

    def _schedule(self, branch: Branch, at: float) -> None:
        with self._wake:
            known = self._scheduled.get(branch)
            if known is not None and known <= at:
                return
            self._scheduled[branch] = at
            self._order += 1
            heapq.heappush(self._due, _Due(at, self._order, branch))
            self._wake.notify()

    def _run(self) -> None:
        while True:
            seconds = self.run_due()
            with self._wake:
                if self._closing:
                    return
                nothing_new = not self._due or self._due[0].at > self._ambient.monotonic()
                if nothing_new:
                    self._wake.wait(seconds)

    def _try_to_ship(self, branch: Branch) -> None:
        """Ship; whoever waits hears of a failure, which is otherwise tried again later."""
        try:
            self.ship(branch)
        except NotInTheLog:
            self._alone(branch, self._try_to_ship_alone)
        except Fenced:
            pass  # `ship` has told everybody
        except Exception as error:  # noqa: BLE001 - the object store is down, or a fault of ours: not forgotten
            self._try_again_later(branch, error)

    def _try_to_ship_alone(self, branch: Branch) -> None:
        try:
            self.ship_alone(branch)
        except Fenced:
            pass
        except Exception as error:  # noqa: BLE001 - as above; a commit that comes meanwhile does not ask for it again
            self._try_again_later(branch, error)

    def _try_again_later(self, branch: Branch, error: Exception) -> None:
        problem = str(translate(error))
        log.warning("shipping failed", database=branch.ref.uuid, branch=branch.ref.branch, error=problem)
        seconds = min(_RETRY_AT_MOST_S, self._interval_s * 2 ** min(branch.failures, 10))
        self._schedule(branch, self._ambient.monotonic() + seconds)

    # --- how -------------------------------------------------------------------------------------

    def ship_alone(self, branch: Branch) -> None:
        """`ship`, while no job of the branch runs: also where the log does not join the object store."""
        if branch.handle is None:
            return
        try:
            self.ship(branch)
        except NotInTheLog:
            log.warning("shipping the whole state", database=branch.ref.uuid, branch=branch.ref.branch)
            try:
                branch.handle.restart_tail()
            except Exception as error:
                branch.tail.fail_waiting(_not_shipped(error))
                raise
            self.ship(branch)

    def ship(self, branch: Branch) -> None:
        """Put and link everything that is committed; returns when the object store has it.

        Raises:
            NotInTheLog: only `ship_alone` helps.
            Fenced: the history went on elsewhere.
            StoreUnavailable and others: whoever waited was told; what is not linked stays in the tail.
        """
        with branch.lock:
            if branch.asleep:
                return  # it was due before it was closed; the next waking ships what is left
            try:
                if branch.fenced:
                    raise Fenced(f"another owner has carried on {branch.ref.branch}; try again")
                if branch.tail.broken:
                    raise NotInTheLog
                while (sealed := branch.tail.seal()) is not None:
                    self._publish(branch, sealed)
            except NotInTheLog:
                raise
            except Fenced as error:
                branch.fenced = True
                self.stats.fenced += 1
                log.error("fenced", database=branch.ref.uuid, branch=branch.ref.branch, lost=branch.tail.commits)
                branch.tail.fail_waiting(error)
                self._left(branch)
                raise
            except Exception as error:
                branch.held = None
                branch.failures += 1
                self.stats.failures += 1
                branch.tail.fail_waiting(_not_shipped(error))
                raise
            branch.failures = 0
            chain = 0 if branch.held is None else len(branch.held.manifest.chain)
        if chain >= LONG:
            self._long(branch.ref)

    def take_changed(self) -> set[str]:
        """The uuids of the databases that something was shipped of since this was asked last."""
        with self._wake:
            changed, self._changed = self._changed, set()
        return changed

    def _publish(self, branch: Branch, sealed: Sealed) -> None:
        shipment = self._shipment(branch, sealed)
        for entry, data in ((shipment.snapshot, sealed.snapshot), (shipment.segment, sealed.transactions)):
            if entry is not None and data is not None:
                self._store.put(entry.key, data)
                self.stats.objects += 1
                self.stats.bytes += entry.bytes

        def link(manifest: Manifest) -> Manifest:
            if branch.wrote(manifest) and manifest.head_txid >= sealed.end.txid:
                return manifest  # landed before; its answer was lost
            branch.require_ours(manifest)
            if self._manifests.too_late(shipment.put_at):
                raise Unavailable("the segment was put too long ago to be linked; it is put under another name")
            if shipment.snapshot is not None:
                manifest = manifest.rebased(shipment.snapshot, epoch=branch.epoch, lineage=branch.origin.lineage)
            if shipment.segment is not None:
                manifest = manifest.appended(shipment.segment, epoch=branch.epoch, lineage=branch.origin.lineage)
            return manifest

        branch.held = self._link(branch, link)
        oldest = branch.tail.oldest_at
        branch.tail.landed(sealed)
        branch.shipment = None
        with self._wake:
            self._changed.add(branch.ref.uuid)
        self.stats.transactions += sealed.end.txid - sealed.min + (shipment.snapshot is not None)
        self.stats.last_lag_ms = None if oldest is None else self._ambient.now_ms() - oldest

    def _link(self, branch: Branch, link: Callable[[Manifest], Manifest]) -> Held:
        held = branch.held or self._manifests.read(branch.ref)
        try:
            if held is not None:
                return self._manifests.update(held, link)
        except BranchNotFound as error:
            raise Fenced(f"the branch {branch.ref.branch} was deleted") from error
        if branch.tail.shipped:
            raise Fenced(f"the branch {branch.ref.branch} is no more")
        first = Manifest(
            db_uuid=branch.ref.uuid,
            branch=branch.ref.branch,
            epoch=branch.epoch,
            head_txid=0,
            lineage=branch.origin.lineage,
            write_id="",
            created_at=self._ambient.now_ms(),
            checkpoints={},
        )
        try:
            # What `create` takes for ours may be what an earlier waking of the same file put: with less in it.
            return self._manifests.update(self._manifests.create(link(first)), link)
        except AlreadyExists as error:
            raise Fenced(f"another owner has begun {branch.ref.branch}; try again") from error

    def _shipment(self, branch: Branch, sealed: Sealed) -> Shipment:
        """The names under which `sealed` is put: those of the last try, unless it was so long ago that the
        collector may be about to remove what is there.
        """
        last = branch.shipment
        if last is not None and last.sealed is sealed and not self._manifests.too_late(last.put_at):
            return last
        uuid, end, at = branch.ref.uuid, sealed.end, sealed.snapshot_end
        snapshot: Snapshot | None = None
        segment: Segment | None = None
        if sealed.snapshot is not None and at is not None:
            key = snapshot_key(uuid, at.txid, branch.epoch, self._nonce())
            snapshot = Snapshot(at.txid, key, len(sealed.snapshot), at.at, at.checksum)
        if sealed.transactions:
            key = segment_key(uuid, 0, sealed.min + 1, end.txid, branch.epoch, self._nonce())
            segment = Segment(sealed.min, end.txid, key, len(sealed.transactions), 0, end.at, end.checksum)
        branch.shipment = Shipment(sealed, snapshot, segment, self._ambient.now_ms())
        return branch.shipment

    def _nonce(self) -> str:
        return self._ambient.token(4).hex()


def _not_shipped(error: Exception) -> Unavailable:
    failure = Unavailable(
        "the write is committed on this node, and the object store has not confirmed it; it will be shipped when the "
        "store answers, and asking again is safe"
    )
    failure.__cause__ = error
    return failure
