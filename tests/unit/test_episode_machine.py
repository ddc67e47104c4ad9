"""Episodes by chance against a plain model: created, filled, completed, deleted, imported, tagged, rewound.

After every step the list is the model's and the medians in memory are those of the model's episodes; now and then
every row, every word and every reward is looked at.
"""

from __future__ import annotations

import asyncio
import copy
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.episodes import medians, words
from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.medians import Length, Medians
from memoturn_core.episodes.reward import Typical, reward
from memoturn_core.invoke import invoke
from memoturn_core.memory.words import EpisodeWords
from memoturn_core.node import Node
from memoturn_core.operations import Reply
from memoturn_core.registry import OPERATIONS
from memoturn_schemas.errors import Conflict, InvalidRequest, NotFound
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.handle import Snapshot
from memoturn_storage.manifest import BranchRef

PROFILE = Address.of_profile("acme", "ann")
OUTCOMES: list[dict[str, Any]] = [
    {"type": "success", "verdict": "zebra", "artifacts": ["a.py"]},
    {"type": "failure", "reason": "quagga"},
    {"type": "partial_success", "verdict": "half", "completed": ["x"], "failed": ["y", "z"]},
    {"type": "abstained", "reason": "no", "stopped_at_step": 4, "infeasibility_signals": []},
]
domains = st.sampled_from(["web", "web", "web", "cli"])
tags = st.lists(st.sampled_from(["t1", "t2", "t3"]), max_size=3, unique=True)
outcomes = st.sampled_from(OUTCOMES)
seconds = st.integers(0, 600)
steps = st.fixed_dictionaries(
    {
        "tool": st.sampled_from(["grep", "edit", "test"]),
        "action": st.sampled_from(["look", "decide on it", "\x00", "go on"]),
        "parameters": st.sampled_from([{}, {"a": 1}, {"a": 1.0}, {"b": [None], "a": "ü"}]),
        "result": st.sampled_from(
            [
                None,
                {"type": "success", "output": "ok"},
                {"type": "error", "message": "no file a/b"},
                {"type": "timeout"},
            ]
        ),
    }
)


@dataclass
class Modelled:
    """An episode as it should be."""

    place: int
    domain: str
    tags: list[str]
    started_at: int
    steps: dict[int, dict[str, Any]] = field(default_factory=dict)
    outcome: dict[str, Any] | None = None
    ended_at: int | None = None
    measured_by: Typical | None = None
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> Length:
        assert self.ended_at is not None
        return Length((self.ended_at - self.started_at) / 1_000, len(self.steps))


State = dict[str, Modelled]


def typical(state: State, domain: str) -> Typical | None:
    lengths = [each.length for each in state.values() if each.outcome and each.domain == domain]
    if len(lengths) < 5:
        return None
    return Typical(*(float(statistics.median(measure)) for measure in zip(*lengths, strict=True)))


def same(step: dict[str, Any], other: dict[str, Any]) -> bool:
    """As JSON, where 1 and 1.0 are two."""
    return repr(sorted(step.items())) == repr(sorted(other.items()))


