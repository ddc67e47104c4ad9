"""Databases come and go on three machines that share a failing object store; what was deleted is never seen again.

The model knows what each name may hold: what was written and acknowledged, what may have been, and what a
deletion has ended. A failed call leaves its outcome open, until a later answer tells.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from examples import examples
from memoturn_schemas.errors import AlreadyExists, DatabaseNotFound, Unavailable
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.manifest import MAIN
from objects.faulty import Faults, FaultyStore
from unit.machines import GRACE_S, Machine, SharedStore

NAMES = ["shop", "acme--ann"]
"""A plain database, which is created, and a profile, whose first write does it."""

FAULTS = Faults(before=0.06, after=0.06, lost=0.06)
NONE = Faults()


@dataclass
class Known:
    """What is known of a name."""

    there: bool | None = False
    """None: a call failed, and nothing has told since."""
    acknowledged: set[str] = field(default_factory=set)
    """Written since anybody tried to delete the database."""
    ended: set[str] = field(default_factory=set)
    """Sent before a deletion, which is done: must never be seen again."""
    sent: set[str] = field(default_factory=set)
    """Since then."""
    deleted_at: int | None = None

    def is_gone(self) -> None:
        self.there = False
        self.ended |= self.sent
        self.sent, self.acknowledged = set(), set()


class Databases(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ambient = ManualAmbient(now_ms=4_000_000_000_000)  # after the files, whose age is that of real ones
        self.store = SharedStore(self.ambient)
        self.faulty = FaultyStore(self.store, Random(0), NONE)
        self.machines = [Machine(self.faulty, self.ambient) for _ in range(3)]
        self.names = {name: Known() for name in NAMES}
        self.uuids: set[str] = set()
        self.told: dict[tuple[int, str], int] = {}
        self.texts = map(str, itertools.count())

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.faulty._random = Random(seed)

    machine = st.integers(0, 2)
    name = st.sampled_from(NAMES)

    def failed(self, known: Known) -> None:
        """A call did not say what it did."""
        assert self.faulty._faults == FAULTS, "nothing is unavailable while the store works"

    # --- what callers do -------------------------------------------------------------------------

    @rule(at=machine, name=name)
    def write(self, at: int, name: str) -> None:
        known, text = self.names[name], next(self.texts)
        known.sent.add(text)
        try:
            self.machines[at].write(name, text)
        except DatabaseNotFound:
            assert (name, known.there) != (name, True)
            assert "--" not in name
            known.is_gone()
        except Unavailable:
            self.failed(known)
            known.there = known.there if "--" not in name else known.there or None
        else:
            assert known.there is not False or "--" in name
            known.there = True
            known.acknowledged.add(text)

    @rule(at=machine, name=name)
    def read(self, at: int, name: str) -> None:
        known = self.names[name]
        try:
            found = self.machines[at].texts(name)
        except DatabaseNotFound:
            assert known.there is not True
            known.is_gone()
        except Unavailable:
            self.failed(known)
        else:
            assert known.there is not False
            known.there = True
            assert len(found) == len(set(found))
            assert not known.ended & set(found)
            assert known.acknowledged <= set(found) <= known.sent

    @rule(at=machine)
    def create(self, at: int) -> None:
        known = self.names["shop"]
        try:
            made = self.machines[at].create("shop")
        except AlreadyExists:
            assert known.there is not False
            known.there = True
        except Unavailable:
            self.failed(known)
            known.there = known.there or None
        else:
            assert known.there is not True
            if known.there is None:
                known.is_gone()  # a deletion that failed was done
            known.there = True
            assert made["uuid"] not in self.uuids
            self.uuids.add(made["uuid"])

    @rule(at=machine, name=name)
    def delete(self, at: int, name: str) -> None:
        known, now = self.names[name], self.ambient.now_ms()
        try:
            self.machines[at].delete(name)
        except DatabaseNotFound:
            assert known.there is not True
            known.is_gone()
        except Unavailable:
            self.failed(known)
            known.there = None if known.there else known.there
            known.acknowledged = set()
        else:
            assert known.there is not False
            known.is_gone()
            told = self.machines[at].deleted_at(name)
            assert told is not None
            assert told <= now
            if known.deleted_at is not None:
                assert told >= known.deleted_at
            known.deleted_at = told

    @rule(at=machine)
    def listing(self, at: int) -> None:
        self.ambient.advance(seconds=6)
        try:
            listed = self.machines[at].listed()
        except Unavailable:
            self.failed(self.names["shop"])
            return
        if self.faulty._faults == NONE:
            for name, known in self.names.items():
                assert known.there in (name in listed, None), (name, listed)

    # --- what happens beside ---------------------------------------------------------------------

    @rule(on=st.booleans())
    def faults(self, on: bool) -> None:
        self.faulty._faults = FAULTS if on else NONE

    @rule(at=machine, seconds=st.sampled_from([1, GRACE_S, 3 * GRACE_S]))
    def upkeep(self, at: int, seconds: int) -> None:
        self.ambient.advance(seconds=seconds)
        try:
            self.machines[at].upkeep()
        except Unavailable:
            self.failed(self.names["shop"])
        self.machines[at].rest()

    @rule(at=machine, fresh_disk=st.booleans())
    def restart(self, at: int, fresh_disk: bool) -> None:
        # Only what is not shipped is lost with a disk, and every write that counts is.
        self.machines[at].restart(fresh_disk=fresh_disk)
        if fresh_disk:
            self.told = {key: told for key, told in self.told.items() if key[0] != at}

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def when_a_name_was_deleted_never_goes_back(self) -> None:
        for (at, machine), name in itertools.product(enumerate(self.machines), NAMES):
            told = machine.deleted_at(name) or 0
            assert told >= self.told.get((at, name), 0)
            self.told[at, name] = told

    def teardown(self) -> None:
        try:
            self.faulty._faults = NONE
            for machine in self.machines:
                machine.upkeep()
            for name in NAMES:
                for at in range(3):
                    self.read(at, name)
            for at in range(3):
                self.listing(at)
            self.nothing_is_left_of_what_was_deleted()
        finally:
            for machine in self.machines:
                machine.close()

    def nothing_is_left_of_what_was_deleted(self) -> None:
        for _ in range(5):
            self.ambient.advance(seconds=GRACE_S + 1)
            for machine in self.machines:
                machine.upkeep()
                machine.rest()
        entries = [self.machines[0].node.catalog.refresh(name) for name in NAMES]
        living = {entry.uuid for entry in entries if entry is not None and entry.live}
        assert self.store.uuids() <= living
        marked = {key.rpartition("/")[2] for key in self.store.names("v1/_catalog/deleted/")}
        assert marked <= living, "a deletion that did not come to its fence"
        for machine in self.machines:
            files = {path.parent.name for path in machine.directory.glob(f"databases/*/*/{MAIN}.db*")}
            assert files <= living


def test_what_was_deleted_is_never_seen_again_whatever_fails() -> None:
    run_state_machine_as_test(
        Databases, settings=settings(max_examples=examples(20), stateful_step_count=30, deadline=None)
    )
