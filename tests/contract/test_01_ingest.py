"""Items 7, 8, 16, 17 and 19 to 23: the batch, what is refused, names, embeddings, versions, branches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import apsw
import pytest

from contract.live_node import event, fact, ids, serve, statuses, task
from contract.provider_server import Reply, provider
from contract.replies import endpoint, vectors
from memoturn_core.node import Node
from memoturn_core.providers.embedding import OpenAIEmbedder
from memoturn_core.tables import SCHEMA
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import BranchRef
from memoturn_storage.schema import Schema

# --- the batch -----------------------------------------------------------------------------------


def test_item_7_ingest_on_an_unknown_profile_is_201_and_makes_the_profile(memory):
    assert not memory.exists
    item = {
        "type": "task",
        "summary": "Call Ann",
        "content": {"who": "Ann"},
        "keywords": "phone",
        "embedding": [1, 0.5],
        "session_id": "s",
        "source": "agent",
        "ttl": 60,
    }
    assert memory.ingest(item, fact("user.city", "Lives in Oslo")).status_code == 201
    listed = memory.http.get(f"/v1/memory/{memory.namespace}").json()["profiles"]
    assert [entry["profile"] for entry in listed] == [memory.profile]
    assert memory.http.get(f"{memory.database}/memory/s/turns").status_code == 200


def test_item_7_racing_first_writes_make_one_profile_and_one_memory(memory):
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: memory.keep(fact("user.city", "Lives in Oslo")), range(32)))
    assert sorted(statuses([result for [result] in results])) == ["created"] + ["duplicate"] * 31
    assert len(memory.http.get(f"/v1/memory/{memory.namespace}").json()["profiles"]) == 1
    assert memory.txid == 1
    assert len(memory.found(topic_key="user.city", include_superseded=True)) == 1


def test_item_8_the_answer_has_a_result_for_each_item_in_input_order_and_the_txid(memory):
    response = memory.ingest(event("One"), event("Two"), event("Three"))
    assert set(response.json()) == {"results", "txid"}
    assert response.json()["txid"] == 1
    results = response.json()["results"]
    assert all(set(result) >= {"id", "status", "superseded"} for result in results)
    assert [memory.get(result["id"]).json()["summary"] for result in results] == ["One", "Two", "Three"]
    assert statuses(results) == ["created"] * 3
    assert [result["superseded"] for result in results] == [[], [], []]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "field"),
    [
        pytest.param({"type": "opinion", "summary": "x"}, "type", id="unknown type"),
        pytest.param({"summary": "x"}, "type", id="no type"),
        pytest.param({"type": "event", "summary": "x", "topic_key": "t"}, "topic_key", id="topic on an event"),
        pytest.param({"type": "task", "summary": "x", "topic_key": "t"}, "topic_key", id="topic on a task"),
        pytest.param({"type": "fact", "summary": "x", "ttl": 5}, "ttl", id="ttl on a fact"),
        pytest.param({"type": "event", "summary": "x", "ttl": 0}, "ttl", id="ttl on an event"),
        pytest.param({"type": "instruction", "summary": "x", "ttl": 5}, "ttl", id="ttl on an instruction"),
        pytest.param({"type": "event", "summary": ""}, "summary", id="empty summary"),
        pytest.param({"type": "event", "summary": " \t\n\u3000"}, "summary", id="blank summary"),
        pytest.param({"type": "event"}, "summary", id="no summary"),
        pytest.param({"type": "event", "summary": "x", "embedding": []}, "embedding", id="empty embedding"),
    ],
)
def test_item_16_a_bad_item_is_400_and_named_by_its_place(memory, item, field):
    response = memory.ingest(event("Good"), item)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert f"memories[1].{field}: " in response.json()["error"]
    assert not memory.exists


def test_item_16_a_batch_holds_at_most_1000_items(memory):
    response = memory.ingest(*(event(f"Number {n}") for n in range(1_001)))
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["error"].startswith("memories: ")
    assert not memory.exists
    results = memory.keep(*(event(f"Number {n}") for n in range(1_000)))
    assert statuses(results) == ["created"] * 1_000


def test_item_16_absent_content_is_null(memory):
    [absent] = memory.keep({"type": "event", "summary": "Met Ann"})
    [null] = memory.keep({"type": "event", "summary": "Met Ann", "content": None})
    assert (null["id"], null["status"]) == (absent["id"], "duplicate")
    assert memory.get(absent["id"]).json()["content"] is None


@pytest.mark.parametrize("name", ["a", "7", "0-x_y", "a_", "a" * 64, "9" * 64, "a-b-c", "a__b", "a-_b"])
def test_item_17_names_of_the_rule_are_taken_as_namespace_and_as_profile(live, name):
    for path in (f"/v1/memory/{name}/x1", f"/v1/memory/x1/{name}"):
        response = live.http.post(f"{path}/memories", json={"memories": [event("Met Ann")]})
        assert response.status_code == 201, response.text
    assert name in {entry["profile"] for entry in live.http.get("/v1/memory/x1").json()["profiles"]}


@pytest.mark.parametrize(
    "name",
    [
        "Acme", "has--dashes", "sp%20ace", "a" * 65, "-a", "_a", "a-", "a.b", "a%2Fb", "a@b", "a%00", "a%0A", "%0Aa",
        "caf%C3%A9", "%D9%A3", "a:b", "a%25b", "--", "a---b", "%20", "a+b",
    ],
)  # fmt: skip
def test_item_17_other_names_are_400_as_namespace_and_as_profile(live, name):
    for path, field in ((f"/v1/memory/{name}/x2", "namespace"), (f"/v1/memory/x2/{name}", "profile")):
        response = live.http.post(f"{path}/memories", json={"memories": [event("Met Ann")]})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request"), response.text
        assert response.json()["error"].startswith(f"{field}: ")
    assert live.http.get("/v1/memory/x2").json()["profiles"] == []


# --- embeddings ----------------------------------------------------------------------------------


def test_item_19_an_embedding_of_another_dimension_is_dropped_and_the_memory_lands(memory):
    memory.keep(event("Red", embedding=[1.0, 0.0, 0.0]))
    response = memory.ingest(event("Green", embedding=[1.0, 0.0]), event("Blue", embedding=[1.0] * 4))
    assert response.status_code == 201
    green, blue = response.json()["results"]
    assert statuses([green, blue]) == ["created", "created"]
    assert (green["embedding"], blue["embedding"]) == ("skipped_dimension", "skipped_dimension")
    assert [(hit["id"], hit["channels"]) for hit in memory.found(query="green")] == [(green["id"], ["keyword"])]
    assert [hit["summary"] for hit in memory.found(embedding=[1.0, 0.0, 0.0])] == ["Red"]


def test_item_19_within_a_batch_too_the_first_embedding_fixes_the_dimension(memory):
    red, green = memory.keep(event("Red", embedding=[1.0, 0.0]), event("Green", embedding=[1.0, 0.0, 0.0]))
    assert "embedding" not in red
    assert green["embedding"] == "skipped_dimension"
    assert [hit["summary"] for hit in memory.found(embedding=[1.0, 0.0])] == ["Red"]


def test_item_20_the_node_embeds_what_has_no_embedding_but_never_tasks(tmp_path):
    with (
        provider(vectors([1.0, 0.0], [0.0, 1.0])) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        red, own, _, green = memory.keep(
            event("Red", keywords="colour warm"),
            event("Own", embedding=[0.6, 0.8]),
            task("Paint the wall"),
            event("Green"),
        )
        [seen] = it.seen
        assert seen.json["input"] == ["Red colour warm", "Green"]
        assert ids(memory.found(embedding=[1.0, 0.0])) == [red["id"], own["id"], green["id"]]
        assert ids(memory.found(embedding=[0.0, 1.0])) == [green["id"], own["id"], red["id"]]
        assert statuses(memory.keep(task("Only a task"))) == ["created"]
        assert len(it.seen) == 1


@pytest.mark.parametrize("failure", [Reply(status=400), Reply(status=500), Reply(b"garbage")], ids=["400", "500", "x"])
def test_item_20_a_provider_that_fails_does_not_fail_ingest(tmp_path, failure):
    with (
        provider(failure) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        [red] = memory.keep(event("Red"))
        assert it.seen != []
        assert [(hit["id"], hit["channels"]) for hit in memory.found(query="red")] == [(red["id"], ["keyword"])]
        assert memory.found(embedding=[1.0, 0.0]) == []


# --- all or nothing, versions, branches ----------------------------------------------------------


def test_item_21_an_invalid_item_leaves_no_profile_behind(memory):
    assert memory.ingest(event("Good"), event(" "), event("Good too")).status_code == 400
    assert not memory.exists
    assert memory.sessions().json()["code"] == "database_not_found"


def test_item_21_an_invalid_item_fails_the_whole_batch_on_a_known_profile(memory):
    memory.keep(event("Before"))
    assert memory.ingest(event("Good"), event("Bad", type="opinion")).status_code == 400
    assert memory.txid == 1
    assert memory.found(query="good") == []


def test_item_22_a_file_of_an_older_version_is_read_without_being_written_and_migrated_by_the_first_write(tmp_path):
    node = Node.open(tmp_path, ambient=ManualAmbient(), limits=Limits(threads=0))
    path = LocalFiles(tmp_path / "databases", BranchRef(node.catalog.create("acme--old").uuid)).database
    node.engine.close()
    node.catalog.close()
    Schema(()).create(path, ManualAmbient())
    with apsw.Connection(str(path)) as connection:
        connection.execute("UPDATE __memoturn_txid SET txid = 7")
    connection.close()
    before = path.read_bytes()

    def version() -> object:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return connection.pragma("user_version")
        finally:
            connection.close()

    assert version() == 0
    with serve(tmp_path) as live:
        base = "/v1/memory/acme/old"
        read = live.http.post(f"{base}/recall", json={"query": "Ann"})
        assert (read.status_code, read.json()) == (200, {"memories": [], "txid": 7})
        assert live.http.get(f"{base}/sessions").json() == {"sessions": [], "txid": 7}
        assert version() == 0
        assert path.read_bytes() == before
        written = live.http.post(f"{base}/memories", json={"memories": [event("Met Ann")]})
        assert (written.status_code, written.json()["txid"]) == (201, 8)
        assert version() == SCHEMA.version
        assert len(live.http.post(f"{base}/recall", json={"query": "Ann"}).json()["memories"]) == 1


def test_item_23_an_unknown_branch_is_404_branch_not_found_and_nothing_is_made(memory):
    body = {"memories": [event("Met Ann")]}
    for options in ({"params": {"branch": "nope"}}, {"headers": {"Memoturn-Branch": "nope"}}):
        response = memory.http.post(f"{memory.path}/memories", json=body, **options)
        assert (response.status_code, response.json()["code"]) == (404, "branch_not_found")
        assert not memory.exists
    memory.keep(event("Met Bob"))
    for options in ({"params": {"branch": "nope"}}, {"headers": {"Memoturn-Branch": "nope"}}):
        assert memory.http.post(f"{memory.path}/memories", json=body, **options).json()["code"] == "branch_not_found"
        assert memory.http.get(f"{memory.path}/sessions", **options).json()["code"] == "branch_not_found"
    assert memory.txid == 1


def test_item_23_the_query_beats_the_header_and_main_is_the_default(memory):
    memory.keep(event("Met Ann"))

    def sessions(query: dict[str, str], headers: dict[str, str]) -> int:
        return memory.http.get(f"{memory.path}/sessions", params=query, headers=headers).status_code

    assert sessions({}, {}) == 200
    assert sessions({"branch": "main"}, {}) == 200
    assert sessions({}, {"Memoturn-Branch": "main"}) == 200
    assert sessions({"branch": "main"}, {"Memoturn-Branch": "nope"}) == 200
    assert sessions({"branch": "nope"}, {"Memoturn-Branch": "main"}) == 404
