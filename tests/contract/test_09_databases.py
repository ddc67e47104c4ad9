"""Items 92 to 94, 105, 134 and what 194 says of them: databases are made and listed, and outlive index and disk."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from contract.bad_input import refused
from contract.branches import elsewhere, shipped, summaries, sync
from contract.databases import append, delete, listed, made, name_of, texts, usage
from contract.live_node import RawMcp, event, serve
from memoturn_storage.engine import Limits
from memoturn_storage.manifest import BranchRef

TOOLSETS = "all"


# --- create --------------------------------------------------------------------------------------


def test_item_92_a_database_is_created_as_metadata_only(live):
    response = live.http.post("/v1/databases", json={"name": "created"})
    assert response.status_code == 201
    entry = response.json()
    assert set(entry) >= {"name", "uuid", "created_at"}
    assert entry["name"] == "created"
    assert re.fullmatch("[0-9a-f]{32}", entry["uuid"])
    assert entry["created_at"] == live.ambient.now_ms()
    directory = live.node.upkeep._directory
    assert not (directory / entry["uuid"][:2] / entry["uuid"]).exists()
    assert texts(live.http, "created") == []
    assert not list(directory.glob(f"*/{entry['uuid']}/*.db")), "nor do reads make a file"
    assert append(live.http, "created", "Hello").json() == {"seq": 1, "txid": 1}
    assert list(directory.glob(f"*/{entry['uuid']}/main.db"))


def test_item_92_creating_takes_less_than_100_ms(live):
    took = []
    for number in range(10):
        begun = time.perf_counter()
        made(live.http, f"quick{number}")
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.1


def test_item_93_an_existing_name_is_409_and_stays_as_it_is(live):
    first = made(live.http, "taken")
    append(live.http, "taken", "Hello")
    for more in ({}, {"ttl": 10}, {"durability": "durable"}):
        response = live.http.post("/v1/databases", json={"name": "taken", **more})
        assert (response.status_code, response.json()["code"]) == (409, "already_exists")
    assert texts(live.http, "taken") == ["Hello"]
    [entry] = [
        entry for entry in live.http.get("/v1/databases?limit=1000").json()["databases"] if entry["name"] == "taken"
    ]
    assert entry == first


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a@b",
            "a/b",
            "a--b",
            "",
            "A",
            "-a",
            "a-",
            "_a",
            "a b",
            "a.b",
            "\u00e9",
            "a\n",
            "a\0",
            "../a",
            "a" * 65,
            "a%2fb",
        ),
        *(1, None, True, ["a"], {"a": 1}),
    ],
)
def test_item_93_a_bad_name_is_400_and_makes_nothing(live, name):
    before = listed(live.http)
    refused(live.http.post("/v1/databases", json={"name": name}), "name")
    assert listed(live.http) == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "x", "ttl": 0}, "ttl"),
        ({"name": "x", "ttl": -1}, "ttl"),
        ({"name": "x", "ttl": 10**30}, "ttl"),
        ({"name": "x", "ttl": 1.5}, "ttl"),
        ({"name": "x", "ttl": "60"}, "ttl"),
        ({"name": "x", "ttl": True}, "ttl"),
        ({"name": "x", "durability": "none"}, "durability"),
        ({"name": "x", "durability": None}, "durability"),
        ({"name": "x", "uuid": "0" * 32}, "uuid"),
        ({"name": "x", "created_at": 0}, "created_at"),
    ],
)
def test_a_bad_field_is_400_that_names_it_and_makes_nothing(live, body, field):
    refused(live.http.post("/v1/databases", json=body), field)
    assert "x" not in listed(live.http)


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{", b"\xff", b"null", b'{"name": "x", "ttl": NaN}'])
def test_a_body_that_is_no_object_is_400(live, body):
    response = live.http.post("/v1/databases", content=body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


# --- list ----------------------------------------------------------------------------------------


def test_item_94_the_list_has_every_database_profiles_too_by_name(live, memory):
    memory.keep(event("Something"))
    entry = made(live.http, "listed", ttl=60, durability="durable")
    assert entry["ttl_at"] == live.ambient.now_ms() + 60_000
    found = live.http.get("/v1/databases", params={"limit": 1_000}).json()["databases"]
    names = [entry["name"] for entry in found]
    assert names == sorted(names)
    assert name_of(memory) in names
    assert entry in found
    for other in found:
        assert set(other) >= {"name", "uuid", "created_at"}


def test_item_194_the_list_has_a_cursor_that_neither_skips_nor_repeats(tmp_path):
    with serve(tmp_path) as live:
        names = [f"shop{number:03}" for number in range(250)]
        for name in names:
            live.node.catalog.create(name)
        first = live.http.get("/v1/databases").json()
        assert [entry["name"] for entry in first["databases"]] == names[:100], "100 by default"
        delete(live.http, "shop099")
        delete(live.http, "shop100")
        live.node.catalog.create("shop000a")
        live.node.catalog.create("shop150a")
        pages, cursor = [], first["next_cursor"]
        while cursor is not None:
            page = live.http.get("/v1/databases", params={"cursor": cursor, "limit": 60}).json()
            pages += [entry["name"] for entry in page["databases"]]
            cursor = page.get("next_cursor")
        assert pages == sorted({*names[101:], "shop150a"})
        assert "next_cursor" not in live.http.get("/v1/databases", params={"limit": 1_000}).json()
        assert len(live.http.get("/v1/databases?limit=0").json()["databases"]) == 1, "clamped"
        assert len(live.http.get("/v1/databases?limit=5000").json()["databases"]) == 250


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "====", "QQ", "YQ==" * 1_000, "\u00e9", "YS0tYi0tYy0t", "%", "QUJD", "YQ" + "\0", "-1", "YS8uLi9i"],
)
def test_a_garbage_cursor_is_400(live, cursor):
    refused(live.http.get("/v1/databases", params={"cursor": cursor}), "cursor")


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=1.5", "limit=", "limit=1&limit=2", "page=2", "limit=" + "9" * 5_000]
)
def test_a_bad_query_of_the_list_is_400(live, query):
    refused(live.http.get(f"/v1/databases?{query}"), query.partition("=")[0])


def test_item_134_the_profiles_of_a_namespace_are_listed_with_their_databases(live, memory):
    memory.keep(event("Something"))
    response = live.http.get(f"/v1/memory/{memory.namespace}")
    assert response.json() == {
        "namespace": memory.namespace,
        "profiles": [
            {"profile": memory.profile, "database": name_of(memory), "created_at": live.ambient.now_ms()},
        ],
    }
    delete(live.http, name_of(memory))
    assert live.http.get(f"/v1/memory/{memory.namespace}").json()["profiles"] == []


# --- durability ----------------------------------------------------------------------------------


def test_every_write_of_a_durable_database_is_shipped_before_it_is_acknowledged(tmp_path, ambient, store):
    with serve(tmp_path, ambient=ambient, store=store, limits=Limits(ship_interval_s=1_000)) as live:
        entry = made(live.http, "safe", durability="durable")
        plain = made(live.http, "plain")
        for number in range(1, 4):
            assert append(live.http, "safe", "Hello").json()["txid"] == number
            assert shipped(store, BranchRef(entry["uuid"])) == number
            append(live.http, "plain", "Hello")
        assert shipped(store, BranchRef(plain["uuid"])) == 0


# --- a lost index, a lost disk -------------------------------------------------------------------


def test_item_105_a_fresh_disk_has_every_name_and_restores_what_is_asked_for(tmp_path, ambient, store):
    with serve(tmp_path / "old", ambient=ambient, store=store) as live:
        memory, gone = live.memory(), live.memory()
        memory.keep(event("Note to keep"))
        gone.keep(event("Note to lose"))
        entry = made(live.http, "shop", durability="durable")
        append(live.http, "shop", "Hello")
        sync(memory)
        delete(live.http, name_of(gone))
        before = live.http.get("/v1/databases").json()
    with serve(tmp_path / "new", ambient=ambient, store=store) as live:
        assert live.http.get("/v1/databases").json() == before
        assert texts(live.http, "shop") == ["Hello"]
        assert summaries(elsewhere(memory, live)) == {"Note to keep"}
        assert elsewhere(gone, live).txid == 0
        assert live.node.catalog.deleted_at(name_of(gone)) is not None
        assert live.http.post("/v1/databases", json={"name": "shop"}).status_code == 409
        assert usage(live.http, "shop")["uuid"] == entry["uuid"]


def test_item_105_a_damaged_index_is_a_clear_error_and_a_removed_one_is_made_again(tmp_path, ambient, store):
    with serve(tmp_path, ambient=ambient, store=store) as live:
        memory = live.memory()
        memory.keep(event("Note to keep"))
        made(live.http, "shop")
    for path in tmp_path.glob("catalog.db*"):
        path.unlink()
    with serve(tmp_path, ambient=ambient, store=store) as live:
        assert listed(live.http) == [name_of(memory), "shop"]
        assert summaries(elsewhere(memory, live)) == {"Note to keep"}


# --- branches ------------------------------------------------------------------------------------


def test_item_194_branch_routes_are_also_under_v1_databases(live, memory):
    memory.keep(event("Note one"))
    path = f"/v1/databases/{name_of(memory)}/branches"
    assert live.http.post(path, json={"name": "x"}).json()["spec"] == f"{name_of(memory)}@x"
    assert [entry["branch"] for entry in live.http.get(path).json()["branches"]] == ["x"]
    assert live.http.post(f"{path}/main/checkpoint", json={"name": "c"}).json() == {"checkpoint": "c", "txid": 1}
    memory.keep(event("Note two"))
    assert live.http.post(f"{path}/main/rewind", json={"to": "c"}).json()["rewound_to"] == 1
    assert live.http.post(f"{path}/x/promote", json={}).status_code == 200
    assert live.http.delete(f"{path}/x").status_code == 204
    assert live.http.get(path).json() == live.http.get(f"{memory.database}/branches").json() == {"branches": []}


# --- MCP -----------------------------------------------------------------------------------------


def answered(mcp: RawMcp, tool: str, **arguments: Any) -> Any:
    called = mcp.call(tool, **arguments)
    assert called["isError"] is False, called
    return called["structuredContent"]["result"]


def test_item_179_agents_create_list_measure_and_delete(live, mcp, memory):
    entry = answered(mcp, "provision_database", name="by-agent", ttl=600)
    assert entry["ttl_at"] == live.ambient.now_ms() + 600_000
    page = answered(mcp, "list_databases", limit=1_000)
    assert entry in page["databases"]
    memory.keep(event("Something"))
    where = {"namespace": memory.namespace, "profile": memory.profile}
    assert answered(mcp, "db_usage", **where)["rows"]["memories"] == 1
    assert answered(mcp, "db_delete", **where) == {"deleted": True}
    assert answered(mcp, "db_delete", **where) == {"deleted": False}
    assert not memory.exists


def test_agents_hear_the_same_errors(mcp):
    answered(mcp, "provision_database", name="agents-own")
    for tool, arguments, code in (
        ("provision_database", {"name": "agents-own"}, "already_exists"),
        ("provision_database", {"name": "a--b"}, "invalid_request"),
        ("list_databases", {"cursor": "x"}, "invalid_request"),
        ("db_usage", {"namespace": "acme", "profile": "never"}, "database_not_found"),
        ("db_delete", {"namespace": "acme", "profile": "never", "branch": "x"}, "invalid_request"),
    ):
        called = mcp.call(tool, **arguments)
        assert called["isError"] is True
        assert called["_meta"]["code"] == code
