"""Export and import of everything that a database holds, and backup and restore of its file, by their routes."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.branches import KeptStore, checkpoint, fork, on, rewind, sync
from contract.live_node import Live, Memory, event, fact, serve, task
from e2e.raw_server import Said
from memoturn_core.portability import images
from memoturn_core.portability.catalogue import DERIVED, KINDS
from memoturn_core.portability.kinds import Rows
from memoturn_core.tables import SCHEMA
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.manifest import BranchRef

PART = 1 << 20
Records = list[dict[str, Any]]


# --- by the routes -------------------------------------------------------------------------------


def exported(memory: Memory, **query: Any) -> Records:
    """All pages, without the header and the end."""
    records: Records = []
    txids = set()
    while True:
        response = memory.http.get(f"{memory.path}/export", params=query)
        assert response.status_code == 200, response.text
        page = response.json()
        records += page["records"]
        txids.add(page["txid"])
        if "next_cursor" not in page:
            break
        query = {"cursor": page["next_cursor"]}
    assert len(txids) == 1
    assert records[0] == {"kind": "header", "format": 1}
    assert records[-1] == {"kind": "end", "records": len(records) - 2}
    return records[1:-1]


def import_(memory: Memory, records: Any) -> Any:
    response = memory.http.post(f"{memory.path}/import", json={"records": records})
    assert response.status_code == 200, response.text
    return response.json()


def take_all(memory: Memory, records: Records, size: int = 100) -> None:
    for start in range(0, len(records), size):
        answer = import_(memory, records[start : start + size])
        assert answer["refused"] == []


def backed_up(memory: Memory, **query: Any) -> tuple[bytes, int]:
    """The file, and the transaction that it is of."""
    data = b""
    while True:
        response = memory.http.get(f"{memory.path}/backup", params=query)
        assert response.status_code == 200, response.text
        part = response.json()
        data += base64.b64decode(part["data"])
        if "next_cursor" not in part:
            assert len(data) == part["size"]
            return data, part["txid"]
        query = {"cursor": part["next_cursor"]}


def restore(memory: Memory, data: bytes, part: int = PART, **more: Any) -> Any:
    body: dict[str, Any] = {}
    for start in itertools.count(0, part):
        body["data"] = base64.b64encode(data[start : start + part]).decode()
        if start + part >= len(data):
            body |= {"sha256": hashlib.sha256(data).hexdigest(), **more}
            return memory.http.post(f"{memory.path}/restore", json=body)
        body = {"cursor": memory.http.post(f"{memory.path}/restore", json=body).json()["next_cursor"]}
    raise AssertionError


def sql(memory: Memory, *statements: str) -> Any:
    response = memory.http.post(f"{memory.path}/sql", json={"stmts": [{"q": each} for each in statements]})
    assert response.status_code == 200, response.text
    return [result["rows"] for result in response.json()["results"]]


def in_file(live: Live, memory: Memory, work: Any) -> Any:
    """Run `work` on the profile's snapshot."""
    entry = live.node.catalog.known(f"{memory.namespace}--{memory.profile}")
    assert entry is not None
    return live.node.engine.read(BranchRef(entry.uuid), work).result().value


def digests(live: Live, memory: Memory) -> dict[str, str]:
    """A checksum of each table."""
    return in_file(live, memory, lambda snapshot: images.digests(snapshot.connection))


def assert_sound(live: Live, memory: Memory) -> None:
    def check(snapshot: Snapshot) -> None:
        assert snapshot.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for index in ("memories", "turns", "episodes"):
            name = f"__memoturn_{index}_fts"
            snapshot.connection.execute(f"INSERT INTO {name} ({name}, rank) VALUES ('integrity-check', 1)")

    in_file(live, memory, check)


