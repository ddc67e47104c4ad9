"""Items 6, 23, 81 to 85 and 91: branches, promotion, and all of it as tools."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from contract.branches import (
    act,
    checkpoint,
    create,
    execute,
    fork,
    listed,
    names,
    on,
    ref,
    remove,
    selected,
    storage,
    summaries,
    sync,
    tool,
    turns,
)
from contract.live_node import event, fact, ids, statuses

TOOLSETS = "all"

# --- addressing ----------------------------------------------------------------------------------


def test_item_23_a_branch_is_addressed_by_query_or_header_and_the_query_wins(memory):
    memory.keep(event("note of main"))
    for name in ("x", "y"):
        fork(memory, name).keep(event(f"note of {name}"))
    http, recall = memory.http, f"{memory.path}/recall"
    for options, expected in (
        ({"params": {"branch": "x"}}, "x"),
        ({"headers": {"Memoturn-Branch": "x"}}, "x"),
        ({"params": {"branch": "x"}, "headers": {"Memoturn-Branch": "y"}}, "x"),
        ({"params": {"branch": "main"}, "headers": {"Memoturn-Branch": "y"}}, None),
        ({}, None),
    ):
        found = http.post(recall, json={"query": "note"}, **options).json()["memories"]
        assert {hit["summary"] for hit in found} == {"note of main"} | ({f"note of {expected}"} if expected else set())


def test_item_23_at_in_a_databases_path_addresses_a_branch_and_beats_the_header(memory):
    memory.append("s", "user", "on main")
    fork(memory, "x")
    http, turn = memory.http, {"role": "user", "content": "on x"}
    assert http.post(f"{memory.database}@x/memory/s/turns", json=turn).status_code == 201
    other = {"Memoturn-Branch": "main"}
    assert len(http.get(f"{memory.database}@x/memory/s/turns", headers=other).json()["turns"]) == 2
    assert len(http.get(f"{memory.database}%40x/memory/s/turns").json()["turns"]) == 2
    assert len(http.get(f"{memory.database}@x/memory/s/turns", params={"branch": "main"}).json()["turns"]) == 1
    assert turns(memory, "s") == ["on main"]


def test_item_23_an_unknown_branch_is_404_and_is_not_made(memory, live):
    [kept] = memory.keep(event("note", session_id="s"))
    there = on(memory, "nope")
    for response in (
        there.ingest(event("lost")),
        there.recall(query="note"),
        there.get(kept["id"]),
        there.forget(kept["id"]),
        there.sessions(),
        there.append("s", "user", "lost"),
        there.http.get(f"{memory.database}/memory/s/turns"),
        there.http.get(f"{memory.database}/storage"),
        live.http.post(f"{memory.database}@nope/sync"),
        live.http.get(f"{memory.database}@nope/memory/s/turns"),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "branch_not_found"), response.request.url
    assert names(memory) == []
    assert memory.txid == 1


def test_item_23_a_branch_of_an_unknown_profile_is_404_and_neither_is_made(memory):
    response = on(memory, "x").ingest(event("lost"))
    assert (response.status_code, response.json()["code"]) == (404, "branch_not_found")
    response = create(memory, "x")
    assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    assert not memory.exists


# --- create --------------------------------------------------------------------------------------


def test_item_81_create_answers_what_the_branch_is_and_how_to_address_it(memory, live):
    memory.keep(event("one"))
    memory.keep(event("two"))
    spec = memory.database.removeprefix("/v1/db/")
    response = create(memory, "x")
    assert response.status_code == 201
    assert response.json() == {
        "branch": "x", "parent": "main", "fork_txid": 2, "ttl_at": None, "spec": f"{spec}@x",
    }  # fmt: skip
    on(memory, "x").keep(event("three"))
    response = create(memory, "y", **{"from": "x"}, ttl=60)
    assert response.json() == {
        "branch": "y", "parent": "x", "fork_txid": 3, "ttl_at": live.ambient.now_ms() + 60_000, "spec": f"{spec}@y",
    }  # fmt: skip
    assert live.http.post(response.json()["spec"].join(["/v1/db/", "/sync"])).json() == {"txid": 3}


def test_item_81_a_branch_in_the_path_or_query_or_header_is_ignored(memory, live):
    memory.keep(event("one"))
    fork(memory, "x").keep(event("two"))
    for number, (path, options) in enumerate(
        [
            (f"{memory.database}@x/branches", {}),
            (f"{memory.database}@nope/branches", {}),
            (f"{memory.database}/branches", {"params": {"branch": "x"}}),
            (f"{memory.database}/branches", {"headers": {"Memoturn-Branch": "nope"}}),
        ]
    ):
        made = live.http.post(path, json={"name": f"b{number}"}, **options).json()
        assert (made["parent"], made["fork_txid"]) == ("main", 1)
    assert [entry["branch"] for entry in live.http.get(f"{memory.database}@x/branches").json()["branches"]] == [
        "b0", "b1", "b2", "b3", "x",
    ]  # fmt: skip


def test_a_branch_may_start_at_a_checkpoint_a_transaction_or_a_time(memory, live):
    memory.keep(event("note 1"))
    checkpoint(memory, "first")
    live.ambient.advance(seconds=10)
    between = live.ambient.now_ms() - 5_000
    memory.keep(event("note 2"))
    live.ambient.advance(seconds=10)
    memory.keep(event("note 3"))
    for number, (start, txid) in enumerate(
        [
            ({"checkpoint": "first"}, 1), ({"at": "first"}, 1), ({"at": 2}, 2), ({"at": "2"}, 2), ({"at": between}, 1),
            ({"at": str(between)}, 1), ({"at": rfc3339(between)}, 1), ({"at": live.ambient.now_ms()}, 3),
        ]
    ):  # fmt: skip
        assert create(memory, f"b{number}", **start).json()["fork_txid"] == txid, start
        there = on(memory, f"b{number}")
        assert summaries(there) == {f"note {n}" for n in range(1, txid + 1)}
        assert there.txid == txid


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, timezone(timedelta(hours=2))).isoformat()


def test_item_82_a_fork_has_its_parents_state_and_then_neither_sees_the_others_writes(memory, live):
    [oslo] = memory.keep(fact("user.city", "Lives in Oslo", session_id="s", embedding=[1.0, 0.0]))
    memory.append("s", "user", "Hello")
    main = ref(live, memory)
    execute(live, main, "CREATE TABLE mine (value)")
    execute(live, main, "INSERT INTO mine VALUES ('before')")
    there = fork(memory, "x")
    branch = ref(live, memory, "x")
    assert ids(there.found(topic_key="user.city")) == [oslo["id"]]
    assert ids(there.found(embedding=[1.0, 0.0])) == [oslo["id"]]
    assert there.sessions().json()["sessions"] == memory.sessions().json()["sessions"]
    assert turns(there, "s") == ["Hello"]
    assert selected(live, branch, "SELECT value FROM mine") == [("before",)]

    [rome] = there.keep(fact("user.city", "Lives in Rome", embedding=[0.0, 1.0]))
    assert rome["superseded"] == [oslo["id"]]
    there.append("s", "user", "on x")
    there.append("only-x", "user", "on x")
    execute(live, branch, "INSERT INTO mine VALUES ('on x')")
    [bern] = memory.keep(fact("user.city", "Lives in Bern", embedding=[0.0, -1.0]))
    assert bern["superseded"] == [oslo["id"]]
    memory.append("s", "user", "on main")
    execute(live, main, "UPDATE mine SET value = 'on main'")

    for state, current, said, values in (
        (there, rome, ["Hello", "on x"], [("before",), ("on x",)]),
        (memory, bern, ["Hello", "on main"], [("on main",)]),
    ):
        assert ids(state.found(topic_key="user.city")) == [current["id"]]
        assert state.get(oslo["id"]).json()["superseded_by"] == current["id"]
        assert turns(state, "s") == said
        assert selected(live, branch if state is there else main, "SELECT value FROM mine") == values
    assert memory.get(rome["id"]).status_code == there.get(bern["id"]).status_code == 404
    assert {entry["id"] for entry in memory.sessions().json()["sessions"]} == {"s"}
    assert {entry["id"] for entry in there.sessions().json()["sessions"]} == {"s", "only-x"}


def test_item_83_the_list_is_sorted_and_leaves_main_out(memory, live):
    memory.keep(event("one"))
    assert listed(memory) == []
    for name, ttl in (("b", None), ("a", 60), ("C_1", None)):
        create(memory, name, **({} if ttl is None else {"ttl": ttl}))
    now = live.ambient.now_ms()
    database = memory.database.removeprefix("/v1/db/")
    assert [
        {name: entry[name] for name in ("db_name", "branch", "ttl_at", "created_at")} for entry in listed(memory)
    ] == [
        {"db_name": database, "branch": "C_1", "ttl_at": None, "created_at": now},
        {"db_name": database, "branch": "a", "ttl_at": now + 60_000, "created_at": now},
        {"db_name": database, "branch": "b", "ttl_at": None, "created_at": now},
    ]


def test_item_84_a_duplicate_name_is_409_and_leaves_the_branch_as_it_is(memory):
    memory.keep(event("note 1"))
    fork(memory, "x").keep(event("note 2"))
    for body in ({}, {"ttl": 0}, {"at": 1}, {"from": "x"}):
        response = create(memory, "x", **body)
        assert (response.status_code, response.json()["code"]) == (409, "already_exists")
        assert "x" in response.json()["error"]
    assert summaries(on(memory, "x")) == {"note 1", "note 2"}
    assert [entry["ttl_at"] for entry in listed(memory)] == [None]


def test_a_name_is_free_as_soon_as_the_time_of_its_branch_has_run_out(memory, live):
    memory.keep(event("note 1"))
    create(memory, "x", ttl=60)
    on(memory, "x").keep(event("note 2"))
    live.ambient.advance(seconds=60.001)
    assert names(memory) == []
    assert create(memory, "x").status_code == 201, "nothing has swept it yet"
    assert summaries(on(memory, "x")) == {"note 1"}
    live.ambient.advance(seconds=601)
    live.node.upkeep.light_pass()
    assert names(memory) == ["x"]


def test_item_84_main_is_a_name_that_is_taken(memory):
    memory.keep(event("note"))
    response = create(memory, "main")
    assert (response.status_code, response.json()["code"]) == (409, "already_exists")
    assert summaries(memory) == {"note"}


def test_item_85_delete_is_204_also_when_the_branch_is_absent(memory):
    memory.keep(event("note 1"))
    there = fork(memory, "x")
    there.keep(event("note 2"))
    for _ in range(3):
        response = remove(memory, "x")
        assert (response.status_code, response.content) == (204, b"")
    assert there.recall(query="note").json()["code"] == "branch_not_found"
    assert names(memory) == []
    assert summaries(memory) == {"note 1"}


def test_item_85_main_cannot_be_deleted(memory):
    memory.keep(event("note"))
    response = remove(memory, "main")
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert summaries(memory) == {"note"}


def test_a_name_that_was_deleted_can_be_used_again_and_has_nothing_of_before(memory):
    memory.keep(event("note 1"))
    for number in range(3):
        there = fork(memory, "x")
        assert summaries(there) == {"note 1"}
        there.keep(event(f"note of attempt {number}"))
        assert there.txid == 2
        assert remove(memory, "x").status_code == 204


def test_a_child_outlives_its_parent_branch(memory):
    memory.keep(event("note 1"))
    fork(memory, "x").keep(event("note 2"))
    child = fork(memory, "child", **{"from": "x"})
    remove(memory, "x")
    assert summaries(child) == {"note 1", "note 2"}
    assert statuses(child.keep(event("note 3"))) == ["created"]
    assert sync(child) == 3


def test_item_91_a_branch_costs_one_object_whatever_the_size_of_its_parent(memory, live):
    memory.keep(event("small"))
    sync(memory)
    sizes = []
    for round_ in range(2):
        before = {info.key for info in live.node.store.list("v1/")}
        create(memory, f"x{round_}")
        [made] = {info.key for info in live.node.store.list("v1/")} - before
        assert made == ref(live, memory, f"x{round_}").manifest_key
        sizes.append(len(live.node.store.get(made).data))
        memory.keep(*(event(f"number {n} {'word ' * 50}") for n in range(300)))
        sync(memory)
    assert sizes[1] < 2 * sizes[0]


# --- promote -------------------------------------------------------------------------------------


def test_a_promoted_branch_is_the_state_of_main_and_both_go_on_apart(memory, live):
    memory.keep(fact("user.city", "Lives in Oslo"))
    there = fork(memory, "x")
    there.keep(fact("user.city", "Lives in Rome"))
    there.append("s", "user", "Tried")
    memory.keep(event("note that is discarded"))
    response = act(memory, "x", "promote")
    assert response.status_code == 200
    assert response.json() == {"promoted": "x", "txid": 3, "epoch": storage(memory)["epoch"]}
    assert response.headers["Memoturn-Txid"] == "3"
    assert [hit["summary"] for hit in memory.found(topic_key="user.city")] == ["Lives in Rome"]
    assert (turns(memory, "s"), summaries(memory)) == (["Tried"], set())
    memory.keep(event("note of main"))
    there.keep(event("note of x"))
    assert (summaries(memory), summaries(there)) == ({"note of main"}, {"note of x"})
    assert sync(memory) == sync(there) == 4
    assert names(memory) == ["x"]


def test_promote_keeps_what_main_was_under_a_new_name(memory):
    memory.keep(event("note 1"))
    there = fork(memory, "x")
    there.keep(event("note 2"))
    memory.keep(event("note 3"))
    assert act(memory, "x", "promote", keep_as="old").status_code == 200
    assert summaries(memory) == {"note 1", "note 2"}
    assert summaries(on(memory, "old")) == {"note 1", "note 3"}
    assert names(memory) == ["old", "x"]


@pytest.mark.parametrize("body", [{}, {"keep_as": "old"}])
def test_to_promote_an_unknown_branch_is_404_and_makes_nothing(memory, body):
    memory.keep(event("note"))
    response = act(memory, "nope", "promote", **body)
    assert (response.status_code, response.json()["code"]) == (404, "branch_not_found")
    assert names(memory) == []
    assert summaries(memory) == {"note"}


def test_to_promote_main_is_400_and_a_taken_name_for_what_it_was_is_409(memory):
    memory.keep(event("note 1"))
    fork(memory, "x").keep(event("note 2"))
    response = act(memory, "main", "promote")
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    for keep_as in ("x", "main"):
        response = act(memory, "x", "promote", keep_as=keep_as)
        assert (response.status_code, response.json()["code"]) == (409, "already_exists")
    assert summaries(memory) == {"note 1"}
    assert names(memory) == ["x"]


def test_item_6_branches_ignore_the_wish_for_durability(memory):
    memory.keep(event("note"))
    durable = {"Memoturn-Durability": "durable"}
    http, database = memory.http, memory.database
    assert http.post(f"{database}/branches", json={"name": "x"}, headers=durable).status_code == 201
    assert http.post(f"{database}/branches/x/checkpoint", json={"name": "c"}, headers=durable).status_code == 200
    assert http.post(f"{database}/branches/x/rewind", json={"to": "c"}, headers=durable).status_code == 200
    assert http.get(f"{database}/branches", headers=durable).status_code == 200


# --- as tools ------------------------------------------------------------------------------------


def test_branches_as_tools_take_and_answer_what_the_routes_do(memory, mcp):
    memory.keep(event("note 1"))
    spec = f"{memory.namespace}--{memory.profile}"
    assert tool(mcp, memory, "branch_create", name="x", ttl=60)["result"]["spec"] == f"{spec}@x"
    assert tool(mcp, memory, "branch_checkpoint", name="c") == {"txid": 1, "result": {"checkpoint": "c"}}
    memory.keep(event("note 2"))
    assert tool(mcp, memory, "sync") == {"txid": 2, "result": {}}
    assert tool(mcp, memory, "sync", branch="x") == {"txid": 1, "result": {}}
    rewound = tool(mcp, memory, "branch_rewind", to="c")
    assert (rewound["txid"], rewound["result"]["rewound_to"]) == (1, 1)
    assert summaries(memory) == {"note 1"}
    assert tool(mcp, memory, "branch_list") == {"txid": None, "result": {"branches": listed(memory)}}
    on(memory, "x").keep(event("note 3"))
    promoted = tool(mcp, memory, "branch_promote", branch="x", keep_as="old")
    assert (promoted["txid"], promoted["result"]["promoted"]) == (2, "x")
    assert summaries(memory) == {"note 1", "note 3"}
    assert tool(mcp, memory, "branch_delete", branch="old")["result"] == {"deleted": True}
    assert tool(mcp, memory, "branch_delete", branch="old")["result"] == {"deleted": False}
    inspected = tool(mcp, memory, "storage_inspect", branch="x")
    assert inspected["result"] == storage(on(memory, "x"))


def test_a_tools_checkpoint_and_rewind_take_another_branch_than_main(memory, mcp):
    memory.keep(event("note 1"))
    there = fork(memory, "x")
    assert tool(mcp, memory, "branch_checkpoint", branch="x", name="c")["txid"] == 1
    there.keep(event("note 2"))
    tool(mcp, memory, "branch_rewind", branch="x", to=1)
    assert summaries(there) == {"note 1"}
    recalled = tool(mcp, memory, "memory_recall", branch="x", query="note")
    assert [hit["summary"] for hit in recalled["result"]["memories"]] == ["note 1"]
