"""What branches have come to since they parted, and taking it from one into another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contract.bad_input import refused
from contract.branches import KeptStore, checkpoint, fork, on, ref, remove, selected, sync
from contract.embedding_server import embedding_server
from contract.live_node import Live, Memory, event, fact, ids, serve, statuses, task
from contract.merging import diff, merge, try_merge
from contract.test_reembedding import nearest, node, of, until_found
from memoturn_mcp.cli.tables import of as of_operation
from memoturn_mcp.cli.tables import render
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits

TOOLSETS = "all"
CITY = "user.city"


@pytest.fixture(autouse=True)
def _time_passes(request) -> None:
    """So that each test's memories are older than what comes after them; see `later`."""
    if "live" in request.fixturenames:
        later(request.getfixturevalue("live"))


def later(live: Live) -> None:
    live.ambient.advance(seconds=1)


# --- the story -----------------------------------------------------------------------------------


def test_what_if_she_moved_and_then_she_does(live, memory):
    [oslo] = memory.keep(fact(CITY, "Lives in Oslo"))
    memory.keep(fact("user.job", "Works at Acme"))
    what_if = fork(memory, "what-if", ttl=3_600)
    later(live)
    [paris, rome, flat] = what_if.keep(
        fact(CITY, "Lives in Paris", session_id="s", source="planner"),
        fact(CITY, "Lives in Rome", session_id="s", source="planner"),
        event("Saw a flat in Trastevere"),
    )
    later(live)
    [job] = memory.keep(fact("user.job", "Works at Globex"))

    compared = diff(memory, "what-if")
    assert compared["fork_txid"] == 2
    assert (compared["branch"]["branch"], compared["against"]["branch"]) == ("what-if", "main")
    assert ids(compared["branch"]["created"]) == ids([paris, rome, flat])
    assert ids(compared["branch"]["superseded"]) == [oslo["id"]]
    assert ids(compared["against"]["created"]) == [job["id"]]
    assert (compared["conflicts"], compared["conflict_count"]) == ([], 0)

    later(live)
    done = merge(memory, "what-if")
    assert ids(done["results"]) == ids([paris, rome, flat])
    assert (done["into"], done["unchanged"], done["conflicts"], done["txid"]) == ("main", 0, [], 4)
    record = memory.get(rome["id"]).json()
    assert [link["summary"] for link in record["chain"]] == ["Lives in Oslo", "Lives in Paris", "Lives in Rome"]
    assert (record["session_id"], record["source"], record["created_at"]) == ("s", "planner", live.ambient.now_ms())
    assert [session["id"] for session in memory.sessions().json()["sessions"]] == ["s"]
    assert ids(memory.found(topic_key="user.job")) == [job["id"]], "what main did meanwhile stays"
    assert ids(what_if.found(topic_key="user.job")) != [job["id"]], "and the branch does not see it"

    assert merge(memory, "what-if")["txid"] == 4
    later(live)
    memory.keep(fact(CITY, "Lives in Naples"))
    assert diff(memory, "what-if")["conflicts"] == [], "main had the branch's, and went on from it"
    assert merge(memory, "what-if", on_conflict="theirs")["results"] == []
    assert [hit["summary"] for hit in memory.found(topic_key=CITY)] == ["Lives in Naples"]


