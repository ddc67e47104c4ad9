"""Disks, and the processes that run over them and die.

A process is an engine with everything around it that a node has. One that dies does so at a moment: its
files are copied as they are then, whatever it still does happens to the originals and reaches nothing, and
when it has come to rest the copies take their place. Used by `simulation.world`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from memoturn_storage.branch import Branch
from memoturn_storage.branching import Branching
from memoturn_storage.collector import Collector
from memoturn_storage.drill import Drill
from memoturn_storage.engine import Engine, Limits
from memoturn_storage.handle import Transaction
from memoturn_storage.history import Compactor
from memoturn_storage.leases.lease import Lease, OwnedElsewhere
from memoturn_storage.leases.memory import MemoryLeases
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import BranchRef
from memoturn_storage.schema import Schema
from objects.faulty import Faults, FaultyStore
from simulation.model import Content, Intent, Line
from simulation.reach import Reach

if TYPE_CHECKING:
    from simulation.world import World

SCHEMA = Schema(
    (
        "CREATE TABLE notes (k INTEGER PRIMARY KEY, v TEXT NOT NULL);"
        "CREATE VIRTUAL TABLE words USING fts5 (v, content='notes', content_rowid='k');"
        "CREATE TRIGGER inserted AFTER INSERT ON notes BEGIN"
        " INSERT INTO words (rowid, v) VALUES (new.k, new.v); END;"
        "CREATE TRIGGER deleted AFTER DELETE ON notes BEGIN"
        " INSERT INTO words (words, rowid, v) VALUES ('delete', old.k, old.v); END;"
        "CREATE TRIGGER updated AFTER UPDATE ON notes BEGIN"
        " INSERT INTO words (words, rowid, v) VALUES ('delete', old.k, old.v);"
        " INSERT INTO words (rowid, v) VALUES (new.k, new.v); END;",
    )
)

Change = Callable[[Content], Content]
IDLE = Intent("idle")


@dataclass(slots=True, eq=False)
class Disk:
    directory: Path
    lines: dict[BranchRef, Line] = field(default_factory=dict)

    def wipe(self) -> None:
        shutil.rmtree(self.directory)
        self.directory.mkdir()
        self.lines.clear()


class _Leases:
    """A process's leases: the dead neither take nor give back any."""

    def __init__(self, process: Process, kept: MemoryLeases) -> None:
        self._process = process
        self.kept = kept

    def acquire(self, database: str) -> Lease:
        if not self._process.alive:
            raise OwnedElsewhere("")
        return self.kept.acquire(database)

    def held(self, database: str) -> bool:
        return self.kept.held(database)

    def owner(self, database: str) -> str | None:
        return self.kept.owner(database)

    def release(self, database: str) -> None:
        if self._process.alive:
            self.kept.release(database)

    def close(self) -> None:
        if self._process.alive:
            self.kept.close()


class Process:
    """One process: its engine, what it was asked, and what it has run of that."""

    def __init__(self, world: World, name: str, disk: Disk, *, ttl_s: float | None, limits: Limits) -> None:
        self.world = world
        self.name = name
        self.disk = disk
        self.alive = True
        self.cut_off = False
        """Whether it does not reach the lease store, and so cannot renew."""
        self.intent = IDLE
        self.ran: list[Change] = []
        """What the jobs of the transaction that is being made change."""
        self._frozen: Path | None = None
        self.leases = _Leases(self, MemoryLeases(world.registry, name, world.ambient, ttl_s))
        self.store = FaultyStore(
            Reach(world.landing, self),
            world.random,
            world.odds.faults,
            delay=lambda seconds: world.meanwhile(self, seconds),
            slowest=world.odds.slowest_s,
        )
        self.engine = Engine(SCHEMA, world.ambient, disk.directory, self.store, self.leases, limits)
        self.branching = Branching(self.engine, world.ambient)
        manifests, restorer = self.engine.manifests, self.engine.restorer
        self.compactor = Compactor(self.store, manifests, restorer, world.ambient, self.engine.update_manifest)
        self.collector = Collector(self.store, manifests, world.ambient)
        self.drill = Drill(manifests, restorer, world.ambient)
        (self._worker,) = self.engine._workers
        self._wake = self._worker._waker.wake
        self._worker._waker.wake = self._observed_wake  # type: ignore[method-assign]

    def branch(self, ref: BranchRef) -> Branch | None:
        """The branch, if it is open here."""
        return next((branch for branch in self._worker.branches() if branch.ref == ref), None)

    def branches(self) -> list[Branch]:
        return self._worker.branches()

    def heal(self) -> None:
        """Have everything around it work."""
        self.cut_off = self.store.down = False
        self.store._faults, self.store._slowest = Faults(), 0.0

    # --- what the model sees ---------------------------------------------------------------------

    def _observed_wake(self, ref: BranchRef) -> Branch:
        known = self.disk.lines.get(ref)
        log = LocalFiles(self.disk.directory, ref).wal
        if known is not None and log.exists():
            # A file system keeps real time; here a log was written when its last transaction was.
            os.utime(log, ns=(known.head.at * 1_000_000,) * 2)
        branch = self._wake(ref)
        if self.alive:
            self._observe(branch, self.world.model.woken(self.disk.lines, branch))
        return branch

    def _observe(self, branch: Branch, line: Line) -> None:
        note, restart = branch.tail.note, branch.tail.restart

        def noted(txid: int, end_frame: int, now_ms: int) -> None:
            note(txid, end_frame, now_ms)
            if self.alive and branch.handle is not None:
                content = line.head.content
                for change in self.ran:
                    content = change(content)
                self.ran.clear()
                line.commit(txid, content, branch.handle.image())
                line.date(branch)

        def restarted(image: bytes, txid: int, end_frame: int, now_ms: int) -> None:
            restart(image, txid, end_frame, now_ms)
            if self.alive:
                line.commit(txid, line.head.content, image)
                line.date(branch)

        branch.tail.note, branch.tail.restart = noted, restarted  # type: ignore[method-assign]

    def observed(self, sql: str, bindings: tuple[object, ...], change: Change) -> Callable[[Transaction], None]:
        """A job that runs one statement, whose effect the model knows as `change`."""

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(sql, bindings)
            self.ran.append(change)

        return work

    # --- ending ----------------------------------------------------------------------------------

    def die(self) -> None:
        """Die now, like by `kill -9`: nothing that this process still does reaches anything."""
        if not self.alive:
            return
        self.alive = False
        self.store.down = True
        self._frozen = self.world.new_directory()
        for folder in self._folders():
            shutil.copytree(folder, self._frozen / folder.relative_to(self.disk.directory))

    def bury(self) -> None:
        """Once a dead process has come to rest: put its files back as they were when it died."""
        folders = self._folders()
        for branch in self.branches():
            if branch.handle is not None:
                branch.handle._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.engine.close()
        if self._frozen is None:
            return
        for folder in folders:
            shutil.rmtree(folder)
            frozen = self._frozen / folder.relative_to(self.disk.directory)
            if frozen.exists():
                shutil.copytree(frozen, folder)
        shutil.rmtree(self._frozen)
        if self.world.shared:
            self.leases.kept.close()  # the kernel drops them

    def close(self) -> None:
        """Stop as asked to: ship what can be shipped, give back the leases."""
        self.engine.close()
        self.alive = False

    def _folders(self) -> list[Path]:
        """The files that this process may be using: those of the databases it owns, or all of its own disk."""
        folders = [folder for folder in self.disk.directory.glob("*/*") if folder.is_dir()]
        return [folder for folder in folders if not self.world.shared or self.leases.held(folder.name)]
