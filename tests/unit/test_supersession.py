"""Supersession, duplicates, revival and expiry against a plain model of the contract, step by step.

A state machine runs random operations through `invoke` on an inline node with a clock of its own and on
`supersession_model`, and after each step compares everything: answers, rows, indexes, txid.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from examples import examples
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_schemas.errors import DatabaseNotFound, InvalidRequest, MemoturnError, NotFound
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits
from memoturn_storage.handle import Snapshot
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.file import FileStore
from unit.supersession_model import CORE, Model, core

PROFILE = Address.of_profile("test", "model")

# --- what the operations are given ---------------------------------------------------------------

WORDS = ["berlin", "paris", "tea", "coffee", "running"]
SESSIONS = ["monday", "tuesday", "s\0\u00e9\U0001f98a"]
sessions = st.sampled_from(SESSIONS)
embeddings = st.sampled_from([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 0.0], [1.0, 2.0, 3.0]])
summaries = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join) | st.just("b\0erlin, na\u00efve")


@st.composite
def memories(draw: st.DrawFn) -> dict[str, Any]:
    type_ = draw(st.sampled_from(["fact", "fact", "instruction", "event", "task", "task"]))
    memory: dict[str, Any] = {
        "type": type_,
        "summary": draw(summaries),
        "content": draw(st.sampled_from([None, 1, {"v": 1, "w": 2}, {"w": 2, "v": 1}, {"v": 2}])),
        "keywords": draw(st.sampled_from(["", "", "tea", "z\u00fcrich"])),
        "session_id": draw(st.none() | sessions),
        "source": draw(st.sampled_from([None, "one", "two"])),
        "embedding": draw(st.none() | st.none() | embeddings),
    }
    if type_ in ("fact", "instruction"):
        memory["topic_key"] = draw(st.sampled_from([None, "", "city", "city", "drink"]))
    if type_ == "task":
        memory["ttl"] = draw(st.sampled_from([None, 0, 1, 60, 60, 100_000]))
    return {key: value for key, value in memory.items() if value is not None or draw(st.booleans())}


invalid = st.sampled_from(
    [
        {"type": "event", "summary": "x", "topic_key": "city"},
        {"type": "fact", "summary": "x", "ttl": 5},
        {"type": "fact", "summary": " "},
        {"type": "opinion", "summary": "x"},
        {"type": "fact", "summary": "x", "embedding": []},
        {"type": "task", "summary": "x", "ttl": -1},
    ]
)


# --- the machine ---------------------------------------------------------------------------------


class Supersession(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.ambient = ManualAmbient()
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.forgotten: set[str] = set()

    @initialize()
    def open(self) -> None:
        self.node = Node.open(
            Path(self.directory.name),
            ambient=self.ambient,
            store=FileStore(Path(self.directory.name) / "objects", self.ambient, sync=False),
            limits=Limits(threads=0),
        )

    def teardown(self) -> None:
        self.runner.run(self.node.close())
        self.runner.close()
        self.directory.cleanup()

    @property
    def now(self) -> int:
        return self.ambient.now_ms()

    def call(self, operation: str, **arguments: Any) -> Any:
        """The answer's value; its txid is checked against the model's, which must have been told before."""
        reply = self.runner.run(invoke(self.node, OPERATIONS[operation], PROFILE, arguments, LOCAL))
        assert reply.txid == self.model.txid
        assert reply.value.get("txid", reply.txid) == reply.txid
        return reply.value

    def ingested(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results without hints, which have tests of their own."""
        results = self.call("memory_ingest", memories=batch)["results"]
        return [{key: value for key, value in result.items() if key != "similar"} for result in results]

    def failure(self, operation: str, **arguments: Any) -> type[MemoturnError]:
        with pytest.raises(MemoturnError) as raised:
            self.runner.run(invoke(self.node, OPERATIONS[operation], PROFILE, arguments, LOCAL))
        return type(raised.value)

    # --- what changes things ---------------------------------------------------------------------

    @rule(batch=st.lists(memories(), max_size=6), twins=st.booleans())
    def ingest(self, batch: list[dict[str, Any]], twins: bool) -> None:
        batch = batch + batch[:2] if twins else batch
        expected = self.model.ingest(batch, self.now)
        assert self.ingested(batch) == expected

    @rule(before=st.lists(memories(), max_size=2), bad=invalid, after=st.lists(memories(), max_size=2))
    def ingest_with_one_invalid(
        self, before: list[dict[str, Any]], bad: dict[str, Any], after: list[dict[str, Any]]
    ) -> None:
        assert self.failure("memory_ingest", memories=[*before, bad, *after]) is InvalidRequest

    @rule(data=st.data())
    def assert_a_known_memory_again(self, data: st.DataObject) -> None:
        if not self.model.kept:
            return
        known = data.draw(st.sampled_from(sorted(self.model.kept)))
        memory = self.model.kept[known]
        again = {"type": memory.type, "content": memory.content, "summary": "again", "source": "later"}
        if memory.topic_key is not None:
            again["topic_key"] = memory.topic_key
        expected = self.model.ingest([again], self.now)
        assert expected[0]["id"] == known
        assert self.ingested([again]) == expected

    @precondition(lambda self: self.model.exists)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from([*sorted(self.model.kept), *sorted(self.forgotten), "mem_" + 32 * "0"]))
        self.forgotten.add(id_)
        if self.model.forget(id_, self.now):
            assert self.call("memory_forget", id=id_) == {"forgotten": True}
        assert self.failure("memory_forget", id=id_) is NotFound
        assert self.failure("memory_get", id=id_) is NotFound

    @rule(session=sessions, words=summaries, embedding=st.none() | embeddings)
    def append(self, session: str, words: str, embedding: list[float] | None) -> None:
        expected = self.model.append(session, words, embedding, self.now)
        given = {} if embedding is None else {"embedding": embedding}
        assert self.call("memory_append", session=session, role="user", content=words, **given) == expected

    @precondition(lambda self: self.model.exists)
    @rule(session=sessions, turns=st.booleans())
    def end_a_session(self, session: str, turns: bool) -> None:
        self.model.end(session, turns=turns)
        assert self.call("memory_session_end", session=session, turns=turns) == {"ended": True}

    @rule(seconds=st.sampled_from([0.001, 0.999, 1, 1, 59.999, 60, 86_400, 100_000]))
    def let_time_pass(self, seconds: float) -> None:
        self.ambient.advance(seconds=seconds)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.node.close())
        self.open()

    # --- what only looks -------------------------------------------------------------------------

    @precondition(lambda self: not self.model.exists)
    @rule(session=sessions)
    def look_before_there_is_anything(self, session: str) -> None:
        assert self.call("memory_recall", query="berlin") == {"memories": [], "txid": 0}
        assert self.call("memory_ingest", memories=[]) == {"results": [], "txid": 0}
        for operation, arguments in (
            ("memory_get", {"id": "mem_" + 32 * "0"}),
            ("memory_forget", {"id": "mem_" + 32 * "0"}),
            ("memory_sessions_list", {}),
            ("memory_session_end", {"session": session}),
            ("memory_window", {"session": session}),
        ):
            assert self.failure(operation, **arguments) is DatabaseNotFound
        assert not (Path(self.directory.name) / "databases").exists()

    @precondition(lambda self: self.model.exists)
    @rule(
        query=st.none() | st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(" ".join),
        topic=st.none() | st.sampled_from(["city", "drink"]),
        embedding=st.none() | embeddings,
        types=st.none() | st.lists(st.sampled_from(["fact", "instruction", "event", "task"]), unique=True),
        session=st.none() | sessions,
        source=st.sampled_from([None, None, "one", "two"]),
        age=st.none() | st.sampled_from([0, 1_000, 60_000, 200_000_000]),
        superseded=st.booleans(),
    )
    def recall(
        self,
        query: str | None,
        topic: str | None,
        embedding: list[float] | None,
        types: list[str] | None,
        session: str | None,
        source: str | None,
        age: int | None,
        superseded: bool,
    ) -> None:
        filters: dict[str, Any] = {"types": types, "session_id": session, "source": source}
        filters["since"] = None if age is None else self.now - age
        given = {"query": query, "topic_key": topic, "embedding": embedding, **filters}
        arguments = {name: value for name, value in given.items() if value is not None}
        if query is None and topic is None and embedding is None:
            assert self.failure("memory_recall", **arguments) is InvalidRequest
            return
        answer = self.call("memory_recall", **arguments, k=1_000, include_superseded=superseded)
        degraded = embedding is not None and self.model.dimension not in (None, len(embedding))
        assert answer.get("degraded", []) == (["vector"] if degraded else [])
        expected: dict[str, tuple[dict[str, Any], list[str]]] = {}
        for memory in self.model.kept.values():
            channels = [
                channel
                for channel, lit in (
                    ("topic", topic is not None and memory.topic_key == topic),
                    ("keyword", query is not None and memory.shares_a_word_with(query)),
                    (
                        "vector",
                        not degraded
                        and any(embedding or ())
                        and memory.embedding is not None
                        and any(memory.embedding),
                    ),
                )
                if lit
            ]
            if (
                channels
                and not memory.expired(self.now)
                and (superseded or memory.superseded_at is None)
                and (types is None or memory.type in types)
                and session in (None, memory.session_id)
                and source in (None, memory.source)
                and (age is None or memory.created_at >= self.now - age)
            ):
                expected[memory.id] = (core(memory), channels)
        hits = {hit["id"]: ({name: hit[name] for name in CORE}, hit["channels"]) for hit in answer["memories"]}
        assert len(hits) == len(answer["memories"])
        assert hits == expected
        scores = [hit["score"] for hit in answer["memories"]]
        assert scores == sorted(scores, reverse=True)

    @precondition(lambda self: self.model.exists)
    @rule(session=sessions, last=st.integers(1, 4))
    def read_a_transcript(self, session: str, last: int) -> None:
        expected = [
            {name: turn[name] for name in ("session_id", "seq", "role", "content", "created_at")}
            for turn in self.model.turns.get(session, [])[-last:]
        ]
        assert self.call("memory_window", session=session, last=last) == {"turns": expected}

    @precondition(lambda self: self.model.exists)
    @rule(session=st.none() | sessions, word=st.sampled_from(WORDS), vector=st.just([1.0, 0.5]))
    def search_the_transcript(self, session: str | None, word: str, vector: list[float]) -> None:
        searched = [turn for of, turns in self.model.turns.items() if session in (None, of) for turn in turns]
        limit = {} if session is None else {"session_id": session}
        answer = self.call("memory_recall", query=word, include_turns=True, k=1_000, **limit)
        words = [turn["content"].replace("\0", " ").replace(",", " ").split() for turn in searched]
        assert sorted((turn["session_id"], turn["seq"]) for turn in answer["turns"]) == sorted(
            (turn["session_id"], turn["seq"]) for turn, of in zip(searched, words, strict=True) if word in of
        )
        if session is not None:
            found = self.call("memory_search", session=session, vector=vector, k=1_000)["turns"]
            embedded = [turn for turn in searched if any(turn["embedding"] or ())]
            fits = self.model.dimension == len(vector)
            assert sorted(turn["seq"] for turn in found) == [turn["seq"] for turn in embedded if fits]

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def every_memory_can_be_got_as_it_is_or_not_at_all(self) -> None:
        for memory in self.model.kept.values():
            if memory.expired(self.now):
                assert self.failure("memory_get", id=memory.id) is NotFound
                continue
            predecessors = [other for other in self.model.kept.values() if other.superseded_by == memory.id]
            assert self.call("memory_get", id=memory.id) == {
                **core(memory),
                "expires_at": memory.expires_at,
                "superseded_at": memory.superseded_at,
                "supersedes": [
                    other.id for other in sorted(predecessors, key=lambda it: (it.superseded_at or 0, it.order))
                ],
                "chain": self.model.chain(memory),
            }

    @invariant()
    def a_topic_recalls_exactly_its_active_memory(self) -> None:
        for topic, type_ in itertools.product(("city", "drink"), ("fact", "instruction")):
            active = [
                memory.id
                for memory in self.model.kept.values()
                if (memory.topic_key, memory.type, memory.superseded_at) == (topic, type_, None)
            ]
            assert len(active) <= 1
            hits = self.call("memory_recall", topic_key=topic, types=[type_])["memories"]
            assert [(hit["id"], hit["channels"]) for hit in hits] == [(id_, ["topic"]) for id_ in active]

    @invariant()
    def sessions_are_listed_in_order_with_what_is_in_them(self) -> None:
        if self.model.exists:
            listed = self.call("memory_sessions_list")
            assert listed["sessions"] == self.model.listing(self.now)

    @invariant()
    def the_rows_are_those_of_the_model_and_the_file_is_sound(self) -> None:
        entry = self.node.catalog.known("test--model")
        assert (entry is not None) == self.model.exists
        if entry is None:
            return
        state = self.node.engine.read(BranchRef(entry.uuid), rows_and_checks).result()
        assert state.txid == self.model.txid
        rows, embedded, turns, turn_embedded, checks = state.value
        in_order = sorted(self.model.kept.values(), key=lambda memory: memory.order)
        assert rows == [
            (
                memory.id,
                memory.type,
                memory.topic_key,
                memory.summary,
                memory.session_id,
                memory.source,
                memory.created_at,
                memory.expires_at,
                memory.superseded_at,
                memory.superseded_by,
            )
            for memory in in_order
        ]
        assert embedded == sorted(memory.id for memory in in_order if memory.embedding is not None)
        assert turns == sum(len(of) for of in self.model.turns.values())
        assert turn_embedded == sum(turn["embedding"] is not None for of in self.model.turns.values() for turn in of)
        assert checks == {
            "integrity_check": ["ok"],
            "topics with two active memories": 0,
            "vectors without a memory": 0,
            "vectors without a turn": 0,
        }


