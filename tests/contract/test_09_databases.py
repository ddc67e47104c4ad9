"""Items 92 to 94, 105, 116, 117, 134, 136, 145 and what 194 says of them: databases by name."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from contract.bad_input import refused
from contract.branches import KeptStore, create, elsewhere, execute, fork, manifest, ref, shipped, summaries, sync
from contract.live_node import Live, Memory, RawMcp, event, fact, serve
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.store import StoreUnavailable

TOOLSETS = "all"


def made(http: httpx.Client, name: str, **more: Any) -> dict[str, Any]:
    """A new database that is certainly right."""
    response = http.post("/v1/databases", json={"name": name, **more})
    assert response.status_code == 201, response.text
    entry: dict[str, Any] = response.json()
    return entry


def listed(http: httpx.Client, **query: Any) -> list[str]:
    response = http.get("/v1/databases", params={"limit": 1_000, **query})
    assert response.status_code == 200, response.text
    return [entry["name"] for entry in response.json()["databases"]]


def delete(http: httpx.Client, name: str) -> httpx.Response:
    return http.delete(f"/v1/databases/{name}")


def name_of(memory: Memory) -> str:
    return f"{memory.namespace}--{memory.profile}"


def usage(http: httpx.Client, name: str) -> dict[str, Any]:
    response = http.get(f"/v1/databases/{name}/usage")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def append(http: httpx.Client, name: str, text: str) -> httpx.Response:
    return http.post(f"/v1/db/{name}/memory/s/turns", json={"role": "user", "content": text})


def texts(http: httpx.Client, name: str) -> list[str]:
    response = http.get(f"/v1/db/{name}/memory/s/turns", params={"last": 1_000})
    assert response.status_code == 200, response.text
    return [turn["content"] for turn in response.json()["turns"]]


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


# --- several nodes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> Iterator[tuple[Live, Live]]:
    """Two nodes on one data directory, as two processes have it."""
    directory, ambient = tmp_path_factory.mktemp("shared"), ManualAmbient(now_ms=4_000_000_000_000)
    store = KeptStore(ambient)
    with serve(directory, ambient=ambient, store=store) as one, serve(directory, ambient=ambient, store=store) as two:
        yield one, two


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[tuple[Live, Live]]:
    """Two nodes on one object store; each opens what it is asked for, and leaves it at once."""
    ambient = ManualAmbient(now_ms=4_000_000_000_000)
    store = KeptStore(ambient)
    with (
        serve(tmp_path_factory.mktemp("one"), ambient=ambient, store=store) as one,
        serve(tmp_path_factory.mktemp("two"), ambient=ambient, store=store) as two,
    ):
        yield one, two


def leave(live: Live, memory: Memory) -> None:
    """Have the node close a profile, as it does when nobody uses it."""
    if live.node.engine.is_open(ref(live, memory)):
        sync(elsewhere(memory, live))
        engine = live.node.engine
        engine.exclusive(ref(live, memory), engine.sleep).result(20)


@pytest.mark.parametrize("pair", ["processes", "machines"])
def test_item_116_of_racing_creates_one_is_201_and_all_have_its_uuid(request, pair):
    nodes = request.getfixturevalue(pair)
    with ThreadPoolExecutor(8) as threads:
        for name in ("race1", "race2", "race3", "race4"):
            together = threading.Barrier(8)

            def create(live: Live, name: str = name, together: threading.Barrier = together) -> httpx.Response:
                together.wait(20)
                return live.http.post("/v1/databases", json={"name": name})

            answers = list(threads.map(create, nodes * 4))
            assert sorted(answer.status_code for answer in answers) == [201] + 7 * [409]
            [winner] = [answer.json()["uuid"] for answer in answers if answer.status_code == 201]
            for live in nodes:
                assert usage(live.http, name)["uuid"] == winner


@pytest.mark.parametrize("pair", ["processes", "machines"])
def test_item_116_concurrent_first_writes_of_a_profile_make_one_database(request, pair):
    one, two = request.getfixturevalue(pair)
    memories = [one.memory() for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        # On machines that share no leases one of the two owns it and the other is fenced: the uuid is what they share.
        for memory in memories:
            both = (memory, elsewhere(memory, two))
            list(threads.map(lambda each: each.ingest(event("Something")), both * 4))
            assert ref(one, memory).uuid == ref(two, memory).uuid


def test_a_deletion_is_done_by_the_process_that_has_it_open_and_holds_for_all(processes):
    one, two = processes
    mine = one.memory()
    theirs = elsewhere(mine, two)
    mine.keep(fact("user.city", "Lives in Oslo"))
    assert theirs.txid == 1
    old = ref(one, mine)
    assert one.node.engine.is_open(old)
    assert delete(two.http, name_of(mine)).status_code == 204
    assert not one.node.engine.is_open(old)
    for memory in (mine, theirs):
        assert memory.txid == 0
        assert not memory.exists
    assert delete(one.http, name_of(mine)).status_code == 404
    theirs.keep(fact("user.city", "Lives in Rome"))
    assert summaries(mine, "Lives") == summaries(theirs, "Lives") == {"Lives in Rome"}
    assert two.node.engine.is_open(ref(two, mine))
    assert delete(one.http, name_of(mine)).status_code == 204
    assert mine.txid == theirs.txid == 0


def test_item_117_a_profile_that_was_deleted_elsewhere_begins_anew_on_a_machine_that_was_told_nothing(machines):
    one, two = machines
    mine = one.memory()
    theirs = elsewhere(mine, two)
    mine.keep(event("Note of old"))
    leave(one, mine)
    assert summaries(theirs) == {"Note of old"}
    old = ref(two, mine)
    leave(two, mine)
    assert delete(one.http, name_of(mine)).status_code == 204
    assert two.node.catalog.known(name_of(mine)) is not None
    theirs.keep(event("Note of today"))
    assert ref(two, mine).uuid != old.uuid
    leave(two, mine)
    assert summaries(mine) == summaries(theirs) == {"Note of today"}
    assert ref(one, mine) == ref(two, mine)
    assert one.node.catalog.deleted_at(name_of(mine)) == two.node.catalog.deleted_at(name_of(mine)) is not None


def test_item_117_reads_of_what_was_deleted_elsewhere_are_as_of_an_unknown_profile(machines):
    one, two = machines
    mine = one.memory()
    theirs = elsewhere(mine, two)
    [kept] = mine.keep(event("Note of old"))
    fork(mine, "x")
    leave(one, mine)
    assert summaries(theirs) == {"Note of old"}
    leave(two, mine)
    delete(one.http, name_of(mine))
    assert theirs.get(kept["id"]).json()["code"] == "database_not_found"
    assert theirs.recall(query="note").json() == {"memories": [], "txid": 0}
    assert two.http.get(f"/v1/databases/{name_of(mine)}/branches").json()["code"] == "database_not_found"
    assert not theirs.exists


def test_what_another_machine_makes_and_deletes_is_in_the_list_after_some_seconds(machines):
    one, two = machines
    made(one.http, "far-away")
    two.ambient.advance(seconds=5)
    assert "far-away" in listed(two.http)
    delete(one.http, "far-away")
    two.ambient.advance(seconds=5)
    assert "far-away" not in listed(two.http)


@pytest.mark.parametrize("pair", ["processes", "machines"])
def test_writes_beside_deletions_land_before_or_after_and_never_in_between(request, pair):
    """Several write, one deletes: what a write was told holds until the next deletion, and nothing after it."""
    one, two = request.getfixturevalue(pair)
    writers = (one, two) if pair == "processes" else (one, one)
    memory = one.memory()
    stop, sent = threading.Event(), threading.Lock()
    log: list[tuple[str, float, float, int]] = []

    def write(live: Live, number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            text = f"{number}-{count}"
            begun = time.perf_counter()
            status = elsewhere(memory, live).append("s", "user", text).status_code
            with sent:
                log.append((text, begun, time.perf_counter(), status))

    with ThreadPoolExecutor(4) as threads:
        writing = [threads.submit(write, live, number) for number, live in enumerate(writers * 2)]
        deletions = []
        try:
            for live in (one, two if pair == "processes" else one) * 3:
                with sent:
                    log_length = len(log)
                while len(log) < log_length + 8:
                    time.sleep(0.001)
                begun = time.perf_counter()
                status = delete(live.http, name_of(memory)).status_code
                deletions.append((begun, time.perf_counter()))
                assert status in (204, 404)
        finally:
            stop.set()
        for each in writing:
            each.result(20)
    assert {status for *_, status in log} <= {201, 404, 503}
    assert [status for *_, status in log].count(201) > len(log) // 2
    last_begun, last_done = deletions[-1]
    response = one.http.get(f"{memory.database}/memory/s/turns", params={"last": 1_000})
    found = [turn["content"] for turn in response.json()["turns"]] if response.status_code == 200 else []
    assert not {text for text, _, done, _ in log if done < last_begun} & set(found)
    assert {text for text, begun, _, status in log if begun > last_done and status == 201} <= set(found)


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


# --- usage ---------------------------------------------------------------------------------------


def test_item_145_usage_counts_rows_and_bytes_by_kind(live):
    entry = made(live.http, "counted")
    path = "/v1/db/counted"
    empty = usage(live.http, "counted")
    kinds = ("memories", "turns", "documents", "kv", "vectors", "episodes", "tables")
    assert empty["rows"] == dict.fromkeys(kinds, 0)
    assert (empty["txid"], empty["reads"], empty["counted_since"]) == (0, None, None)
    assert set(empty["unknown"]) == {"reads", "counted_since"}
    append(live.http, "counted", "Hello " * 2_000)
    for key in ("a", "b", "c"):
        assert live.http.put(f"{path}/kv/ns/{key}", content=b"x" * 5_000).status_code == 200
    for collection in ("one", "two"):
        docs = [{"n": number, "text": "y" * 500} for number in range(20)]
        assert live.http.post(f"{path}/docs/{collection}/insert", json={"docs": docs}).status_code == 201
    for number in range(5):
        vector = {"id": str(number), "embedding": [float(number), 1.0]}
        assert live.http.post(f"{path}/vectors/v", json=vector).status_code == 200
    branch = BranchRef(entry["uuid"])
    execute(live, branch, 'CREATE TABLE "odd "" name" (x)')
    execute(live, branch, 'CREATE INDEX by_x ON "odd "" name" (x)')
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)"
    execute(live, branch, f'{numbers} INSERT INTO "odd "" name" SELECT i FROM n')
    execute(live, branch, "CREATE VIRTUAL TABLE words USING fts5(w)")
    execute(live, branch, "INSERT INTO words VALUES ('of mine')")
    found = usage(live.http, "counted")
    assert found["rows"] == {
        "memories": 0,
        "turns": 1,
        "documents": 40,
        "kv": 3,
        "vectors": 5,
        "episodes": 0,
        "tables": 700,
    }
    grown = {kind: found["bytes"][kind] - empty["bytes"][kind] for kind in found["bytes"]}
    assert grown["memories"] == 0
    assert grown["turns"] > 12_000
    assert grown["kv"] > 15_000
    assert grown["documents"] > 20_000
    assert grown["tables"] > 2 * 700
    assert found["size"] >= sum(found["bytes"].values()) > 50_000
    assert found["txid"] == 1 + 3 + 2 + 5 + 5


def test_episodes_are_counted_as_episodes(live, memory):
    memory.keep(event("Something"))
    empty = usage(live.http, name_of(memory))
    path = f"{memory.path}/episodes"
    for number in range(2):
        begun = live.http.post(path, json={"task_description": f"task {number}"}).json()["episode_id"]
        step = {"tool": "grep", "action": "look " * 500, "result": {"type": "success"}}
        assert live.http.post(f"{path}/{begun}/steps", json=step).status_code == 201
    found = usage(live.http, name_of(memory))
    assert found["rows"] == {**empty["rows"], "episodes": 2}
    grown = {kind for kind in found["bytes"] if found["bytes"][kind] > empty["bytes"][kind]}
    assert grown == {"episodes"}


def test_item_145_usage_counts_reads_and_writes_since_a_time_that_it_says(live, memory):
    memory.keep(event("Something"))
    live.ambient.advance(seconds=3)
    memory.recall(query="x")
    since = live.ambient.now_ms()
    before = usage(live.http, name_of(memory))
    assert before["counted_since"] == since
    assert before["reads"] >= 1
    for _ in range(4):
        memory.recall(query="x")
    memory.keep(event("More"))
    memory.keep(event("And more"))
    after = usage(live.http, name_of(memory))
    assert after["counted_since"] == since
    assert after["reads"] == before["reads"] + 4 + 1
    assert (after["writes"], after["txid"]) == (before["writes"] + 2, 3)
    assert after["unknown"] == {}


def test_item_145_usage_says_what_object_storage_has(tmp_path, ambient, store):
    with serve(tmp_path, ambient=ambient, store=store) as live:
        memory = live.memory()
        memory.keep(event("Something"))
        sync(memory)
        memory.keep(event("More"))
        sync(memory)
        fork(memory, "x")
        found = usage(live.http, name_of(memory))
        assert (found["branches"], found["snapshots"], found["segments"], found["shipped_txid"]) == (2, 1, 1, 2)
        objects = {info.key: info.size for info in store.list(f"v1/{found['uuid']}/")}
        assert found["bytes_stored"] == sum(objects.values())
        assert found["bytes_shipped"] == sum(size for key, size in objects.items() if key.endswith(".ltx"))
        on_branch = live.http.get(f"/v1/databases/{name_of(memory)}@x/usage").json()
        assert (on_branch["branch"], on_branch["rows"]["memories"]) == ("x", 2)


def test_item_145_what_is_not_known_is_null_with_a_reason(tmp_path, ambient):
    class Deaf(KeptStore):
        def list(self, prefix: str) -> Any:
            if deaf.is_set() and "branches" in prefix:
                raise StoreUnavailable("listing")
            return super().list(prefix)

    deaf = threading.Event()
    with serve(tmp_path, ambient=ambient, store=Deaf(ambient)) as live:
        memory = live.memory()
        memory.keep(event("Something"))
        memory.txid  # noqa: B018
        deaf.set()
        found = usage(live.http, name_of(memory))
        nothing = {"branches", "segments", "snapshots", "shipped_txid", "bytes_shipped", "bytes_stored"}
        assert {name for name, value in found.items() if value is None} == nothing == set(found["unknown"])
        assert found["rows"]["memories"] == 1


def test_item_145_usage_of_an_unknown_database_is_404(live):
    for name in ("never-was", "acme--never"):
        response = live.http.get(f"/v1/databases/{name}/usage")
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")


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
