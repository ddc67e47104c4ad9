"""What a node does when nobody asks: ship what a killed process left, close what is idle, remove what has
expired, keep histories short, collect garbage, and try restores out.

Every pass may run beside every other on any node; nothing here is needed for a request to be right. The
light pass is about what is open or due and is cheap. The heavy pass visits the databases whose history
has changed, and a slice of the others, so that all come round; of the processes on one machine one at a
time does it. Called by `memoturn_core.node`.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from memoturn_schemas.errors import Internal, MemoturnError, NotFound
from memoturn_storage import deletion
from memoturn_storage.ambient import Ambient
from memoturn_storage.branching import Branching
from memoturn_storage.catalog import Catalog
from memoturn_storage.collector import Collector, CollectReport
from memoturn_storage.drill import Drill
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.entries import Entry
from memoturn_storage.errors import translate
from memoturn_storage.leases.lease import Leases, OwnedElsewhere
from memoturn_storage.local import LocalFiles, local_branches
from memoturn_storage.manifest import MAIN, BranchRef
from memoturn_storage.worker import Sweep

T = TypeVar("T")

log = structlog.get_logger("memoturn")

HEAVY_EVERY = 20
"""Light passes to a heavy one."""

_SLICE = 500
"""Databases that a heavy pass visits beside those that have changed."""

_ELECTION = "0" * 32
"""The lease that whoever does the heavy pass holds meanwhile; no database has this uuid."""

_FREE_SHARE = 0.05
"""Of the disk: with less, sleeping branches leave it at once."""


@dataclass(frozen=True, slots=True)
class UpkeepStats:
    """Counters since the start, and what the last drill found."""

    collected_objects: int = 0
    collected_bytes: int = 0
    cooled: int = 0
    """Branches whose local files were removed."""
    drills_ok: int = 0
    drills_failed: int = 0
    drill_seconds: float | None = None
    """How long the last drill took; None before the first."""
    failures: int = 0
    """Parts of passes that failed, or were put off."""
    failing: Mapping[str, str] = field(default_factory=dict)
    """By pass, `light pass` or `heavy pass`: what did so first in the last one, and why."""


class Upkeep:
    """The upkeep of one node.

    Args:
        directory: where the databases' files lie.
        catalog: the databases that the node knows of; those whose time has run out are deleted.
        sweep: what has expired in a branch, and its removal.
    """

    def __init__(
        self,
        engine: Engine,
        branching: Branching,
        collector: Collector,
        drill: Drill,
        leases: Leases,
        directory: Path,
        catalog: Catalog,
        sweep: Sweep,
        ambient: Ambient,
        limits: Limits,
    ) -> None:
        self._engine = engine
        self._branching = branching
        self._collector = collector
        self._drill = drill
        self._leases = leases
        self._directory = directory
        self._sweep = sweep
        self._ambient = ambient
        self._limits = limits
        self._catalog = catalog
        self._cursor = 0
        self._found: set[BranchRef] | None = None
        self._passes = 0
        self._failed: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.stats = UpkeepStats()

    def start(self) -> None:
        """Do it in a thread of its own from now on."""
        self._thread = threading.Thread(target=self._run, name="memoturn-upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        self.do("light pass", self.ship_leftovers)
        while not self._stop.wait(self._limits.upkeep_s):
            self._passes += 1
            self.do("light pass", self.light_pass)
            if self._passes % HEAVY_EVERY == 0:
                self.do("heavy pass", self.heavy_pass)

    # --- passes ----------------------------------------------------------------------------------

    def do(self, kind: str, work: Callable[[], None]) -> None:
        """Do a pass; what fails in it is in `stats.failing` until the next of its kind has ended."""
        self._failed = {}
        self._attempt(kind, work)
        others = {of: problem for of, problem in self.stats.failing.items() if of != kind}
        if self._failed:
            what, problem = next(iter(self._failed.items()))
            others[kind] = problem if what == kind else f"{what}: {problem}"
        self.stats = replace(self.stats, failing=others)

    def ship_leftovers(self) -> None:
        """Wake the branches that sleep with commits which may not be shipped, so that they are.

        Those that a killed process has left are looked for on the disk, once; of its own the engine knows. While
        the object store is down they wait for the next pass.
        """
        if self._found is None:
            self._found = {ref for ref in local_branches(self._directory) if LocalFiles(self._directory, ref).has_log()}
        for ref in self._found | self._engine.unshipped().keys():
            try:
                if not self._discard_if_gone(ref):
                    self._engine.wake(ref).result()
            except (OwnedElsewhere, NotFound):
                # Another process has it, or it was deleted: then there is nothing left to ship here.
                self._engine.forget_unshipped(ref)
            except Internal as error:
                log.error("not shipped", database=ref.uuid, branch=ref.branch, error=str(error))
                continue
            self._found.discard(ref)

    def light_pass(self) -> None:
        """Ship what was left, close what is idle, remove the branches and the rows whose time has run out."""
        self._attempt("leftovers", self.ship_leftovers)
        self._engine.run_due()
        self._engine.sweep(self._sweep)
        for ref in self._branching.expired():
            with suppress(OwnedElsewhere):  # its owner removes it
                self._branching.delete(ref)
        for entry in self._catalog.due():
            self._attempt("expired database", partial(self._delete, entry))

    def heavy_pass(self) -> None:
        """Compact, forget, collect, cool and drill; nothing where another process is at it."""
        try:
            self._leases.acquire(_ELECTION)
        except OwnedElsewhere:
            return
        try:
            for uuid in self._visited():
                self._attempt("upkeep of a database", partial(self.tend, uuid))
                if self._stop.is_set():
                    return
            for uuid in self._catalog.marks():
                self._attempt("upkeep of a deleted database", partial(self._clear, uuid))
            self.cool()
            self.try_a_restore()
        finally:
            self._leases.release(_ELECTION)

    def tend(self, uuid: str) -> None:
        """Compact and trim the histories of one database, then collect what nothing needs."""
        fine_ms = round(self._limits.fine_s * 1000)
        snapshots_ms = round(self._limits.snapshots_s * 1000)
        branches = self._engine.manifests.branches(uuid)
        if any(held.manifest.branch == MAIN and held.manifest.deleted_at is not None for held in branches):
            return  # a deleted database goes by its mark, in the order that its deletion needs
        for held in branches:
            if held.manifest.deleted_at is not None:
                continue
            ref = held.manifest.ref
            self._branching.remember_expiry(held.manifest)
            with suppress(NotFound):  # deleted meanwhile
                self._engine.compactor.compact(ref)
                self._engine.compactor.retain(ref, fine_ms=fine_ms, snapshots_ms=snapshots_ms)
        self._count(self._collector.collect(uuid))

    def _delete(self, entry: Entry) -> None:
        with suppress(OwnedElsewhere):  # its owner deletes it
            deletion.delete(self._catalog, self._branching, entry)

    def _clear(self, uuid: str) -> None:
        report = deletion.clear(self._catalog, self._branching, self._engine.manifests, self._collector, uuid)
        if report is not None:
            self._count(report)

    def _count(self, report: CollectReport) -> None:
        self.stats = replace(
            self.stats,
            collected_objects=self.stats.collected_objects + report.objects,
            collected_bytes=self.stats.collected_bytes + report.bytes,
        )

    def cool(self) -> None:
        """Remove the local files of branches that nobody has used for long; the object store has everything."""
        usage = shutil.disk_usage(self._directory) if self._directory.exists() else None
        crowded = usage is not None and usage.free < _FREE_SHARE * usage.total
        oldest_s = 0.0 if crowded else self._limits.cold_s
        for ref in local_branches(self._directory):
            self._attempt("cooling", partial(self._cool, ref, oldest_s))

    def _cool(self, ref: BranchRef, oldest_s: float) -> None:
        with suppress(FileNotFoundError, OwnedElsewhere):
            idle_s = self._ambient.now_ms() / 1000 - LocalFiles(self._directory, ref).database.stat().st_mtime
            if idle_s >= oldest_s and (self._engine.cool(ref).result() or self._discard_if_gone(ref)):
                self.stats = replace(self.stats, cooled=self.stats.cooled + 1)

    def _discard_if_gone(self, ref: BranchRef) -> bool:
        """Remove what this machine still has of a database that was deleted elsewhere; whether it was."""
        if not deletion.is_gone(self._catalog, self._engine.manifests, ref.uuid):
            return False
        with suppress(NotFound):  # then it is removed by the attempt to open it
            self._engine.exclusive(ref, lambda branch: self._engine.sleep(branch, discard=True)).result()
        self._engine.forget_unshipped(ref)
        return True

    def try_a_restore(self) -> None:
        """Drill one branch of one database, whichever chance picks."""
        uuids = self._uuids()
        refs = self._engine.manifests.refs(self._any(uuids)) if uuids else []
        if not refs:
            return
        result = self._drill.run(self._any(refs))
        self.stats = replace(
            self.stats,
            drills_ok=self.stats.drills_ok + (result.ok is True),
            drills_failed=self.stats.drills_failed + (result.ok is False),
            drill_seconds=self.stats.drill_seconds if result.ok is None else result.seconds,
        )
        if result.ok is False:
            ref = result.ref
            log.error("a restore drill failed", database=ref.uuid, branch=ref.branch, problem=result.problem)

    def _uuids(self) -> list[str]:
        return [entry.uuid for entry in self._catalog.with_prefix("")]

    def _any(self, choices: Sequence[T]) -> T:
        return choices[int.from_bytes(self._ambient.token(8)) % len(choices)]

    # --- what to visit ---------------------------------------------------------------------------

    def _visited(self) -> list[str]:
        changed = self._engine.publisher.take_changed()
        uuids = self._uuids()
        start = self._cursor if self._cursor < len(uuids) else 0
        self._cursor = start + _SLICE
        return sorted(changed | set(uuids[start : self._cursor]))

    def _attempt(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except MemoturnError as error:
            self._note_failure(what, error)
            log.warning("upkeep put off", what=what, error=str(error))
        except Exception as error:
            self._note_failure(what, translate(error))
            log.error("upkeep failed", what=what, exc_info=translate(error).__cause__ or error)

    def _note_failure(self, what: str, error: MemoturnError) -> None:
        self._failed.setdefault(what, str(error))
        self.stats = replace(self.stats, failures=self.stats.failures + 1)