class Episodes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.ambient = ManualAmbient(seed=id(self))
        self.loop = asyncio.Runner()
        self.node = self.open()
        self.states: list[State] = [{}]
        self.count = 0

    def open(self) -> Node:
        return Node.open(self.directory, ambient=self.ambient, limits=Limits(threads=0, idle_s=20.0))

    def teardown(self) -> None:
        self.loop.run(self.node.close())
        self.loop.close()
        shutil.rmtree(self.directory)

    def ask(self, operation: str, **arguments: Any) -> Reply:
        return self.loop.run(invoke(self.node, OPERATIONS[operation], PROFILE, arguments, LOCAL))

    def exists(self) -> bool:
        return len(self.states) > 1

    @property
    def state(self) -> State:
        return self.states[-1]

    def changed(self, reply: Reply) -> State:
        """The state after a transaction, to be made what it should be."""
        self.states.append(copy.deepcopy(self.state))
        assert reply.txid == len(self.states) - 1
        return self.state

    def some(self, data: st.DataObject | FixedChoice, *, open_only: bool = False) -> str | None:
        known = [id_ for id_, each in self.state.items() if not (open_only and each.outcome)]
        return data.draw(st.sampled_from(known), "episode") if known else None

    def place(self) -> int:
        self.count += 1
        return self.count

    # --- what is done ----------------------------------------------------------------------------

    @rule(domain=domains, given_tags=tags, began=st.none() | st.integers(0, 3))
    def create(self, domain: str, given_tags: list[str], began: int | None) -> None:
        more = {} if began is None else {"start_time": began}
        reply = self.ask("create_episode", task_description="Mend it", domain=domain, tags=given_tags, **more)
        started_at = self.ambient.now_ms() if began is None else began
        new = Modelled(self.place(), domain, given_tags, started_at)
        self.changed(reply)[reply.value["episode_id"]] = new

    @rule(data=st.data(), step=steps, number=st.none() | st.integers(1, 6))
    def add_step(self, data: st.DataObject | FixedChoice, step: dict[str, Any], number: int | None) -> None:
        id_ = self.some(data)
        if id_ is None:
            return
        episode = self.state[id_]
        there = None if number is None else episode.steps.get(number)
        request = {"episode_id": id_, **step, **({} if number is None else {"step_number": number})}
        if (there is None and episode.outcome) or (there is not None and not same(there, step)):
            with pytest.raises(Conflict):
                self.ask("add_step", **request)
        elif there is not None:
            reply = self.ask("add_step", **request)
            assert (reply.status, reply.value["status"], reply.txid) == (200, "duplicate", len(self.states) - 1)
        else:
            number = number or max(episode.steps, default=0) + 1
            reply = self.ask("add_step", **request)
            self.changed(reply)[id_].steps[number] = step
            assert (reply.value["step_number"], reply.value["step_count"]) == (number, len(episode.steps) + 1)

    @rule(data=st.data())
    def send_a_step_again(self, data: st.DataObject) -> None:
        id_ = self.some(data)
        if id_ is not None and self.state[id_].steps:
            number = data.draw(st.sampled_from(sorted(self.state[id_].steps)), "number")
            self.add_step(FixedChoice(id_), self.state[id_].steps[number], number)

    @rule(data=st.data(), outcome=outcomes, taken=st.none() | seconds)
    def complete(self, data: st.DataObject | FixedChoice, outcome: dict[str, Any], taken: int | None) -> None:
        id_ = self.some(data)
        if id_ is None:
            return
        episode = self.state[id_]
        ended_at = None if taken is None else episode.started_at + 1_000 * taken
        request = {"episode_id": id_, "outcome": outcome, **({} if taken is None else {"end_time": ended_at})}
        if episode.outcome is None:
            measured_by = typical(self.state, episode.domain)
            reply = self.ask("complete_episode", **request)
            episode = self.changed(reply)[id_]
            assert reply.value["status"] == "completed"
            episode.outcome, episode.measured_by = outcome, measured_by
            episode.ended_at = self.ambient.now_ms() if ended_at is None else ended_at
            episode.answer = without_txid(reply)
        elif outcome == episode.outcome and ended_at in (None, episode.ended_at):
            reply = self.ask("complete_episode", **request)
            assert without_txid(reply) == {**(episode.answer or without_txid(reply)), "status": "duplicate"}
            assert reply.txid == len(self.states) - 1
        else:
            with pytest.raises(Conflict):
                self.ask("complete_episode", **request)

    @rule(data=st.data())
    def complete_an_open_one(self, data: st.DataObject) -> None:
        id_ = self.some(data, open_only=True)
        if id_ is not None:
            self.complete(FixedChoice(id_), OUTCOMES[self.count % 4], self.count % 300)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        id_ = self.some(data)
        if id_ is not None:
            del self.changed(self.ask("delete_episode", episode_id=id_))[id_]
            with pytest.raises(NotFound):
                self.ask("get_episode", episode_id=id_)

    @rule(
        batch=st.lists(st.tuples(domains, tags, st.lists(steps, max_size=3), outcomes, seconds), min_size=1, max_size=6)
    )
    def bulk(self, batch: list[Any]) -> None:
        asked = [
            {
                "task_description": "Import it",
                "domain": domain,
                "tags": given_tags,
                "start_time": 1_000,
                "steps": done,
                "outcome": outcome,
                "end_time": 1_000 + 1_000 * taken,
            }
            for domain, given_tags, done, outcome, taken in batch
        ]
        reply = self.ask("bulk_episodes", episodes=asked)
        state = self.changed(reply)
        for id_, whole in zip(reply.value["episode_ids"], asked, strict=True):
            measured_by = typical(state, whole["domain"])
            state[id_] = Modelled(
                self.place(),
                whole["domain"],
                whole["tags"],
                1_000,
                dict(enumerate(whole["steps"], start=1)),
                whole["outcome"],
                whole["end_time"],
                measured_by,
            )

    @rule(data=st.data(), added=tags, removed=st.sampled_from(["t1", "t2", "t4"]))
    def tag(self, data: st.DataObject, added: list[str], removed: str) -> None:
        id_ = self.some(data)
        if id_ is not None:
            before = self.state[id_].tags
            added = [tag for tag in added if tag != removed]
            reply = self.ask("episode_tags", episode_id=id_, add=added, remove=[removed])
            now = [tag for tag in dict.fromkeys([*before, *added]) if tag != removed]
            assert reply.value["tags"] == now
            if now != before:
                self.changed(reply)[id_].tags = now

    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        if self.exists():
            txid = data.draw(st.integers(max(1, len(self.states) - 4), len(self.states) - 1), "txid")
            self.ask("branch_rewind", branch="main", to=txid)
            del self.states[txid + 1 :]

    @rule(what=st.sampled_from(["second", "sleep", "restart", "refused"]))
    def happen(self, what: str) -> None:
        if what == "refused":
            whole = {"task_description": "x", "outcome": OUTCOMES[0], "start_time": 5}
            with pytest.raises(InvalidRequest):
                self.ask("bulk_episodes", episodes=[whole, {**whole, "end_time": 4}])
            return
        self.ambient.advance(seconds={"second": 1, "sleep": 21, "restart": 0}[what])
        if what == "sleep":
            self.node.engine.run_due()
        elif what == "restart":
            self.loop.run(self.node.close())
            self.node = self.open()

    # --- what is there ---------------------------------------------------------------------------

    @invariant()
    def the_list_is_what_it_should_be(self) -> None:
        if not self.exists():
            return
        found = self.ask("list_episodes", limit=1_000).value["episodes"]
        expected = sorted(self.state.items(), key=lambda item: (-item[1].started_at, -item[1].place))
        assert [entry["episode_id"] for entry in found] == [id_ for id_, _ in expected]
        for entry, (_, episode) in zip(found, expected, strict=True):
            assert entry["tags"] == episode.tags
            assert entry["step_count"] == len(episode.steps)
            assert (entry["outcome"], entry["end_time"]) == (
                episode.outcome and episode.outcome["type"],
                episode.ended_at,
            )

    @invariant()
    def the_medians_in_memory_are_those_of_the_newest_state(self) -> None:
        entry = self.node.catalog.find("acme--ann") if self.exists() else None
        if entry is None:
            return
        found = self.node.engine.peek(BranchRef(entry.uuid), Medians, lambda known: known)
        if found is not None:
            for domain in ("web", "cli"):
                assert found.value.typical(domain) == typical(self.state, domain)
            kept = sum(len(measures[0]) for measures in found.value._domains.values())
            assert kept == sum(1 for each in self.state.values() if each.outcome)

    @rule()
    def look_at_everything(self) -> None:
        if not self.exists():
            return
        for id_, episode in self.state.items():
            found = self.ask("get_episode", episode_id=id_).value
            told = [{name: step[name] for name in episode.steps[step["step_number"]]} for step in found["steps"]]
            assert len(told) == len(episode.steps)
            assert all(same(step, episode.steps[n]) for step, n in zip(told, sorted(episode.steps), strict=True))
            if episode.outcome is not None:
                assert found["episode"]["reward"] == expected_reward(found, episode)
                for name in ("reward", "reflection", "summary", "pattern_ids"):
                    assert found["episode"][name] == episode.answer.get(name, found["episode"][name])
        entry = self.node.catalog.find("acme--ann")
        assert entry is not None
        look = self.node.engine.read(BranchRef(entry.uuid), lambda snapshot: inspect(snapshot, self.state))
        look.result()


