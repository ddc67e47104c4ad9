"""Import of records by its route: what is taken, refused alone and never changed, and what a kill leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract.branches import rewind
from contract.live_node import Live, Memory, event, fact, serve, task
from contract.portability import (
    act,
    assert_refused,
    assert_sound,
    backed_up,
    exported,
    import_,
    in_file,
    killed,
    restore,
    sql,
    take_all,
    whole_episodes,
)
from memoturn_storage.handle import Snapshot, Transaction

ID = "mem_" + "0" * 32
UUID = "01234567-89ab-cdef-0123-456789abcdef"
TURN = {"kind": "turn", "session_id": "s", "seq": 1, "role": "user", "content": "hi", "created_at": 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("text", "should be an object"),
        ({"kind": "setting", "key": "embedding_unembedded", "value": 1}, "key: embedding_unembedded is found"),
        ({"kind": "setting", "value": 1}, "key: is required"),
        ({"kind": "space", "dimension": "2"}, "dimension: should be an integer"),
        ({}, "kind: should be one of"),
        ({"kind": "nothing"}, "kind: should be one of"),
        ({"kind": ["turn"]}, "kind: should be one of"),
        (TURN | {"mood": "good"}, "mood: unknown field"),
        (TURN | {"vectors": []}, None),
        (TURN | {"seq": "1"}, "seq: should be an integer"),
        (TURN | {"seq": True}, "seq: should be"),
        (TURN | {"seq": 2**70}, "seq: "),
        (TURN | {"content": None}, "content: is required"),
        (TURN | {"content": {"$base64": "AA=="}}, "content: should be a text"),
        (TURN | {"vectors": 7}, "vectors: should be a list"),
        (TURN | {"vectors": [{"embedding": "AA=="}]}, "vectors[0].embedding: should be finite float32"),
        (TURN | {"vectors": [{"embedding": "AACAfw=="}]}, "vectors[0].embedding: should be finite float32"),
        (TURN | {"vectors": [{"embedding": "AACAPw==", "model": 7}]}, "vectors[0].model: should be a text"),
        ({"kind": "memory", "id": "mem_1"}, "id: should be an id like mem_"),
        ({"kind": "memory", "id": ID, "type": "idea", "content": 1}, "type: should be one of fact"),
        ({"kind": "memory", "id": ID, "type": "fact"}, "content: is required"),
        ({"kind": "memory", "id": ID, "type": "fact", "content": 1}, "id: is not that of"),
        ({"kind": "memory", "id": ID, "type": "fact", "content": {"$json": "{"}}, "content.$json: should be the text"),
        ({"kind": "kv", "ns": "n", "key": "k", "value": 7}, "value: must be text or"),
        ({"kind": "kv", "ns": "n", "key": "k"}, "value: is required"),
        ({"kind": "collection", "name": 7}, "name: should be a text"),
        ({"kind": "collection", "name": "c", "indexes": ["$x"]}, "indexes[0]"),
        ({"kind": "document", "collection": "none", "body": {"_id": "1"}}, "collection: there is no 'none' here"),
        ({"kind": "vector", "collection": "none", "id": "1", "embedding": "AACAPw=="}, "collection: there is no"),
        ({"kind": "step", "episode": UUID, "step_number": 1}, f"episode: there is no {UUID} here"),
        ({"kind": "step", "episode": "x", "step_number": 1}, "episode: should be an id like"),
        ({"kind": "step", "step_number": 0}, "step_number: should be an integer of 1"),
        ({"kind": "evidence", "episode": UUID}, "episode: there is no"),
        ({"kind": "table", "type": "table", "name": "__memoturn_x", "sql": ""}, "name: should be one"),
        ({"kind": "table", "type": "table", "name": "x", "sql": "CREATE TABLE y (a)"}, "sql: should be one CREATE"),
        ({"kind": "table", "type": "table", "name": "x", "sql": "DELETE FROM __memoturn_kv"}, "reserved"),
        ({"kind": "table", "type": "table", "name": "x", "sql": "CREATE TABLE x ("}, "sql: "),
        ({"kind": "table", "type": "view", "name": "x", "sql": "CREATE VIEW x AS SELECT 1"}, "type: should be table"),
        (
            {"kind": "schema", "type": "view", "name": "x", "sql": "CREATE VIEW x AS SELECT * FROM __memoturn_kv"},
            "reserved",
        ),
        ({"kind": "row", "table": "__memoturn_kv", "values": {}}, "table: there is no table"),
        ({"kind": "row", "table": "none", "values": {}}, "table: there is no table"),
        ({"kind": "sequence", "table": "none", "seq": 1}, "table: there is no table"),
    ],
    ids=str,
)
def test_a_record_that_cannot_be_is_refused_alone_with_the_reason(live: Live, record: Any, reason: str | None) -> None:
    memory = live.memory()
    answer = import_(memory, [record])
    if reason is None:
        assert answer["imported"] == {"turn": 1}
        return
    [refusal] = answer["refused"]
    assert refusal["index"] == 0
    assert reason in refusal["reason"]
    assert not memory.exists, "what takes nothing makes nothing"
    answer = import_(memory, [TURN | {"seq": 8}, record, TURN | {"seq": 9}])
    assert answer["imported"] == {"turn": 2}
    assert [each["index"] for each in answer["refused"]] == [1]
    assert [each["kind"] for each in exported(memory)] == ["turn", "turn"]
    assert_sound(live, memory)


def test_rows_that_do_not_fit_their_table_are_refused(live: Live) -> None:
    memory = live.memory()
    sql(memory, "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL UNIQUE CHECK (b <> 'no'), c AS (a + 1))")
    sql(memory, "CREATE TABLE w (a)")
    row = {"kind": "row", "table": "t", "values": {"a": 1, "b": "x"}}
    wrong = [
        (row | {"rowid": 1}, "rowid: t has none"),
        ({**row, "values": {"a": 2, "c": 1}}, "values.c: t has no such column"),
        ({**row, "values": {"a": 2}}, "b: is required"),
        ({**row, "values": {"a": 2, "b": "no"}}, "CHECK constraint"),
        ({**row, "values": {"a": 2, "b": "x"}}, "another record here has the same"),
        ({**row, "values": {"a": "q", "b": "y"}}, ""),
        ({**row, "values": {"a": 2, "b": {"$text": "!"}}}, "b: should be base64"),
        ({**row, "values": {"a": 2, "b": ["y"]}}, "b: stands for no value"),
        ({**row, "table": "w", "values": {"a": 1}}, "rowid: should be an integer"),
        ({**row, "values": {"a": 1, "b": "other"}}, "another row is there in its place"),
    ]
    answer = import_(memory, [row, *(record for record, _ in wrong)])
    assert answer["imported"] == {"row": 1}
    assert [each["index"] for each in answer["refused"]] == list(range(1, len(wrong) + 1))
    for refusal, (_, reason) in zip(answer["refused"], wrong, strict=True):
        assert reason in refusal["reason"], refusal


def test_what_is_there_is_never_changed(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    memory.keep(fact("user.city", "Lives in Oslo"))
    memory.keep(fact("user.city", "Lives in Rome"))
    act(memory, "PUT", "/kv/n/k", b"theirs")
    other.keep(fact("user.city", "Lives in Bern"))
    act(other, "PUT", "/kv/n/k", b"ours")
    answer = import_(other, exported(memory))
    assert answer["imported"] == {"memory": 1}, "what was superseded does not dispute the topic"
    assert [(each["kind"], each["reason"]) for each in answer["refused"]] == [
        ("memory", "another record here has the same topic_key and type"),
        ("kv", "another kv is there in its place"),
    ]
    assert [hit["summary"] for hit in other.found(topic_key="user.city")] == ["Lives in Bern"]
    assert other.http.get(f"{other.path}/kv/n/k").content == b"ours"


def test_what_is_kept_in_memory_is_in_step_with_an_import_and_a_restore(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    memory.keep(event("the cat sleeps", embedding=[1.0, 0.0]))
    act(memory, "PUT", "/kv/n/k", b"new")
    act(memory, "POST", "/vectors/v", {"id": "new", "embedding": [1.0, 0.0]})
    whole_episodes(memory)
    other.keep(event("the dog barks", embedding=[0.0, 1.0]))

    def looked() -> Any:
        nearest = other.http.post(f"{other.path}/vectors/v/search", json={"vector": [1.0, 0.0], "k": 1}).json()["hits"]
        return (
            [hit["summary"] for hit in other.found(query="cat")],
            [hit["summary"] for hit in other.found(embedding=[1.0, 0.0], k=1)],
            other.http.get(f"{other.path}/kv/n/k").status_code,
            [hit["id"] for hit in nearest],
        )

    assert looked() == ([], ["the dog barks"], 404, [])
    take_all(other, exported(memory))
    assert looked() == (["the cat sleeps"], ["the cat sleeps"], 200, ["new"])
    empty = live.memory()
    empty.keep(event("nothing"))
    data, _ = backed_up(empty)
    assert restore(other, data, replace=True).status_code == 200
    assert looked() == ([], [], 404, [])


def test_triggers_and_foreign_keys_do_not_act_on_what_is_imported_and_do_afterwards(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    sql(
        memory,
        "CREATE TABLE log (n)",
        "CREATE TABLE a (id INTEGER PRIMARY KEY, b REFERENCES b (id))",
        "CREATE TABLE b (id INTEGER PRIMARY KEY)",
        "CREATE TRIGGER logged AFTER INSERT ON b BEGIN INSERT INTO log VALUES (new.id); END",
        "INSERT INTO b VALUES (1), (2)",
        "INSERT INTO a VALUES (7, 2)",
    )
    records = exported(memory)
    take_all(other, records, 1)
    take_all(other, records[:-3], 2)
    assert exported(other) == records
    assert import_(other, [{"kind": "row", "table": "b", "values": {"id": 3}}])["imported"] == {"row": 1}
    assert sql(other, "SELECT n FROM log") == [[[1], [2]]]
    sql(other, "INSERT INTO b VALUES (4)")
    assert sql(other, "SELECT n FROM log") == [[[1], [2], [4]]]
    refusal = other.http.post(f"{other.path}/sql", json={"stmts": [{"q": "INSERT INTO a VALUES (8, 99)"}]})
    assert refusal.status_code == 400


def test_what_lacks_a_vector_of_the_profiles_model_is_found_by_the_background_embedding(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    memory.keep(event("one"), event("two"), task("three"))
    first, *rest = exported(memory)
    vector = {"model": "m", "embedding": "AACAPwAAgD8="}
    settings = [
        {"kind": "setting", "key": key, "value": value}
        for key, value in (("embedding_dimension", 2), ("embedding_model", "m"))
    ]
    records = [*settings, {"kind": "space", "model": "m", "dimension": 2}, first | {"vectors": [vector]}, *rest]
    take_all(other, records)
    assert exported(other) == records

    def lacking(snapshot: Snapshot) -> Any:
        behind = "(SELECT value FROM __memoturn_settings WHERE key = 'embedding_unembedded')"
        return snapshot.connection.execute(f"SELECT summary FROM __memoturn_memories WHERE rowid = {behind}").get

    assert in_file(live, other, lacking) == "two"


def test_a_header_of_another_format_ends_the_request(memory: Memory) -> None:
    for header in ({"kind": "header", "format": 2}, {"kind": "header"}):
        assert_refused(memory.http.post(f"{memory.path}/import", json={"records": [TURN, header]}))
    assert not memory.exists


# --- kill -9 -------------------------------------------------------------------------------------


def test_an_import_that_is_killed_has_whole_batches_and_goes_on_where_it_was(live: Live, tmp_path: Path) -> None:
    source = live.memory()
    for start in range(0, 2_000, 500):
        source.keep(
            *(event(f"memory {number}", embedding=[1.0, float(number)]) for number in range(start, start + 500))
        )
    records = exported(source)
    given = tmp_path / "records.jsonl"
    given.write_text("".join(json.dumps(record) + "\n" for record in records))
    for lines in (1, 9):
        said = killed(tmp_path / "data", "import", given, lines)
        with serve(tmp_path / "data") as node:
            there = exported(Memory(node.http, "acme", "killed"))
            assert there == records[: len(there)]
            assert len(there) % 40 in (0, len(records) % 40)
            assert len(there) >= 40 * len(said)
    with serve(tmp_path / "data") as node:
        memory = Memory(node.http, "acme", "killed")
        take_all(memory, records, 500)
        assert exported(memory) == records
        assert_sound(node, memory)


# --- what does not fit a transaction -------------------------------------------------------------


def test_an_import_is_a_transaction_like_any_other(live: Live) -> None:
    """It can be rewound, and what fails in it fails alone."""
    memory = live.memory()
    memory.keep(event("first"))
    txid = import_(memory, [TURN, TURN | {"seq": 2}])["txid"]
    assert txid == 2

    def nothing(_: Transaction) -> None: ...

    assert in_file(live, memory, lambda snapshot: snapshot.txid) == 2
    rewind(memory, 1)
    assert [each["kind"] for each in exported(memory)] == ["memory"]
