"""Branches by chance, through the routes, against a model: forks, rewinds, promotions, maintenance and losses."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contract.branches import (
    KeptStore,
    act,
    checkpoint,
    create,
    names,
    on,
    remove,
    storage,
    summaries,
    sync,
)
from contract.live_node import Live, Memory, event, serve
from examples import examples
from memoturn_storage.ambient import ManualAmbient

MAIN = "main"
NAMES = ["a", "B", "main2", "x_1"]


@dataclass
class Modelled:
    """A branch as it should be: the notes after each transaction from 1 on, and the named ones."""

    states: list[frozenset[str]] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)
    ttl_at: int | None = None


def given(**arguments: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


class Branches(RuleBasedStateMachine):
    """One profile of one node at a time, whose disk may be lost once everything is shipped."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.ambient = ManualAmbient()
        self.store = KeptStore(self.ambient)
        self.serving = ExitStack()
        self.live = self.start()
        self.count = 0
        self.branches = {MAIN: Modelled()}

    def start(self) -> Live:
        return self.serving.enter_context(serve(self.directory, ambient=self.ambient, store=self.store))

    def teardown(self) -> None:
        self.serving.close()
        shutil.rmtree(self.directory)

    @property
    def memory(self) -> Memory:
        return Memory(self.live.http, "acme", "ann")

    def at(self, branch: str) -> Memory:
        return on(self.memory, branch)

    def some(self, data: Any, *, but: str | None = None) -> str:
        return data.draw(st.sampled_from(sorted(set(self.branches) - {but})))

    @initialize()
    def begin(self) -> None:
        self.keep(MAIN)

    def keep(self, branch: str) -> None:
        self.count += 1
        summary = f"note {self.count}"
        [result] = self.at(branch).keep(event(summary))
        assert result["status"] == "created"
        states = self.branches[branch].states
        states.append((states[-1] if states else frozenset()) | {summary})

    # --- what is done ----------------------------------------------------------------------------

    @rule(data=st.data(), times=st.integers(1, 4))
    def write(self, data: Any, times: int) -> None:
        branch = self.some(data)
        for _ in range(times):
            self.keep(branch)

    @rule(data=st.data(), times=st.integers(1, 6))
    def write_and_sync(self, data: Any, times: int) -> None:
        branch = self.some(data)
        for _ in range(times):
            self.keep(branch)
            assert sync(self.at(branch)) == len(self.branches[branch].states)

    @rule(data=st.data(), name=st.sampled_from(NAMES), ttl=st.none() | st.integers(1, 100))
    def fork(self, data: Any, name: str, ttl: int | None) -> None:
        parent = self.some(data)
        modelled = self.branches[parent]
        at = data.draw(st.none() | st.integers(0, len(modelled.states) + 2) | st.sampled_from(["c", "d"]))
        response = create(
            self.memory,
            name,
            **{"from": parent},
            **({} if at is None else {"at": at}),
            **({} if ttl is None else {"ttl": ttl}),
        )
        txid = modelled.checkpoints.get(at) if isinstance(at, str) else len(modelled.states) if at is None else at
        if txid is None:
            assert response.status_code == 404
        elif not 1 <= txid <= len(modelled.states):
            assert response.status_code == 409
        elif name in self.branches:
            assert (response.status_code, response.json()["code"]) == (409, "already_exists")
        else:
            assert (response.status_code, response.json()["fork_txid"]) == (201, txid)
            ttl_at = None if ttl is None else self.ambient.now_ms() + ttl * 1000
            self.branches[name] = Modelled(modelled.states[:txid], ttl_at=ttl_at)

    @rule(data=st.data(), name=st.sampled_from(["c", "d"]))
    def checkpoint(self, data: Any, name: str) -> None:
        branch = self.some(data)
        txid = len(self.branches[branch].states)
        assert checkpoint(self.memory, name, branch) == txid
        self.branches[branch].checkpoints[name] = txid

    @rule(data=st.data())
    def rewind(self, data: Any) -> None:
        branch = self.some(data)
        modelled = self.branches[branch]
        to = data.draw(st.integers(0, len(modelled.states) + 2) | st.sampled_from(["c", "d"]))
        response = act(self.memory, branch, "rewind", to=to)
        txid = modelled.checkpoints.get(to) if isinstance(to, str) else to
        if txid is None:
            assert response.status_code == 404
        elif not 1 <= txid <= len(modelled.states):
            assert response.status_code == 409
        else:
            assert (response.status_code, response.json()["rewound_to"]) == (200, txid)
            del modelled.states[txid:]
            modelled.checkpoints = {name: at for name, at in modelled.checkpoints.items() if at <= txid}

    @rule(data=st.data(), keep_as=st.none() | st.sampled_from(NAMES))
    def promote(self, data: Any, keep_as: str | None) -> None:
        branch = self.some(data)
        response = act(self.memory, branch, "promote", **given(keep_as=keep_as))
        if branch == MAIN:
            assert response.status_code == 400
        elif keep_as in self.branches:
            assert response.status_code == 409
        else:
            assert response.status_code == 200, response.text
            if keep_as is not None:
                self.branches[keep_as] = Modelled(list(self.branches[MAIN].states))
            source = self.branches[branch]
            self.branches[MAIN] = Modelled(list(source.states), dict(source.checkpoints))

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        assert remove(self.memory, name).status_code == 204
        self.branches.pop(name, None)

    @rule(seconds=st.sampled_from([1, 30, 601]))
    def let_time_pass(self, seconds: int) -> None:
        self.ambient.advance(seconds=seconds)
        self.live.node.upkeep.light_pass()
        now = self.ambient.now_ms()
        self.branches = {
            name: branch for name, branch in self.branches.items() if branch.ttl_at is None or branch.ttl_at > now
        }

    @rule()
    def maintain(self) -> None:
        self.live.node.upkeep.heavy_pass()
        assert self.live.node.upkeep.stats.drills_failed == 0

    @rule(lose_the_disk=st.booleans())
    def restart(self, lose_the_disk: bool) -> None:
        self.serving.close()
        if lose_the_disk:
            shutil.rmtree(self.directory)
        self.live = self.start()

    # --- what is there ---------------------------------------------------------------------------

    @rule(data=st.data())
    def look_at_the_past(self, data: Any) -> None:
        branch = self.some(data)
        states = self.branches[branch].states
        txid = data.draw(st.integers(0, len(states) + 1))
        response = self.at(branch).recall(query="note", k=1_000, as_of=txid)
        if 1 <= txid <= len(states):
            assert {hit["summary"] for hit in response.json()["memories"]} == states[txid - 1]
        else:
            assert response.status_code == 409

    @rule(data=st.data())
    def inspect(self, data: Any) -> None:
        branch = self.some(data)
        inspected = storage(self.at(branch))
        assert inspected["head_txid"] == len(self.branches[branch].states)
        assert inspected["checkpoints"] == self.branches[branch].checkpoints

    @invariant()
    def every_branch_is_as_it_should_be(self) -> None:
        assert names(self.memory) == sorted(set(self.branches) - {MAIN})
        for name, branch in self.branches.items():
            assert summaries(self.at(name)) == (branch.states[-1] if branch.states else frozenset())


TestBranches = Branches.TestCase
TestBranches.settings = settings(
    max_examples=examples(6),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
