"""Hostile SQL, each statement with the status it must answer with for a caller who may write.

`TABLE` is any reserved table. They run on a database that has `notes(id, body)`, `numbers(n)` and a view `titles`,
and are independent of each other. `query` never answers 500, and 408 only to what runs away.
"""

from __future__ import annotations

from typing import Any, NamedTuple

TABLE = "__memoturn_memories"


class Hostile(NamedTuple):
    q: str
    status: int
    params: Any = None


_SPELLINGS = [
    TABLE,
    TABLE.upper(),
    "__MemoTurn_Memories",
    f'"{TABLE}"',
    f'"{TABLE.upper()}"',
    f"`{TABLE}`",
    f"[{TABLE}]",
    f"main.{TABLE}",
    f'main."{TABLE}"',
    f'"main".[{TABLE}]',
    f"/**/{TABLE}/**/",
    f"main . -- x\n {TABLE}",
    f"'{TABLE}'",
    f"main.'{TABLE.upper()}'",
    "__memoturn_memories_fts",
    "__memoturn_memories_fts_content",
    "__memoturn_memories_fts_data",
    "__memoturn_memories_fts_config",
    "__memoturn_turns",
    "__memoturn_turns_fts",
    "'__memoturn_turns_fts'",
    "'__memoturn_turns_fts_idx'",
    "'__memoturn_kv'",
    "'__memoturn_vectors'",
    "'__memoturn_collections'",
    "'__memoturn_sessions'",
    "'__memoturn_settings'",
    "'__memoturn_txid'",
    "__memoturn_nothing",
    "'\ufeff'.__memoturn_kv",
]

READS = [Hostile(f"SELECT * FROM {name}", 403) for name in _SPELLINGS]

_WAYS_TO_READ = [
    "SELECT count(*) FROM {t}",
    "SELECT 1 FROM {t}",
    "SELECT rowid FROM {t}",
    "SELECT EXISTS (SELECT 1 FROM {t})",
    "SELECT (SELECT max(rowid) FROM {t})",
    "SELECT 1 IN {t}",
    "SELECT * FROM notes, {t}",
    "SELECT * FROM notes JOIN {t}",
    "SELECT * FROM notes NATURAL JOIN {t}",
    "SELECT * FROM notes LEFT JOIN {t} ON 1",
    "SELECT * FROM notes WHERE id IN (SELECT rowid FROM {t})",
    "SELECT 1 UNION SELECT 2 FROM {t}",
    "SELECT 1 EXCEPT SELECT 2 FROM {t}",
    "WITH x AS (SELECT * FROM {t}) SELECT * FROM x",
    "WITH x AS MATERIALIZED (SELECT * FROM {t}) SELECT count(*) FROM x",
    "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x, {t} WHERE n < 2) SELECT * FROM x",
    "SELECT sum(1) OVER (ORDER BY rowid) FROM {t}",
    "SELECT * FROM (SELECT * FROM (SELECT * FROM {t}))",
    "SELECT * FROM notes ORDER BY (SELECT 1 FROM {t})",
    "SELECT * FROM notes LIMIT (SELECT count(*) FROM {t})",
    "SELECT * FROM json_each((SELECT json_group_array(rowid) FROM {t}))",
    "SELECT CASE WHEN (SELECT 1 FROM {t}) THEN 1 END",
    "SELECT group_concat(rowid) FILTER (WHERE rowid IN {t}) FROM notes",
    "EXPLAIN SELECT * FROM {t}",
    "EXPLAIN QUERY PLAN SELECT * FROM {t}",
    "VALUES ((SELECT count(*) FROM {t}))",
    "SELECT 1; SELECT * FROM {t}",
    "SELECT * FROM {t} INDEXED BY sqlite_autoindex___memoturn_memories_1",
    "INSERT INTO notes(body) SELECT rowid FROM {t}",
    "INSERT INTO numbers SELECT * FROM {t}",
    "INSERT INTO notes(body) VALUES ((SELECT count(*) FROM {t}))",
    "INSERT INTO notes(id, body) VALUES (1, 2) ON CONFLICT DO UPDATE SET body = (SELECT count(*) FROM {t})",
    "INSERT INTO notes(body) VALUES (1) RETURNING (SELECT count(*) FROM {t})",
    "UPDATE notes SET body = x.rowid FROM {t} AS x",
    "UPDATE notes SET body = 1 WHERE EXISTS (SELECT 1 FROM {t})",
    "DELETE FROM notes WHERE id IN (SELECT rowid FROM {t})",
    "CREATE TABLE copied AS SELECT * FROM {t}",
    "CREATE TABLE copied AS WITH x AS (SELECT 1 FROM {t}) SELECT * FROM x",
    "CREATE VIEW seen AS SELECT * FROM {t}; SELECT * FROM seen",
    "CREATE VIEW seen AS SELECT * FROM {t}; CREATE VIEW again AS SELECT * FROM seen; SELECT count(*) FROM again",
    "CREATE VIEW seen AS SELECT (SELECT 1 FROM {t}) AS x; SELECT x FROM seen",
    "CREATE TRIGGER taken AFTER INSERT ON numbers BEGIN INSERT INTO notes(body) SELECT 1 FROM {t}; END;"
    " INSERT INTO numbers VALUES (1)",
    "CREATE TRIGGER taken AFTER INSERT ON numbers WHEN (SELECT 1 FROM {t}) BEGIN SELECT 1; END;"
    " INSERT INTO numbers VALUES (1)",
    "CREATE TRIGGER taken INSTEAD OF INSERT ON titles BEGIN SELECT * FROM {t}; END; INSERT INTO titles VALUES (1, 2)",
]