def assert_refused(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request"), response.text


# --- content of every kind -----------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
NAMES = st.sampled_from(["a", "b", "c-1"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.just(2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.just("$json"), inner, max_size=3),
    max_leaves=6,
)
EMBEDDING = st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=2)
LITERALS = st.sampled_from(
    ["NULL", "1", "1.0", "-9e999", "9e999", "0.1", "'text'", "x'00ff'", "CAST(x'ff41' AS TEXT)", "9223372036854775807"]
)


@st.composite
def acts(draw: Any) -> tuple[str, str, Any]:
    """A request to a profile: method, path and body."""
    kind = draw(st.sampled_from(["memory", "turn", "kv", "document", "index", "vector", "sql", "episode", "forget"]))
    session = draw(NAMES)
    match kind:
        case "memory":
            made = draw(st.sampled_from([event, task]))(draw(WORDS), content=draw(JSON), session_id=session)
            if draw(st.booleans()):
                made = fact(draw(NAMES), draw(WORDS), content=draw(JSON), source=draw(NAMES))
            if draw(st.booleans()) and made["type"] != "task":
                made["embedding"] = draw(EMBEDDING)
            return "POST", "/memories", {"memories": [made]}
        case "turn":
            vector = {"embedding": draw(EMBEDDING)} if draw(st.booleans()) else {}
            return "POST", f"/sessions/{session}/turns", {"role": "user", "content": draw(WORDS), **vector}
        case "kv":
            return "PUT", f"/kv/{session}/{draw(NAMES)}", draw(st.binary(max_size=6))
        case "document":
            return "POST", f"/docs/{session}/insert", {"docs": [{"x": draw(JSON)}]}
        case "index":
            return "POST", f"/docs/{session}/indexes", {"path": draw(st.sampled_from(["x", "x.y", "z"]))}
        case "vector":
            return "POST", f"/vectors/{session}", {"id": draw(WORDS), "embedding": draw(EMBEDDING)}
        case "sql":
            values = f"({draw(LITERALS)}, {draw(LITERALS)})"
            shape = draw(
                st.sampled_from(
                    ["(a, b)", "(a INTEGER PRIMARY KEY AUTOINCREMENT, b)", "(a, b, PRIMARY KEY (b)) WITHOUT ROWID"]
                )
            )
            made = f'CREATE TABLE IF NOT EXISTS "{session} x" {shape}'
            return "POST", "/sql", {"stmts": [{"q": made}, {"q": f'INSERT INTO "{session} x" VALUES {values}'}]}
        case "episode":
            return (
                "POST",
                "/episodes",
                {"task_description": draw(WORDS), "task_type": "testing", "metadata": {"m": draw(JSON)}},
            )
    return "DELETE", f"/sessions/{session}", None


def act(memory: Memory, method: str, path: str, body: Any) -> None:
    """Do it; what the profile refuses is not what these tests are about."""
    given = {"content": body} if isinstance(body, bytes) else {} if body is None else {"json": body}
    assert memory.http.request(method, memory.path + path, **given).status_code < 500


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(acts(), min_size=1, max_size=12), st.integers(1, 9))
def test_what_is_exported_and_imported_is_exported_the_same(live: Live, done: list[Any], size: int) -> None:
    memory, other, again = live.memory(), live.memory(), live.memory()
    for each in done:
        act(memory, *each)
    if not memory.exists:
        return
    records = exported(memory)
    take_all(other, records, size)
    if not records:
        return
    assert json.dumps(exported(other)) == json.dumps(records)
    assert_sound(live, other)
    for query in ("a", "text", *(each["summary"] for each in records if each["kind"] == "memory")):
        ours, theirs = (each.recall(query=query).json() for each in (memory, other))
        assert [hit["id"] for hit in ours["memories"]] == [hit["id"] for hit in theirs["memories"]]
    # Again changes nothing.
    txid = other.txid
    for start in range(0, len(records), size):
        answer = import_(other, records[start : start + size])
        assert (answer["imported"], answer["refused"]) == ({}, [])
    assert other.txid == txid
    # And so does the file.
    data, _ = backed_up(memory)
    assert restore(again, data).status_code == 200
    assert digests(live, again) == digests(live, memory)
    assert_sound(live, again)


