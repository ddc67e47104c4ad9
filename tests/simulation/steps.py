"""One run from one seed: what happens in which order, how it comes to rest, and whether all is well then.

`run(seed)` raises `Violation` with the trace where a promise was broken. Called by the tests and by
`python -m simulation`.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import structlog

from memoturn_storage.branching import Moment
from memoturn_storage.engine import Limits
from memoturn_storage.manifest import MAIN, BranchRef
from objects.faulty import Faults
from simulation import operations
from simulation.model import Violation
from simulation.operations import Job
from simulation.processes import Process
from simulation.rest import check, come_to_rest
from simulation.world import Odds, Session, World

STEPS = 60
_LONGEST_S = 20
"""Of real time, after which a run counts as hung."""

LIMITS = Limits(threads=0, hot_cap=3, ship_interval_s=0.2, idle_s=20.0, grace_s=120.0)
BRANCHES = (MAIN, "left", "right")
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""A disk in memory, where there is one."""

WEATHERS = (
    Odds(others=0.1),
    Odds(Faults(before=0.05, after=0.05, lost=0.05), slowest_s=0.5, others=0.1),
    Odds(Faults(before=0.02, after=0.02, lost=0.1), slowest_s=2.0, late=0.05, others=0.15, stall=0.02),
    Odds(Faults(before=0.02, after=0.02, lost=0.02), slowest_s=0.2, death=0.02, others=0.1),
    Odds(slowest_s=1.0, late=0.1, stall=0.05, death=0.02, others=0.2),
)


def run(seed: int, *, show: Callable[[str], None] = lambda line: None) -> list[str]:
    """One run; its trace.

    Raises:
        Violation: with the trace.
    """
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=_files()))
    quiet = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    signal.signal(signal.SIGALRM, _hung)
    signal.alarm(_LONGEST_S)
    course = Course(seed, directory)
    try:
        course.run()
    except Exception as error:
        found = error if isinstance(error, Violation) else Violation(f"{type(error).__name__}: {error}")
        raise Violation("\n".join([*course.world.trace, f"seed {seed}: {found}"])) from error
    finally:
        signal.alarm(0)
        course.world.close()
        structlog.configure(**quiet)
        shutil.rmtree(directory, ignore_errors=True)
    return course.world.trace


def _files() -> str | Path | None:
    # A process of `simulation.many` has a place of its own, any other has the system's in `tempdir` at most.
    return tempfile.tempdir if multiprocessing.parent_process() is not None else MEMORY


def _hung(_signal: int, _frame: object) -> None:
    raise Violation(f"the run hung for {_LONGEST_S} s")


