"""The world of one run: a clock, an object store, leases, disks and processes, and the chance that moves them.

Everything happens on one thread. While a process waits for the store, the world may have others act, let
time pass, or have the process die: so operations of several processes interleave at every call to the
store. One seed is one course of events. Used by `simulation.steps` and by the state machine over one
process in `tests/unit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from memoturn_storage.ambient import ManualAmbient, new_uuid
from memoturn_storage.engine import Limits
from memoturn_storage.leases.memory import LeaseRegistry
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore
from objects.faulty import Faults
from simulation.model import Model, State, Violation
from simulation.processes import Disk, Process
from simulation.reach import Landing

TTL_S = 10.0
_RENEWED_EVERY_S = 3.0
_STALL_S = 11.0
"""Longer than a lease lives."""


@dataclass(frozen=True, slots=True)
class Odds:
    """Probabilities, of each call to the store, and what else differs from run to run."""

    faults: Faults = field(default_factory=Faults)
    slowest_s: float = 0.0
    late: float = 0.0
    """That a write lands long after its error."""
    death: float = 0.0
    """That the process dies, before the call or after its effect."""
    stall: float = 0.0
    """That the process stands still for longer than its lease lives."""
    others: float = 0.0
    """That another process acts meanwhile."""


@dataclass(slots=True)
class Session:
    """A client, who never wants to see less than it has seen."""

    name: str
    seen: dict[BranchRef, State] = field(default_factory=dict)


class World:
    """One run.

    Args:
        directory: of its own, for the disks.
        shared: whether the processes share one disk, whose leases the kernel keeps, or have one each.
        act: has some idle process do something, while others wait for the store.
    """

    def __init__(self, seed: int, directory: Path, odds: Odds, *, processes: int, shared: bool, limits: Limits) -> None:
        self.random = Random(seed)
        self.ambient = ManualAmbient(seed=seed)
        self.odds = odds
        self.shared = shared
        self.limits = limits
        self.model = Model()
        self.registry = LeaseRegistry()
        self.landing = Landing(MemoryStore(self.ambient), self.model)
        self.late: list[Callable[[], str]] = []
        self.trace: list[str] = []
        self.broken: list[Violation] = []
        """What was found where an exception would not get through."""
        self.act: Callable[[], None] = lambda: None
        self.calm = processes == 1 and odds == Odds()
        """Whether nothing excuses a failure."""
        self.uuids = [new_uuid(self.ambient) for _ in range(2)]
        self._directory = directory
        self._directories = 0
        self._busy: list[Process] = []
        self._started = 0
        disks = [Disk(self.new_directory()) for _ in range(1 if shared else processes)]
        self.processes = [self.start(disks[number % len(disks)]) for number in range(processes)]

    def new_directory(self) -> Path:
        self._directories += 1
        path = self._directory / str(self._directories)
        path.mkdir()
        return path

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    # --- processes -------------------------------------------------------------------------------

    def start(self, disk: Disk) -> Process:
        self._started += 1
        ttl_s = None if self.shared else TTL_S
        return Process(self, f"p{self._started}", disk, ttl_s=ttl_s, limits=self.limits)

    def restart(self, process: Process) -> None:
        """A new process over the disk of one that has ended."""
        self.processes[self.processes.index(process)] = self.start(process.disk)

    def idle(self) -> list[Process]:
        return [process for process in self.processes if process not in self._busy]

    @property
    def amid(self) -> bool:
        """Whether this happens while a process waits for the store."""
        return len(self._busy) > 1

    def find(self, address: str) -> Process | None:
        return next((process for process in self.processes if process.name == address and process.alive), None)

    def close(self) -> None:
        for process in self.processes:
            process.die()
            process.bury()

    # --- what happens ----------------------------------------------------------------------------

    def run(self, process: Process, what: str, operation: Callable[[], str]) -> None:
        """Have a process do something, and what must be done if it dies of it."""
        self._busy.append(process)
        indent = "    " * len(self._busy)
        number = len(self.trace)
        self.trace.append(f"{indent}{self.ambient.monotonic():8.3f} {process.name} {what}")
        try:
            outcome = operation()
        finally:
            self._busy.remove(process)
        if not process.alive:
            outcome = "died"
            process.bury()
            self.restart(process)
        if len(self.trace) > number + 1:
            self.trace.append(f"{indent}{self.ambient.monotonic():8.3f} {process.name} -> {outcome}")
        else:
            self.trace[number] += f" -> {outcome}"
        if self.broken:
            raise self.broken[0]

    def meanwhile(self, process: Process, seconds: float) -> None:
        """While a process waits for the store."""
        if not process.alive:
            return
        self.pass_time(seconds)
        if self.chance(self.odds.stall):
            self.pass_time(_STALL_S, stalled=process)
        if self.chance(self.odds.death):
            process.die()
        elif self.chance(self.odds.others) and self.idle():
            for _ in range(self.random.choice([1, 1, 1, 4])):
                self.act()

    def pass_time(self, seconds: float, *, stalled: Process | None = None) -> None:
        while seconds > 0:
            self.ambient.advance(seconds=min(seconds, _RENEWED_EVERY_S))
            seconds -= _RENEWED_EVERY_S
            for process in self.processes if not self.shared else ():
                if process.alive and process is not stalled and not process.cut_off:
                    process.leases.kept.renew()
