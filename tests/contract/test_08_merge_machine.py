"""Branches that part, go on and are merged by chance, against a model of what each should have come to."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from contract.branches import KeptStore, act, create, on, remove, rewind
from contract.live_node import Memory, event, fact, ids, serve
from contract.merging import diff, merge, try_merge
from memoturn_storage.ambient import ManualAmbient


@dataclass
class Remembered:
    topic: str | None
    superseded: tuple[int, str] | None = None
    """When, and by which; None while it is active."""


@dataclass
class Profile:
    """What a branch should remember after a transaction, and in which order each topic came to what."""

    memories: dict[str, Remembered] = field(default_factory=dict)
    trails: dict[str, list[str]] = field(default_factory=dict)

    def active(self, topic: str) -> str | None:
        found = [name for name, each in self.memories.items() if each.topic == topic and each.superseded is None]
        assert len(found) <= 1
        return found[0] if found else None

    def keep(self, name: str, topic: str | None, now: int) -> bool:
        known = self.memories.get(name)
        if known is not None and known.superseded is None:
            return False
        if topic is not None:
            old = self.active(topic)
            if old is not None:
                self.memories[old].superseded = (now, name)
            self.trails.setdefault(topic, []).append(name)
        self.memories[name] = Remembered(topic)
        return True

    def since(self, base: Profile, topic: str) -> list[str | None]:
        """What the topic was, from the base on, but for what is forgotten."""
        trail = self.trails.get(topic, [])[len(base.trails.get(topic, [])) :]
        return [base.active(topic), *(name for name in trail if name in self.memories)]


def last_word(base: Profile, ours: Profile, theirs: Profile, topic: str) -> str:
    mine, other = ours.active(topic), theirs.active(topic)
    if other is None or mine == other:
        return "ours"
    they_went_on = mine is None or mine in theirs.since(base, topic)
    we_went_on = other in ours.since(base, topic)
    if mine is None:
        return "ours" if we_went_on else "theirs"
    if they_went_on == we_went_on:
        return "neither"
    return "theirs" if they_went_on else "ours"


BRANCHES = ["main", "a", "b", "c"]
TOPICS = ["x", "y"]
NAMES = {f"{topic} is {value}": topic for topic in TOPICS for value in range(3)} | {f"it was {n}": None for n in "pq"}
names = st.sampled_from(sorted(NAMES))


class Merges(RuleBasedStateMachine):
    """A history is the list of its states, so the last state that two have in common is where they parted."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.ambient = ManualAmbient()
        self.serving = ExitStack()
        self.live = self.serving.enter_context(
            serve(self.directory, ambient=self.ambient, store=KeptStore(self.ambient))
        )
        self.memory = Memory(self.live.http, "acme", "ann")
        self.branches: dict[str, list[Profile]] = {"main": [Profile()]}
        self.ids: dict[str, str] = {}

    def teardown(self) -> None:
        self.serving.close()
        shutil.rmtree(self.directory)

    @initialize()
    def begin(self) -> None:
        for name in NAMES:  # on a profile of its own, to learn the ids
            [kept] = Memory(self.live.http, "acme", "ids").keep(self.item(name))
            self.ids[name] = kept["id"]
        self.keep("main", "x is 0")

    def item(self, name: str) -> dict[str, Any]:
        topic = NAMES[name]
        return event(name) if topic is None else fact(topic, name)

    def named(self, memories: list[dict[str, Any]]) -> set[str]:
        found = set(ids(memories))
        return {name for name, id_ in self.ids.items() if id_ in found}

    def some(self, data: Any, *, but: str | None = None) -> str:
        return data.draw(st.sampled_from([name for name in BRANCHES if name in self.branches and name != but]))

    def base(self, one: str, other: str) -> tuple[int, Profile]:
        txid = 0
        for number, (left, right) in enumerate(zip(self.branches[one], self.branches[other], strict=False)):
            if left is right:
                txid = number
        return txid, self.branches[one][txid]

    def now(self) -> int:
        self.ambient.advance(seconds=1)
        return self.ambient.now_ms()

    # --- what is done ----------------------------------------------------------------------------

    def keep(self, branch: str, name: str) -> None:
        now = self.now()
        state = deepcopy(self.branches[branch][-1])
        changed = state.keep(name, NAMES[name], now)
        [result] = on(self.memory, branch).keep(self.item(name))
        assert (result["status"] != "duplicate") == changed
        if changed:
            self.branches[branch].append(state)

    @rule(data=st.data(), some=st.lists(names, min_size=1, max_size=4))
    def write(self, data: Any, some: list[str]) -> None:
        branch = self.some(data)
        for name in some:
            self.keep(branch, name)

    @rule(data=st.data(), name=names)
    def forget(self, data: Any, name: str) -> None:
        self.now()
        branch = self.some(data)
        state = deepcopy(self.branches[branch][-1])
        known = state.memories.pop(name, None)
        response = on(self.memory, branch).forget(self.ids[name])
        assert response.status_code == (404 if known is None else 204)
        if known is not None:
            self.branches[branch].append(state)

    @rule(data=st.data(), name=st.sampled_from(BRANCHES[1:]))
    def fork(self, data: Any, name: str) -> None:
        self.now()
        parent = self.some(data)
        made = create(self.memory, name, **{"from": parent})
        assert made.status_code == (409 if name in self.branches else 201), made.text
        if name not in self.branches:
            self.branches[name] = list(self.branches[parent])

    @rule(data=st.data())
    def rewind(self, data: Any) -> None:
        self.now()
        branch = self.some(data)
        to = data.draw(st.integers(1, len(self.branches[branch]) - 1))
        rewind(self.memory, to, branch)
        del self.branches[branch][to + 1 :]

    @rule(data=st.data())
    def promote(self, data: Any) -> None:
        self.now()
        branch = self.some(data)
        if branch != "main":
            assert act(self.memory, branch, "promote").status_code == 200
            self.branches["main"] = list(self.branches[branch])

    @rule(name=st.sampled_from(BRANCHES[1:]))
    def delete(self, name: str) -> None:
        assert remove(self.memory, name).status_code == 204
        self.branches.pop(name, None)

    @rule()
    def maintain(self) -> None:
        self.live.node.upkeep.heavy_pass()

    @rule(data=st.data())
    def diff(self, data: Any) -> None:
        if len(self.branches) > 1:
            branch = self.some(data)
            against = self.some(data, but=branch)
            txid, base = self.base(branch, against)
            answer = diff(self.memory, branch, against=against)
            assert answer["fork_txid"] == txid
            for side in ("branch", "against"):
                self.check_changes(answer[side], base)
            ours, theirs = self.branches[against][-1], self.branches[branch][-1]
            disputed = {topic for topic in TOPICS if last_word(base, ours, theirs, topic) == "neither"}
            assert {conflict["topic_key"] for conflict in answer["conflicts"]} == disputed
            assert answer["conflict_count"] == len(disputed)

    def check_changes(self, side: dict[str, Any], base: Profile) -> None:
        history = self.branches[side["branch"]]
        assert side["txid"] == len(history) - 1
        now, then = history[-1].memories, base.memories
        both = now.keys() & then.keys()
        expected = {
            "created": now.keys() - then.keys(),
            "revived": {name for name in both if then[name].superseded and not now[name].superseded},
            "superseded": {
                name for name in both if now[name].superseded and now[name].superseded != then[name].superseded
            },
            "forgotten": then.keys() - now.keys(),
        }
        for what, expected_names in expected.items():
            assert self.named(side[what]) == expected_names, what
        assert side["counts"] == {what: len(expected_names) for what, expected_names in expected.items()}

    @rule(
        data=st.data(),
        on_conflict=st.sampled_from(["ours", "theirs", "fail"]),
        topics=st.none() | st.sampled_from([[], ["x"], ["x", "y"]]),
        forget=st.booleans(),
    )
    def merge(self, data: Any, on_conflict: str, topics: list[str] | None, forget: bool) -> None:
        if len(self.branches) == 1:
            return
        now = self.now()
        branch = self.some(data)
        into = self.some(data, but=branch)
        _, base = self.base(branch, into)
        theirs, ours = self.branches[branch][-1], deepcopy(self.branches[into][-1])
        body = {"into": into, "on_conflict": on_conflict, "forget": forget}
        if topics is not None:
            body["topics"] = topics
        known = {each.topic for state in (base, theirs) for each in state.memories.values()}
        answer = try_merge(self.memory, branch, **body)
        if not set(topics or ()) <= known:
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            return
        changed, disputed = self.merged(base, ours, theirs, on_conflict, topics, forget, now)
        if disputed and on_conflict == "fail":
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
            assert all(f"fact {topic}" in answer.json()["error"] for topic in disputed)
        else:
            assert answer.status_code == 200, answer.text
            assert {conflict["topic_key"] for conflict in answer.json()["conflicts"]} == disputed
            assert self.named(answer.json()["results"]) | set(self.forgotten(answer)) == changed
            if changed:
                self.branches[into].append(ours)
            assert answer.json()["txid"] == len(self.branches[into]) - 1
            again = merge(self.memory, branch, **body)
            assert (again["results"], again["forgotten"], again["txid"]) == ([], [], answer.json()["txid"])
        self.check(into)

    def forgotten(self, answer: httpx.Response) -> set[str]:
        return self.named([{"id": id_} for id_ in answer.json()["forgotten"]])

    def merged(
        self, base: Profile, ours: Profile, theirs: Profile, on_conflict: str,
        topics: list[str] | None, forget: bool, now: int,
    ) -> tuple[set[str], set[str]]:  # fmt: skip
        """Merge in the model: the names of what was written, and the topics in dispute."""
        changed = set()
        for name in base.memories.keys() - theirs.memories.keys():
            if forget and (topics is None or NAMES[name] in topics) and ours.memories.pop(name, None):
                changed.add(name)
        new = theirs.memories.keys() - base.memories.keys()
        touched = [
            topic
            for topic in TOPICS
            if theirs.active(topic) != base.active(topic) or any(NAMES[name] == topic for name in new)
        ]
        words = {topic: last_word(base, ours, theirs, topic) for topic in touched if topics is None or topic in topics}
        order = sorted(
            (name for name in theirs.memories), key=lambda name: theirs.memories[name].superseded or (now + 1, name)
        )
        for name in order:
            topic = NAMES[name]
            if topic is None:
                wanted = topics is None and name in new and name not in ours.memories
            else:
                won = words.get(topic) == "theirs" or (words.get(topic) == "neither" and on_conflict == "theirs")
                wanted = won and (name == theirs.active(topic) or (name in new and name not in ours.memories))
            if wanted:
                assert ours.keep(name, topic, now)
                changed.add(name)
        return changed, {topic for topic, word in words.items() if word == "neither"}

    def check(self, branch: str) -> None:
        """Every memory is as it should be, with all that is known of its history."""
        memories = self.branches[branch][-1].memories
        for name, id_ in self.ids.items():
            got = on(self.memory, branch).get(id_)
            assert got.status_code == (200 if name in memories else 404), name
            if name in memories:
                by = memories[name].superseded
                assert (got.json()["superseded_at"], got.json()["superseded_by"]) == (
                    (None, None) if by is None else (by[0], self.ids[by[1]])
                )


TestMerges = Merges.TestCase
TestMerges.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
