"""Learning and forgetting against a model that keeps all episodes and works out everything anew from them.

After every step the patterns that are kept in memory, those read anew from the file, and the model's must be the same,
and no row may be there that nothing speaks for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.patterns import evidence
from memoturn_core.episodes.patterns.extraction import Candidate, candidates
from memoturn_core.episodes.patterns.known import Known, PatternIndex, patterns_of, strongest_in
from memoturn_core.episodes.patterns.pattern import format_pattern_id
from memoturn_core.episodes.patterns.strength import HALF_LIFE_MS, of_episode, of_feedback, strength
from memoturn_core.tables import SCHEMA
from memoturn_schemas.episodes import Applied, Outcome, Step, TaskType
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.manifest import BranchRef
from unit.engines import engine

DATABASE = BranchRef("a" * 32)
DAY = 24 * 3_600_000

OUTCOMES: dict[str, Outcome] = {
    "success": {"type": "success", "verdict": "done", "artifacts": []},
    "partial_success": {"type": "partial_success", "verdict": "half", "completed": [], "failed": []},
    "failure": {"type": "failure", "reason": "no"},
    "abstained": {"type": "abstained", "reason": "no", "stopped_at_step": 1, "infeasibility_signals": []},
}

steps = st.lists(
    st.builds(
        lambda tool, failed, decides: Step(
            step_number=0,
            timestamp=0,
            tool=tool,
            action="decided so" if decides else "did it",
            parameters={},
            result={"type": "error", "message": f"no file /x/{tool}"} if failed else {"type": "success", "output": ""},
            latency_ms=None,
            tokens_used=None,
            metadata={},
        ),
        st.sampled_from("abc"),
        st.sampled_from([False, False, True]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=5,
)
task_types: st.SearchStrategy[TaskType] = st.sampled_from(["debugging", "testing"])
ages = st.sampled_from([0, 0, 0, DAY, 40 * DAY, -DAY, 2**63, -(2**62)])
said: st.SearchStrategy[Applied] = st.sampled_from(["helped", "no_effect", "hindered", "pending"])
numbers = st.integers(0, 1_000)


@dataclass
class Lived:
    """An episode as the model has it; `without` are the patterns that were dropped since."""

    experience: Experience
    at: int
    found: dict[bytes, Candidate]
    without: set[bytes]


class Patterns(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.ambient = ManualAmbient(seed=id(self))
        self.episodes: dict[int, Lived] = {}
        self.feedback: dict[tuple[bytes, int], tuple[Applied, int]] = {}
        self.count = 0
        self.open()

    def open(self) -> None:
        self.closing = engine(self.directory, schema=SCHEMA, ambient=self.ambient, threads=0)
        self.engine = self.closing.__enter__()

    def teardown(self) -> None:
        self.closing.__exit__(None, None, None)
        shutil.rmtree(self.directory)

    def write(self, work: Callable[[Transaction], Any]) -> Any:
        return self.engine.write(DATABASE, work).result().value

    def read(self, work: Callable[[Snapshot], Any]) -> Any:
        return self.engine.read(DATABASE, work).result().value

    # --- the model -------------------------------------------------------------------------------

    def having(self) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        for episode, lived in self.episodes.items():
            for id_ in lived.found.keys() - lived.without:
                found.setdefault(id_, []).append(episode)
        return found

    def candidate(self, id_: bytes) -> Candidate:
        return next(lived.found[id_] for lived in self.episodes.values() if id_ in lived.found)

    def promoted(self) -> dict[bytes, list[int]]:
        return {
            id_: episodes
            for id_, episodes in self.having().items()
            if len(episodes) >= self.candidate(id_).needs
            and (self.candidate(id_).kind != "anti_pattern" or self.outcomes(episodes)["failure"])
        }

    def outcomes(self, episodes: list[int]) -> Counter[str]:
        return Counter(self.episodes[each].experience.outcome["type"] for each in episodes)

    def strength(self, id_: bytes, episodes: list[int]) -> float:
        kind, outcomes = self.candidate(id_).kind, self.outcomes(episodes)
        good = outcomes["success"] + outcomes["partial_success"]
        against = kind == "anti_pattern" or (kind == "context_pattern" and outcomes["failure"] > good)
        counted = {"failure"} if against else {"success", "partial_success"}
        trials = [
            of_episode(lived.at, lived.experience.outcome["type"] in counted)
            for lived in (self.episodes[each] for each in episodes)
        ]
        heard = [of_feedback(*each) for (pattern, _), each in self.feedback.items() if pattern == id_]
        return strength(trials + heard, self.ambient.now_ms())

    def forgotten(self) -> None:
        """Feedback goes with its pattern."""
        left = self.having()
        self.feedback = {key: each for key, each in self.feedback.items() if key[0] in left}

    # --- what happens ----------------------------------------------------------------------------

    def experience(self, taken: list[Step], task_type: TaskType, outcome: str, domain: str, age: int) -> Experience:
        ended_at = self.ambient.now_ms() - age
        return Experience(
            task_type=task_type,
            description="find it",
            context={"domain": domain, "language": None, "framework": None, "complexity": "simple", "tags": []},
            metadata={},
            steps=[Step(**{**each, "step_number": n}) for n, each in enumerate(taken, start=1)],  # type: ignore[typeddict-item]
            outcome=OUTCOMES[outcome],
            started_at=ended_at,
            ended_at=ended_at,
        )

    def keep(self, rowid: int, told: Experience) -> None:
        at = min(told.ended_at, self.ambient.now_ms())
        self.episodes.pop(rowid, None)
        self.forgotten()
        self.episodes[rowid] = Lived(told, at, candidates(told), set())

    @rule(
        taken=steps,
        task_type=task_types,
        outcome=st.sampled_from(sorted(OUTCOMES)),
        domain=st.sampled_from(["x", "x", "x", "y"]),
        age=ages,
        read_before=st.booleans(),
        again=st.none() | numbers,
    )
    def learn(
        self,
        taken: list[Step],
        task_type: TaskType,
        outcome: str,
        domain: str,
        age: int,
        read_before: bool,
        again: int | None,
    ) -> None:
        if read_before:
            self.read(patterns_of)
        if again is None or not self.episodes:
            self.count += 1
            rowid = self.count
        else:
            rowid = sorted(self.episodes)[again % len(self.episodes)]
        told = self.experience(taken, task_type, outcome, domain, age)
        learnt = self.write(lambda transaction: evidence.learn(transaction, rowid, told))
        self.keep(rowid, told)
        assert len(learnt.pattern_ids) == len(set(learnt.pattern_ids))
        promoted = {format_pattern_id(id_): id_ for id_ in self.promoted().keys() & candidates(told).keys()}
        kinds = {each: self.candidate(id_).kind for each, id_ in promoted.items()}
        assert set(learnt.pattern_ids) <= promoted.keys()
        silent = promoted.keys() - set(learnt.pattern_ids)
        assert {kinds[each] for each in silent} <= {"tool_sequence", "anti_pattern"}
        assert outcome != "failure" or {kinds[each] for each in silent} <= {"tool_sequence"}
        assert {each.removeprefix("heu_") for each in learnt.heuristic_ids} <= {
            each.removeprefix("pat_") for each in learnt.pattern_ids
        }

    @rule(taken=steps, count=st.integers(2, 3))
    def learn_together(self, taken: list[Step], count: int) -> None:
        """Several in one transaction, as a bulk of episodes is."""
        told = [self.experience(taken, "debugging", "success", "x", 0) for _ in range(count)]
        first = self.count + 1
        self.count += count

        def work(transaction: Transaction) -> None:
            for place, each in enumerate(told):
                evidence.learn(transaction, first + place, each)

        self.write(work)
        for place, each in enumerate(told):
            self.keep(first + place, each)

    @precondition(lambda self: self.episodes)
    @rule(which=numbers)
    def forget(self, which: int) -> None:
        rowid = sorted(self.episodes)[which % len(self.episodes)]
        self.write(lambda transaction: evidence.forget(transaction, rowid))
        del self.episodes[rowid]
        self.forgotten()

    @rule(taken=steps)
    def fail(self, taken: list[Step]) -> None:
        told = self.experience(taken, "debugging", "success", "x", 0)

        def work(transaction: Transaction) -> None:
            evidence.learn(transaction, 10_000, told)
            raise InvalidRequest("refused")

        with pytest.raises(InvalidRequest):
            self.write(work)

    @precondition(lambda self: self.promoted())
    @rule(which=numbers, recommendation=st.integers(1, 3), outcome=said)
    def judge(self, which: int, recommendation: int, outcome: Applied) -> None:
        promoted = sorted(self.promoted())
        id_, now = promoted[which % len(promoted)], self.ambient.now_ms()

        def work(transaction: Transaction) -> None:
            rowid: Any = transaction.connection.execute(
                "SELECT rowid FROM __memoturn_patterns WHERE id = ?", (id_,)
            ).get
            transaction.connection.execute(
                "INSERT OR REPLACE INTO __memoturn_pattern_feedback (pattern, recommendation, outcome, said_at)"
                " VALUES (?, ?, ?, ?)",
                (rowid, recommendation, outcome, now),
            )
            evidence.judged(transaction, [rowid])

        self.write(work)
        self.feedback[id_, recommendation] = (outcome, now)

    @precondition(lambda self: self.promoted())
    @rule(which=st.lists(numbers, min_size=1, max_size=3))
    def drop(self, which: list[int]) -> None:
        promoted = sorted(self.promoted())
        dropped = {promoted[each % len(promoted)] for each in which}

        def work(transaction: Transaction) -> None:
            known = Known(transaction.connection, transaction.ambient.now_ms())
            evidence.drop(transaction, [pattern.rowid for id_ in dropped if (pattern := known.of_id(id_))])

        self.write(work)
        for lived in self.episodes.values():
            lived.without |= dropped & lived.found.keys()
        self.forgotten()

    @rule(days=st.sampled_from([1, 30, 200]))
    def wait(self, days: int) -> None:
        self.ambient.advance(seconds=days * DAY / 1_000)

    @rule()
    def restart(self) -> None:
        self.closing.__exit__(None, None, None)
        self.open()

    # --- what must be so -------------------------------------------------------------------------

    @invariant()
    def all_say_the_same(self) -> None:
        if not self.count:
            return
        having, promoted = self.having(), self.promoted()

        def work(snapshot: Snapshot) -> None:
            now = snapshot.ambient.now_ms()
            fresh = Known(snapshot.connection, now)
            fresh.weigh(now)
            assert {each.id for each in patterns_of(snapshot)} == promoted.keys()
            for known in (PatternIndex.of(snapshot), fresh):
                assert {each.id for each in known.all_promoted()} == promoted.keys()
                assert known.seen.keys() == self.episodes.keys()
                for pattern in known.all_promoted():
                    assert pattern.promoted
                    episodes = promoted[pattern.id]
                    outcomes = self.outcomes(episodes)
                    lived = [self.episodes[each] for each in episodes]
                    assert pattern.body == self.candidate(pattern.id).body
                    assert sorted(pattern.episodes) == sorted(episodes)
                    standing = pattern.standing
                    assert standing.occurrences == pattern.occurrences == len(episodes)
                    assert standing.successes == outcomes["success"] + outcomes["partial_success"]
                    assert standing.failures == outcomes["failure"]
                    assert standing.first_seen == min(each.at for each in lived)
                    assert standing.last_seen == pattern.last_seen == max(each.at for each in lived)
                    assert standing.task_types == Counter(each.experience.task_type for each in lived)
                    heard = Counter(each[0] for (id_, _), each in self.feedback.items() if id_ == pattern.id)
                    assert pattern.feedback == heard
                    assert pattern.strength == pytest.approx(self.strength(pattern.id, episodes), abs=1e-9)
            strongest = strongest_in(snapshot, self.episodes, len(promoted) + 1)
            assert {pattern.id: having for pattern, having in strongest} == {
                id_: set(episodes) for id_, episodes in promoted.items()
            }
            order = [(-pattern.strength, -len(having), pattern.rowid) for pattern, having in strongest]
            assert order == sorted(order)
            self.rows_are_what_is_spoken_for(snapshot, having)

        self.read(work)

    def rows_are_what_is_spoken_for(self, snapshot: Snapshot, having: dict[bytes, list[int]]) -> None:
        def rows(sql: str) -> list[Any]:
            return snapshot.connection.execute(sql).fetchall()

        patterns = dict(rows("SELECT id, rowid FROM __memoturn_patterns"))
        alone = dict(rows("SELECT id, episode FROM __memoturn_pattern_candidates"))
        assert patterns.keys() | alone.keys() == having.keys()
        assert not patterns.keys() & alone.keys()
        for id_, episode in alone.items():
            assert having[id_] == [episode]
        ids = {rowid: id_ for id_, rowid in patterns.items()}
        heard = {
            (ids[pattern], recommendation)
            for pattern, recommendation in rows("SELECT pattern, recommendation FROM __memoturn_pattern_feedback")
        }
        assert heard == self.feedback.keys()


TestPatterns = Patterns.TestCase
TestPatterns.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_evidence_of_a_half_life_ago_weighs_half_also_in_what_is_kept_in_memory() -> None:
    """What the machine compares does fade."""
    machine = Patterns()
    try:
        for _ in range(3):
            machine.learn([], "debugging", "success", "x", 0, True, None)
        [before] = machine.read(lambda snapshot: [each.strength for each in patterns_of(snapshot)])
        machine.ambient.advance(seconds=HALF_LIFE_MS / 1_000)
        [after] = machine.read(lambda snapshot: [each.strength for each in patterns_of(snapshot)])
        now = machine.ambient.now_ms()
        assert before == pytest.approx(strength([of_episode(now, True)] * 3, now))
        assert after == pytest.approx(strength([of_episode(now - HALF_LIFE_MS, True)] * 3, now))
        assert after < before
    finally:
        machine.teardown()
