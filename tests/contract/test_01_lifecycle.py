"""Items 12 to 15, 18, 21 and 24 to 26: supersession, revival, time to live, get and forget."""

from __future__ import annotations

import pytest

from contract.live_node import event, fact, ids, statuses, task

# --- supersession --------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["fact", "instruction"])
def test_item_12_new_content_on_a_topic_supersedes_the_old_memory_which_is_kept(memory, type_):
    [old] = memory.keep(fact("user.city", "Lives in Oslo", type=type_))
    [new] = memory.keep(fact("user.city", "Lives in Rome", type=type_))
    assert (new["status"], new["superseded"]) == ("created", [old["id"]])
    kept = memory.get(old["id"]).json()
    assert kept["summary"] == "Lives in Oslo"
    assert kept["superseded_by"] == new["id"]
    assert isinstance(kept["superseded_at"], int)
    current = memory.get(new["id"]).json()
    assert (current["supersedes"], current["superseded_by"]) == ([old["id"]], None)


@pytest.mark.parametrize(("first", "second"), [("fact", "instruction"), ("instruction", "fact")])
def test_item_12_facts_and_instructions_of_one_topic_do_not_touch_each_other(memory, first, second):
    memory.keep(fact("user.city", "Lives in Oslo", type=first))
    [other] = memory.keep(fact("user.city", "Oslo is home", type=second))
    assert (other["status"], other["superseded"]) == ("created", [])
    assert {hit["type"] for hit in memory.found(topic_key="user.city")} == {"fact", "instruction"}


def test_item_12_facts_without_a_topic_events_and_tasks_never_supersede(memory):
    for type_ in ("fact", "instruction", "event", "task"):
        results = memory.keep(event(f"One {type_}", type=type_), event(f"Two {type_}", type=type_))
        assert [(each["status"], each["superseded"]) for each in results] == [("created", [])] * 2


def test_item_13_a_superseded_memory_asserted_again_is_revived(memory):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo"))
    [rome] = memory.keep(fact("user.city", "Lives in Rome"))
    [back] = memory.keep(fact("user.city", "Lives in Oslo"))
    assert back == {"id": oslo["id"], "status": "revived", "superseded": [rome["id"]]}
    assert ids(memory.found(topic_key="user.city")) == [oslo["id"]]
    active = memory.get(oslo["id"]).json()
    assert (active["superseded_by"], active["superseded_at"]) == (None, None)
    assert memory.get(rome["id"]).json()["superseded_by"] == oslo["id"]
    [again] = memory.keep(fact("user.city", "Lives in Oslo"))
    assert again == {"id": oslo["id"], "status": "duplicate", "superseded": []}


def test_item_13_revival_works_back_and_forth_and_leaves_one_active_memory(memory):
    oslo, rome = fact("user.city", "Lives in Oslo"), fact("user.city", "Lives in Rome")
    assert statuses(memory.keep(oslo, rome)) == ["created", "created"]
    for current in (oslo, rome, oslo, rome):
        assert statuses(memory.keep(current)) == ["revived"]
        assert [hit["summary"] for hit in memory.found(topic_key="user.city", query="lives")] == [current["summary"]]


def test_item_14_in_one_batch_the_second_of_a_topic_supersedes_the_first(memory):
    first, second = memory.keep(fact("user.city", "Lives in Oslo"), fact("user.city", "Lives in Rome"))
    assert (first["status"], first["superseded"]) == ("created", [])
    assert (second["status"], second["superseded"]) == ("created", [first["id"]])
    assert ids(memory.found(topic_key="user.city")) == [second["id"]]


def test_item_14_in_one_batch_the_second_of_identical_twins_is_a_duplicate(memory):
    results = memory.keep(event("Met Ann"), event("Met Ann"), fact("t", "One"), fact("t", "One"))
    assert statuses(results) == ["created", "duplicate", "created", "duplicate"]
    assert results[0]["id"] == results[1]["id"]
    assert [each["superseded"] for each in results] == [[]] * 4


def test_item_15_duplicates_keep_the_first_writers_source(memory):
    [kept] = memory.keep(event("Met Ann", source="a"))
    memory.keep(event("Met Ann", source="b"))
    assert memory.get(kept["id"]).json()["source"] == "a"


def test_item_15_revived_memories_keep_the_first_writers_source(memory, live):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo", source="a"))
    memory.keep(fact("user.city", "Lives in Rome", source="a"))
    assert statuses(memory.keep(fact("user.city", "Lives in Oslo", source="b"))) == ["revived"]
    assert memory.get(oslo["id"]).json()["source"] == "a"
    [call] = memory.keep(task("Call Ann", source="a", ttl=10))
    live.ambient.advance(seconds=10)
    assert statuses(memory.keep(task("Call Ann", source="b", ttl=10))) == ["revived"]
    assert memory.get(call["id"]).json()["source"] == "a"


def test_item_15_supersession_crosses_sources(memory):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo", source="a"))
    [rome] = memory.keep(fact("user.city", "Lives in Rome", source="b"))
    assert rome["superseded"] == [oslo["id"]]
    assert [(hit["id"], hit["source"]) for hit in memory.found(topic_key="user.city")] == [(rome["id"], "b")]


# --- tasks and their time ------------------------------------------------------------------------


