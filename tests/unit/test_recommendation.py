"""Scores, the ranking against scoring everything, what is kept of recommendations, and what is measured of them."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.patterns import evidence, offers
from memoturn_core.episodes.patterns.evaluation import Ended, stats
from memoturn_core.episodes.patterns.fit import WEIGHTS, WHOLE, Labels, Task, parts, repeats, shares, worth
from memoturn_core.episodes.patterns.measuring import CALIBRATED, COMPARABLE, calibration, difference
from memoturn_core.episodes.patterns.offers import WITHOUT_FEEDBACK, Offer
from memoturn_core.episodes.patterns.ranking import Ranking
from memoturn_core.tables import SCHEMA
from memoturn_schemas.episodes import Outcome, Step
from memoturn_schemas.errors import NotFound
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Snapshot, Transaction

shares_of_one = st.floats(0, 1)
features = st.dictionaries(st.sampled_from(list(WEIGHTS)), shares_of_one)
NOBODY = Task(None, None, None, None, frozenset())


# --- scores --------------------------------------------------------------------------------------


@given(shares_of_one, features)
def test_a_score_is_the_sum_of_its_parts_and_bounded_by_the_strength(strength, given_features):
    found = parts(strength, given_features)
    score = strength * (1 + sum(WEIGHTS[name] * value for name, value in given_features.items())) / WHOLE
    assert sum(found.values()) == pytest.approx(score)
    assert strength / WHOLE - 1e-9 <= sum(found.values()) <= strength + 1e-9


@given(shares_of_one, features, st.sampled_from(list(WEIGHTS)))
def test_no_feature_lowers_a_score_and_none_adds_more_than_its_weight(strength, given_features, name):
    without = {**given_features, name: 0.0}
    added = sum(parts(strength, {**without, name: 1.0}).values()) - sum(parts(strength, without).values())
    assert added == pytest.approx(strength * WEIGHTS[name] / WHOLE)


def test_a_context_is_worth_less_than_what_says_what_to_do():
    assert worth("context_pattern") < worth("tool_sequence") == worth("anti_pattern") == 1


def test_labels_count_by_the_share_of_episodes_that_have_them_whatever_their_case():
    task = Task("testing", "web", "Python", "django", frozenset({"slow", "flaky"}))
    episodes = [
        Labels("python", None, frozenset({"slow"})),
        Labels("rust", "Django", frozenset({"slow", "flaky"})),
        Labels(None, None, frozenset()),
        Labels("PYTHON", None, frozenset()),
    ]
    assert shares(task, episodes) == {"language": 0.5, "framework": 0.25, "tags": 3 / 8}
    assert shares(NOBODY, episodes) == {}
    assert shares(task, []) == {}


@pytest.mark.parametrize(
    ("sequence", "offered", "expected"),
    [
        ("ab", [], False),
        ("ab", ["abc"], True),
        ("abcd", ["abc"], True),
        ("abcd", ["ab"], False),
        ("abc", ["bcd"], True),
        ("ba", ["ab"], False),
        ("ab", ["xa", "by"], False),
    ],
)
def test_a_sequence_repeats_another_that_has_half_of_its_transitions(sequence, offered, expected):
    assert repeats(list(sequence), [list(each) for each in offered]) is expected


# --- the ranking ---------------------------------------------------------------------------------


def step(number: int, tool: str, *, failed: bool = False) -> Step:
    return Step(
        step_number=number,
        timestamp=number,
        tool=tool,
        action="do it",
        parameters={},
        result={"type": "error", "message": f"{tool} broke"} if failed else {"type": "success", "output": ""},
        latency_ms=None,
        tokens_used=None,
        metadata={},
    )


def lived(tools: str, domain: str, *, succeeded: bool, at: int, task_type: str = "testing") -> Experience:
    """An episode of steps named by letters; a capital failed."""
    outcome: Outcome = {"type": "success", "verdict": ""} if succeeded else {"type": "failure", "reason": ""}
    return Experience(
        task_type=task_type,  # type: ignore[arg-type]
        description="",
        context={"domain": domain, "language": None, "framework": None, "complexity": "moderate", "tags": []},
        metadata={},
        steps=[step(n, tool.lower(), failed=tool.isupper()) for n, tool in enumerate(tools, start=1)],
        outcome=outcome,
        started_at=at,
        ended_at=at,
    )


episodes = st.lists(
    st.tuples(
        st.text("abcdA", max_size=8),
        st.sampled_from(["web", "ops"]),
        st.booleans(),
        st.integers(0, 90),
        st.sampled_from(["testing", "debugging"]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(episodes, st.lists(st.tuples(st.integers(1, 25), shares_of_one), max_size=6, unique_by=lambda each: each[0]))
def test_the_best_are_those_that_scoring_everything_would_find(given_episodes, similar):
    ambient = ManualAmbient()
    connection = SCHEMA.empty()
    for rowid, (tools, domain, succeeded, age, task_type) in enumerate(given_episodes, start=1):
        at = ambient.now_ms() - age * 86_400_000
        told = lived(tools, domain, succeeded=succeeded, at=at, task_type=task_type)
        evidence.learn(Transaction(connection, ambient), rowid, told)
    snapshot = Snapshot(connection, 1, ambient, {})
    task = Task("debugging", "web", None, None, frozenset())
    for avoid in (False, True):
        ranking = Ranking(snapshot, task, similar)
        everything = [ranking._scored(each.place) for each in ranking.known.all_promoted()]
        wanted = [each for each in everything if (each.pattern.goes_with == "failure") == avoid]
        wanted.sort(key=lambda each: each.order())
        assert [each.order() for each in ranking.best(avoid=avoid)] == [each.order() for each in wanted]
        chosen = ranking.chosen(5, avoid=avoid)
        assert len(chosen) <= 5
        assert all(each.score > 0 for each in chosen)
        if wanted and wanted[0].score:
            assert chosen[0].order() == wanted[0].order()


def test_what_is_kept_in_memory_for_the_ranking_follows_what_is_learnt_and_said():
    """The same connection with its caches as the engine keeps them, against one that always begins anew."""
    ambient, connection, caches = ManualAmbient(), SCHEMA.empty(), dict[Any, Any]()
    task = Task("testing", "web", None, None, frozenset())

    def orders(kept: dict[Any, Any]) -> list[tuple[float, int, int]]:
        ranking = Ranking(Snapshot(connection, 1, ambient, kept), task, [(1, 0.5)])
        return [each.order() for avoid in (False, True) for each in ranking.best(avoid=avoid)]

    def commit(transaction: Transaction) -> None:
        for key, change in transaction.maintenance:
            if key in caches:
                change(caches[key].value)

    for rowid in range(1, 41):
        tools = "".join("abcdefghij"[(rowid * number + number * number) % 10] for number in range(1, 8))
        learning = Transaction(connection, ambient)
        evidence.learn(learning, rowid, lived(tools, "web", succeeded=rowid % 5 > 0, at=ambient.now_ms()))
        commit(learning)
        assert orders(caches) == orders({})
        if rowid <= 10:
            continue
        worst = orders({})[-1][2]
        judging = Transaction(connection, ambient)
        connection.executemany(
            "INSERT INTO __memoturn_pattern_feedback VALUES (?, ?, NULL, 'helped', NULL, ?)",
            [(worst, 10 * rowid + number, ambient.now_ms()) for number in range(10)],
        )
        evidence.judged(judging, {worst})
        commit(judging)
        assert orders(caches) == orders({})
        ambient.advance(seconds=700 if rowid % 7 else -2_000_000)
        assert orders(caches) == orders({})


def test_what_feedback_said_of_a_sequence_holds_for_those_that_are_the_same_experience():
    ambient, connection = ManualAmbient(), SCHEMA.empty()
    transaction = Transaction(connection, ambient)
    for rowid in range(1, 4):
        evidence.learn(transaction, rowid, lived("abc", "web", succeeded=True, at=ambient.now_ms()))

    def recommended() -> list[str]:
        ranking = Ranking(Snapshot(connection, 1, ambient, {}), NOBODY, [])
        return [each.pattern.text for each in ranking.chosen(9, avoid=False, kinds={"tool_sequence"})]

    assert recommended() == ["a → b → c"]
    [(rowid,)] = connection.execute(
        """SELECT rowid FROM __memoturn_patterns WHERE body ->> 'tools' = '["a","b","c"]'"""
    ).fetchall()
    connection.execute(
        "INSERT INTO __memoturn_pattern_feedback VALUES (?, 1, NULL, 'hindered', NULL, ?)", (rowid, ambient.now_ms())
    )
    assert recommended() == ["a → b → c"], "its parts do not take its place"
    evidence.learn(transaction, 4, lived("ab", "web", succeeded=True, at=ambient.now_ms()))
    assert recommended() == ["a → b"], "a part that worked elsewhere too is another experience"


# --- what is kept --------------------------------------------------------------------------------


def kept(connection: apsw.Connection) -> list[int]:
    return [rowid for (rowid,) in connection.execute("SELECT rowid FROM __memoturn_recommendations ORDER BY rowid")]


def test_recommendations_without_feedback_are_kept_up_to_a_bound_and_all_others_for_good():
    connection = SCHEMA.empty()
    transaction = Transaction(connection, ManualAmbient())
    offer = Offer("pat_" + "0" * 32, 0.5, 0.25, avoid=False)
    first, second = (offers.record(transaction, [offer], None) for _ in range(2))
    connection.execute("INSERT INTO __memoturn_pattern_feedback VALUES (1, 1, NULL, 'helped', NULL, 0)")
    made = WITHOUT_FEEDBACK + 250
    for _ in range(made - 2):
        offers.record(transaction, [offer], None)
    there = kept(connection)
    assert there[0] == 1
    assert WITHOUT_FEEDBACK <= len(there) - 1 <= WITHOUT_FEEDBACK + 100
    assert there[1:] == list(range(made - len(there) + 2, made + 1)), "the oldest went first"
    assert offers.find(connection, first).offers == {offer.pattern_id: offer}
    with pytest.raises(NotFound, match="recommendation_id: "):
        offers.find(connection, second)


# --- what is measured ----------------------------------------------------------------------------


@given(st.lists(st.tuples(shares_of_one, st.booleans()), min_size=CALIBRATED, max_size=60))
def test_a_calibration_is_the_textbook_s(cases):
    found = calibration(cases)
    helped = fmean(float(each) for _, each in cases)
    assert found["brier"] == pytest.approx(fmean((p - y) ** 2 for p, y in cases), abs=1e-6)
    assert found["base_rate"] == pytest.approx(helped, abs=1e-6)
    assert found["brier_of_base_rate"] == pytest.approx(fmean((helped - y) ** 2 for _, y in cases), abs=1e-6)
    assert found["bins"] is not None
    assert sum(each["cases"] for each in found["bins"]) == len(cases)
    for each in found["bins"]:
        inside = [
            (p, y)
            for p, y in cases
            if each["from_strength"] <= p < each["to_strength"] or (p == each["to_strength"] == 1)
        ]
        assert each["cases"] == len(inside)
        assert each["mean_strength"] == (pytest.approx(fmean(p for p, _ in inside), abs=1e-6) if inside else None)


def test_a_calibration_of_few_cases_is_not_known_and_says_why():
    found = calibration([(0.5, True)] * (CALIBRATED - 1))
    assert (found["brier"], found["bins"], found["cases"]) == (None, None, CALIBRATED - 1)
    assert found["reason"] is not None


def test_shares_are_compared_only_where_both_sides_have_enough_cases():
    assert difference((4, COMPARABLE), (1, COMPARABLE))["value"] == pytest.approx(3 / COMPARABLE)
    for one, other in ((COMPARABLE - 1, 100), (100, COMPARABLE - 1), (0, 0)):
        found = difference((one, one), (0, other))
        assert found["value"] is None
        assert found["reason"]


def test_stats_follow_episodes_over_time():
    ended = [Ended("a", "failure", 0.0, 9), Ended("b", "success", 1.0, 8), Ended("a", "partial_success", 0.5, 4)]
    found = stats(ended, open_=2)
    assert found["episodes"] == {
        "total": 5, "open": 2, "success": 1, "partial_success": 1, "failure": 1, "abstained": 0
    }  # fmt: skip
    assert (found["reward"]["value"], found["steps_to_success"]["value"]) == (0.5, 6.0)
    assert [(each["domain"], each["reward"]["cases"]) for each in found["reward_by_domain"]] == [("a", 2), ("b", 1)]
    first, second = found["over_time"]["first_half"], found["over_time"]["second_half"]
    assert (first["episodes"], first["success_rate"]["value"], first["steps_to_success"]["value"]) == (2, 0.5, 8.0)
    assert (second["episodes"], second["success_rate"]["value"], second["reward"]["value"]) == (1, 1.0, 0.5)


def test_stats_of_nothing_are_not_known():
    found = stats([], open_=0)
    for each in (found["reward"], found["success_rate"], found["steps_to_success"]):
        assert each["value"] is None
        assert each["reason"]
