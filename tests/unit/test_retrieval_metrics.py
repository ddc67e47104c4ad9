"""The measures of the retrieval benchmark, against their definitions, and the corpora it makes."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.retrieval.corpora import load
from benchmarks.retrieval.metrics import Measures, mean, measure

ids = st.sampled_from([f"m{n}" for n in range(40)])
rankings = st.lists(ids, unique=True, max_size=20)
evidence = st.sets(ids, min_size=1, max_size=12)


@given(rankings, evidence)
def test_measures_are_what_their_names_say(ranked: list[str], wanted: set[str]) -> None:
    measures = measure(ranked, wanted)
    ranks = [rank for rank, id_ in enumerate(ranked, start=1) if id_ in wanted]
    for k, value in ((5, measures.recall_5), (10, measures.recall_10), (20, measures.recall_20)):
        assert value == len(wanted & set(ranked[:k])) / len(wanted)
    assert measures.hit_10 == any(rank <= 10 for rank in ranks)
    assert measures.mrr == (1 / min(ranks) if ranks else 0)
    gain = sum(1 / log2(rank + 1) for rank in ranks if rank <= 10)
    best = sum(1 / log2(rank + 1) for rank in range(1, 11) if rank <= len(wanted))
    assert measures.ndcg_10 == pytest.approx(gain / best)


@given(rankings, evidence)
def test_measures_lie_between_nothing_found_and_all_of_it_first(ranked: list[str], wanted: set[str]) -> None:
    measures = measure(ranked, wanted)
    assert all(0 <= getattr(measures, name) <= 1 + 1e-9 for name in Measures.__slots__)
    ideal = measure(sorted(wanted), wanted)
    assert (ideal.mrr, ideal.hit_10, ideal.recall_20) == (1, 1, 1)
    assert ideal.ndcg_10 == pytest.approx(1)
    nothing = measure([id_ for id_ in ranked if id_ not in wanted], wanted)
    assert nothing == Measures(0, 0, 0, 0, 0, 0)


@given(st.lists(st.tuples(rankings, evidence), min_size=1, max_size=5))
def test_a_mean_counts_each_question_alike(asked: list[tuple[list[str], set[str]]]) -> None:
    measures = [measure(*each) for each in asked]
    assert mean(measures).mrr == pytest.approx(sum(each.mrr for each in measures) / len(measures))
    assert mean(measures[:1]) == measures[0]


def test_a_conversation_becomes_memories_with_the_evidence_of_its_questions(tmp_path: Path) -> None:
    conversation = {
        "session_1_date_time": "1 pm on 8 May, 2023",
        "session_1": [
            {"speaker": "Ann", "dia_id": "D1:1", "text": "Look!", "blip_caption": "a photo of a dog"},
            {"speaker": "Bob", "dia_id": "D1:2", "text": "Nice."},
        ],
        "session_2_date_time": "2 pm on 9 May, 2023",
        "session_1_observation": {"Ann": [["Ann has a dog.", "D1:1"], ["Ann likes Bob.", ["D1:1", "D1:2"]]]},
        "qa": [
            {"question": "What does Ann have?", "evidence": ["D1:1; D1:2"], "category": 4},
            {"question": "Who is Cy?", "evidence": [], "category": 5},
            {"question": "Who is Di?", "evidence": ["D:1:02", "D7:7"], "category": 1},
        ],
    }
    (tmp_path / "7.json").write_text(json.dumps(conversation))
    [turns] = load("locomo", tmp_path)
    assert turns.texts[0].memory() == {
        "type": "event",
        "summary": "Ann: Look! a photo of a dog",
        "content": {"id": "D1:1", "date": "1 pm on 8 May, 2023"},
        "keywords": "1 pm on 8 May, 2023",
        "session_id": "session_1",
    }
    assert [(question.evidence, question.category) for question in turns.questions] == [
        ({"D1:1", "D1:2"}, "single-hop"),
        ({"D1:2"}, "multi-hop"),
    ]
    [observed] = load("observations", tmp_path)
    assert [text.summary for text in observed.texts] == ["Ann has a dog.", "Ann likes Bob."]
    assert [question.evidence for question in observed.questions] == [{"o0", "o1"}, {"o1"}]
    [stated] = load("statements", tmp_path)
    assert [(question.text, question.evidence) for question in stated.questions] == [
        ("Ann has a dog.", {"D1:1"}),
        ("Ann likes Bob.", {"D1:1", "D1:2"}),
    ]
