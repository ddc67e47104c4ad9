"""Items 5 and 86 to 90: checkpoints, rewinds, and branches that burn."""

from __future__ import annotations

import pytest

from contract.branches import (
    act,
    checkpoint,
    create,
    execute,
    fork,
    names,
    on,
    ref,
    remove,
    rewind,
    selected,
    storage,
    summaries,
    sync,
    turns,
)
from contract.live_node import Memory, event, fact, ids, statuses

TOOLSETS = "all"

# --- checkpoint and rewind -----------------------------------------------------------------------


def test_item_86_a_checkpoint_names_the_newest_state_and_ships_it_first(memory, live):
    memory.keep(event("note 1"))
    memory.keep(event("note 2"))
    response = act(memory, "main", "checkpoint", name="c")
    assert (response.status_code, response.json()) == (200, {"checkpoint": "c", "txid": 2})
    assert response.headers["Memoturn-Txid"] == "2"
    held = live.node.engine.manifests.require(ref(live, memory)).manifest
    assert (held.head_txid, held.checkpoints) == (2, {"c": 2})


def test_item_86_the_same_name_overwrites(memory):
    memory.keep(event("note 1"))
    assert checkpoint(memory, "c") == 1
    memory.keep(event("note 2"))
    assert checkpoint(memory, "c") == checkpoint(memory, "c") == 2
    memory.keep(event("note 3"))
    assert rewind(memory, "c")["rewound_to"] == 2
    assert storage(memory)["checkpoints"] == {"c": 2}


def test_item_86_a_checkpoint_belongs_to_its_branch(memory):
    memory.keep(event("note 1"))
    there = fork(memory, "x")
    there.keep(event("note 2"))
    assert checkpoint(memory, "c", "x") == 2
    assert (storage(memory)["checkpoints"], storage(there)["checkpoints"]) == ({}, {"c": 2})
    assert act(memory, "main", "rewind", to="c").status_code == 404


def test_item_86_nothing_written_is_409(memory, live):
    live.node.catalog.create(f"{memory.namespace}--{memory.profile}")
    for response in (act(memory, "main", "checkpoint", name="c"), act(memory, "main", "rewind", to=1)):
        assert (response.status_code, response.json()["code"]) == (409, "conflict")


def test_item_87_after_a_rewind_the_state_equals_the_checkpoint_and_writes_go_on(memory, live):
    main = ref_after_first_write(memory, live)
    memory.keep(fact("user.city", "Lives in Oslo", session_id="s"))
    memory.append("s", "user", "Hello")
    execute(live, main, "CREATE TABLE mine (value)")
    before = observed(memory)
    assert checkpoint(memory, "c") == 4
    memory.keep(fact("user.city", "Lives in Rome", session_id="later"), event("note"))
    memory.append("s", "user", "Goodbye")
    execute(live, main, "INSERT INTO mine VALUES (1)")
    execute(live, main, "CREATE TABLE other (value)")
    epoch = storage(memory)["epoch"]

    response = act(memory, "main", "rewind", to="c")
    assert response.status_code == 200
    assert response.json() == {"rewound_to": 4, "epoch": epoch + 1}
    assert response.headers["Memoturn-Txid"] == "4"
    assert observed(memory) == before
    assert selected(live, main, "SELECT * FROM mine") == []
    assert selected(live, main, "SELECT name FROM sqlite_schema WHERE name = 'other'") == []

    assert memory.append("s", "user", "Again").json() == {"seq": 2, "txid": 5}
    assert statuses(memory.keep(fact("user.city", "Lives in Rome"))) == ["created"]
    assert sync(memory) == 6
    assert turns(memory, "s") == ["Hello", "Again"]


def ref_after_first_write(memory, live):
    memory.keep(event("first"))
    return ref(live, memory)


def observed(memory: Memory) -> tuple:
    hits = memory.found(query="lives in oslo rome note first", k=100, include_superseded=True)
    records = [memory.get(hit["id"]).json() for hit in hits]
    return hits, records, memory.sessions().json(), turns(memory, "s")


def test_item_87_a_rewind_leaves_every_other_branch_alone(memory):
    memory.keep(event("note 1"))
    checkpoint(memory, "c")
    memory.keep(event("note 2"))
    there = fork(memory, "x")
    there.keep(event("note 3"))
    rewind(memory, "c")
    assert summaries(memory) == {"note 1"}
    assert summaries(there) == {"note 1", "note 2", "note 3"}
    rewind(memory, 1, "x")
    assert summaries(there) == {"note 1"}


def test_item_87_a_rewind_may_go_to_a_transaction_a_time_or_a_checkpoint_however_written(memory, live):
    memory.keep(event("note 1"))
    for number in range(2, 6):
        live.ambient.advance(seconds=10)
        memory.keep(event(f"note {number}"))
    now = live.ambient.now_ms()
    for to, txid in ((5, 5), (now, 5), (now - 1, 4), ("4", 4), (str(now - 20_000), 3), (2, 2)):
        assert rewind(memory, to)["rewound_to"] == txid, to
        assert summaries(memory) == {f"note {n}" for n in range(1, txid + 1)}


