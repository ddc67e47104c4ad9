"""Items 7 to 26: ingest, identity, supersession, names, time to live, get and forget."""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apsw
import pytest

from contract.live_node import event, fact, serve, task
from contract.provider_server import Reply, provider
from contract.replies import endpoint, vectors
from memoturn_core.node import Node
from memoturn_core.providers.embedding import OpenAIEmbedder
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.schema import Schema


def statuses(results: list[dict[str, Any]]) -> list[str]:
    return [result["status"] for result in results]


def ids(results: list[dict[str, Any]]) -> list[str]:
    return [result["id"] for result in results]


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


# --- identity ------------------------------------------------------------------------------------

GOLDEN = [
    pytest.param(
        "fact",
        "user.city",
        '{"since": 2021, "city": "Oslo"}',
        b'fact\0user.city\0{"city":"Oslo","since":2021}',
        "f840166c412b2653709869371a5846cc",
        id="a fact with a topic",
    ),
    pytest.param(
        "instruction",
        "user.city",
        '{"since": 2021, "city": "Oslo"}',
        b'instruction\0user.city\0{"city":"Oslo","since":2021}',
        "4339dc22fd88850754472d04b870fb7b",
        id="an instruction of the same topic and content",
    ),
    pytest.param(
        "event",
        None,
        '"Zo\\u00eb mag Straßencafés — 日本 \\ud83c\\udf75"',
        'event\0\0"Zoë mag Straßencafés — 日本 🍵"'.encode(),
        "d24f8b3411876ba6ad071ab4192e8f70",
        id="unicode, not escaped",
    ),
    pytest.param(
        "instruction",
        "style",
        '{"b": "last", "a": {"y": 2, "x": [1, {"z": true, "k": null}]}}',
        b'instruction\0style\0{"a":{"x":[1,{"k":null,"z":true}],"y":2},"b":"last"}',
        "bda7e80c3e11805c50e302c97fdef774",
        id="nested keys in another order",
    ),
    pytest.param("event", None, "null", b"event\0\0null", "006e7494200d7e4085a06be94574bda6", id="null"),
    pytest.param("fact", None, "{}", b"fact\0\0{}", "3d6e21195021a70ec4d4f8eaf6ea1009", id="an empty object"),
    pytest.param(
        "task",
        None,
        '{"ratio": 0.1, "estimate_h": 1.50, "zero": 0.0, "due": null, "low": -0.25}',
        b'task\0\0{"due":null,"estimate_h":1.5,"low":-0.25,"ratio":0.1,"zero":0.0}',
        "908782ce2af46be5762261712934d83b",
        id="floats",
    ),
    pytest.param(
        "fact",
        "limits",
        "[1000000000000000000000000000000, -9223372036854775809, 18446744073709551616]",
        b"fact\0limits\0[1000000000000000000000000000000,-9223372036854775809,18446744073709551616]",
        "740b1e63b986d8058a45ad3f4b433da4",
        id="integers beyond 64 bits",
    ),
    pytest.param(
        "fact",
        "keys",
        '{"\\ud83d\\ude00": 5, "\\uff5e": 4, "é": 3, "a": 2, "A": 1}',
        'fact\0keys\0{"A":1,"a":2,"é":3,"～":4,"😀":5}'.encode(),
        "d0948b3aded22034801d432c1d06c2d0",
        id="unicode keys in the order of their code points",
    ),
    pytest.param(
        "event",
        None,
        '"tab\\tquote\\"slash\\/backslash\\\\newline\\nnull\\u0000bell\\u0007"',
        b'event\0\0"tab\\tquote\\"slash/backslash\\\\newline\\nnull\\u0000bell\\u0007"',
        "3e6459f78c06aefc310350874b490d43",
        id="escapes",
    ),
]


@pytest.mark.parametrize(("type_", "topic_key", "content", "preimage", "digest"), GOLDEN)
def test_item_9_an_id_is_mem_and_the_first_16_bytes_of_a_sha_256(memory, type_, topic_key, content, preimage, digest):
    assert hashlib.sha256(preimage).hexdigest()[:32] == digest
    head = json.dumps({"type": type_, "topic_key": topic_key, "summary": "Something"})[:-1]
    body = f'{{"memories": [{head}, "content": {content}}}]}}'
    response = memory.http.post(f"{memory.path}/memories", content=body.encode())
    assert response.status_code == 201, response.text
    assert ids(response.json()["results"]) == [f"mem_{digest}"]


def test_item_9_the_key_order_in_content_does_not_matter_at_any_depth(memory):
    memory.keep(event("Met Ann", content={"a": 1, "b": {"c": [{"d": 2, "e": 3}], "f": 4}}))
    [again] = memory.keep(event("Met Ann", content={"b": {"f": 4, "c": [{"e": 3, "d": 2}]}, "a": 1}))
    assert again["status"] == "duplicate"


def test_item_9_type_topic_and_content_make_different_memories(memory):
    results = memory.keep(
        event("x", content=1),
        event("x", content=2),
        event("x", content="1"),
        event("x", content=[1]),
        task("x", content=1),
        fact("a", "x", content=1),
        fact("b", "x", content=1),
        {"type": "fact", "summary": "x", "content": 1},
        {"type": "instruction", "topic_key": "a", "summary": "x", "content": 1},
    )
    assert statuses(results) == ["created"] * 9
    assert len(set(ids(results))) == 9
    assert all(re.fullmatch("mem_[0-9a-f]{32}", each) for each in ids(results))


def test_item_10_summary_keywords_session_source_and_embedding_are_outside_the_id(memory):
    [first] = memory.keep(event("Met Ann", content={"who": "Ann"}))
    [second] = memory.keep(
        event("Ann was met", content={"who": "Ann"}, keywords="k", session_id="s", source="b", embedding=[1.0, 2.0])
    )
    assert second == {"id": first["id"], "status": "duplicate", "superseded": []}
    assert memory.get(first["id"]).json()["summary"] == "Met Ann"


def test_item_11_the_same_memory_again_while_active_is_a_duplicate(memory):
    [first] = memory.keep(fact("user.city", "Lives in Oslo"))
    [second] = memory.keep(fact("user.city", "Lives in Oslo"))
    assert second == {"id": first["id"], "status": "duplicate", "superseded": []}
    assert memory.txid == 1


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


# --- all or nothing, expiry, versions, branches --------------------------------------------------


def test_item_21_an_invalid_item_leaves_no_profile_behind(memory):
    assert memory.ingest(event("Good"), event(" "), event("Good too")).status_code == 400
    assert not memory.exists
    assert memory.sessions().json()["code"] == "database_not_found"


def test_item_21_an_invalid_item_fails_the_whole_batch_on_a_known_profile(memory):
    memory.keep(event("Before"))
    assert memory.ingest(event("Good"), event("Bad", type="opinion")).status_code == 400
    assert memory.txid == 1
    assert memory.found(query="good") == []


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


def test_item_22_a_file_of_an_older_version_is_read_without_being_written_and_migrated_by_the_first_write(tmp_path):
    node = Node.open(tmp_path, ambient=ManualAmbient(), threads=0)
    path = node.catalog.database(node.catalog.create("acme--old"), "main").path
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
        assert version() == 1
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
