"""Items 94, 136 and what 194 says of expiry: what is deleted, or outlives its time, is as what never was."""

from __future__ import annotations

import pytest

from contract.bad_input import refused
from contract.branches import create, fork, manifest, ref
from contract.databases import append, delete, listed, made, name_of, texts
from contract.live_node import Memory, event, fact, serve
from memoturn_storage.manifest import BranchRef

# --- delete --------------------------------------------------------------------------------------


def test_item_94_a_deleted_database_is_as_one_that_never_was(live, memory):
    [kept] = memory.keep(fact("user.city", "Lives in Oslo", session_id="s"))
    memory.append("s", "user", "Hello")
    fork(memory, "x")
    response = delete(live.http, name_of(memory))
    assert (response.status_code, response.content) == (204, b"")
    again = delete(live.http, name_of(memory))
    assert (again.status_code, again.json()["code"]) == (404, "database_not_found")
    unknown = live.memory()
    for asked in (memory, unknown):
        assert (asked.recall(query="Oslo").status_code, asked.recall(query="Oslo").json()) == (
            200,
            {"memories": [], "txid": 0},
        )
        for missing in (
            asked.get(kept["id"]),
            asked.forget(kept["id"]),
            asked.sessions(),
            append(live.http, name_of(asked), "Hello"),
            live.http.get(f"/v1/db/{name_of(asked)}/branches"),
            live.http.get(f"/v1/databases/{name_of(asked)}/usage"),
            live.http.get(f"/v1/db/{name_of(asked)}/memory/s/turns"),
            asked.recall(query="x", as_of=1),
        )[:7]:
            assert (missing.status_code, missing.json()["code"]) == (404, "database_not_found"), missing.text
    assert name_of(memory) not in listed(live.http)
    assert not memory.exists


def test_item_94_deleting_what_is_unknown_or_no_name_makes_nothing(live):
    before = listed(live.http)
    assert delete(live.http, "never-was").json()["code"] == "database_not_found"
    assert delete(live.http, "acme--never").json()["code"] == "database_not_found"
    for bad in ("A", "a--", "a--b--c", "a%2Fb", "%ff"):
        assert delete(live.http, bad).status_code == 400, bad
    assert live.http.delete("/v1/databases").status_code == 405
    assert listed(live.http) == before


@pytest.mark.parametrize("how", ["path", "query", "header"])
def test_a_deletion_that_names_a_branch_is_400_and_deletes_nothing(live, memory, how):
    memory.keep(event("Something"))
    fork(memory, "x")
    path, options = f"/v1/databases/{name_of(memory)}", {}
    if how == "path":
        path += "@x"
    elif how == "query":
        options["params"] = {"branch": "x"}
    else:
        options["headers"] = {"Memoturn-Branch": "x"}
    refused(live.http.delete(path, **options), "branch")
    assert memory.txid == 1


def test_a_name_that_is_used_again_begins_empty_with_another_uuid(live, memory):
    memory.keep(fact("user.city", "Lives in Oslo"))
    fork(memory, "x")
    old = ref(live, memory)
    for _ in range(3):
        assert delete(live.http, name_of(memory)).status_code == 204
        assert live.http.get(f"/v1/db/{name_of(memory)}/branches").status_code == 404
        [again] = memory.keep(fact("user.city", "Lives in Oslo"))
        assert again["status"] == "created"
        assert memory.txid == 1
        assert create(memory, "x").status_code == 201
        assert ref(live, memory).uuid != old.uuid
        old = ref(live, memory)
    files = {path.parent.name for path in live.node.upkeep._directory.glob("*/*/*.db") if path.parent.name == old.uuid}
    assert files == {old.uuid}


def test_item_136_a_deletion_leaves_a_tombstone_that_the_next_process_and_machine_know(tmp_path, ambient, store):
    with serve(tmp_path / "a", ambient=ambient, store=store) as live:
        memory = live.memory()
        memory.keep(event("Something"))
        ambient.advance(seconds=5)
        delete(live.http, name_of(memory))
        at = ambient.now_ms()
        ambient.advance(seconds=5)
        memory.keep(event("Something else"))
        assert live.node.catalog.deleted_at(name_of(memory)) == at
        assert live.node.catalog.deleted_at("acme--other") is None
    for directory in ("a", "b"):
        with serve(tmp_path / directory, ambient=ambient, store=store) as live:
            assert Memory(live.http, memory.namespace, memory.profile).txid == 1
            assert live.node.catalog.deleted_at(name_of(memory)) == at


# --- expiry --------------------------------------------------------------------------------------


def test_item_194_a_database_with_a_ttl_is_gone_after_it_and_then_deleted(tmp_path, ambient, store):
    with serve(tmp_path, ambient=ambient, store=store) as live:
        entry = made(live.http, "brief", ttl=60)
        assert append(live.http, "brief", "Hello").status_code == 201
        ambient.advance(seconds=59.999)
        assert texts(live.http, "brief") == ["Hello"]
        assert live.http.post("/v1/databases", json={"name": "brief"}).status_code == 409
        ambient.advance(seconds=0.001)
        for response in (
            append(live.http, "brief", "Hello"),
            live.http.get("/v1/db/brief/memory/s/turns"),
            live.http.get("/v1/databases/brief/usage"),
            delete(live.http, "brief"),
        ):
            assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
        assert listed(live.http) == []
        again = made(live.http, "brief", ttl=60)
        assert again["uuid"] != entry["uuid"]
        append(live.http, "brief", "Again")
        ambient.advance(seconds=60)
        live.node.upkeep.light_pass()
        for uuid in (entry["uuid"], again["uuid"]):
            found = manifest(store, BranchRef(uuid))
            assert found is not None
            assert found.deleted_at is not None
        assert not list(tmp_path.glob("databases/*/*/*.db"))