READS += [Hostile(way.format(t=f"'{TABLE}'"), 403) for way in _WAYS_TO_READ]
READS += [Hostile(way.format(t=TABLE), 403) for way in _WAYS_TO_READ[:12]]

_WRITES = [
    "INSERT INTO {t} DEFAULT VALUES",
    "INSERT INTO {t} SELECT * FROM {t}",
    "REPLACE INTO {t}(rowid) VALUES (1)",
    "UPDATE {t} SET rowid = 7",
    "UPDATE OR IGNORE {t} SET rowid = 7 RETURNING *",
    "DELETE FROM {t}",
    "DELETE FROM {t} RETURNING *",
    "WITH x AS (SELECT 1) DELETE FROM {t}",
    "DROP TABLE {t}",
    "DROP TABLE IF EXISTS {t}",
    "ALTER TABLE {t} RENAME TO mine",
    "ALTER TABLE {t} ADD COLUMN mine",
    "ALTER TABLE {t} RENAME COLUMN created_at TO mine",
    "ALTER TABLE {t} DROP COLUMN created_at",
    "CREATE INDEX mine ON {t}(rowid)",
    "CREATE UNIQUE INDEX mine ON {t}(1)",
    "CREATE TRIGGER mine AFTER INSERT ON {t} BEGIN SELECT 1; END",
    "CREATE TRIGGER mine BEFORE DELETE ON {t} BEGIN INSERT INTO notes(body) VALUES (old.rowid); END",
    "CREATE TABLE IF NOT EXISTS {t}(a)",
    "CREATE TRIGGER taken AFTER INSERT ON numbers BEGIN DELETE FROM {t}; END; INSERT INTO numbers VALUES (1)",
    "CREATE TRIGGER taken AFTER DELETE ON numbers BEGIN UPDATE {t} SET rowid = 1; END; DELETE FROM numbers",
    "CREATE TRIGGER taken AFTER UPDATE ON numbers BEGIN INSERT INTO {t} SELECT 1; END; UPDATE numbers SET n = 1",
    "CREATE TABLE child(a REFERENCES {t}(id))",
    "CREATE TABLE child(a, FOREIGN KEY (a) REFERENCES {t} ON DELETE CASCADE)",
    "ALTER TABLE notes ADD COLUMN parent REFERENCES {t}(id)",
    "REINDEX {t}",
    "ANALYZE {t}",
]
WRITES = [Hostile(way.format(t=f"'{name}'"), 403) for way in _WRITES for name in (TABLE, "__memoturn_turns")]
WRITES += [Hostile(way.format(t=f'"{TABLE.upper()}"'), 403) for way in _WRITES]
WRITES += [
    Hostile("DROP TABLE '__memoturn_turns_fts'", 403),
    Hostile("INSERT INTO '__memoturn_turns_fts'('__memoturn_turns_fts') VALUES ('delete-all')", 403),
    Hostile("DROP INDEX '__memoturn_memories_topic'", 403),
    Hostile("DROP INDEX '__MEMOTURN_kv_expiry'", 403),
    Hostile("REINDEX '__memoturn_memories_topic'", 403),
    Hostile("REINDEX 'sqlite_autoindex___memoturn_memories_1'", 403),
    Hostile("REINDEX", 403),
    Hostile("DROP TABLE __memoturn_kv; SELECT 1", 403),
]

