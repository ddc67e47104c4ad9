"""The key-value store and its cache against a dictionary, through whatever can be done to a database.

Two nodes on one data directory, one of them durable, over one object store: who has the database open changes
hands, and what the other is asked goes over its socket. After every step each entry that a node would answer
from memory must be the row of the branch's newest transaction.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contract.branches import KeptStore
from examples import examples
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke, listen
from memoturn_core.kv import rows
from memoturn_core.kv.cache import CACHE_BYTES, LARGEST_VALUE, Entry, KvCache
from memoturn_core.node import Node
from memoturn_core.operations import Reply
from memoturn_core.registry import OPERATIONS
from memoturn_schemas.errors import InvalidRequest, MemoturnError, NotFound
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.branch import Branch
from memoturn_storage.engine import Limits
from memoturn_storage.handle import Transaction, WriteJob
from memoturn_storage.leases.lease import OwnedElsewhere
from memoturn_storage.manifest import MAIN, BranchRef

PROFILE = Address.of_profile("acme", "ann")

Row = tuple[bytes, int | None]
State = dict[tuple[str, str], Row]

KEYS = [("n", "a"), ("n", "b"), ("n", "a/\0"), ("m", "a")]
keys = st.sampled_from(KEYS)
sizes = st.sampled_from([0, 1, 1, 1, 5_000, LARGEST_VALUE, LARGEST_VALUE + 1])
ttls = st.sampled_from([None, None, 0, 1, 4, 5, 30])
which = st.integers(0, 1)
branches = st.sampled_from([MAIN, MAIN, MAIN, MAIN, "x", "y"])
others = st.sampled_from(["x", "y"])


@dataclass
class Modelled:
    """The rows after each transaction, from 0 on."""

    states: list[State] = field(default_factory=lambda: [{}])

    @property
    def now(self) -> State:
        return self.states[-1]

    @property
    def txid(self) -> int:
        return len(self.states) - 1


class Store(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.ambient = ManualAmbient(seed=id(self))
        self.store = KeptStore(self.ambient)
        self.loop = asyncio.Runner()
        self.nodes = [self.open(number) for number in range(2)]
        self.model = {MAIN: Modelled()}
        self.count = 0

    def open(self, number: int) -> Node:
        limits = Limits(threads=0, hot_cap=2, idle_s=20.0)
        node = Node.open(self.directory, ambient=self.ambient, store=self.store, limits=limits, durable=number == 1)
        self.loop.run(listen(node))
        return node

    def teardown(self) -> None:
        for node in self.nodes:
            self.loop.run(node.close())
        self.loop.close()
        shutil.rmtree(self.directory)

    def ask(self, node: int, operation: str, on: str = MAIN, /, *, min_txid: int = 0, **arguments: Any) -> Reply:
        address = replace(PROFILE, branch=on)
        asked = invoke(self.nodes[node], OPERATIONS[operation], address, arguments, LOCAL, min_txid=min_txid)
        return self.loop.run(asked)

    def value(self) -> bytes:
        self.count += 1
        return b"%d " % self.count

    def ref(self, branch: str) -> BranchRef:
        entry = self.nodes[0].catalog.known("acme--ann") or self.nodes[0].catalog.find("acme--ann")
        assert entry is not None
        return BranchRef(entry.uuid, branch)

    def alone(self, branch: str, effect: Callable[[Branch], Any]) -> Any:
        """Run it in the node that has the database open, or gets it now."""
        for node in self.nodes:
            try:
                return node.engine.exclusive(self.ref(branch), effect).result()
            except OwnedElsewhere:
                continue
        raise AssertionError("nobody owns the database")

    def visible(self, branch: str) -> dict[tuple[str, str], bytes]:
        now = self.ambient.now_ms()
        return {
            key: value
            for key, (value, expires_at) in self.model[branch].now.items()
            if expires_at is None or expires_at > now
        }

    @initialize(node=which)
    def begin(self, node: int) -> None:
        self.put(node, MAIN, KEYS[0], 1, None)

    # --- requests --------------------------------------------------------------------------------

    @rule(node=which, branch=branches, key=keys, size=sizes, ttl=ttls)
    def put(self, node: int, branch: str, key: tuple[str, str], size: int, ttl: int | None) -> None:
        value = self.value() * size
        request = {"ns": key[0], "key": key[1], "value": value.decode(), "ttl": ttl}
        if branch not in self.model:
            with pytest.raises(NotFound):
                self.ask(node, "kv_put", branch, **request)
            return
        modelled = self.model[branch]
        expires_at = None if ttl is None else self.ambient.now_ms() + 1_000 * ttl
        modelled.states.append({**modelled.now, key: (value, expires_at)})
        assert self.ask(node, "kv_put", branch, **request).txid == modelled.txid

    @rule(node=which, branch=branches, key=keys)
    def delete(self, node: int, branch: str, key: tuple[str, str]) -> None:
        if branch not in self.model:
            return
        modelled = self.model[branch]
        if key in modelled.now:
            modelled.states.append({other: row for other, row in modelled.now.items() if other != key})
        assert self.ask(node, "kv_delete", branch, ns=key[0], key=key[1]).txid == modelled.txid

    @rule(node=which, branch=branches, wanted=st.lists(keys, min_size=1, max_size=8), newest=st.booleans())
    def get(self, node: int, branch: str, wanted: list[tuple[str, str]], newest: bool) -> None:
        if branch not in self.model:
            return
        visible, txid = self.visible(branch), self.model[branch].txid
        for ns, key in wanted:
            try:
                reply = self.ask(node, "kv_get", branch, min_txid=txid if newest else 0, ns=ns, key=key)
            except NotFound:
                assert (ns, key) not in visible
            else:
                assert (reply.value["value"], reply.txid) == (visible[ns, key], txid)

    @rule(branch=branches)
    def get_everything(self, branch: str) -> None:
        self.get(0, branch, KEYS, newest=False)

    @rule(node=which, branch=branches, ns=st.sampled_from("nm"), prefix=st.sampled_from(["", "a", "a/"]))
    def list(self, node: int, branch: str, ns: str, prefix: str) -> None:
        if branch in self.model:
            reply = self.ask(node, "kv_list", branch, ns=ns, prefix=prefix)
            expected = sorted(key for other, key in self.visible(branch) if other == ns and key.startswith(prefix))
            assert (reply.value, reply.txid) == ({"keys": expected}, self.model[branch].txid)

    # --- what else moves the file ----------------------------------------------------------------

    @rule(branch=branches, group=st.lists(st.tuples(keys, sizes, st.sampled_from("ppppdfr")), min_size=1, max_size=5))
    def commit_a_group(self, branch: str, group: list[tuple[tuple[str, str], int, str]]) -> None:
        """One transaction of several jobs: some put, some delete, some fail, for some SQLite rolls all of them back."""
        if branch not in self.model:
            return
        state = dict(self.model[branch].now)
        jobs, changed = [], False
        for key, size, what in group:
            value = self.value() * size
            jobs.append(WriteJob(_job(key, value, what), None))
            if what == "p":
                state[key] = (value, None)
                changed = True
            elif what == "d":
                changed = state.pop(key, None) is not None or changed

        def effect(opened: Branch) -> bool:
            if opened.handle is None:
                return False
            opened.handle.commit(jobs)
            return True

        if not self.alone(branch, effect):
            return
        if changed:
            self.model[branch].states.append(state)
        for (_, _, what), job in zip(group, jobs, strict=True):
            assert isinstance(job.future.exception(), InvalidRequest) == (what in "fr")

    @rule(branch=branches, key=keys)
    def fail_to_commit(self, branch: str, key: tuple[str, str]) -> None:
        if branch not in self.model:
            return

        def effect(opened: Branch) -> None:
            if opened.handle is None:
                return
            connection = opened.handle._connection
            connection.set_commit_hook(lambda: True)
            job = WriteJob(_job(key, b"never", "p"), None)
            opened.handle.commit([job])
            connection.set_commit_hook(None)
            assert isinstance(job.future.exception(), MemoturnError)

        self.alone(branch, effect)

    @rule(node=which, branch=branches)
    def write_something_else(self, node: int, branch: str) -> None:
        if branch in self.model:
            self.count += 1
            modelled = self.model[branch]
            modelled.states.append(modelled.now)
            turn = {"session": "s", "role": "user", "content": f"turn {self.count}"}
            assert self.ask(node, "memory_append", branch, **turn).txid == modelled.txid

    # --- what happens to branches and processes; one rule each, so that most steps are requests ----------

    @rule(data=st.data(), node=which, what=st.sampled_from(["fork", "fork", "rewind", "rewind", "promote", "remove"]))
    def move_a_branch(self, data: st.DataObject, node: int, what: str) -> None:
        branch = data.draw(st.sampled_from(sorted(self.model)), "branch")
        if what == "fork":
            self.fork(node, branch, data.draw(others, "child"))
        elif what == "rewind":
            states = self.model[branch].states
            txid = data.draw(st.integers(max(1, len(states) - 5), len(states) - 1), "txid")
            self.ask(node, "branch_rewind", branch=branch, to=txid)
            del states[txid + 1 :]
        elif branch != MAIN and what == "promote":
            self.ask(node, "branch_promote", branch=branch)
            self.model[MAIN].states = self.model[branch].states[:]
        elif branch != MAIN:
            self.ask(node, "branch_delete", branch=branch)
            del self.model[branch]

    def fork(self, node: int, parent: str, child: str) -> None:
        if child not in self.model:
            self.ask(node, "branch_create", **{"name": child, "from": parent})
            self.model[child] = Modelled(self.model[parent].states[:])

    @rule(node=which, what=st.sampled_from(["second", "seconds", "sweep", "sweep", "sleep", "restart"]))
    def let_time_pass(self, node: int, what: str) -> None:
        self.ambient.advance(seconds={"second": 1, "seconds": 4, "sweep": 5, "sleep": 20, "restart": 0}[what])
        if what == "sweep":
            self.sweep()
        elif what == "sleep":
            for each in self.nodes:
                each.engine.run_due()
                assert each.engine.stats().open_branches == 0
        elif what == "restart":
            self.loop.run(self.nodes[node].close())
            self.nodes[node] = self.open(node)

    def sweep(self) -> None:
        for node in self.nodes:
            node.upkeep.light_pass()
            for branch, modelled in self.model.items():
                expired = modelled.now.keys() - self.visible(branch).keys()
                if expired and node.engine.is_open(self.ref(branch)):
                    modelled.states.append({key: row for key, row in modelled.now.items() if key not in expired})

    # --- what is in memory -----------------------------------------------------------------------

    @invariant()
    def what_is_in_memory_is_what_the_newest_transaction_holds(self) -> None:
        for name, modelled in self.model.items():
            for node in self.nodes:
                for key in KEYS:
                    found = node.engine.peek(self.ref(name), KvCache, lambda cache, key=key: cache.find(*key))
                    if found is not None:
                        held = found.value.value, found.value.expires_at
                        assert held == modelled.now.get(key, (None, None))
                        assert found.txid == modelled.txid
                size = node.engine.peek(self.ref(name), KvCache, lambda cache: cache.size)
                assert size is None or size.value <= CACHE_BYTES


def _job(key: tuple[str, str], value: bytes, what: str) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        if what == "d":
            rows.delete(transaction, *key)
            return
        rows.put(transaction, *key, value, None)
        if what == "r":
            transaction.connection.execute("ROLLBACK")
        if what in "fr":
            raise InvalidRequest("refused")

    return work


def test_a_store_that_is_read_from_memory_is_seen_by_the_machine() -> None:
    """What the machine checks is there to be checked."""
    machine = Store()
    try:
        machine.begin(0)
        assert machine.nodes[0].engine.peek(machine.ref(MAIN), KvCache, _first) is None
        machine.get(0, MAIN, [KEYS[0]], newest=True)
        found = machine.nodes[0].engine.peek(machine.ref(MAIN), KvCache, _first)
        assert found is not None
        assert found.value.used
        machine.put(1, MAIN, KEYS[0], 1, None)
        again = machine.nodes[0].engine.peek(machine.ref(MAIN), KvCache, _first)
        assert again is not None
        assert (again.value.value, again.txid) == (b"2 ", 2)
    finally:
        machine.teardown()


def _first(cache: KvCache) -> Entry | None:
    return cache.find(*KEYS[0])


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=examples(15),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
