"""Items 76 to 80 against hostile SQL: none reads, writes, escapes, hangs or breaks the database."""

from __future__ import annotations

import asyncio
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import sql_corpus
from contract.live_node import event, serve
from contract.sql_corpus import BOMBS, HARMLESS, REFUSED, RUNAWAYS, Hostile
from memoturn_core.address import Address
from memoturn_core.caller import Caller
from memoturn_core.invoke import invoke
from memoturn_core.operations import Scope
from memoturn_core.registry import OPERATIONS
from memoturn_schemas.errors import MemoturnError
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.handle import Snapshot
from memoturn_storage.manifest import BranchRef

SECRET = "zebracrossing"
BUDGET_S = 1.0

OWN_TABLES = [
    "CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, body)",
    "INSERT INTO notes(body) VALUES ('one'), ('two')",
    "CREATE TABLE numbers(n)",
    "CREATE TABLE many AS SELECT value FROM json_each('[" + "1," * 999 + "1]')",
    "CREATE VIEW titles AS SELECT id, body FROM notes",
    "CREATE INDEX notes_body ON notes(body)",
]


class Target:
    """A served database that holds something of every kind."""

    def __init__(self, live: Any) -> None:
        self.live = live
        self.memory = live.memory()
        http, database = live.http, self.memory.database
        self.memory.keep(event(f"The {SECRET} is here", embedding=[1.0, 0.5], session_id=SECRET))
        self.memory.append(SECRET, "user", f"What of the {SECRET}?", embedding=[0.5, 1.0])
        kept = [
            http.put(f"{database}/kv/{SECRET}/{SECRET}", content=SECRET.encode()),
            http.post(f"{database}/docs/{SECRET}/insert", json={"docs": [{"_id": SECRET, "text": SECRET}]}),
            http.post(f"{database}/vectors/{SECRET}", json={"id": SECRET, "embedding": [1.0, 2.0]}),
        ]
        assert all(response.status_code < 300 for response in kept), [response.text for response in kept]
        made = self.sql(*OWN_TABLES)
        assert made.status_code == 200, made.text

    def sql(self, *texts: str, params: Any = None) -> Any:
        return self.live.http.post(
            f"{self.memory.database}/sql", json={"stmts": [{"q": text, "params": params} for text in texts]}
        )

    def reserved(self) -> str:
        """A digest of everything that is in reserved tables and of their definitions."""
        entry = self.live.node.catalog.find(self.memory.database.removeprefix("/v1/db/"))
        return self.live.node.engine.read(BranchRef(entry.uuid), _digest).result().value