NAMES = [
    Hostile("CREATE TABLE __memoturn_mine(a)", 403),
    Hostile("CREATE TABLE '__memoturn_mine'(a)", 403),
    Hostile("CREATE TABLE main.'__MEMOTURN_mine' AS SELECT 1", 403),
    Hostile("CREATE VIEW '__memoturn_mine' AS SELECT 1", 403),
    Hostile("CREATE INDEX '__memoturn_mine' ON notes(body)", 403),
    Hostile("CREATE TRIGGER '__memoturn_mine' AFTER INSERT ON notes BEGIN SELECT 1; END", 403),
    Hostile("ALTER TABLE notes RENAME TO __memoturn_mine", 403),
    Hostile("ALTER TABLE notes RENAME TO '__memoturn_mine'", 403),
    Hostile("ALTER TABLE notes RENAME TO /* x */ '__MemoTurn_mine'", 403),
    Hostile('ALTER TABLE notes RENAME TO "__memoturn_mine"', 403),
    Hostile("CREATE TABLE child(a REFERENCES/**/'__memoturn_kv'(key))", 403),
    Hostile("CREATE TABLE sqlite_mine(a)", 400),
    Hostile("SELECT 1 AS __memoturn_mine", 403),
]

_SCHEMA = "sqlite_master sqlite_schema SQLITE_MASTER 'sqlite_master' 'sqlite_schema' \"sqlite_master\" [sqlite_schema]"
SCHEMA = [Hostile(f"SELECT * FROM {name}", 403) for name in _SCHEMA.split()]
SCHEMA += [Hostile(f"SELECT sql FROM main.{name}", 403) for name in _SCHEMA.split()]
SCHEMA += [
    Hostile("SELECT count(*) FROM 'sqlite_master'", 403),
    Hostile("SELECT 1 IN 'sqlite_schema'", 403),
    Hostile("SELECT * FROM 'sqlite_temp_master'", 403),
    Hostile("SELECT * FROM temp.'sqlite_schema'", 403),
    Hostile("SELECT * FROM temp.sqlite_temp_schema", 403),
    Hostile("CREATE TABLE copied AS SELECT rowid FROM 'sqlite_master'", 403),
    Hostile("CREATE TABLE copied AS SELECT sql FROM 'sqlite_schema'", 403),
    Hostile("INSERT INTO notes(body) SELECT sql FROM 'sqlite_master'", 403),
    Hostile("CREATE VIEW seen AS SELECT sql FROM 'sqlite_master'; SELECT * FROM seen", 403),
    Hostile("CREATE VIEW seen AS SELECT name FROM 'sqlite_schema'; CREATE TABLE copied AS SELECT * FROM seen", 403),
    Hostile("DROP TABLE numbers; SELECT * FROM 'sqlite_master'", 403),
    Hostile("CREATE TABLE a(b); SELECT * FROM 'sqlite_master'", 403),
    Hostile("ALTER TABLE numbers RENAME TO m; SELECT * FROM 'sqlite_master'", 403),
    Hostile("CREATE TRIGGER taken AFTER INSERT ON numbers BEGIN INSERT INTO notes(body) SELECT sql FROM"
            " 'sqlite_master'; END; INSERT INTO numbers VALUES (1)", 403),
    Hostile("CREATE TRIGGER taken AFTER INSERT ON 'sqlite_master' BEGIN SELECT 1; END", 400),
    Hostile("UPDATE 'sqlite_master' SET sql = ''", 400),
    Hostile("DELETE FROM 'sqlite_master'", 400),
    Hostile("DELETE FROM 'sqlite_schema' WHERE 0", 400),
    Hostile("INSERT INTO 'sqlite_master' VALUES (1, 2, 3, 4, 5)", 400),
    Hostile("DROP TABLE 'sqlite_master'", 400),
    Hostile("CREATE INDEX mine ON 'sqlite_master'(name)", 400),
    Hostile("SELECT * FROM sqlite_stat1", 400),
    Hostile("SELECT * FROM sqlite_stat4", 400),
    Hostile("ANALYZE", 403),
    Hostile("ANALYZE notes", 403),
    Hostile("EXPLAIN SELECT * FROM 'sqlite_master'", 403),
]  # fmt: skip