def test_item_87_a_checkpoint_named_like_a_number_is_meant_by_the_string_and_not_by_the_number(memory):
    memory.keep(event("note 1"))
    memory.keep(event("note 2"))
    checkpoint(memory, "1")
    memory.keep(event("note 3"))
    assert rewind(memory, "1")["rewound_to"] == 2
    assert rewind(memory, 1)["rewound_to"] == 1


def test_item_87_what_is_not_shipped_yet_can_be_rewound_to(memory):
    for number in range(1, 4):
        memory.keep(event(f"note {number}"))
    assert rewind(memory, 2)["rewound_to"] == 2
    assert summaries(memory) == {"note 1", "note 2"}


def test_item_87_a_rewind_drops_the_checkpoints_of_what_it_discards(memory):
    memory.keep(event("note 1"))
    checkpoint(memory, "early")
    memory.keep(event("note 2"))
    checkpoint(memory, "late")
    rewind(memory, "early")
    assert storage(memory)["checkpoints"] == {"early": 1}
    assert act(memory, "main", "rewind", to="late").json()["code"] == "branch_not_found"


def test_item_88_an_unknown_checkpoint_is_404_and_names_it(memory):
    memory.keep(event("note"))
    response = act(memory, "main", "rewind", to="nope")
    assert (response.status_code, response.json()["code"]) == (404, "branch_not_found")
    assert "nope" in response.json()["error"]
    assert act(memory, "nope", "rewind", to=1).json()["code"] == "branch_not_found"


@pytest.mark.parametrize(
    "to", [2, "2", 10**10, 99_999_999_999, 0, "0", 100_000_000_000, 2**63 - 1, "2999-01-01T00:00:00Z"]
)
def test_item_88_a_moment_that_is_not_in_the_history_is_409_and_changes_nothing(memory, to):
    memory.keep(event("note"))
    epoch = storage(memory)["epoch"]
    response = act(memory, "main", "rewind", to=to)
    assert (response.status_code, response.json()["code"]) == (409, "conflict"), response.text
    assert create(memory, "x", at=to).status_code == 409
    assert (storage(memory)["epoch"], summaries(memory), names(memory)) == (epoch, {"note"}, [])


def test_item_89_a_rewind_makes_the_memory_from_before_a_supersession_active_again(memory):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo"))
    checkpoint(memory, "c")
    [rome] = memory.keep(fact("user.city", "Lives in Rome"))
    assert memory.get(oslo["id"]).json()["superseded_by"] == rome["id"]
    rewind(memory, "c")
    record = memory.get(oslo["id"]).json()
    assert (record["superseded_by"], record["superseded_at"]) == (None, None)
    assert ids(memory.found(topic_key="user.city")) == [oslo["id"]]
    assert memory.get(rome["id"]).status_code == 404


def test_item_90_a_burner_is_gone_after_its_ttl_and_its_parent_is_untouched(memory, live):
    memory.keep(event("note 1"))
    there = fork(memory, "burner", ttl=60)
    there.keep(event("note 2"))
    live.ambient.advance(seconds=59)
    live.node.upkeep.light_pass()
    assert summaries(there) == {"note 1", "note 2"}
    live.ambient.advance(seconds=1)
    live.node.upkeep.light_pass()
    assert there.recall(query="note").json()["code"] == "branch_not_found"
    assert there.ingest(event("lost")).status_code == 404
    assert names(memory) == []
    assert summaries(memory) == {"note 1"}
    assert create(memory, "burner").status_code == 201


def test_item_90_a_ttl_of_0_lasts_until_the_next_pass_at_most(memory, live):
    memory.keep(event("note 1"))
    assert create(memory, "burner", ttl=0).json()["ttl_at"] == live.ambient.now_ms()
    live.node.upkeep.light_pass()
    assert on(memory, "burner").recall(query="note").status_code == 404
    assert names(memory) == []
    assert remove(memory, "burner").status_code == 204


def test_item_5_a_min_txid_above_a_rewound_head_is_503_and_harms_nothing(memory):
    memory.keep(event("note 1"))
    checkpoint(memory, "c")
    memory.keep(event("note 2"))
    rewind(memory, "c")
    response = memory.http.get(f"{memory.path}/sessions", headers={"Memoturn-Min-Txid": "2"})
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    memory.keep(event("note 3"))
    response = memory.http.get(f"{memory.path}/sessions", headers={"Memoturn-Min-Txid": "2"})
    assert (response.status_code, response.headers["Memoturn-Txid"]) == (200, "2")
    assert summaries(memory) == {"note 1", "note 3"}