def test_a_conflict_is_resolved_as_one_says(live, memory):
    memory.keep(fact(CITY, "Lives in Oslo"))
    branches = {how: fork(memory, how) for how in ("ours", "theirs", "newest", "older")}
    later(live)
    [rome] = branches["older"].keep(fact(CITY, "Lives in Rome"))
    later(live)
    [naples] = memory.keep(fact(CITY, "Lives in Naples"))
    later(live)
    for how in ("ours", "theirs", "newest"):
        branches[how].keep(fact(CITY, "Lives in Rome"))

    [conflict] = diff(memory, "older")["conflicts"]
    assert (conflict["type"], conflict["topic_key"]) == ("fact", CITY)
    assert (conflict["branch"]["id"], conflict["against"]["id"]) == (rome["id"], naples["id"])
    assert conflict["branch"]["active_since"] < conflict["against"]["active_since"]

    refusal = try_merge(memory, "ours")
    assert (refusal.status_code, refusal.json()["code"]) == (409, "conflict")
    assert f"fact {CITY}" in refusal.json()["error"]
    assert ids(memory.found(topic_key=CITY)) == [naples["id"]]

    for branch, how, taken in (
        ("older", "newest", "ours"),
        ("ours", "ours", "ours"),
        ("newest", "newest", "theirs"),
    ):
        [resolved] = merge(memory, branch, on_conflict=how)["conflicts"]
        assert (resolved["taken"], resolved["ours"], resolved["theirs"]) == (taken, naples["id"], rome["id"])
    assert ids(memory.found(topic_key=CITY)) == [rome["id"]]
    [old] = [link for link in memory.get(rome["id"]).json()["chain"] if link["id"] == naples["id"]]
    assert old["superseded_at"] == live.ambient.now_ms(), "what loses is history"


def test_newest_counts_from_when_a_memory_came_back(live, memory):
    [oslo] = memory.keep(fact(CITY, "Lives in Oslo"))
    later(live)
    memory.keep(fact(CITY, "Lives in Rome"))
    branch = fork(memory, "b")
    later(live)
    memory.keep(fact(CITY, "Lives in Naples"))
    later(live)
    branch.keep(fact(CITY, "Lives in Oslo"))
    assert ids(diff(memory, "b")["branch"]["revived"]) == [oslo["id"]]
    done = merge(memory, "b", on_conflict="newest")
    assert statuses(done["results"]) == ["revived"]
    assert ids(memory.found(topic_key=CITY)) == [oslo["id"]]


def test_a_topic_is_replayed_in_the_order_in_which_it_was_what(live, memory):
    [oslo] = memory.keep(fact(CITY, "Oslo"))
    branch = fork(memory, "b")
    for city in ("Rome", "Paris", "Rome", "Oslo"):
        later(live)
        branch.keep(fact(CITY, city))
    assert (merge(memory, "b")["results"], memory.txid) == ([], 1), "it came back to where it was"
    later(live)
    [naples] = branch.keep(fact(CITY, "Naples"))
    paris, rome, last = ids(merge(memory, "b")["results"])
    assert last == naples["id"]
    successors = [memory.get(id_).json()["superseded_by"] for id_ in (oslo["id"], paris, rome, last)]
    assert successors == [paris, rome, last, None]


def test_a_person_sees_both_sides_and_what_was_taken(live, memory):
    memory.keep(fact(CITY, "Oslo"), event("A secret"))
    branch = fork(memory, "b")
    later(live)
    [rome] = branch.keep(fact(CITY, "Rome"))
    branch.forget(branch.found(query="secret")[0]["id"])
    memory.keep(fact(CITY, "Naples"))
    shown = render(of_operation("branch_diff", diff(memory, "b")))
    for expected in ("b since transaction 1: 1 created, 1 superseded, 1 forgotten", "Rome", "Naples", rome["id"]):
        assert expected in shown
    assert "secret" not in shown
    shown = render(of_operation("branch_merge", merge(memory, "b", on_conflict="theirs", forget=True)))
    for expected in (rome["id"], f"{CITY} is what b has come to", "1 forgotten", "main had 0 already"):
        assert expected in shown