def whole_episodes(memory: Memory) -> None:
    """Episodes with everything that is learnt from them."""
    for number in range(4):
        made = memory.http.post(
            f"{memory.path}/episodes",
            json={
                "task_description": f"fix the parser {number}",
                "task_type": "debugging",
                "domain": "parsers",
                "tags": ["ci"],
            },
        )
        assert made.status_code == 201, made.text
        path = f"{memory.path}/episodes/{made.json()['episode_id']}"
        for step, tool in enumerate(("read", "edit", "test", "edit", "test"), start=1):
            result = {"type": "error", "message": "it failed"} if step == 3 else {"type": "success", "output": "ok"}
            body = {"tool": tool, "action": f"{tool} it", "parameters": {"n": 1e22}, "result": result}
            assert memory.http.post(f"{path}/steps", json=body).status_code == 201
        ended = memory.http.post(f"{path}/complete", json={"outcome": {"type": "success", "verdict": "it works"}})
        assert ended.status_code == 200, ended.text


def test_episodes_and_what_was_learnt_from_them_come_along(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    whole_episodes(memory)
    ids = [each["id"] for each in exported(memory) if each["kind"] == "episode"]
    linked = memory.http.post(
        f"{memory.path}/episodes/{ids[0]}/relationships", json={"add": [{"target": ids[1], "type": "follows"}]}
    )
    assert linked.status_code == 200, linked.text
    offered = memory.http.post(f"{memory.path}/patterns/recommend", json={"task_description": "fix the parser again"})
    assert offered.status_code in (200, 201), offered.text
    offer = offered.json()
    pattern = next(each for each in exported(memory) if each["kind"] == "recommendation")["body"]["offers"][0]
    said = memory.http.post(
        f"{memory.path}/patterns/feedback",
        json={
            "recommendation_id": offer["recommendation_id"],
            "feedback": [{"pattern_id": pattern["pattern_id"], "outcome": "helped"}],
        },
    )
    assert said.status_code in (200, 201), said.text
    records = exported(memory)
    counts = Counter(each["kind"] for each in records)
    assert counts["episode"] == 4
    assert counts["step"] == 20
    assert counts["link"] == 1
    assert counts["pattern"] > 0
    assert counts["evidence"] == 4
    assert counts["recommendation"] == counts["feedback"] == 1
    assert "$json" not in json.dumps(records)
    # What comes before has other rowids there.
    whole_episodes(other)
    take_all(other, records, 7)
    for id_ in ids:
        ours, theirs = (each.http.get(f"{each.path}/episodes/{id_}").json() for each in (memory, other))
        assert ours == theirs
    assert len([each for each in exported(other) if each["kind"] == "episode"]) == 8
    assert_sound(live, other)


def test_no_table_is_forgotten() -> None:
    connection = SCHEMA.empty()
    found: Any = connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
    tables = {name for (name,) in found if name.startswith("__memoturn_")}
    told = {kind.table for kind in KINDS if isinstance(kind, Rows)} | {"__memoturn_collections"}
    assert tables == told | DERIVED
    assert not [kind.name for kind in KINDS if isinstance(kind, Rows) and "kind" in kind.fields]
    connection.close()


# --- one state -----------------------------------------------------------------------------------


def test_an_export_is_of_one_moment_whatever_is_written_between_its_pages(live: Live) -> None:
    memory = live.memory()
    for number in range(5):
        act(memory, "PUT", f"/kv/n/{number}", bytes([number, 255]) * 200_000)
    checkpoint(memory, "five")
    first = memory.http.get(f"{memory.path}/export").json()
    act(memory, "PUT", "/kv/n/2", b"changed")
    memory.keep(event("came later"))
    rest = exported_from(memory, first)
    assert [each["key"] for each in rest if each["kind"] == "kv"] == list("01234")
    assert all("$base64" in each["value"] for each in rest if each["kind"] == "kv")
    assert first["txid"] == 5
    assert (
        exported(memory, as_of="five") == [each for each in rest if each["kind"] == "kv"] == exported(memory, as_of=5)
    )
    assert Counter(each["kind"] for each in exported(memory)) == {"kv": 5, "memory": 1}


def exported_from(memory: Memory, page: Any) -> Records:
    records = page["records"]
    while "next_cursor" in page:
        page = memory.http.get(f"{memory.path}/export", params={"cursor": page["next_cursor"]}).json()
        records += page["records"]
    return records


def test_a_cursor_is_for_its_database_alone_and_ends(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    for number in range(5):
        act(memory, "PUT", f"/kv/n/{number}", bytes([number]) * 400_000)
    other.keep(event("here"))
    cursor = memory.http.get(f"{memory.path}/export").json()["next_cursor"]
    copies = live.node.directory / "copies"
    assert [path.stat().st_mode & 0o777 for path in copies.glob("*")] == [0o600]
    for who, wrong in ((other, cursor), (memory, f"{'0' * 32}.1.0")):
        refusal = who.http.get(f"{who.path}/export", params={"cursor": wrong})
        assert (refusal.status_code, refusal.json()["code"]) == (409, "conflict")
    for wrong in ({"cursor": "../x"}, {"cursor": cursor, "as_of": "1"}):
        assert_refused(memory.http.get(f"{memory.path}/export", params=wrong))
    assert memory.http.get(f"{memory.path}/export", params={"cursor": cursor}).status_code == 200
    live.ambient.advance(seconds=3_700)
    exported(other)
    assert memory.http.get(f"{memory.path}/export", params={"cursor": cursor}).status_code == 409
    assert list(copies.glob("*")) == []


def test_a_backup_is_exactly_one_transaction_while_a_writer_writes(live: Live, tmp_path: Path) -> None:
    memory = live.memory()
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count(1):
            sql(
                memory,
                "CREATE TABLE IF NOT EXISTS t (n)",
                f"INSERT INTO t VALUES ({number})",
                "CREATE TABLE IF NOT EXISTS u (n)",
                f"INSERT INTO u SELECT zeroblob(4000) || {number}",
            )
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    try:
        while not memory.exists:
            pass
        for number in range(12):
            data, txid = backed_up(memory)
            path = tmp_path / f"{number}.db"
            path.write_bytes(data)
            with images.opened(path) as connection:
                images.check(connection)
                found = connection.execute(
                    "SELECT (SELECT txid FROM __memoturn_txid), count(*), max(n) FROM t"
                ).fetchone()
                assert found == (txid, txid, txid)
                assert connection.execute("SELECT count(*) FROM u").get == txid
            seen.append(txid)
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


# --- import --------------------------------------------------------------------------------------

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


# --- restore -------------------------------------------------------------------------------------


def test_what_is_there_is_replaced_only_when_asked_and_can_be_gone_back_to(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    memory.keep(event("kept"), fact("user.city", "Lives in Oslo", embedding=[1.0, 2.0]))
    whole_episodes(memory)
    sql(
        memory,
        "CREATE TABLE t (a)",
        "INSERT INTO t VALUES (1)",
        "CREATE INDEX i ON t (a)",
        "CREATE VIEW v AS SELECT a FROM t",
    )
    act(memory, "POST", "/docs/c/insert", {"docs": [{"x": 1}]})
    act(memory, "POST", "/docs/c/indexes", {"path": "x"})
    data, _ = backed_up(memory)
    other.keep(event("before"))
    sql(
        other,
        "CREATE TABLE t (b)",
        "CREATE TABLE gone (id INTEGER PRIMARY KEY REFERENCES t (b))",
        "CREATE VIEW v AS SELECT b FROM t",
    )
    act(other, "POST", "/docs/d/insert", {"docs": [{"y": 1}]})
    before, txid = digests(live, other), other.txid
    refusal = restore(other, data)
    assert (refusal.status_code, refusal.json()["code"]) == (409, "already_exists")
    assert (digests(live, other), other.txid) == (before, txid)
    done = restore(other, data, part=10_000, replace=True)
    assert done.status_code == 200, done.text
    assert done.json()["txid"] == txid + 1
    assert done.json()["rows"]["t"] == 1
    assert digests(live, other) == digests(live, memory)
    assert exported(other) == exported(memory)
    assert_sound(live, other)
    other.keep(event("afterwards"))
    rewind(other, txid)
    assert digests(live, other) == before
    assert list((live.node.directory / "copies").glob("*")) == []


def test_a_restored_database_is_in_the_object_store_and_opens_on_another_machine(
    tmp_path: Path, ambient: ManualAmbient, store: KeptStore
) -> None:
    with serve(tmp_path / "one", ambient=ambient, store=store) as one:
        memory = Memory(one.http, "acme", "ann")
        memory.keep(*(event(f"memory {number}", embedding=[float(number), 1.0]) for number in range(300)))
        data, _ = backed_up(memory)
        other = Memory(one.http, "acme", "bob")
        other.keep(event("before"))
        restore(other, data, replace=True)
        sync(other)
        wanted = digests(one, other)
        assert wanted == digests(one, memory)
    with serve(tmp_path / "two", ambient=ambient, store=store) as two:
        elsewhere = Memory(two.http, "acme", "bob")
        assert Counter(each["kind"] for each in exported(elsewhere)) == {"setting": 1, "space": 1, "memory": 300}
        assert digests(two, elsewhere) == wanted
        assert_sound(two, elsewhere)


def test_a_branch_is_exported_and_restored_by_itself(live: Live) -> None:
    memory = live.memory()
    memory.keep(event("on main"))
    fork(memory, "tried")
    tried = on(memory, "tried")
    data, _ = backed_up(memory)
    tried.keep(event("on the branch"))
    assert len(exported(tried)) == 2
    assert restore(tried, data, replace=True).status_code == 200
    assert len(exported(tried)) == len(exported(memory)) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_version_is_restored_as_one_of_this(live: Live, memory: Memory, version: int) -> None:
    file = Path(__file__).parents[1] / "formats" / f"profile-v{version}.db"
    assert restore(memory, file.read_bytes()).status_code == 200
    kinds = Counter(each["kind"] for each in exported(memory))
    assert kinds["memory"] > 0
    assert kinds["turn"] > 0
    assert_sound(live, memory)
    other = live.memory()
    take_all(other, exported(memory))
    assert exported(other) == exported(memory)


def test_parts_that_are_missing_or_wrong_restore_nothing(live: Live, memory: Memory) -> None:
    source = live.memory()
    source.keep(event("kept"))
    data, _ = backed_up(source)

    def post(**body: Any) -> Any:
        return memory.http.post(f"{memory.path}/restore", json=body)

    half = base64.b64encode(data[:1000]).decode()
    for body in ({}, {"data": "!"}, {"data": "A"}, {"data": half, "sha256": "x"}, {"data": half, "cursor": "1"}):
        assert_refused(post(**body))
    first = post(data=half).json()
    assert first["received"] == 1_000
    assert_refused(post(data=half, cursor=first["next_cursor"], sha256="0" * 64))
    assert post(data=half, cursor=first["next_cursor"]).status_code == 409, "it is gone with the failure"
    other = post(data=half).json()["next_cursor"]
    assert_refused(post(data=half, cursor=other.replace(".1000", ".2000")))
    for wrong in (b"", b"no database" * 200, data[:-1024], data[:100] + b"\xff" * 900 + data[1000:]):
        assert_refused(restore(memory, wrong))
    older = apsw.Connection(":memory:")
    older.execute("CREATE TABLE t (a)")
    assert_refused(restore(memory, older.serialize("main")))
    newer = apsw.Connection(":memory:")
    newer.deserialize("main", data)
    newer.pragma("user_version", SCHEMA.version + 1)
    assert restore(memory, newer.serialize("main")).status_code == 503
    assert not memory.exists


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_any_bytes_changed_is_refused_or_is_what_it_says(live: Live, data: Any) -> None:
    """Its checksum is right, for it was made so: nothing is half restored all the same."""
    memory = live.memory()
    image = bytearray(damaged_source(live))
    for _ in range(data.draw(st.integers(1, 3))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    memory.keep(event("before"))
    before = digests(live, memory)
    response = restore(memory, bytes(image), replace=True)
    assert response.status_code in (200, 400, 503), response.text
    if response.status_code != 200:
        assert digests(live, memory) == before
    assert_sound(live, memory)
    memory.keep(event("after"))


_IMAGES: dict[str, bytes] = {}


def damaged_source(live: Live) -> bytes:
    if live.url not in _IMAGES:
        memory = live.memory()
        memory.keep(event("one"), fact("a", "two"))
        sql(memory, "CREATE TABLE t (a UNIQUE)", "INSERT INTO t VALUES ('x')")
        _IMAGES[live.url] = backed_up(memory)[0]
    return _IMAGES[live.url]


def test_a_file_that_hides_what_no_user_may_make_is_refused(live: Live, memory: Memory) -> None:
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", damaged_source(live))
    for made in (
        "CREATE TABLE __memoturn_more (a); INSERT INTO __memoturn_more VALUES (1)",
        "CREATE VIEW v AS SELECT value FROM __memoturn_kv",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM __memoturn_memories; END",
    ):
        connection.execute("SAVEPOINT one")
        connection.execute(made)
        connection.execute("RELEASE one")
        assert_refused(restore(memory, connection.serialize("main"), replace=True))
        connection.deserialize("main", damaged_source(live))


# --- kill -9 -------------------------------------------------------------------------------------

WORKER = """
import asyncio, base64, hashlib, json, sys
from pathlib import Path
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.logs import configure_logging

configure_logging("error", json=False)
directory, what, given = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

async def main():
    node = Node.open(directory)
    address = Address.of_profile("acme", "killed")
    async def ask(name, **arguments):
        return (await invoke(node, OPERATIONS[name], address, arguments, LOCAL)).value
    print("ready", flush=True)
    if what == "import":
        lines = given.read_bytes().splitlines()
        for start in range(0, len(lines), 40):
            await ask("import_records", records=[json.loads(line) for line in lines[start : start + 40]])
            print(start, flush=True)
    else:
        for number in range(1_000):
            data = (given / str(number % 2)).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            await ask("restore_database", data=base64.b64encode(data).decode(), sha256=digest, replace=True)
            print(number, flush=True)

asyncio.run(main())
"""


def killed(directory: Path, what: str, given: Path, lines: int) -> list[str]:
    """What the process said before it was killed, a moment after it had said so many lines."""
    command = [sys.executable, "-c", WORKER, str(directory), what, str(given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = Said(process)
        assert said.lines(1) == ["ready\n"]
        return said.lines(lines) + said.until_killed()


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


def test_a_restore_that_is_killed_has_happened_or_has_not(live: Live, tmp_path: Path) -> None:
    given = tmp_path / "images"
    given.mkdir()
    wanted = []
    for number in range(2):
        source = live.memory()
        source.keep(*(event(f"{number} of {each}", embedding=[1.0, float(each)]) for each in range(400)))
        (given / str(number)).write_bytes(backed_up(source)[0])
        wanted.append(digests(live, source))
    for lines in (1, 2, 4):
        said = killed(tmp_path / "data", "restore", given, lines)
        with serve(tmp_path / "data") as node:
            memory = Memory(node.http, "acme", "killed")
            last = len(said) - 1
            assert digests(node, memory) in (wanted[last % 2], wanted[(last + 1) % 2])
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
