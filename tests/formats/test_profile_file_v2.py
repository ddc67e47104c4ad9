"""A profile file of schema version 2 opens, is read right in all its parts, and takes writes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from formats.opened import MADE_AT, Opened
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import NotFound

GOLDEN = Path(__file__).with_name("profile-v2.db")
OSLO = "mem_73ad9bd62098a507ce2c7a5ad478ba24"
ROME = "mem_7d78e592f7aa6bbd6f0c854f5891dc97"
OWN = "mem_4d9d4561fb4a3eab743283f1c46ad683"
MILK = "mem_0dd8a9e7949038092ae3ca34ef999711"
CALL = "mem_5d95c6e5a84fb58a8c4edfadf7257f9e"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(tmp_path, GOLDEN)
    yield opened
    asyncio.run(opened.node.close())


def test_the_golden_file_is_the_one_that_was_made() -> None:
    image = GOLDEN.read_bytes()
    assert hashlib.sha256(image).hexdigest() == "f012ee6e71525765b902d99a8649c85e854c4d24da68f57f43c2da225954e784"


def test_its_memories_are_recalled_by_topic_by_words_and_by_vector(opened: Opened) -> None:
    assert opened.recalled(topic_key="user.city") == [ROME]
    assert opened.recalled(query="where does the user live?") == [ROME]
    assert opened.recalled(query="OSLO", include_superseded=True) == [OSLO]
    assert opened.recalled(query="call forgotten back") == []
    assert opened.recalled(embedding=[0.0, 0.0, 0.0, 1.0])[0] == OWN
    got = opened.call("memory_get", id=OSLO)
    assert (got["superseded_by"], got["superseded_at"]) == (ROME, MADE_AT + 2_000)
    assert opened.call("memory_get", id=MILK)["expires_at"] == MADE_AT + 3_000 + 10_000_000_000_000
    with pytest.raises(NotFound):
        opened.call("memory_get", id=CALL)


def test_its_transcript_is_read(opened: Opened) -> None:
    turns = opened.call("memory_window", session="first")["turns"]
    assert [turn["content"] for turn in turns] == ["Which way is north?", "Up.", "Danke, schön!"]
    said = opened.call("memory_recall", query="schon", include_turns=True)["turns"]
    assert [turn["seq"] for turn in said] == [3]
    assert [session["id"] for session in opened.call("memory_sessions_list")["sessions"]] == ["first", "second"]


def test_its_documents_values_vectors_and_tables_are_read(opened: Opened) -> None:
    assert opened.call("docs_find", collection="orders", filter={"total": {"$gte": 7}})["docs"] == [
        {"_id": "o1", "total": 30, "lines": [{"sku": "tea"}]},
        {"_id": "o2", "total": 7.5, "paid": {"by": "card"}},
    ]
    assert opened.call("docs_collections")["collections"] == [{"name": "orders", "documents": 2, "indexes": ["total"]}]
    assert opened.call("kv_list", ns="cache")["keys"] == ["bytes", "greeting", "long"]
    assert opened.call("kv_get", ns="cache", key="bytes")["value"] == b"\x00\xff\x00"
    hits = opened.call("vector_search", collection="places", vector=[0.0, 1.0, 1.0])["hits"]
    assert [hit["id"] for hit in hits] == ["b", "a"]
    assert opened.call("vector_collections")["collections"] == [{"name": "places", "dimension": 3, "count": 2}]
    tables = [{"q": "SELECT * FROM cups ORDER BY id"}, {"q": "SELECT * FROM large"}]
    assert [result["rows"] for result in opened.call("query", stmts=tables)["results"]] == [
        [[1, "tea", 0.25, {"$base64": "AP8A"}], [2, "mocha", None, None]],
        [["tea"]],
    ]


def test_reading_does_not_write_the_file(opened: Opened) -> None:
    opened.recalled(query="rome", embedding=[1.0, 0.0, 0.0, 0.0], topic_key="user.city")
    opened.call("docs_find", collection="orders")
    opened.call("vector_search", collection="places", vector=[0.0, 1.0, 1.0])
    opened.call("query", stmts=[{"q": "SELECT * FROM cups"}])
    assert opened.path.read_bytes() == GOLDEN.read_bytes()
    assert opened.path.with_name("main.db-wal").stat().st_size == 0


def test_its_first_write_brings_it_to_the_newest_version_and_meets_what_it_holds(opened: Opened) -> None:
    back = {"type": "fact", "topic_key": "user.city", "summary": "back", "content": {"city": "Oslo, in the north"}}
    written = opened.call("memory_ingest", memories=[back])
    assert written["txid"] == 21
    result = written["results"][0]
    assert (result["id"], result["status"], result["superseded"]) == (OSLO, "revived", [ROME])
    assert opened.call("memory_append", session="first", role="user", content="More")["seq"] == 4
    changed = opened.call("docs_update", collection="orders", filter={"total": 30}, update={"$inc": {"total": 1}})
    assert changed["modified"] == 1
    opened.call("kv_put", ns="cache", key="greeting", value="good day")
    assert opened.call("kv_get", ns="cache", key="greeting")["value"] == b"good day"
    opened.call("vector_upsert", collection="places", id="d", embedding=[0.0, 1.0, 1.0])
    hits = opened.call("vector_search", collection="places", vector=[0.0, 1.0, 1.0])["hits"]
    assert [hit["id"] for hit in hits] == ["d", "b", "a"]
    insert = {"q": "INSERT INTO cups (name) VALUES ('sencha') RETURNING id"}
    assert opened.call("query", stmts=[insert])["results"][0]["rows"] == [[3]]
    assert opened.check("__memoturn_memories_fts", "__memoturn_turns_fts") == ["ok", SCHEMA.version]