class Course:
    """The course of one run."""

    def __init__(self, seed: int, directory: Path) -> None:
        chosen = Random(f"kind {seed}")
        shared = chosen.random() < 0.3
        processes = chosen.choice([1, 2, 2, 3])
        self.world = World(seed, directory, chosen.choice(WEATHERS), processes=processes, shared=shared, limits=LIMITS)
        self.world.act = self.step
        self.random = self.world.random
        self.sessions = [Session("one"), Session("two")]
        self.names = 0
        kind = "a shared disk" if shared else "disks of their own"
        self.world.trace.append(f"{processes} processes over {kind}, {self.world.odds}")

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()
            self.happen()
        come_to_rest(self.world)
        check(self.world, lambda truth: self.random.sample(sorted(truth.states), min(3, len(truth.states))))

    # --- what happens ----------------------------------------------------------------------------

    def happen(self) -> None:
        """What is nobody's doing."""
        world, random = self.world, self.random
        world.pass_time(random.choice([0.0, 0.0, 0.05, 0.3, 1.0]))
        while world.late and random.random() < 0.3:
            effect = world.late.pop(random.randrange(len(world.late)))
            world.trace.append(f"    a late write: {effect()}")
        for process in world.processes:
            if random.random() < 0.1:
                process.store.down = not process.store.down and random.random() < 0.3
            if random.random() < 0.1:
                process.cut_off = not process.cut_off and random.random() < 0.3
        if random.random() < 0.02:
            self.lose_power(random.choice(world.processes))

    def lose_power(self, process: Process) -> None:
        """A machine goes, and its disk with it."""
        world = self.world
        world.trace.append(f"    the disk of {process.name} is lost")
        gone = [other for other in world.processes if other.disk is process.disk]
        for other in gone:
            other.die()
            other.bury()
        process.disk.wipe()
        for other in gone:
            world.restart(other)

    def step(self) -> None:
        """Some idle process is asked for something."""
        world, random = self.world, self.random
        process = random.choice(world.idle())
        uuid = world.uuids[0] if random.random() < 0.8 else world.uuids[1]
        ref = BranchRef(uuid, random.choice(BRANCHES) if random.random() < 0.5 else MAIN)
        drawn = random.random() * _TOTAL
        for weight, choose in _CHOICES:
            drawn -= weight
            if drawn < 0:
                what, operation = choose(self, ref)
                world.run(process, f"{what} {ref.uuid[:2]}/{ref.branch}", partial(self._routed, process, operation))
                return

    def _routed(self, process: Process, operation: Callable[[World, Process], str]) -> str:
        """One hop: who is not the owner asks the owner."""
        outcome = operation(self.world, process)
        if outcome.startswith("owned by "):
            owner = self.world.find(outcome.removeprefix("owned by "))
            if owner is not None and owner in self.world.idle():
                self.world.run(owner, f"asked by {process.name}", partial(operation, self.world, owner))
        return outcome

    # --- choices ---------------------------------------------------------------------------------

    def write(self, ref: BranchRef) -> _Choice:
        durable = self.random.random() < 0.4
        jobs = [self.job() for _ in range(self.random.choice([1, 1, 1, 3]))]
        what = f"writes {len(jobs)}{' durably' * durable}"
        return what, partial(_on, operations.write, ref, jobs=jobs, durable=durable, by=self.session())

    def job(self) -> Job:
        random = self.random
        self.names += 1
        drawn = random.random()
        if drawn < 0.15:
            first = random.randrange(12)
            return operations.remove(first, first + random.randrange(4))
        text = f"word{self.names} " * random.choice([1, 3, 3, 40, 400 if drawn > 0.95 else 10])
        job = operations.put(random.randrange(12), text)
        return job if drawn < 0.93 else operations.failing(job)

    def read(self, ref: BranchRef) -> _Choice:
        durable = self.random.random() < 0.3
        what = "reads" + " durably" * durable
        return what, partial(_on, operations.read, ref, durable=durable, by=self.session())

    def fork(self, ref: BranchRef) -> _Choice:
        name = self.random.choice(BRANCHES[1:])
        at = self.moment(ref) if self.random.random() < 0.5 else None
        return f"forks {name} at {at} of", partial(_on, operations.fork, ref, name=name, at=at)

    def rewind(self, ref: BranchRef) -> _Choice:
        to = self.moment(ref)
        return f"rewinds to {to}", partial(_on, operations.rewind, ref, to=to)

    def moment(self, ref: BranchRef) -> Moment:
        random, truth = self.random, self.world.model.truth(ref)
        head = 0 if truth is None else truth.manifest.head_txid
        kind = random.random()
        if kind < 0.5:
            return Moment(txid=random.randrange(max(1, head - 5), head + 3))
        if kind < 0.8:
            return Moment(checkpoint=random.choice("ab"))
        return Moment(at_ms=self.world.ambient.now_ms() - random.randrange(20_000))

    def checkpoint(self, ref: BranchRef) -> _Choice:
        name = self.random.choice("ab")
        return f"makes the checkpoint {name} of", partial(_on, operations.checkpoint, ref, name=name)

    def promote(self, ref: BranchRef) -> _Choice:
        source = BranchRef(ref.uuid, self.random.choice(BRANCHES[1:]))
        return f"promotes {source.branch} to", partial(_on, operations.promote, source)

    def delete(self, ref: BranchRef) -> _Choice:
        child = BranchRef(ref.uuid, self.random.choice(BRANCHES[1:]))
        return f"deletes {child.branch} beside", partial(_on, operations.delete, child)

    def compact(self, ref: BranchRef) -> _Choice:
        return "compacts", partial(_on, operations.compact, ref)

    def retain(self, ref: BranchRef) -> _Choice:
        fine_ms, snapshots_ms = self.random.choice([0, 5_000, 60_000]), self.random.choice([10_000, 100_000])
        return "trims", partial(_on, operations.retain, ref, fine_ms=fine_ms, snapshots_ms=snapshots_ms)

    def collect(self, ref: BranchRef) -> _Choice:
        return "collects", partial(_on, operations.collect, ref.uuid)

    def drill(self, ref: BranchRef) -> _Choice:
        return "drills", partial(_on, operations.drill, ref)

    def tick(self, _ref: BranchRef) -> _Choice:
        return "ticks", operations.tick

    def doze(self, ref: BranchRef) -> _Choice:
        return "puts to sleep", partial(_on, operations.doze, ref)

    def rest(self, _ref: BranchRef) -> _Choice:
        drawn = self.random.choice([3.0, 12.0, 25.0, 130.0])

        def resting(world: World, process: Process) -> str:
            # No call to the store takes longer than the grace period, which is for that.
            world.pass_time(drawn / 2 if world.amid else drawn)
            return operations.tick(world, process)

        return f"rests for {drawn} s", resting

    def die(self, _ref: BranchRef) -> _Choice:
        def dying(_world: World, process: Process) -> str:
            process.die()
            return "died"

        return "is killed", dying

    def stop(self, _ref: BranchRef) -> _Choice:
        return "stops", operations.stop

    def session(self) -> Session:
        return self.random.choice(self.sessions)


_Choice = tuple[str, Callable[[World, Process], str]]


def _on(operation: Callable[..., str], target: BranchRef | str, world: World, process: Process, **options: Any) -> str:
    return operation(world, process, target, **options)


_CHOICES: tuple[tuple[float, Callable[[Course, BranchRef], _Choice]], ...] = (
    (30, Course.write),
    (12, Course.read),
    (6, Course.fork),
    (5, Course.rewind),
    (4, Course.checkpoint),
    (2, Course.promote),
    (2, Course.delete),
    (2, Course.compact),
    (2, Course.retain),
    (4, Course.collect),
    (1, Course.drill),
    (8, Course.tick),
    (3, Course.doze),
    (4, Course.rest),
    (2, Course.die),
    (2, Course.stop),
)
_TOTAL = sum(weight for weight, _ in _CHOICES)