def test_item_18_a_task_expires_ttl_seconds_after_it_was_created(memory, live):
    [call] = memory.keep(task("Call Ann", ttl=90))
    record = memory.get(call["id"]).json()
    assert record["created_at"] == live.ambient.now_ms()
    assert record["expires_at"] == record["created_at"] + 90_000
    live.ambient.advance(seconds=89.999)
    assert ids(memory.found(query="Ann")) == [call["id"]]
    live.ambient.advance(seconds=0.001)
    assert memory.found(query="Ann") == []
    assert memory.get(call["id"]).status_code == 404


def test_item_18_a_task_without_ttl_lives_a_day(memory, live):
    absent, null = memory.keep(task("Call Ann"), task("Call Bob", ttl=None))
    for kept in (absent, null):
        record = memory.get(kept["id"]).json()
        assert record["expires_at"] == record["created_at"] + 86_400_000
    live.ambient.advance(seconds=86_399)
    assert len(memory.found(query="call")) == 2
    live.ambient.advance(seconds=1)
    assert memory.found(query="call") == []


def test_item_18_a_task_of_ttl_0_is_never_recallable(memory):
    [call] = memory.keep(task("Call Ann", ttl=0, embedding=[1.0, 0.0]))
    assert call["status"] == "created"
    assert memory.found(query="Ann", embedding=[1.0, 0.0], include_superseded=True) == []


def test_item_18_other_types_do_not_expire(memory, live):
    kept = memory.keep(event("Met Ann"), fact("t", "Knows Ann"), {"type": "instruction", "summary": "Greet Ann"})
    live.ambient.advance(seconds=10 * 365 * 86_400)
    assert {memory.get(each["id"]).json()["expires_at"] for each in kept} == {None}
    assert len(memory.found(query="Ann")) == 3


def test_item_21_an_expired_task_asserted_again_is_revived_with_a_fresh_ttl(memory, live):
    [call] = memory.keep(task("Call Ann", ttl=60))
    live.ambient.advance(seconds=60)
    assert memory.found(query="Ann") == []
    [again] = memory.keep(task("Call Ann", ttl=30))
    assert again == {"id": call["id"], "status": "revived", "superseded": []}
    assert ids(memory.found(query="Ann")) == [call["id"]]
    assert memory.get(call["id"]).json()["expires_at"] == live.ambient.now_ms() + 30_000
    assert statuses(memory.keep(task("Call Ann", ttl=30))) == ["duplicate"]
    live.ambient.advance(seconds=30)
    assert memory.found(query="Ann") == []


# --- get and forget ------------------------------------------------------------------------------


def test_item_24_get_gives_the_whole_record_flat(memory, live):
    [old] = memory.keep(fact("user.city", "Lives in Oslo"))
    [kept] = memory.keep(
        fact("user.city", "Lives in Rome", keywords="italy", session_id="s", source="agent", content={"n": [1, None]})
    )
    response = memory.get(kept["id"])
    assert response.status_code == 200
    record = response.json()
    expected = {
        "id": kept["id"],
        "type": "fact",
        "topic_key": "user.city",
        "summary": "Lives in Rome",
        "content": {"n": [1, None]},
        "keywords": "italy",
        "session_id": "s",
        "source": "agent",
        "created_at": live.ambient.now_ms(),
        "expires_at": None,
        "superseded_by": None,
        "superseded_at": None,
        "supersedes": [old["id"]],
    }
    assert {name: record[name] for name in expected} == expected


def test_item_24_what_was_left_out_is_null_and_keywords_are_empty(memory):
    [kept] = memory.keep({"type": "event", "summary": "Met Ann"})
    record = memory.get(kept["id"]).json()
    assert record["keywords"] == ""
    assert record["supersedes"] == []
    for name in ("topic_key", "content", "session_id", "source", "expires_at", "superseded_by", "superseded_at"):
        assert record[name] is None


def test_item_25_a_missing_id_is_not_found_and_a_missing_profile_database_not_found(memory):
    absent = "mem_" + "0" * 32
    for each in (absent, "nonsense", absent.upper(), "mem_"):
        response = memory.get(each)
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    memory.keep(event("Met Ann"))
    for each in (absent, "nonsense", absent.upper(), "mem_"):
        response = memory.get(each)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_item_26_a_forgotten_memory_is_gone_from_everywhere(memory):
    kept, other = memory.keep(
        fact("user.city", "Lives in Oslo", embedding=[1.0, 0.0]), event("Unrelated", embedding=[0.0, 1.0])
    )
    response = memory.forget(kept["id"])
    assert (response.status_code, response.content) == (204, b"")
    assert memory.found(query="Oslo", topic_key="user.city") == []
    assert ids(memory.found(embedding=[1.0, 0.0])) == [other["id"]]
    assert memory.get(kept["id"]).json()["code"] == "not_found"
    again = memory.forget(kept["id"])
    assert (again.status_code, again.json()["code"]) == (404, "not_found")


def test_item_26_forgetting_on_an_unknown_profile_is_404_and_makes_none(memory):
    response = memory.forget("mem_" + "0" * 32)
    assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    assert not memory.exists


def test_item_26_forgetting_the_active_memory_of_a_topic_brings_no_older_one_back(memory):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo"))
    [rome] = memory.keep(fact("user.city", "Lives in Rome"))
    assert memory.forget(rome["id"]).status_code == 204
    assert memory.found(topic_key="user.city", query="lives") == []
    assert memory.get(oslo["id"]).json()["superseded_by"] == rome["id"]
    assert statuses(memory.keep(fact("user.city", "Lives in Rome"))) == ["created"]