MODULES = [
    *(
        Hostile(f"SELECT * FROM {name}", status)
        for name, status in {
            "dbstat": 403,
            "main.dbstat": 403,
            "'dbstat'": 403,
            "sqlite_stmt": 400,
            "sqlite_dbpage": 400,
            "bytecode('SELECT 1')": 400,
            "fts5vocab": 400,
            "fts3tokenize('simple', 'a b')": 403,
            "carray(1, 2)": 403,
            "generate_series(1, 2)": 400,
            "pragma_table_list": 403,
            "pragma_database_list": 403,
            "pragma_integrity_check": 403,
            "pragma_function_list": 403,
            "pragma_module_list": 403,
            "pragma_compile_options": 403,
            "pragma_foreign_key_check": 403,
            "pragma_user_version": 403,
            f"pragma_table_info('{TABLE}')": 403,
            f"pragma_table_xinfo('{TABLE.upper()}')": 403,
            f"pragma_index_list('{TABLE}')": 403,
            f"pragma_foreign_key_list('{TABLE}')": 403,
            "pragma_index_info('__memoturn_memories_topic')": 403,
            "pragma_index_xinfo('sqlite_autoindex___memoturn_memories_1')": 403,
            "notes, pragma_table_info('__memo' || 'turn_kv')": 403,
        }.items()
    ),
    Hostile("SELECT count(*) FROM dbstat", 403),
    Hostile("SELECT name FROM pragma_table_info(?)", 403, [TABLE]),
    Hostile("CREATE VIEW seen AS SELECT * FROM pragma_table_list; SELECT * FROM seen", 400),
    Hostile("CREATE VIRTUAL TABLE v USING fts5(a)", 403),
    Hostile("CREATE VIRTUAL TABLE v USING fts5(a, content='__memoturn_turns')", 403),
    Hostile("CREATE VIRTUAL TABLE v USING fts5vocab('__memoturn_turns_fts', 'row')", 403),
    Hostile("CREATE VIRTUAL TABLE temp.v USING fts5vocab(main, '__memoturn_turns_fts', 'row')", 403),
    Hostile("CREATE VIRTUAL TABLE v USING rtree(id, a, b)", 403),
    Hostile("CREATE VIRTUAL TABLE v USING dbstat(main)", 403),
    Hostile("CREATE VIRTUAL TABLE v USING csv(filename='/etc/passwd')", 403),
]

_PRAGMAS = {
    "writable_schema = 1": 403, "writable_schema": 403, "WRITABLE_SCHEMA(ON)": 403, "main.writable_schema = ON": 403,
    "user_version = 9": 403, "schema_version = 9": 403, "application_id = 9": 403, "journal_mode = DELETE": 403,
    "journal_mode": 403, "synchronous = 0": 403, "wal_checkpoint(TRUNCATE)": 403, "wal_autocheckpoint = 1": 403,
    "query_only = 1": 403, "foreign_keys = OFF": 403, "foreign_keys(0)": 403, "defer_foreign_keys = 1": 403,
    "recursive_triggers = 0": 403, "trusted_schema = 1": 403, "temp_store = FILE": 403,
    "temp_store_directory = '/tmp'": 403, "data_store_directory = '/tmp'": 403, "mmap_size = 1000000000": 403,
    "cache_size = 1000000": 403, "page_size = 512": 403, "encoding = 'UTF-16'": 403, "auto_vacuum = 1": 403,
    "incremental_vacuum": 403, "optimize": 403, "shrink_memory": 403, "hard_heap_limit = 1": 403,
    "soft_heap_limit = 1": 403, "threads = 8": 403, "busy_timeout = 1": 403, "locking_mode = EXCLUSIVE": 403,
    "max_page_count = 1": 403, "secure_delete = 1": 403, "case_sensitive_like = 1": 403, "database_list": 403,
    "legacy_alter_table = 1": 403, "ignore_check_constraints = 1": 403, "cell_size_check = 0": 403,
    "module_list": 403, "lock_status": 403, "key = 'x'": 403, "no_such_pragma": 403, "table_list('__memoturn_kv')": 403,
    "table_info('__memoturn_kv')": 403, "table_xinfo(__memoturn_kv)": 403, "index_list = '__memoturn_kv'": 403,
    "index_info('__memoturn_kv_expiry')": 403, "index_xinfo('sqlite_autoindex___memoturn_turns_1')": 403,
    "foreign_key_list(\"__memoturn_kv\")": 403, "foreign_key_check('__memoturn_kv')": 403,
    "integrity_check('__memoturn_kv')": 403, "quick_check(`__memoturn_kv`)": 403,
    "integrity_check; SELECT * FROM '__memoturn_kv'": 400,
    "quick_check; SELECT * FROM '__memoturn_kv' -- PRAGMA quick_check; ": 400,
    "table_list; SELECT * FROM '__memoturn_kv'": 403, "integrity_check(1); PRAGMA writable_schema = 1": 400,
}  # fmt: skip
PRAGMAS = [Hostile(f"PRAGMA {pragma}", status) for pragma, status in _PRAGMAS.items()]
PRAGMAS += [
    Hostile("EXPLAIN PRAGMA table_list", 403),
    Hostile("EXPLAIN QUERY PLAN PRAGMA integrity_check", 403),
    Hostile("pRaGmA/**/wRiTaBlE_sChEmA=1", 403),
    Hostile('PRAGMA "writable_schema" = 1', 403),
]

