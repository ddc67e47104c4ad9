"""Item 8's result may also name active memories that say the same in other words; nothing else changes by it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.live_node import Live, Memory, event, fact, statuses, task
from unit.supersession_model import Model

LIVES = event("Maria volunteers at a homeless shelter near the harbour")
AGAIN = event("At the homeless shelter near the harbour Maria is volunteering now")
OTHER = event("Maria bought a bicycle at the harbour market")


def similar(result: dict[str, Any]) -> list[str]:
    named: list[str] = result.get("similar", [])
    return named


def test_item_8_what_says_the_same_in_other_words_is_named_and_kept_all_the_same(memory):
    first, other, again = (memory.keep(each)[0] for each in (LIVES, OTHER, AGAIN))
    assert "similar" not in first
    assert "similar" not in other
    assert again == {**again, "status": "created", "superseded": [], "similar": [first["id"]]}
    assert len(memory.found(query="Maria")) == 3
    assert memory.keep(AGAIN) == [{"id": again["id"], "status": "duplicate", "superseded": []}]


def test_item_8_an_agent_sees_it_in_the_tools_result_too(memory, mcp):
    memory.keep(LIVES)
    address = {"namespace": memory.namespace, "profile": memory.profile}
    answer = mcp.call("memory_ingest", memories=[AGAIN], **address)["structuredContent"]["result"]
    assert len(answer["results"][0]["similar"]) == 1


def test_item_12_what_a_fact_supersedes_is_not_also_similar_to_it(memory):
    [old] = memory.keep(fact("maria.work", LIVES["summary"]))
    [new] = memory.keep(fact("maria.work", AGAIN["summary"]))
    assert (new["superseded"], similar(new)) == ([old["id"]], [])
    [unfiled] = memory.keep(AGAIN)
    assert similar(unfiled) == [new["id"]]


def test_item_13_a_revived_memory_names_what_has_come_meanwhile(memory):
    oslo = fact("user.city", "Inhabits a houseboat in Oslo")
    [old], _ = memory.keep(oslo), memory.keep(fact("user.city", "Rome"))
    [event_] = memory.keep(event("In Oslo inhabits a houseboat"))
    assert similar(event_) == []
    [revived] = memory.keep(oslo)
    assert (revived["id"], revived["status"], similar(revived)) == (old["id"], "revived", [event_["id"]])


def test_item_14_in_one_batch_the_later_names_the_earlier(memory):
    first, other, again = memory.keep(LIVES, OTHER, AGAIN)
    assert [similar(each) for each in (first, other, again)] == [[], [], [first["id"]]]


def test_item_14_what_a_later_item_supersedes_is_not_named_by_an_earlier_one(memory):
    results = memory.keep(fact("maria.work", LIVES["summary"]), AGAIN, fact("maria.work", "Retired"))
    assert [similar(each) for each in results] == [[], [], []]
    assert results[2]["superseded"] == [results[0]["id"]]


def test_item_18_neither_an_expired_task_nor_a_forgotten_memory_is_named(memory, live):
    [expiring] = memory.keep({**LIVES, "type": "task", "ttl": 60})
    [forgotten] = memory.keep({**LIVES, "content": "forgotten"})
    assert similar(forgotten) == [expiring["id"]]
    memory.forget(forgotten["id"])
    live.ambient.advance(seconds=60)
    assert similar(memory.keep(AGAIN)[0]) == []


def test_item_16_of_many_the_three_most_similar_are_named_and_of_equals_the_newest(memory):
    twins = memory.keep(*({**LIVES, "content": number} for number in range(5)))
    closer = memory.keep({**AGAIN, "content": "closer"})
    [again] = memory.keep(AGAIN)
    assert similar(again) == [closer[0]["id"], twins[4]["id"], twins[3]["id"]]


def test_item_16_in_a_long_batch_the_first_32_new_memories_are_looked_at(memory):
    pairs = [event(f"Maria sold bicycle{number} to Ann", content=[number, twin])
             for twin in "ab" for number in range(40)]  # fmt: skip
    memory.keep(*pairs[:40])
    known = memory.keep(*pairs[:10], *pairs[40:])
    assert statuses(known) == ["duplicate"] * 10 + ["created"] * 40
    assert [bool(similar(each)) for each in known] == [False] * 10 + [True] * 32 + [False] * 8


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        pytest.param(([1, 0.1], [1, 0.12]), True, id="near"),
        pytest.param(([1, 0], [0, 1]), False, id="far"),
        pytest.param(([0, 0], [0, 0]), False, id="zero"),
        pytest.param(([1, 0.1], [1, 0.1, 0]), False, id="of another dimension"),
        pytest.param(([1, 0.1], None), False, id="none"),
        pytest.param(([3e38, 3e38], [3e38, 3e38]), True, id="long"),
    ],
)
def test_item_19_near_vectors_make_up_for_words(memory, vectors, expected):
    texts = "Maria practises kickboxing to stay fit", "Maria trains kickboxing each week to stay healthy"
    items = [{**event(text), **({"embedding": vector} if vector else {})}
             for text, vector in zip(texts, vectors, strict=True)]  # fmt: skip
    _, second = (memory.keep(each)[0] for each in items)
    assert bool(similar(second)) == expected


@pytest.mark.parametrize(
    "summary",
    [
        "\0",
        "?!",
        "\u0301\u0301",
        '"AND" OR NOT*',
        "x" * 100_000,
        "\u4f60\u597d\u4e16\u754c",
        "the of and",
        "_",
        "NEAR(a b, 2)",
    ],
)
def test_any_summary_can_be_looked_for_and_one_word_for_word_is_found(memory, summary):
    words = any(character.isalnum() for character in summary[:1_000]) and len(summary) < 1_000
    [first], [second] = memory.keep(event(summary, content=1)), memory.keep(event(summary, content=2))
    assert similar(second) == ([first["id"]] if words else [])


# --- any history ---------------------------------------------------------------------------------

WORDS = ("volunteers", "shelter", "harbour", "Maria", "Jon", "the")
summaries = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
embeddings = st.sampled_from([None, [1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 0.0], [1.0, 2.0, 3.0]])


@st.composite
def memories(draw: st.DrawFn) -> dict[str, Any]:
    make = draw(st.sampled_from([event, fact, task]))
    more = {"content": draw(st.integers(0, 4)), "embedding": draw(embeddings)}
    summary = draw(summaries)
    if make is fact:
        return fact(draw(st.sampled_from(["work", "city"])), summary, **more)
    return make(summary, **more, **({"ttl": draw(st.sampled_from([0, 60, 600]))} if make is task else {}))


steps = st.lists(st.lists(memories(), min_size=1, max_size=5) | st.sampled_from(["forget", "wait"]), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=steps)
def test_items_8_to_15_hints_name_other_active_memories_and_nothing_else_changes(live: Live, history: Any) -> None:
    memory: Memory = live.memory()
    model = Model()
    for step in history:
        if step == "wait":
            live.ambient.advance(seconds=60)
        elif step == "forget":
            for each in [each for each in model.kept.values() if not each.expired(live.ambient.now_ms())][:1]:
                assert memory.forget(each.id).status_code == 204
                del model.kept[each.id]
        else:
            now = live.ambient.now_ms()
            results = memory.keep(*step)
            named = [result.pop("similar", None) for result in results]
            assert results == model.ingest(step, now)
            active = {id_ for id_, each in model.kept.items() if each.superseded_at is None and not each.expired(now)}
            for place, (result, ids) in enumerate(zip(results, named, strict=True)):
                if ids is None:
                    continue
                later = {each["id"] for each in results[place:] if each["status"] != "duplicate"}
                assert result["status"] != "duplicate"
                assert 1 <= len(ids) == len(set(ids)) <= 3
                assert set(ids) <= active - later - set(result["superseded"])
