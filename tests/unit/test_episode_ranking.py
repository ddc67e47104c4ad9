"""What speaks for an episode stays within its bounds, and diversity is what its definition says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_core.episodes.boosts import HALF_LIFE_MS, WHOLE, Suggestion
from memoturn_core.episodes.candidates import Candidate
from memoturn_core.episodes.choice import chosen
from memoturn_core.episodes.diversity import LAMBDA, by_vectors, by_words, diversified
from memoturn_core.tables import SCHEMA
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Snapshot

BOUNDED = settings(max_examples=100, deadline=None)
YEAR = 365 * 86_400_000
TASK = "Fix the flaky login test"

episodes = st.tuples(
    st.floats(0.01, 1),
    st.sampled_from(["web-api", "general"]),
    st.sampled_from(["debugging", "testing", "other"]),
    st.integers(-10 * YEAR, YEAR),
    st.none() | st.floats(0, 4),
)
"""Relevance, domain, type, how long ago it began, and reward."""


@BOUNDED
@given(st.lists(episodes, max_size=12), st.floats(0.01, 1), st.integers(1, 5))
def test_the_task_in_the_words_of_the_query_comes_first_however_old_and_what_is_much_more_relevant_before_what_is_less(
    others: list[Any], relevance: float, limit: int
) -> None:
    ambient = ManualAmbient()
    connection = SCHEMA.empty()
    now = ambient.now_ms()
    rows = [(relevance, "general", "other", YEAR, 0.0), *others]
    for place, (_, domain, task_type, age, reward) in enumerate(rows):
        task = "the LOGIN test: fix flaky" if place == 0 else f"flaky login test fix in module{place}"
        connection.execute(
            "INSERT INTO __memoturn_episodes (rowid, id, task_type, domain, description, words, started_at, reward,"
            " body) VALUES (?, randomblob(16), ?, ?, ?, '', ?, ?, '{}')",
            (place, task_type, domain, task, now - age, reward),
        )
    order = sorted(range(len(rows)), key=lambda place: -rows[place][0])
    candidates = [Candidate(place, rows[place][0], {"words": rows[place][0]}) for place in order]
    hits = chosen(Snapshot(connection, 1, ambient, {}), f"{TASK} of the web api", [], sort="relevance", limit=limit)
    assert hits == []
    hits = chosen(Snapshot(connection, 1, ambient, {}), TASK, candidates, sort="relevance", limit=limit)
    assert hits[0].rowid == 0
    assert len(hits) == min(limit, len(rows))
    boosted = {each.rowid: each.score - each.parts.get("diversity", 0.0) for each in candidates if each.rowid}
    for better in boosted:
        for worse in boosted:
            if rows[better][0] > (1 + WHOLE) * rows[worse][0]:
                assert boosted[better] > boosted[worse]
    connection.close()


@given(st.text(max_size=40), episodes)
def test_boosts_are_shares_within_their_bound(query: str, episode: Any) -> None:
    _, domain, task_type, age, reward = episode
    given_ = {"domain": domain, "task_type": task_type, "started_at": -age, "reward": reward, "now": 0}
    boosts = Suggestion.of(query).boosts(**given_)
    assert all(boost >= 0 for boost in boosts.values())
    assert sum(boosts.values()) <= WHOLE + 1e-12


def test_each_boost_is_for_what_it_says() -> None:
    suggestion = Suggestion.of("Debugging the web API")

    def boosts(**more: Any) -> Any:
        known = {"domain": "cli", "task_type": "other", "started_at": 0, "reward": None, "now": 10**15}
        return suggestion.boosts(**{**known, **more})

    assert not any(round(boost, 12) for boost in boosts().values())
    assert boosts(domain="web-api")["domain"] > 0 == boosts(domain="web-sockets")["domain"]
    assert boosts(task_type="debugging")["task_type"] > 0 == boosts(task_type="testing")["task_type"]
    assert boosts(reward=1.0)["reward"] == boosts(reward=2.0)["reward"] / 2 == boosts(reward=3.0)["reward"] / 2 > 0
    fresh, older = boosts(now=0)["recency"], boosts(now=HALF_LIFE_MS)["recency"]
    assert fresh == boosts(now=-1)["recency"] == 2 * older


@BOUNDED
@given(st.data(), st.lists(st.floats(0, 1), max_size=9), st.integers(1, 10))
def test_diversity_is_maximal_marginal_relevance(data: st.DataObject, given_: list[float], count: int) -> None:
    scores = sorted(given_, reverse=True)
    words = [data.draw(st.frozensets(st.sampled_from("abcd"))) for _ in scores]
    likeness = by_words(words)
    got = diversified(scores, likeness, count)
    left = list(range(len(scores)))
    picked: list[int] = []
    for place, added in got:

        def worth(each: int) -> float:
            like = max((_jaccard(words[each], words[other]) for other in picked), default=0.0)
            return LAMBDA * scores[each] - (1 - LAMBDA) * like * scores[0]

        assert worth(place) == pytest.approx(max(map(worth, left)))
        assert LAMBDA * (scores[place] + added) == pytest.approx(worth(place))
        left.remove(place)
        picked.append(place)
    assert len(picked) == min(count, len(scores))
    given_scores = [scores[place] + added for place, added in got]
    assert given_scores == sorted(given_scores, reverse=True)


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def test_vectors_are_alike_by_their_cosine_and_a_zero_vector_is_like_none() -> None:
    likeness = by_vectors(np.array([[1, 0], [2, 0], [0, 3], [-1, 0], [0, 0], [3, 4]], np.float32))
    assert likeness(0).tolist() == pytest.approx([1, 1, 0, 0, 0, 0.6])
    assert likeness(4).tolist() == [0] * 6