FILES = [
    Hostile("ATTACH 'other.db' AS other", 403),
    Hostile("attach database ':memory:' as other", 403),
    Hostile("/* */ ATTACH ? AS x", 403, ["/tmp/x"]),
    Hostile("SELECT 1; ATTACH '' AS other", 403),
    Hostile("EXPLAIN ATTACH 'x' AS y", 403),
    Hostile("DETACH main", 403),
    Hostile("VACUUM INTO '/tmp/copy.db'", 403),
    Hostile("VACUUM main INTO ?", 403, ["/tmp/copy.db"]),
    Hostile("vacuum/**/into 'copy'", 403),
    Hostile("SELECT 1; VACUUM INTO 'copy'", 403),
    Hostile("VACUUM", 400),
    Hostile("VACUUM main", 400),
    Hostile("SELECT load_extension('x')", 403),
    Hostile("SELECT load_extension('/lib/x.so', 'entry')", 403),
    Hostile("SELECT readfile('/etc/passwd')", 400),
    Hostile("SELECT writefile('/tmp/x', 'y')", 400),
    Hostile("SELECT edit('x', 'sh')", 400),
    Hostile("SELECT fsdir('/')", 400),
    Hostile("SELECT system('id')", 400),
    Hostile("SELECT eval('DROP TABLE notes')", 400),
    Hostile("SELECT fts3_tokenizer('simple')", 403),
    Hostile("SELECT fts3_tokenizer('x', x'0000000000000000')", 403),
    Hostile("SELECT fts5(?)", 403, [{"$base64": "AAAAAAAAAAA="}]),
    Hostile("SELECT sqlite_log(1, 'x')", 403),
    Hostile("SELECT sqlite_compileoption_get(1)", 403),
    Hostile("SELECT sqlite_rename_table(1, 2, 3, 4, 5, 6, 7)", 403),
    Hostile("SELECT sqlite_drop_column(1, 2, 3)", 403),
    Hostile("SELECT rtreenode(1, x'00')", 403),
    Hostile("SELECT geopoly_svg('[]')", 403),
    Hostile("SELECT snippet(notes) FROM notes", 403),
    Hostile("SELECT total_changes()", 403),
    Hostile("SELECT json_patch('{}', '{}')", 403),
    Hostile("CREATE TABLE bad(a, b AS (load_extension(a)))", 403),
    Hostile("CREATE TABLE bad(a DEFAULT (sqlite_log(1, 'x'))); INSERT INTO bad DEFAULT VALUES", 403),
    Hostile("CREATE TABLE bad(a CHECK (load_extension(a)))", 403),
    Hostile("CREATE INDEX bad ON notes(load_extension(body))", 403),
    Hostile("ALTER TABLE notes ADD COLUMN bad AS (load_extension(body))", 400),
    Hostile("CREATE TRIGGER bad AFTER INSERT ON numbers BEGIN SELECT load_extension('x'); END;"
            " INSERT INTO numbers VALUES (1)", 403),
    Hostile("CREATE INDEX bad ON notes((SELECT 1 FROM '__memoturn_kv'))", 400),
    Hostile("CREATE TABLE bad(a CHECK (a IN (SELECT key FROM '__memoturn_kv')))", 400),
    Hostile("CREATE TABLE bad(a, b AS ((SELECT key FROM '__memoturn_kv')))", 400),
]  # fmt: skip

