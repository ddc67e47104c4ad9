"""The rows of what every database is beside a memory: key-value, SQL, documents, tokens. Called by `engine`.

Through `invoke`, as every surface does it; `kv_write_engine` and `kv_read_peek` are what is below it. The bound
of a write is the same row written with plain apsw in a transaction that also counts, that of a read the same
query, and of a token the library's verification.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import orjson

from benchmarks.measure import Row, Texts, raw_database, timed
from memoturn_core.access.authority import Authority
from memoturn_core.access.settings import AccessSettings
from memoturn_core.access.tokens import ISSUER
from memoturn_core.caller import LOCAL
from memoturn_core.kv import rows as kv
from memoturn_core.kv.cache import KvCache
from memoturn_core.operations import Scope
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.memory import MemoryStore

if TYPE_CHECKING:
    from benchmarks.engine import Bench

PROFILE = "substrate"
DOCUMENTS = 10_000


async def rows(bench: Bench, *, quick: bool) -> list[Row]:
    n = 200 if quick else 2_000
    directory = bench.directory / "substrate"
    directory.mkdir()
    return [
        *await _kv(bench, directory, n),
        *await _sql(bench, directory, n),
        *await _documents(bench, directory, n),
        *await _tokens(directory, n),
    ]


class _Counted:
    """A plain database in which every write also moves a counter, as ours does its txid."""

    def __init__(self, path: Path, table: str) -> None:
        self.connection = raw_database(path)
        self.connection.execute(f"{table}; CREATE TABLE t (txid INTEGER NOT NULL); INSERT INTO t VALUES (0)")

    def write(self, sql: str, parameters: tuple[Any, ...]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute(sql, parameters)
        self.connection.execute("UPDATE t SET txid = txid + 1")
        self.connection.execute("COMMIT")


async def _kv(bench: Bench, directory: Path, n: int) -> list[Row]:
    raw = _Counted(directory / "kv.db", "CREATE TABLE kv (ns, key, value, PRIMARY KEY (ns, key)) WITHOUT ROWID")
    value = b"a value of some forty bytes, as flags are"

    async def put(index: int) -> None:
        await bench.call("kv_put", PROFILE, {"ns": "bench", "key": f"key-{index % 500}", "value": value})

    async def get(index: int) -> None:
        await bench.call("kv_get", PROFILE, {"ns": "bench", "key": f"key-{index % 100}"})

    def raw_put(index: int) -> None:
        raw.write("INSERT OR REPLACE INTO kv VALUES ('bench', ?, ?)", (f"key-{index % 500}", value))

    def raw_get(index: int) -> None:
        sql = "SELECT value FROM kv WHERE ns = 'bench' AND key = ?"
        raw.connection.execute(sql, (f"key-{index % 100}",)).fetchall()

    measured = [await timed("kv_write", n, put, raw_put), await timed("kv_read", n, get, raw_get)]
    entry = bench.node.catalog.known(f"bench--{PROFILE}")
    assert entry is not None
    engine, ref = bench.node.engine, BranchRef(entry.uuid)

    async def engine_put(index: int) -> None:
        engine.write(ref, lambda transaction: kv.put(transaction, "bench", f"key-{index % 500}", value, None)).result()

    async def peek(index: int) -> None:
        assert engine.peek(ref, KvCache, lambda cache: cache.find("bench", f"key-{index % 100}")) is not None

    return [
        *measured,
        await timed("kv_write_engine", n, engine_put, raw_put),
        await timed("kv_read_peek", n, peek, raw_get),
    ]


async def _sql(bench: Bench, directory: Path, n: int) -> list[Row]:
    make = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL)"
    insert, select = "INSERT INTO notes (body) VALUES (?)", "SELECT body FROM notes WHERE id = ?"
    raw = _Counted(directory / "sql.db", make)
    await bench.call("query", PROFILE, {"stmts": [{"q": make}]})

    async def write(index: int) -> None:
        await bench.call("query", PROFILE, {"stmts": [{"q": insert, "params": [f"note {index}"]}]})

    async def read(index: int) -> None:
        await bench.call("query", PROFILE, {"stmts": [{"q": select, "params": [index % n]}]})

    return [
        await timed("sql_write", n, write, lambda index: raw.write(insert, (f"note {index}",))),
        await timed("sql_read", n, read, lambda index: raw.connection.execute(select, (index % n,)).fetchall()),
    ]


async def _documents(bench: Bench, directory: Path, n: int) -> list[Row]:
    make = "CREATE TABLE d (seq INTEGER PRIMARY KEY, _id NOT NULL UNIQUE, body BLOB NOT NULL)"
    path = """jsonb_extract(body, '$."user"')"""
    raw = _Counted(directory / "documents.db", f"{make}; CREATE INDEX d_user ON d ({path})")
    documents = [_document(index, bench.texts) for index in range(DOCUMENTS)]
    for start in range(0, DOCUMENTS, 1_000):
        await bench.call("docs_insert", PROFILE, {"collection": "found", "docs": documents[start : start + 1_000]})
    await bench.call("docs_index", PROFILE, {"collection": "found", "path": "user"})
    with raw.connection:
        raw.connection.executemany(
            "INSERT INTO d (_id, body) VALUES (?, jsonb(?))",
            [(document["_id"], orjson.dumps(document).decode()) for document in documents],
        )

    async def insert(index: int) -> None:
        docs = [_document(DOCUMENTS + n + index, bench.texts)]
        await bench.call("docs_insert", PROFILE, {"collection": "kept", "docs": docs})

    def raw_insert(index: int) -> None:
        document = _document(DOCUMENTS + n + index, bench.texts)
        body = orjson.dumps(document).decode()
        raw.write("INSERT INTO d (_id, body) VALUES (?, jsonb(?))", (document["_id"], body))

    async def find(index: int) -> None:
        await bench.call(
            "docs_find", PROFILE, {"collection": "found", "filter": {"user": f"user-{index * 37 % DOCUMENTS}"}}
        )

    def raw_find(index: int) -> None:
        sql = f"SELECT json(body) FROM d WHERE {path} = ?"
        for (body,) in raw.connection.execute(sql, (f"user-{index * 37 % DOCUMENTS}",)):
            orjson.loads(str(body))

    return [
        await timed("doc_insert", n, insert, raw_insert),
        await timed("doc_find_indexed", n, find, raw_find),
    ]


def _document(index: int, texts: Texts) -> dict[str, Any]:
    fields = {"user": f"user-{index}", "age": index % 90, "note": texts.sentence(), "tags": ["a", "b"]}
    return {"_id": f"d{index}", **fields}


async def _tokens(directory: Path, n: int) -> list[Row]:
    """A token that is seen for the first time, and one that was seen before."""
    ambient = SystemAmbient()

    async def wait_for(work: Any) -> Any:
        return work()

    settings = AccessSettings(platform_key="p" * 32)
    authority = Authority.open(settings, directory, MemoryStore(ambient), ambient, wait_for)
    minted = [authority.mint(LOCAL, scope=Scope.READ, expires_in=3_600, database="a").token for _ in range(2 * n)]
    (key,) = authority._keys.verifying

    def bare(index: int) -> None:
        jwt.decode(minted[index], key, algorithms=["EdDSA"], audience=ISSUER)

    async def first(index: int) -> None:
        await authority.caller(f"Bearer {minted[index]}")

    async def again(_index: int) -> None:
        await authority.caller(f"Bearer {minted[0]}")

    return [await timed("token_first", n, first, bare), await timed("token_again", n, again, bare)]