def rows_and_checks(snapshot: Snapshot) -> tuple[list[Any], list[str], int, int, dict[str, Any]]:
    connection = snapshot.connection
    for table in ("__memoturn_memories_fts", "__memoturn_turns_fts"):
        # Rank 1: the index is also compared with the rows that it was made of.
        connection.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")
    rows = connection.execute(
        "SELECT 'mem_' || lower(hex(id)), type, topic_key, summary, session_id, source, created_at, expires_at,"
        " superseded_at, 'mem_' || lower(hex(superseded_by)) FROM __memoturn_memories ORDER BY rowid"
    ).fetchall()
    embedded = connection.execute(
        "SELECT 'mem_' || lower(hex(m.id)) FROM __memoturn_memory_vectors JOIN __memoturn_memories m USING (rowid)"
    ).fetchall()
    count = {
        "turns": "__memoturn_turns",
        "turn vectors": "__memoturn_turn_vectors",
        "topics with two active memories": "(SELECT 1 FROM __memoturn_memories WHERE superseded_at IS NULL"
        " AND topic_key IS NOT NULL GROUP BY type, topic_key HAVING count(*) > 1)",
        "vectors without a memory": "__memoturn_memory_vectors"
        " WHERE rowid NOT IN (SELECT rowid FROM __memoturn_memories)",
        "vectors without a turn": "__memoturn_turn_vectors WHERE rowid NOT IN (SELECT rowid FROM __memoturn_turns)",
    }
    counts: dict[str, Any] = {
        name: connection.execute(f"SELECT count(*) FROM {source}").get for name, source in count.items()
    }
    turns, turn_embedded = counts.pop("turns"), counts.pop("turn vectors")
    checks = {"integrity_check": [row for (row,) in connection.execute("PRAGMA integrity_check")], **counts}
    none = "mem_"
    return (
        [tuple(None if value == none else value for value in row) for row in rows],
        sorted(id_ for (id_,) in embedded),
        turns,
        turn_embedded,
        checks,
    )


TestSupersession = Supersession.TestCase
TestSupersession.settings = settings(max_examples=examples(40), stateful_step_count=40, deadline=None)