_HEADS = ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE TRANSACTION", "COMMIT", "END", "END TRANSACTION", "ROLLBACK",
          "ROLLBACK TO job", "ROLLBACK TRANSACTION TO SAVEPOINT job", "SAVEPOINT x", "SAVEPOINT job", "RELEASE job",
          "RELEASE SAVEPOINT job"]  # fmt: skip
TRANSACTIONS = [Hostile(head, 400) for head in _HEADS]
TRANSACTIONS += [Hostile(f"SELECT 1; {head}", 400) for head in _HEADS]
TRANSACTIONS += [Hostile(f"DELETE FROM notes;;/* */{head.lower()};", 400) for head in _HEADS]
TRANSACTIONS += [
    Hostile("CREATE TRIGGER a AFTER INSERT ON notes BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END; COMMIT", 400),
    Hostile("EXPLAIN COMMIT", 400),
    Hostile("INSERT OR ROLLBACK INTO notes(id, body) VALUES (1, 'again')", 400),
    Hostile("CREATE TRIGGER a AFTER INSERT ON numbers BEGIN SELECT RAISE(ROLLBACK, 'out'); END;"
            " INSERT INTO numbers VALUES (1)", 400),
    Hostile("CREATE TEMP TABLE x(a)", 403),
    Hostile("CREATE TABLE temp.x(a)", 403),
    Hostile("CREATE TABLE main.a(b); CREATE TABLE 'temp'.x AS SELECT 1", 403),
    Hostile("CREATE VIEW temp.x AS SELECT 1", 403),
    Hostile("CREATE TRIGGER temp.x AFTER INSERT ON main.notes BEGIN SELECT 1; END", 403),
    Hostile("CREATE TEMP VIEW x AS SELECT 1", 403),
    Hostile("CREATE TEMP TRIGGER x AFTER INSERT ON '__memoturn_kv' BEGIN SELECT 1; END", 403),
    Hostile("CREATE TEMP TRIGGER x AFTER INSERT ON notes BEGIN SELECT 1; END", 403),
    Hostile("CREATE INDEX temp.x ON notes(body)", 400),
]  # fmt: skip

TEXTS = [
    Hostile("", 400),
    Hostile(" ;; -- nothing\n ; /* at all */", 400),
    Hostile("SELECT 'never closed", 400),
    Hostile('SELECT "never closed', 400),
    Hostile("SELECT `never closed", 400),
    Hostile("SELECT [never closed", 400),
    Hostile("SELECT x'0", 400),
    Hostile("SELECT x'0'", 400),
    Hostile("SELECT 1 /* never closed */ \\", 400),
    Hostile("SELECT 1\x00; SELECT * FROM '__memoturn_kv'", 400),
    Hostile("SELECT 1 {", 400),
    Hostile("SELECT $a(' , '__memoturn_kv'", 400),
    Hostile("SELECT :a('), * FROM \"__memoturn_kv\" --'", 400),
    Hostile("SELECT #1", 400),
    Hostile("SELECT 1abc", 400),
    Hostile("\ufeffSELECT * FROM\u00a0notes", 400),
    Hostile("SELEC 1", 400),
    Hostile("SELECT * FROM nowhere", 400),
    Hostile("SELECT nothing FROM notes", 400),
    Hostile('SELECT "a string?"', 400),
    Hostile("SELECT 1 REGEXP '(a+)+$'", 400),
    Hostile("SELECT 1 ORDER BY 'a' COLLATE nowhere", 400),
    Hostile("SELECT CAST(x'ff' AS TEXT)", 400),
    Hostile("SELECT char(0xD800)", 400),
    Hostile("SELECT 9e999", 400),
    Hostile("SELECT -9e999", 400),
    Hostile("SELECT abs(-9223372036854775807 - 1)", 400),
    Hostile("SELECT sum(9223372036854775807) FROM (SELECT 1 UNION ALL SELECT 2)", 400),
    Hostile("SELECT replace(x'ff', 'a', 'b')", 400),
]

_FOREVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"
_MILLION = "a" * 1_000_000
_VIEWS = "".join(
    f"CREATE VIEW v{level} AS SELECT a.a FROM v{level - 1} AS a, v{level - 1} AS b; " for level in range(1, 30)
)
_CTES = "".join(f", x{level} AS (SELECT a.a FROM x{level - 1} a, x{level - 1} b)" for level in range(1, 40))

RUNAWAYS = [
    Hostile(f"{_FOREVER} SELECT count(*) FROM r", 408),
    Hostile(f"{_FOREVER} SELECT count(*) FROM r AS a, r AS b", 408),
    Hostile(f"{_FOREVER} INSERT INTO numbers SELECT n FROM r WHERE n < 0", 408),
    Hostile("SELECT count(*) FROM many a, many b, many c, many d", 408),
]
"""Each takes the whole time budget."""

BOMBS = [
    Hostile("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 10001) SELECT n FROM r", 400),
    Hostile(f"{_FOREVER} SELECT hex(zeroblob(10000)) || n FROM r ORDER BY 1", 400),
    Hostile(f"{_FOREVER} SELECT randomblob(100000) FROM r", 400),
    Hostile(f"{_FOREVER} SELECT group_concat(hex(zeroblob(5000))) FROM (SELECT n FROM r LIMIT 50000)", 400),
    Hostile("SELECT zeroblob(1000000000)", 400),
    Hostile("SELECT zeroblob(9223372036854775807)", 400),
    Hostile("SELECT randomblob(1000000000)", 400),
    Hostile("SELECT hex(zeroblob(1500000))", 400),
    Hostile(f"SELECT {', '.join(['length(randomblob(2000000))'] * 40)}", 200),
    Hostile(f"SELECT {', '.join(['randomblob(2000000)'] * 140)}", 400),
    Hostile(f"SELECT {', '.join(['abs(1)'] * 600)}", 400),
    Hostile(f"SELECT {' OR '.join(['?1 LIKE ?2'] * 20)}", 400, ["a", "b"]),
    Hostile("SELECT ?1 LIKE ?2", 200, [_MILLION, "%" + "a%" * 60 + "b"]),
    Hostile("SELECT ?1 LIKE ?2", 200, [_MILLION, "%" + "_" * 120 + "b"]),
    Hostile("SELECT ?1 LIKE ?2", 400, [_MILLION, "%" * 200]),
    Hostile("SELECT ?1 GLOB ?2", 200, [_MILLION, "*" + "[^b]" * 31 + "b"]),
    Hostile("SELECT ?1 GLOB ?2", 400, [_MILLION, "*" * 200]),
    Hostile("SELECT instr(?1, ?2)", 400, [_MILLION, "a" * 500_000 + "b"]),
    Hostile("SELECT instr(zeroblob(2000000), zeroblob(1000000) || x'01')", 400),
    Hostile("SELECT replace(?1, ?2, '')", 400, [_MILLION, "a" * 500_000 + "b"]),
    Hostile("SELECT replace(?1, 'a', ?1)", 400, [_MILLION]),
    Hostile("SELECT trim(?1, ?2)", 400, [_MILLION, "b" * 100_000 + "a"]),
    Hostile("SELECT ltrim(?1, ?2)", 400, [_MILLION, "b" * 100_000 + "a"]),
    Hostile("SELECT rtrim(?1, ?2)", 400, [_MILLION, "b" * 100_000 + "a"]),
    Hostile("SELECT unhex(?1, ?2)", 400, ["-" * 1_000_000, "b" * 100_000 + "-"]),
    Hostile("SELECT format('%1000000000d', 1)", 400),
    Hostile("SELECT printf('%.*c', 1000000000, 'x')", 400),
    Hostile("SELECT printf('%.1000000000f', 1.5)", 400),
    Hostile(f"SELECT concat({', '.join(['?1'] * 60)})", 400, [_MILLION]),
    Hostile(f"SELECT json_array({', '.join(['?1'] * 60)})", 400, ["\x01" * 1_000_000]),
    Hostile(f"SELECT max({', '.join(['1'] * 100)})", 400),
    Hostile("SELECT json_pretty(?1, ?2)", 400, ["[" * 900 + "]" * 900, "a" * 400_000]),
    Hostile("SELECT json(?1)", 400, ["[" * 100_000]),
    Hostile("SELECT strftime(?1)", 400, ["%J" * 900_000]),
    Hostile("SELECT " + "(" * 5_000 + "1" + ")" * 5_000, 400),
    Hostile("SELECT " + "+".join(["1"] * 1_000), 400),
    Hostile("SELECT " + "NOT " * 5_000 + "1", 400),
    Hostile("SELECT " + "(SELECT " * 500 + "1" + ")" * 500, 400),
    Hostile("SELECT * FROM " + "(SELECT * FROM " * 3_000 + "notes" + ")" * 3_000, 400),
    Hostile(" UNION ".join(["SELECT 1"] * 501), 400),
    Hostile("SELECT * FROM " + ", ".join(f"notes AS n{index}" for index in range(70)), 400),
    Hostile("SELECT " + ", ".join(["1"] * 3_000), 400),
    Hostile("CREATE TABLE wide(" + ", ".join(f"c{index}" for index in range(3_000)) + ")", 400),
    Hostile("SELECT ?99999", 400, [1]),
    Hostile("SELECT '" + "a" * 3_000_000 + "'", 400),
    Hostile("SELECT 1 --" + "a" * 5_000_000, 400),
    Hostile(f"CREATE TABLE v0(a); {_VIEWS} SELECT * FROM v29", 400),
    Hostile(f"WITH x0 AS (SELECT 1 AS a) {_CTES} SELECT * FROM x39", 400),
    Hostile("CREATE TABLE loop(a); CREATE TRIGGER again AFTER INSERT ON loop BEGIN INSERT INTO loop VALUES (new.a + 1);"
            " END; INSERT INTO loop VALUES (1)", 200),
    Hostile("DROP TABLE loop", 200),
    Hostile("CREATE VIEW round AS SELECT * FROM round; SELECT * FROM round", 400),
    Hostile("WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a", 400),
]  # fmt: skip