class FixedChoice:
    """Draws what was drawn before."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def draw(self, *_: Any) -> Any:
        return self.value


def without_txid(reply: Reply) -> dict[str, Any]:
    return {name: value for name, value in reply.value.items() if name != "txid"}


def expected_reward(found: Mapping[str, Any], episode: Modelled) -> Any:
    known: Any = found["episode"]
    assert episode.ended_at is not None
    lived = Experience(
        task_type=known["task_type"],
        description=known["task_description"],
        context=known["context"],
        metadata={},
        steps=found["steps"],
        outcome=known["outcome"],
        started_at=episode.started_at,
        ended_at=episode.ended_at,
    )
    return reward(lived, len(known["pattern_ids"]), episode.measured_by)


def inspect(snapshot: Snapshot, state: State) -> None:
    """The tables agree with the model, and the indexes with the tables."""
    connection = snapshot.connection
    fts = "__memoturn_episodes_fts"
    connection.execute(f"INSERT INTO {fts} ({fts}, rank) VALUES ('integrity-check', 1)")
    tagged = connection.execute("SELECT count(*) FROM __memoturn_episode_tags").get
    assert tagged == sum(len(set(episode.tags)) for episode in state.values())
    held = connection.execute("SELECT count(*) FROM __memoturn_episode_steps").get
    assert held == sum(len(episode.steps) for episode in state.values())
    learnt = connection.execute(
        "SELECT count(*) FROM __memoturn_episodes AS e WHERE (outcome IS NULL) ="
        " EXISTS (SELECT 1 FROM __memoturn_pattern_evidence WHERE episode = e.rowid)"
    ).get
    assert learnt == 0, "what is learnt from is what is completed"
    lexicon = EpisodeWords.of(snapshot, [("zebra",), ("quagga",), ("t1",)])
    for stem, says in (
        ("zebra", lambda episode: episode.outcome == OUTCOMES[0]),
        ("quagga", lambda episode: episode.outcome == OUTCOMES[1]),
        ("t1", lambda episode: "t1" in episode.tags),
    ):
        found = connection.execute(f"SELECT count(*) FROM {fts} WHERE {fts} MATCH ?", (stem,)).get
        assert found == sum(1 for episode in state.values() if says(episode))
        assert not lexicon.missing([stem])


TestEpisodes = Episodes.TestCase
TestEpisodes.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# --- what the machine does not reach ---------------------------------------------------------------


def test_the_words_of_what_was_done_are_bounded_and_end_with_a_whole_word() -> None:
    step: Any = {"tool": "grep", "action": "", "result": None, "metadata": {}}
    many: Any = [{**step, "action": f"action{n}"} for n in range(1_000)]
    long: Any = {**step, "action": "x" * 9_999}
    said = words.deeds(many, {"type": "failure", "reason": "it broke"})
    assert said.startswith("grep it broke action0 action1 ")
    assert words.DEEDS_CHARACTERS - 12 < len(said) <= words.DEEDS_CHARACTERS
    assert said.split()[-1] in {each["action"] for each in many}
    assert words.deeds([long], {"type": "failure", "reason": "y"}).startswith("grep y")


@pytest.mark.parametrize(
    "body",
    [
        *({name: "\ud800"} for name in ("task_description", "domain", "language", "source", "session_id")),
        {"tags": ["x\ud800"]},
        {"metadata": {"\ud800": 1}},
    ],
    ids=lambda body: next(iter(body)),
)
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(tmp_path: Path, body: dict[str, Any]) -> None:
    node = Node.open(tmp_path, limits=Limits(threads=0))

    async def create() -> None:
        try:
            with pytest.raises(InvalidRequest, match=f"^{next(iter(body))}"):
                await invoke(node, OPERATIONS["create_episode"], PROFILE, {"task_description": "x", **body}, LOCAL)
            assert node.catalog.find("acme--ann") is None
        finally:
            await node.close()

    asyncio.run(create())


def test_medians_of_fewer_than_5_say_nothing_and_those_of_more_are_the_textbooks() -> None:
    known = Medians()
    lengths = [Length(float(n * 7 % 5), n * 3 % 7) for n in range(11)]
    for n, length in enumerate(lengths):
        expected = None
        if n >= medians.ENOUGH:
            expected = Typical(*(float(statistics.median(measure)) for measure in zip(*lengths[:n], strict=True)))
        assert known.typical("web") == expected
        assert Medians().typical("web", lengths[:n]) == expected
        assert known.typical("cli") is None
        known._insert("web", length)
    for length in lengths:
        known._delete("web", length)
    assert known._domains == {}