def test_only_what_is_chosen_is_taken_and_what_is_misspelt_is_not_found(live, memory):
    memory.keep(event("The beginning"))
    branch = fork(memory, "b")
    later(live)
    [paris, rome, job, seen] = branch.keep(
        fact(CITY, "Lives in Paris"), fact(CITY, "Lives in Rome"), fact("user.job", "Is a cook"), event("Saw the sea")
    )
    for body, field_ in (
        ({"topics": ["user.city", "user.cty"]}, "topics[1]"),
        ({"ids": ["mem_1"]}, "ids[0]"),
        ({"ids": [seen["id"], "mem_" + 32 * "0"]}, "ids[1]"),
    ):
        missing = try_merge(memory, "b", **body)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        assert missing.json()["error"].startswith(f"{field_}: ")
    assert merge(memory, "b", topics=[], ids=[])["results"] == []
    assert ids(merge(memory, "b", ids=[paris["id"], seen["id"]])["results"]) == [paris["id"], seen["id"]]
    assert ids(memory.found(topic_key=CITY)) == [paris["id"]]
    done = merge(memory, "b", topics=[CITY], ids=[job["id"]])
    assert (sorted(ids(done["results"])), done["unchanged"]) == (sorted([rome["id"], job["id"]]), 1)
    assert merge(memory, "b", ids=[paris["id"]])["results"] == [], "main has gone on from it"


def test_nothing_is_forgotten_unless_that_is_asked(live, memory):
    [secret, other] = memory.keep(event("A secret"), event("Another"))
    branch = fork(memory, "b")
    later(live)
    branch.forget(secret["id"])
    forgotten = diff(memory, "b")["branch"]["forgotten"]
    assert forgotten == [{"id": secret["id"], "type": "event", "topic_key": None}], "without what it said"
    assert merge(memory, "b")["forgotten"] == []
    assert merge(memory, "b", ids=[other["id"]], forget=True)["forgotten"] == []
    assert memory.get(secret["id"]).status_code == 200
    assert merge(memory, "b", ids=[secret["id"]], forget=True)["forgotten"] == [secret["id"]]
    assert memory.get(secret["id"]).status_code == 404
    assert memory.found(query="secret") == []
    assert merge(memory, "b", forget=True)["txid"] == memory.txid == 2


def test_a_task_has_the_time_that_is_left_and_one_that_has_expired_is_nothing(live, memory):
    [gone] = memory.keep(task("Gone", ttl=5))
    branch = fork(memory, "b")
    [call, short] = branch.keep(task("Call her", ttl=100), task("Be quick", ttl=5))
    live.ambient.advance(seconds=40)
    compared = diff(memory, "b")
    assert ids(compared["branch"]["created"]) == [call["id"]]
    assert compared["branch"]["forgotten"] == compared["against"]["forgotten"] == []
    merge(memory, "b")
    assert memory.get(call["id"]).json()["expires_at"] == branch.get(call["id"]).json()["expires_at"]
    assert [memory.get(each["id"]).status_code for each in (gone, short)] == [404, 404]


def test_lists_are_bounded_and_counts_are_not(live, memory):
    memory.keep(event("The beginning"))
    fork(memory, "b").keep(*(event(f"note {number}") for number in range(20)))
    side = diff(memory, "b", limit=3)["branch"]
    assert [each["summary"] for each in side["created"]] == ["note 0", "note 1", "note 2"]
    assert side["counts"] == {"created": 20, "revived": 0, "superseded": 0, "forgotten": 0}


# --- vectors -------------------------------------------------------------------------------------


def test_vectors_go_along(live, memory):
    branch_of = fork_of_one(memory)
    [near] = branch_of.keep(event("Near", embedding=[1.0, 0.0]))
    merge(memory, "b")
    assert ids(memory.found(embedding=[1.0, 0.1])) == [near["id"]]


def test_a_vector_of_another_dimension_stays_behind_and_its_memory_does_not(live, memory):
    branch = fork_of_one(memory)
    branch.keep(event("Near", embedding=[1.0, 0.0]))
    memory.keep(event("Far", embedding=[1.0, 0.0, 0.0]))
    [result] = merge(memory, "b")["results"]
    assert (result["status"], result["embedding"]) == ("created", "skipped_dimension")
    assert [hit["summary"] for hit in memory.found(query="near")] == ["Near"]


