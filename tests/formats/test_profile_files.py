"""A profile file of schema version 1 opens, is read right, and takes writes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from formats.opened import MADE_AT, Opened
from memoturn_core.tables import SCHEMA
from memoturn_schemas.errors import NotFound

GOLDEN = Path(__file__).with_name("profile-v1.db")
BERLIN = "mem_17f804c03fe844a9f1147a42a9308e0e"
PARIS = "mem_99f9dc295bde9fc8c4cacfe09f0b38c9"
ZURICH = "mem_67040bfa520ccbda6abb572b5ff92cf7"
STYLE = "mem_7468dbf2ec1fad4723df51c248a94c2d"
RUN = "mem_f6aa0982f48b1f2a19c5dc4d98914296"
MILK = "mem_0dd8a9e7949038092ae3ca34ef999711"
CALL = "mem_5d95c6e5a84fb58a8c4edfadf7257f9e"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(tmp_path, GOLDEN)
    yield opened
    asyncio.run(opened.node.close())


def test_the_golden_file_is_the_one_that_was_made() -> None:
    image = GOLDEN.read_bytes()
    assert hashlib.sha256(image).hexdigest() == "9f42dd924eabb3f8591d36579d30536e8569078667f2d0e60e2a435d8926e9f0"
    assert len(image) < 60_000


def test_what_it_holds_is_recalled_by_topic_by_words_and_by_vector(opened: Opened) -> None:
    assert opened.recalled(topic_key="user.city") == [BERLIN]
    assert opened.recalled(query="where does the user live?") == [BERLIN]
    assert opened.recalled(query="ZURICH", include_superseded=True) == [ZURICH]
    assert opened.recalled(query="milk") == [MILK]
    assert opened.recalled(embedding=[0.9, 0.1, 0.0, 0.0]) == [BERLIN, RUN]
    assert opened.recalled(embedding=[0.0, 0.0, 1.0, 0.0], include_superseded=True)[0] == ZURICH
    assert opened.recalled(query="running", source="agent-a") == []
    assert opened.recalled(query="home", session_id="first", source="agent-a") == [BERLIN]
    hit = opened.call("memory_recall", topic_key="style")["memories"][0]
    assert {name: value for name, value in hit.items() if name != "score"} == {
        "id": STYLE,
        "type": "instruction",
        "topic_key": "style",
        "summary": "Answer briefly",
        "content": {"a": {"nested": "naïve 🦊"}, "z": [1, 2.5, None, True]},
        "keywords": "",
        "session_id": None,
        "source": None,
        "created_at": MADE_AT + 4_000,
        "superseded_by": None,
        "channels": ["topic"],
    }


def test_what_expired_or_was_forgotten_is_not_there(opened: Opened) -> None:
    assert opened.recalled(query="call forgotten back") == []
    with pytest.raises(NotFound):
        opened.call("memory_get", id=CALL)


def test_a_topics_history_is_got_whole(opened: Opened) -> None:
    got = opened.call("memory_get", id=ZURICH)
    assert got["superseded_by"] == BERLIN
    assert (got["created_at"], got["superseded_at"]) == (MADE_AT + 2_000, MADE_AT + 3_000)
    assert got["supersedes"] == [PARIS]
    assert [(link["id"], link["superseded_at"]) for link in got["chain"]] == [
        (BERLIN, None),
        (PARIS, MADE_AT + 2_000),
        (ZURICH, MADE_AT + 3_000),
    ]
    assert opened.call("memory_get", id=BERLIN)["supersedes"] == [ZURICH]
    assert opened.call("memory_get", id=MILK)["expires_at"] == MADE_AT + 4_000 + 10_000_000_000_000


def test_the_transcript_and_the_sessions_are_read(opened: Opened) -> None:
    turns = opened.call("memory_window", session="first")["turns"]
    assert [(turn["seq"], turn["role"], turn["content"], turn["created_at"]) for turn in turns] == [
        (1, "user", "Where do I live?", MADE_AT + 7_000),
        (2, "assistant", "In Berlin, as far as I know.", MADE_AT + 8_000),
        (3, "user", "Danke, schön!", MADE_AT + 9_000),
    ]
    near = opened.call("memory_search", session="first", vector=[0.0, 1.0, 0.0, 0.0])["turns"]
    assert [turn["seq"] for turn in near] == [2, 1]
    said = opened.call("memory_recall", query="schon", include_turns=True)["turns"]
    assert [turn["seq"] for turn in said] == [3]
    listed = opened.call("memory_sessions_list")
    assert listed == {
        "sessions": [
            {
                "id": "first",
                "created_at": MADE_AT + 1_000,
                "last_active_at": MADE_AT + 9_000,
                "turns": 3,
                "tasks": 0,
            },
            {
                "id": "second",
                "created_at": MADE_AT + 4_000,
                "last_active_at": MADE_AT + 4_000,
                "turns": 0,
                "tasks": 1,
            },
        ],
        "txid": 8,
    }


def test_reading_does_not_write_the_file_and_closing_ships_it_under_a_txid_of_its_own(opened: Opened) -> None:
    def rows() -> list[list[Any]]:
        connection = apsw.Connection(str(opened.path), flags=apsw.SQLITE_OPEN_READONLY)
        with closing(connection):
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return [connection.execute(f"SELECT * FROM {table}").fetchall() for (table,) in tables[1:]]

    opened.recalled(query="berlin", embedding=[1.0, 0.0, 0.0, 0.0], topic_key="user.city")
    opened.call("memory_get", id=BERLIN)
    assert opened.path.read_bytes() == GOLDEN.read_bytes()
    assert sorted(entry.name for entry in opened.path.parent.iterdir()) == [
        "lease",
        "main.db",
        "main.db-shm",
        "main.db-wal",
        "main.json",
    ]
    before = rows()
    asyncio.run(opened.node.close())
    assert rows() == before


def test_it_takes_writes_that_meet_what_it_holds(opened: Opened) -> None:
    memories = [
        {"type": "fact", "topic_key": "user.city", "summary": "again", "content": {"city": "Berlin"}},
        {"type": "fact", "topic_key": "user.city", "summary": "back", "content": {"city": "Paris"}},
        {"type": "task", "summary": "Call back within a minute", "content": 1, "ttl": 60, "source": "agent-b"},
        {"type": "event", "summary": "A vector of another length", "embedding": [1.0, 2.0]},
        {"type": "event", "summary": "A vector that fits", "content": 2, "embedding": [0.0, 0.0, 0.0, -1.0]},
    ]
    written = opened.call("memory_ingest", memories=memories)
    assert written["txid"] == 9
    results = written["results"]
    assert [(result["id"], result["status"], result["superseded"]) for result in results[:3]] == [
        (BERLIN, "duplicate", []),
        (PARIS, "revived", [BERLIN]),
        (CALL, "revived", []),
    ]
    assert [result["status"] for result in results[3:]] == ["created", "created"]
    assert results[3]["embedding"] == "skipped_dimension"
    assert opened.recalled(topic_key="user.city") == [PARIS]
    assert opened.call("memory_get", id=CALL)["source"] == "agent-a"
    assert opened.recalled(embedding=[0.0, 0.0, 0.0, -1.0])[0] == results[4]["id"]
    assert opened.call("memory_forget", id=RUN) == {"forgotten": True}
    assert opened.call("memory_append", session="first", role="user", content="More")["seq"] == 4
    assert opened.call("memory_session_end", session="second", turns=True) == {"ended": True}
    assert opened.recalled(query="running milk") == []
    assert opened.check("__memoturn_memories_fts", "__memoturn_turns_fts") == ["ok", SCHEMA.version]