HARMLESS = [
    Hostile("WITH '__memoturn_kv' AS (SELECT 1) SELECT * FROM '__memoturn_kv'", 200),
    Hostile("SELECT '__memoturn_memories'", 200),
    Hostile("INSERT INTO notes(body) VALUES ('SELECT * FROM __memoturn_memories; DROP TABLE sqlite_master')", 200),
    Hostile("SELECT 1 -- __memoturn_memories", 200),
    Hostile("SELECT 1 /* DROP TABLE __memoturn_kv */", 200),
    Hostile("SELECT * FROM notes WHERE body = '__memoturn_kv' OR body IN ('sqlite_master', 'ATTACH')", 200),
    Hostile("SELECT 1 IS DISTINCT FROM '__memoturn_kv'", 200),
    Hostile("SELECT ?", 200, ["__memoturn_kv"]),
    Hostile("SELECT :__memoturn_kv", 200, {"__memoturn_kv": 1}),
    Hostile("SELECT 1 AS memoturn, 2 AS _memoturn_x, 3 AS \"x__memoturn_\"", 200),
    Hostile("SELECT CASE WHEN 1 THEN 2 ELSE 3 END", 200),
    Hostile("SELECT 1 AS begin_at, 2 AS \"commit\", 3 AS rollbacks", 200),
    Hostile("CREATE TABLE attach(a); DROP TABLE attach", 200),
    Hostile("PRAGMA table_list", 200),
    Hostile("PRAGMA table_info(notes)", 200),
    Hostile("PRAGMA integrity_check", 200),
    Hostile("PRAGMA main.quick_check(3)", 200),
    Hostile("PRAGMA foreign_key_check", 200),
    Hostile("PRAGMA table_info('sqlite_master')", 200),
    Hostile("SELECT * FROM pragma_table_info('notes')", 200),
    Hostile("SELECT * FROM json_each('[1, 2]')", 200),
    Hostile("REINDEX notes", 200),
    Hostile("DELETE FROM sqlite_sequence", 200),
]  # fmt: skip

REFUSED = READS + WRITES + NAMES + SCHEMA + MODULES + PRAGMAS + FILES + TRANSACTIONS + TEXTS