def test_a_vector_stays_of_the_model_that_made_it(tmp_path):
    with embedding_server() as provider:
        with node(tmp_path, provider, "ant") as live:
            memory = of(live)
            fork_of_one(memory).keep(event("Mine"), event("Hers", embedding=[1.0] * 6))
            made = len(provider.batches)
            merge(memory, "b")
            assert nearest(memory, "ant", "Mine")[0] == "Mine"
            assert len(provider.batches) == made, "nothing is embedded anew"
            kept = selected(live, ref(live, memory), _MODELS)
            assert kept == selected(live, ref(live, memory, "b"), _MODELS)
            assert kept == [("Hers", None), ("Mine", "ant"), ("The beginning", "ant")]
            on(memory, "b").keep(event("Later"))
        with node(tmp_path, provider, "cow") as live:
            memory = of(live)
            memory.keep(event("By the new model"))
            [result] = merge(memory, "b")["results"]
            assert result["status"] == "created"
            assert ("Later", "ant") not in selected(live, ref(live, memory), _MODELS)
            until_found(memory, 5)
            assert nearest(memory, "cow", "Later")[0] == "Later"


_MODELS = """
SELECT m.summary, s.model FROM __memoturn_memory_vectors AS v
JOIN __memoturn_spaces AS s ON s.id = v.rowid >> 40
JOIN __memoturn_memories AS m ON m.rowid = v.rowid & ((1 << 40) - 1) ORDER BY 1
"""


def fork_of_one(memory: Memory) -> Memory:
    memory.keep(event("The beginning"))
    return fork(memory, "b")


# --- where branches part -------------------------------------------------------------------------


def test_branches_of_branches_part_where_their_histories_do(live, memory):
    memory.keep(event("one"))
    first = fork(memory, "first")
    first.keep(event("two"))
    fork(memory, "second", **{"from": "first"}).keep(event("three"))
    memory.keep(event("four"))
    sibling = fork(memory, "sibling")
    sibling.keep(event("five"))
    assert remove(memory, "first").status_code == 204
    assert [diff(memory, "second", against=name)["fork_txid"] for name in ("main", "sibling")] == [1, 1]
    assert diff(memory, "sibling")["fork_txid"] == 2
    done = merge(memory, "second", into="sibling")
    assert (len(done["results"]), done["txid"]) == (2, 4)
    assert [hit["summary"] for hit in sibling.found(query="two three", k=9)] != []
    assert memory.found(query="three") == []
    assert len(merge(memory, "main", into="second")["results"]) == 1


def test_branches_of_what_was_never_written_start_from_nothing(live):
    name = "plain-merges"
    assert live.http.post("/v1/databases", json={"name": name}).status_code in (200, 201)
    base = f"/v1/db/{name}/branches"
    assert live.http.post(base, json={"name": "b"}).status_code == 201
    compared = live.http.get(f"{base}/b/diff").json()
    assert (compared["fork_txid"], compared["branch"]["created"]) == (0, [])
    assert live.http.post(f"{base}/b/merge", json={}).json()["txid"] == 0


