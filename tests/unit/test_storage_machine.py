"""One process over one disk, through whatever can be done to a database, against the model of the simulation.

The model (`simulation.model`) knows every state that was committed, with the checksum of its file, and
checks each manifest as it lands and each file as it wakes; at the end a new machine must restore every
transaction of every history byte for byte.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from examples import examples
from memoturn_storage.branching import Moment
from memoturn_storage.engine import Limits
from memoturn_storage.manifest import MAIN, BranchRef
from simulation import operations
from simulation.model import rows
from simulation.operations import Job
from simulation.processes import Process
from simulation.rest import check, come_to_rest
from simulation.steps import MEMORY
from simulation.world import Odds, Session, World

BRANCHES = (MAIN, "left", "right")
names = st.sampled_from((MAIN, MAIN, MAIN, *BRANCHES[1:]))
children = st.sampled_from(BRANCHES[1:])
checkpoints = st.sampled_from("ab")
keys = st.integers(0, 11)
texts = st.builds(
    lambda word, times: f"{word} " * times, st.sampled_from("abcdef"), st.sampled_from([1, 5, 60, 1500, 12000])
)
jobs = st.one_of(
    st.builds(operations.put, keys, texts),
    st.builds(operations.put, keys, texts),
    st.builds(lambda first, more: operations.remove(first, first + more), keys, st.integers(0, 11)),
    st.builds(lambda key, text: operations.failing(operations.put(key, text)), keys, texts),
)
folds = st.sampled_from([apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_TRUNCATE])
ages = st.sampled_from([0, 500, 5_000, 100_000])


class Storage(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir=MEMORY))
        limits = Limits(threads=0, hot_cap=2, idle_s=20.0, grace_s=120.0)
        self.world = World(0, self.directory, Odds(), processes=1, shared=True, limits=limits)
        self.client = Session("client")

    @property
    def process(self) -> Process:
        return self.world.processes[0]

    def ref(self, name: str) -> BranchRef:
        return BranchRef(self.world.uuids[0], name)

    def run(self, operation: Callable[..., str], target: BranchRef | None = None, **options: object) -> None:
        arguments = () if target is None else (target,)
        what = operation.__name__
        self.world.run(self.process, what, partial(operation, self.world, self.process, *arguments, **options))

    # --- clients ---------------------------------------------------------------------------------

    @rule(name=names, group=st.lists(jobs, min_size=1, max_size=4), durable=st.booleans())
    def write(self, name: str, group: list[Job], durable: bool) -> None:
        self.run(operations.write, self.ref(name), jobs=group, durable=durable, by=self.client)

    @rule(name=names, durable=st.booleans())
    def read(self, name: str, durable: bool) -> None:
        self.run(operations.read, self.ref(name), durable=durable, by=self.client)

    @rule(name=names, child=children, data=st.data())
    def fork(self, name: str, child: str, data: st.DataObject) -> None:
        at = data.draw(st.one_of(st.none(), self.moments(name)), "at")
        self.run(operations.fork, self.ref(name), name=child, at=at)

    @rule(name=names, data=st.data())
    def rewind(self, name: str, data: st.DataObject) -> None:
        self.run(operations.rewind, self.ref(name), to=data.draw(self.moments(name), "to"))

    @rule(name=names, checkpoint=checkpoints)
    def checkpoint(self, name: str, checkpoint: str) -> None:
        self.run(operations.checkpoint, self.ref(name), name=checkpoint)

    @rule(child=children)
    def promote(self, child: str) -> None:
        self.run(operations.promote, self.ref(child))

    @rule(child=children)
    def delete(self, child: str) -> None:
        self.run(operations.delete, self.ref(child))

    def moments(self, name: str) -> st.SearchStrategy[Moment]:
        line = self.process.disk.lines.get(self.ref(name))
        head = 0 if line is None else line.head.txid
        now = self.world.ambient.now_ms()
        return st.one_of(
            st.builds(lambda txid: Moment(txid=txid), st.integers(max(0, head - 6), head + 2)),
            st.builds(lambda checkpoint: Moment(checkpoint=checkpoint), checkpoints),
            st.builds(lambda age: Moment(at_ms=now - age), ages),
        )

    # --- upkeep ----------------------------------------------------------------------------------

    @rule(name=names)
    def compact(self, name: str) -> None:
        self.run(operations.compact, self.ref(name))

    @rule(name=names, fine_ms=ages, snapshots_ms=ages)
    def retain(self, name: str, fine_ms: int, snapshots_ms: int) -> None:
        self.run(operations.retain, self.ref(name), fine_ms=fine_ms, snapshots_ms=snapshots_ms)

    @rule()
    def collect(self) -> None:
        world, process = self.world, self.process
        world.run(process, "collect", partial(operations.collect, world, process, world.uuids[0]))

    @rule(name=names)
    def drill(self, name: str) -> None:
        self.run(operations.drill, self.ref(name))

    @rule(seconds=st.sampled_from([0.0, 0.3, 2.0, 25.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        self.run(operations.tick)

    @rule(name=names)
    def doze(self, name: str) -> None:
        self.run(operations.doze, self.ref(name))

    # --- mishaps ---------------------------------------------------------------------------------

    @rule(name=names)
    def vacuum(self, name: str) -> None:
        self.run(operations.vacuum, self.ref(name))
        self.read(name, durable=False)

    @rule(name=names, mode=folds)
    def another_program_folds(self, name: str, mode: int) -> None:
        self.run(operations.another_program_folds, self.ref(name), mode=mode)

    @rule(name=names, mode=folds, group=st.lists(jobs, min_size=1, max_size=4), durable=st.booleans())
    def another_program_folds_between_writes(self, name: str, mode: int, group: list[Job], durable: bool) -> None:
        self.read(name, durable=True)
        self.another_program_folds(name, mode)
        self.write(name, group, durable)

    @rule()
    def kill(self) -> None:
        def killed(_world: World, process: Process) -> str:
            process.die()
            return "died"

        self.run(killed)

    @rule()
    def stop(self) -> None:
        self.run(operations.stop)

    @rule()
    def lose_the_disk(self) -> None:
        process = self.process
        process.die()
        process.bury()
        process.disk.wipe()
        self.world.restart(process)

    @precondition(lambda self: self.world.calm)
    @rule()
    def the_store_goes_down(self) -> None:
        self.world.calm = False
        self.process.store.down = True

    @precondition(lambda self: not self.world.calm)
    @rule()
    def the_store_comes_back(self) -> None:
        self.process.store.down = False
        self.world.calm = True

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def open_files_hold_what_was_committed(self) -> None:
        for branch in self.process.branches():
            head = self.process.disk.lines[branch.ref].head
            if branch.handle is not None:
                assert (branch.handle.txid, rows(branch.handle._connection)) == (head.txid, head.content)

    def teardown(self) -> None:
        try:
            self.world.calm = False
            come_to_rest(self.world)
            check(self.world, lambda truth: sorted(truth.states))
        finally:
            self.world.close()
            shutil.rmtree(self.directory)


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.configure(**before)


def test_nothing_that_is_done_to_a_database_loses_or_changes_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoturn_storage.handle.CHECKPOINT_FRAMES", 20)
    found = settings(
        max_examples=examples(120),
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    run_state_machine_as_test(Storage, settings=found)


# --- what was found once -------------------------------------------------------------------------


@pytest.fixture
def storage() -> Iterator[Storage]:
    """Its `teardown` checks that a new machine restores everything."""
    machine = Storage()
    yield machine
    machine.teardown()


def test_a_fork_of_a_branch_that_nobody_has_written_to_takes_no_later_write_away(storage: Storage) -> None:
    storage.run(operations.fork, storage.ref(MAIN), name="left", at=None)
    storage.write(MAIN, [operations.put(1, "first")], durable=False)
    storage.time_passes(1.0)
    storage.read(MAIN, durable=True)


@pytest.mark.parametrize("mode", [apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_TRUNCATE])
@pytest.mark.parametrize("durable", [True, False])
def test_a_log_that_another_program_folds_and_a_long_write_begins_anew_is_noticed(
    storage: Storage, mode: int, durable: bool
) -> None:
    for key in (1, 2):
        storage.write(MAIN, [operations.put(key, "short")], durable=True)
    storage.another_program_folds(MAIN, mode)
    storage.write(MAIN, [operations.put(3, "long " * 8000)], durable=durable)


def test_a_vacuum_whose_log_is_folded_before_the_next_write_is_noticed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoturn_storage.handle.CHECKPOINT_FRAMES", 20)
    for key in (1, 2):
        storage.write(MAIN, [operations.put(key, "many words " * 5000)], durable=True)
    storage.write(MAIN, [operations.remove(1, 1)], durable=True)
    storage.vacuum(MAIN)
    storage.read(MAIN, durable=False)
    storage.write(MAIN, [operations.put(3, "next")], durable=True)


def test_a_rewind_into_the_middle_of_an_object_leaves_what_is_above_it_unread(storage: Storage) -> None:
    for key in range(6):
        storage.write(MAIN, [operations.put(key, "shipped together")], durable=False)
    storage.read(MAIN, durable=True)
    storage.run(operations.rewind, storage.ref(MAIN), to=Moment(txid=3))
    storage.write(MAIN, [operations.put(9, "instead")], durable=True)