def _digest(snapshot: Snapshot) -> str:
    connection = snapshot.connection
    digest = hashlib.sha256()
    made: list[Any] = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE tbl_name LIKE '\\_\\_memoturn\\_%' ESCAPE '\\'"
        " ORDER BY type, name"
    ).fetchall()
    digest.update(repr(made).encode())
    for kind, name, _, _ in made:
        if kind == "table" and name != "__memoturn_txid":
            digest.update(repr(connection.execute(f'SELECT * FROM "{name}"').fetchall()).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Any:
    ambient: Any = SystemAmbient()
    with serve(tmp_path_factory.mktemp("node"), ambient=ambient, request_timeout_s=BUDGET_S) as live:
        yield Target(live)


def _kept(target: Target, before: str) -> None:
    """Nothing reserved has changed, and the database serves."""
    assert target.reserved() == before
    assert target.sql("SELECT count(*) FROM notes").status_code == 200


def test_the_corpus_is_large():
    assert len({hostile.q for hostile in REFUSED}) >= 350


@pytest.mark.parametrize("part", ["READS", "WRITES", "NAMES", "SCHEMA", "MODULES", "PRAGMAS", "FILES", "TRANSACTIONS",
                                  "TEXTS"])  # fmt: skip
def test_item_76_to_78_what_is_refused_is_refused_and_changes_nothing(target, part):
    before = target.reserved()
    own = target.sql("SELECT * FROM notes").json()
    for hostile in getattr(sql_corpus, part):
        response = target.sql(hostile.q, params=hostile.params)
        assert response.status_code == hostile.status, (hostile, response.text)
        assert SECRET not in response.text, hostile
        assert target.reserved() == before, hostile
    assert target.sql("SELECT * FROM notes").json() == own
    assert target.sql("PRAGMA integrity_check").json()["results"][0]["rows"] == [["ok"]]


_TRUSTED = ["PRAGMA integrity_check", "PRAGMA table_list", "DROP TABLE many", "ALTER TABLE many ADD COLUMN m"]


@pytest.mark.parametrize("check", _TRUSTED)
def test_what_sqlite_may_see_for_one_statement_the_next_may_not(target, check):
    before = target.reserved()
    for hostile in sql_corpus.READS:
        response = target.sql(check, hostile.q)
        assert response.status_code == 403, (hostile, response.text)
        assert SECRET not in response.text, hostile
    _kept(target, before)


def test_item_76_what_only_looks_hostile_is_allowed(target):
    before = target.reserved()
    for hostile in HARMLESS:
        response = target.sql(hostile.q, params=hostile.params)
        assert response.status_code == hostile.status, (hostile, response.text)
        assert SECRET not in response.text, hostile
    _kept(target, before)


def test_item_79_a_reader_gets_nothing_more_and_writes_nothing(target):
    before = target.reserved()
    node, address = target.live.node, Address.of_database(target.memory.database.removeprefix("/v1/db/"))
    reads_only = ("SELECT", "WITH", "PRAGMA", "EXPLAIN SELECT", "VALUES")

    async def asked(hostile: Hostile) -> tuple[int, str]:
        arguments = {"stmts": [{"q": hostile.q, "params": hostile.params}]}
        try:
            reply = await invoke(node, OPERATIONS["query"], address, arguments, Caller(Scope.READ), timeout_s=5)
        except MemoturnError as error:
            return error.status, str(error)
        return 200, repr(reply.value)

    async def every() -> None:
        for hostile in REFUSED + HARMLESS:
            status, text = await asked(hostile)
            assert SECRET not in text, hostile
            if hostile.status == 403:
                assert status == 403, (hostile, text)
            elif hostile.status == 400:
                assert status in (400, 403), (hostile, text)
            elif ";" not in hostile.q and hostile.q.upper().startswith(reads_only):
                assert status == 200, (hostile, text)
            else:
                assert status in (200, 403), (hostile, text)

    txid = target.sql("SELECT 1").json()["txid"]
    asyncio.run(every())
    assert target.sql("SELECT 1").json()["txid"] == txid
    _kept(target, before)


def test_bombs_are_errors_that_cost_little(target):
    before = target.reserved()
    for hostile in BOMBS:
        began = time.monotonic()
        response = target.sql(hostile.q, params=hostile.params)
        took = time.monotonic() - began
        # A busy machine may take the whole budget for what an idle one ends at once.
        assert response.status_code in (hostile.status, 408), (hostile.q[:200], response.text[:300])
        assert took < BUDGET_S + 3, (hostile.q[:200], took)
    _kept(target, before)
    assert target.sql("PRAGMA integrity_check").json()["results"][0]["rows"] == [["ok"]]


@pytest.mark.parametrize("hostile", RUNAWAYS, ids=lambda hostile: hostile.q[-40:])
def test_item_143_what_runs_away_is_408_and_the_database_serves_on(target, hostile):
    before = target.reserved()
    began = time.monotonic()
    response = target.sql(hostile.q)
    assert (response.status_code, response.json()["code"]) == (408, "request_timeout")
    assert time.monotonic() - began < BUDGET_S + 2
    _kept(target, before)


def test_a_write_lands_while_a_read_runs_away_beside_it(target):
    with ThreadPoolExecutor(1) as pool:
        runaway = pool.submit(target.sql, RUNAWAYS[0].q)
        landed = 0
        while not runaway.done():
            began = time.monotonic()
            assert target.sql("INSERT INTO numbers VALUES (1)").status_code == 200
            assert time.monotonic() - began < 0.7
            landed += 1
        assert runaway.result().status_code == 408
    assert landed >= 2


def test_two_who_write_at_once_both_land_and_see_no_half(target):
    def write(number: int) -> int:
        made = target.sql(
            f"INSERT INTO numbers VALUES ({number})",
            f"INSERT INTO numbers VALUES ({number}) RETURNING last_insert_rowid()",
        )
        return int(made.status_code)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write, range(1_000, 1_040))) == {200}
    odd = "SELECT n FROM numbers WHERE n >= 1000 GROUP BY n HAVING count(*) <> 2"
    assert target.sql(odd).json()["results"][0]["rows"] == []