def test_a_fork_that_one_history_has_lost_is_known_from_the_other_and_one_that_both_have_lost_is_a_conflict(tmp_path):
    ambient = ManualAmbient()
    limits = Limits(fine_s=100.0, snapshots_s=100.0)
    with serve(tmp_path, ambient=ambient, store=KeptStore(ambient), limits=limits) as live:
        memory = live.memory()
        memory.keep(event("note 0"))
        memory.keep(event("note 1"))
        branch = fork(memory, "b")
        branch.keep(event("of the branch"))

        def goes_on(on_branch: Memory) -> None:
            for number in range(2, 40):
                on_branch.keep(event(f"note {number}"))
                sync(on_branch)
            live.node.upkeep.heavy_pass()
            ambient.advance(seconds=1_000)
            on_branch.keep(event("long after"))
            sync(on_branch)
            live.node.upkeep.heavy_pass()

        goes_on(memory)
        lost = memory.recall(query="note", as_of=2)
        assert lost.status_code == 409, "or nothing is tested here"
        assert diff(memory, "b")["fork_txid"] == 2
        assert len(merge(memory, "b")["results"]) == 1

        goes_on(branch)
        assert branch.recall(query="note", as_of=2).status_code == 409
        for refusal in (memory.http.get(f"{memory.database}/branches/b/diff"), try_merge(memory, "b")):
            assert (refusal.status_code, refusal.json()["code"]) == (409, "conflict")
            assert "no longer reach back" in refusal.json()["error"]


# --- other ways in, and bad input ----------------------------------------------------------------


def test_agents_and_the_control_plane_ask_the_same(live, mcp, memory):
    memory.keep(event("one"))
    fork(memory, "b").keep(event("two"))
    asked = {"namespace": memory.namespace, "profile": memory.profile, "branch": "b"}
    compared = mcp.call("branch_diff", **asked)["structuredContent"]
    assert compared.get("result", compared) == diff(memory, "b")
    other = live.http.get(f"/v1/databases/{memory.namespace}--{memory.profile}/branches/b/diff")
    assert other.json() == diff(memory, "b")
    assert mcp.call("branch_merge", **asked)["isError"] is False
    assert memory.txid == 2


def test_bad_input_is_refused_and_changes_nothing(live, memory):
    memory.keep(event("one"))
    fork(memory, "b").keep(event("two"))
    checkpoint(memory, "c")
    path = f"{memory.database}/branches/b"
    bad_names: list[Any] = ["", " ", "a b", "a/b", "../x", "é", "a\0b", "a" * 65, None, True, 7, ["x"]]
    for bad in bad_names:
        refused(memory.http.post(f"{path}/merge", json={"into": bad}), "into")
        if isinstance(bad, str):
            refused(memory.http.get(f"{path}/diff", params={"against": bad}), "against")
    for body, field_ in (
        ({"into": "b"}, "into"),
        ({"on_conflict": "mine"}, "on_conflict"),
        ({"on_conflict": None}, "on_conflict"),
        ({"topics": "user.city"}, "topics"),
        ({"topics": [1]}, "topics[0]"),
        ({"topics": ["x"] * 1_001}, "topics"),
        ({"ids": {"a": 1}}, "ids"),
        ({"ids": [None]}, "ids[0]"),
        ({"ids": ["x"] * 1_001}, "ids"),
        ({"forget": "yes"}, "forget"),
        ({"force": True}, "force"),
    ):
        refused(memory.http.post(f"{path}/merge", json=body), field_)
    for field_ in ("ids", "topics"):
        refusal = memory.http.post(f"{path}/merge", content=json.dumps({field_: ["\ud800"]}))
        assert (refusal.status_code, refusal.json()["code"]) == (400, "invalid_request")
    for query, field_ in (({"against": "b"}, "against"), ({"limit": "x"}, "limit"), ({"since": "1"}, "since")):
        refused(memory.http.get(f"{path}/diff", params=query), field_)
    for missing in (
        memory.http.get(f"{memory.database}/branches/nope/diff"),
        memory.http.get(f"{path}/diff", params={"against": "nope"}),
        try_merge(memory, "nope"),
        try_merge(memory, "b", into="nope"),
    ):
        assert (missing.status_code, missing.json()["code"]) == (404, "branch_not_found")
    nobody = live.memory()
    for missing in (nobody.http.get(f"{nobody.database}/branches/b/diff"), try_merge(nobody, "b")):
        assert (missing.status_code, missing.json()["code"]) == (404, "database_not_found")
    assert not nobody.exists
    assert memory.txid == 1
