"""Whole lives of branches: every state that must be restorable is, byte for byte, whatever happens in any order."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from examples import examples
from memoturn_schemas.errors import BranchNotFound, Unavailable
from memoturn_storage import history
from memoturn_storage.collector import Collector
from memoturn_storage.manifest import Manifest
from unit.histories import GRACE_MS, UUID, Histories, Line, Put

FINE_MS, SNAPSHOTS_MS = 100_000, 300_000


@dataclass(frozen=True, slots=True)
class PendingFork:
    """A fork that has read the parent, not yet created the child."""

    parent: Manifest
    line: Line
    txid: int
    forgotten_before: int
    at_ms: int


class Life(RuleBasedStateMachine):
    """Branches live, are compacted, forgotten and collected in any order, and beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.histories = Histories()
        self.collector = Collector(self.histories.store, self.histories.manifests, self.histories.ambient)
        self.puts: list[Put] = []
        self.forks: list[PendingFork] = []
        self.forgotten_before: dict[str, int] = {}

    @initialize(objects=st.integers(1, 8))
    def begin(self, objects: int) -> None:
        self.histories.create()
        self.forgotten_before["main"] = 0
        self.histories.ship(objects=objects)

    # --- choosing --------------------------------------------------------------------------------

    def branch(self, pick: int) -> str:
        names = sorted(self.histories.lines)
        return names[pick % len(names)]

    def required(self, branch: str) -> set[int]:
        """The transactions that must be restorable: those of the window, its beginning, and the checkpoints."""
        line, since = self.histories.lines[branch], self.forgotten_before[branch]
        current = self.histories.manifest(branch)
        txids = {txid for txid, at in line.at.items() if at >= since}
        begins = [txid for txid, at in line.at.items() if at < since]
        return txids | set(begins[-1:]) | set(current.checkpoints.values()) | ({line.head} if line.head else set())

    # --- rules -----------------------------------------------------------------------------------

    picks = st.integers(0, 1000)
    calls = st.integers(1, 12)
    actions = st.sampled_from(
        ["ship", "rewind", "checkpoint", "fork", "finish", "compact", "retain", "collect", "delete", "wait"]
    )

    def alive(self) -> bool:
        return bool(self.histories.lines)

    @precondition(alive)
    @rule(pick=picks, objects=st.integers(1, 6), transactions=st.integers(1, 3))
    def ship(self, pick: int, objects: int = 3, transactions: int = 2) -> None:
        self.histories.ship(self.branch(pick), objects, transactions)

    @precondition(alive)
    @rule(pick=picks)
    def begin_to_ship(self, pick: int) -> None:
        self.puts.append(self.histories.put(self.branch(pick)))

    @precondition(alive)
    @rule(pick=picks)
    def begin_to_fork(self, pick: int) -> None:
        branch = self.branch(pick)
        required = sorted(self.required(branch))
        if required:
            txid = required[pick % len(required)]
            line = self.histories.lines[branch].until(txid)
            parent, now_ms = self.histories.manifest(branch), self.histories.ambient.now_ms()
            self.forks.append(PendingFork(parent, line, txid, self.forgotten_before[branch], now_ms))

    @rule()
    def finish(self) -> None:
        """Link what was put, and create the branches that were forked, where that is not too late."""
        puts, self.puts = self.puts, []
        for put in puts:
            if put.branch in self.histories.lines:
                self.histories.link(put)
        forks, self.forks = self.forks, []
        for fork in forks:
            name = f"fork{fork.txid % 3}"
            if name not in self.histories.lines and self.histories.ambient.now_ms() - fork.at_ms <= GRACE_MS / 2:
                try:
                    self.histories.fork(fork.parent, fork.line, name, fork.txid)
                except Unavailable:
                    continue  # its deleted namesake is being removed
                self.forgotten_before[name] = fork.forgotten_before

    @precondition(alive)
    @rule(pick=picks)
    def fork(self, pick: int) -> None:
        self.begin_to_fork(pick)
        self.finish()

    @precondition(alive)
    @rule(pick=picks)
    def rewind(self, pick: int) -> None:
        branch = self.branch(pick)
        required = sorted(self.required(branch))
        if required:
            self.histories.rewind(branch, required[pick % len(required)])

    @precondition(alive)
    @rule(pick=picks)
    def checkpoint(self, pick: int) -> None:
        branch = self.branch(pick)
        required = sorted(self.required(branch))
        if required:
            self.histories.checkpoint(branch, f"name{pick % 2}", required[pick % len(required)])

    @precondition(alive)
    @rule(pick=picks)
    def retain(self, pick: int) -> None:
        branch = self.branch(pick)
        since = self.histories.ambient.now_ms() - FINE_MS
        self.histories.compactor.retain(self.histories.manifest(branch).ref, fine_ms=FINE_MS, snapshots_ms=SNAPSHOTS_MS)
        self.forgotten_before[branch] = max(since, self.forgotten_before[branch])

    @precondition(alive)
    @rule(pick=picks)
    def compact(self, pick: int) -> None:
        self.histories.compactor.compact(self.histories.manifest(self.branch(pick)).ref)

    @precondition(lambda self: len(self.histories.lines) > 1)
    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        if len(self.histories.lines) > 1:
            self.histories.delete(self.branch(pick))

    @rule()
    def collect(self) -> None:
        self.collector.collect(UUID)

    @rule(seconds=st.sampled_from([5, 20, 40, 90]))
    def wait(self, seconds: int) -> None:
        self.histories.ambient.advance(seconds=seconds)

    @precondition(alive)
    @rule(pick=picks, call=calls, action=actions)
    def compact_while(self, pick: int, call: int, action: str) -> None:
        with self.histories.store.interrupted(call, lambda: self._act(action, pick)):
            try:
                self.compact(pick)
            except (BranchNotFound, Unavailable):
                assert action in ("delete", "wait")

    @rule(pick=picks, call=calls, action=actions)
    def collect_while(self, pick: int, call: int, action: str) -> None:
        with self.histories.store.interrupted(call, lambda: self._act(action, pick)):
            self.collect()

    def _act(self, action: str, pick: int) -> None:
        if not self.histories.lines:
            return
        if action == "wait":
            self.histories.ambient.advance(seconds=pick % 90)
        elif action in ("collect", "finish"):
            getattr(self, action)()
        elif action == "ship":
            self.ship(pick)
        else:
            getattr(self, action)(pick)

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def every_state_in_the_window_is_restored(self) -> None:
        for branch in self.histories.lines:
            assert self.histories.manifest(branch).head_txid == self.histories.lines[branch].head
            required = sorted(self.required(branch))
            self.histories.assert_restores(
                branch, {*required[:2], *required[-3:], *required[:: 1 + len(required) // 5]}
            )

    def teardown(self) -> None:
        for branch in list(self.histories.lines):
            self.histories.assert_restores(branch, self.required(branch))
            self.histories.delete(branch)
        for _ in range(4):
            self.histories.ambient.advance(seconds=GRACE_MS / 1000)
            self.collector.collect(UUID)
        assert list(self.histories.store.list("")) == []


def test_every_state_in_the_window_is_restored_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "LONG", 4)
    monkeypatch.setattr(history, "SMALL_SNAPSHOT_BYTES", 260)
    monkeypatch.setattr(history, "OBJECT_BYTES", 12_000)
    # A failing life is printed as it is: to shrink one takes minutes.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    run_state_machine_as_test(
        Life, settings=settings(max_examples=examples(25), stateful_step_count=40, deadline=None, phases=phases)
    )