_NAMES = st.sampled_from(
    ["notes", "numbers", "titles", "'__memoturn_memories'", "__memoturn_kv", "'__memoturn_turns_fts'", "dbstat",
     "'sqlite_master'", "pragma_table_list", "pragma_table_info('__memoturn_kv')", "json_each('[1]')", "seen",
     "main.'__MEMOTURN_turns'"]
)  # fmt: skip
_EXPRESSIONS = st.recursive(
    st.sampled_from(["1", "'__memoturn_kv'", "NULL", "rowid", "*", "count(*)", "load_extension('x')", "random()",
                     "zeroblob(9)", "x'00'", "?", ":a"]),
    lambda inner: st.one_of(
        st.tuples(inner, _NAMES).map(lambda pair: f"(SELECT {pair[0]} FROM {pair[1]} LIMIT 1)"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} || {pair[1]})"),
        st.tuples(inner, _NAMES).map(lambda pair: f"{pair[0]} IN {pair[1]}"),
        inner.map(lambda value: f"hex({value})"),
    ),
    max_leaves=4,
)  # fmt: skip
_SELECTS = st.builds(
    "SELECT {} FROM {}{}".format, _EXPRESSIONS, _NAMES, st.sampled_from(["", " LIMIT 2", " ORDER BY 1"])
)
_STATEMENTS = st.one_of(
    _SELECTS,
    st.builds("WITH seen AS ({}) {}".format, _SELECTS, _SELECTS),
    st.builds("INSERT INTO {} {}".format, _NAMES, _SELECTS),
    st.builds("UPDATE {} SET n = {}".format, _NAMES, _EXPRESSIONS),
    st.builds("DELETE FROM {} WHERE {}".format, _NAMES, _EXPRESSIONS),
    st.builds("CREATE VIEW seen AS {}".format, _SELECTS),
    st.builds("CREATE TABLE seen AS {}".format, _SELECTS),
    st.builds("CREATE TRIGGER t AFTER INSERT ON {} BEGIN {}; DELETE FROM {}; END".format, _NAMES, _SELECTS, _NAMES),
    st.builds("ALTER TABLE {} RENAME TO {}".format, _NAMES, _NAMES),
    st.builds("DROP TABLE {}".format, _NAMES),
    st.builds("PRAGMA {}({})".format, st.sampled_from(["table_info", "integrity_check", "table_list", "user_version"]),
              _NAMES),
    st.sampled_from(["PRAGMA integrity_check", "PRAGMA table_list", "ROLLBACK", "COMMIT", "BEGIN", "SAVEPOINT a",
                     "EXPLAIN SELECT 1", "ATTACH 'x' AS y", "REINDEX", "VACUUM", ""]),
)  # fmt: skip
_FAILURE = "SELECT * FROM nowhere_at_all"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_STATEMENTS, min_size=1, max_size=3).map("; ".join), min_size=1, max_size=3))
def test_whatever_is_composed_reads_nothing_reserved_and_changes_nothing(target, texts):
    before = target.reserved()
    # The last one fails, so that each example starts from the same tables.
    response = target.sql(*texts, _FAILURE)
    assert response.status_code in (400, 403), response.text
    assert SECRET not in response.text
    for text in texts:
        alone = target.sql(f"{text}; {_FAILURE}")
        assert alone.status_code in (400, 403), alone.text
        assert SECRET not in alone.text
    assert target.reserved() == before
