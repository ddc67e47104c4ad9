"""Items 64 to 67, and 82 for what they keep: the key-value store."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from contract.branches import checkpoint, elsewhere, fork, ref, rewind, tool
from contract.kv import delete, get, keys, listing, put, value
from contract.live_node import Live, Memory, RawMcp, event, serve
from memoturn_core.address import Address
from memoturn_core.door import RemoteDoor
from memoturn_core.operations import Reply
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.tools import Defaults, as_tool
from memoturn_schemas.errors import InvalidRequest, NotFound
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.engine import Limits

TOOLSETS = "all"

EVERY_BYTE = bytes(range(256))
UNUSUAL_KEYS = ["a/b", "..", ".", "a b", "é", "日本🍵", "nul\0inside", "\0", "%2F", "a?b#c&d=e", "'\";--", "\U0010ffff"]


@pytest.fixture
def db(memory: Memory) -> Memory:
    """A profile that exists, at transaction 1."""
    memory.keep(event("Something"))
    return memory


# --- put, get, delete ----------------------------------------------------------------------------


def test_item_64_a_put_is_200_with_its_txid_whatever_the_content_type(db):
    for txid, kind in enumerate(["text/plain", "application/json", "application/octet-stream", "a/b; c=d"], 2):
        response = db.http.put(f"{db.database}/kv/n/k", content=b'{"not": json', headers={"Content-Type": kind})
        assert (response.status_code, response.json()) == (200, {"txid": txid})
        assert response.headers["Memoturn-Txid"] == str(txid)


@pytest.mark.parametrize(
    "body", [b"", b"\0", EVERY_BYTE, EVERY_BYTE * 300, b"null", "naïve 🦊".encode(), b"x" * 3_000_000]
)
def test_item_65_a_get_is_the_bytes_that_were_put_with_the_txid(db, body):
    assert put(db, "k", body).status_code == 200
    for _ in range(2):  # from the file, and from memory
        response = get(db, "k")
        assert (response.status_code, response.content) == (200, body)
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["Memoturn-Txid"] == "2"


def test_item_65_a_get_says_the_txid_of_the_newest_state_also_where_something_else_was_written(db):
    put(db, "k")
    assert get(db, "k").headers["Memoturn-Txid"] == "2"
    db.keep(event("Something else"))
    response = db.http.get(f"{db.database}/kv/n/k", headers={"Memoturn-Min-Txid": "3"})
    assert (response.status_code, response.headers["Memoturn-Txid"]) == (200, "3")
    response = db.http.get(f"{db.database}/kv/n/k", headers={"Memoturn-Min-Txid": "4"})
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


def test_item_65_a_missing_key_is_404(db):
    put(db, "k", ns="other")
    for _ in range(2):
        response = get(db, "k")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_item_65_an_expired_key_is_404_from_that_millisecond_on(db, live):
    put(db, "k", ttl=2)
    live.ambient.advance(seconds=1.999)
    assert value(db, "k") == b"value"
    live.ambient.advance(seconds=0.001)
    assert value(db, "k") is None


def test_item_65_ttl_0_expires_at_once(db):
    put(db, "k")
    assert value(db, "k") == b"value"
    assert put(db, "k", ttl=0).status_code == 200
    assert value(db, "k") is None
    assert keys(db) == []


def test_item_66_a_delete_is_204_also_when_absent(db):
    put(db, "k")
    for _ in range(2):
        response = delete(db, "k")
        assert (response.status_code, response.content, response.headers["Memoturn-Txid"]) == (204, b"", "3")
        assert value(db, "k") is None


def test_item_66_a_put_without_ttl_clears_an_old_one(db, live):
    put(db, "k", b"old", ttl=1)
    put(db, "k", b"new")
    put(db, "longer", ttl=1)
    put(db, "longer", ttl=3)
    live.ambient.advance(seconds=2)
    assert value(db, "k") == b"new"
    assert value(db, "longer") == b"value"


def test_a_key_comes_back_after_it_expired_when_it_is_put_again(db, live):
    put(db, "k", b"old", ttl=1)
    assert value(db, "k") == b"old"
    live.ambient.advance(seconds=1)
    assert value(db, "k") is None
    put(db, "k", b"new", ttl=10)
    assert value(db, "k") == b"new"


def test_the_longest_ttl_does_not_overflow(db):
    assert put(db, "k", ttl=10_000_000_000).status_code == 200
    assert value(db, "k") == b"value"


@pytest.mark.parametrize("key", UNUSUAL_KEYS)
def test_a_key_is_any_text_and_a_group_of_keys_too(db, key):
    for ns in ("n", key):
        assert put(db, key, key.encode(), ns).status_code == 200
        assert value(db, key, ns) == key.encode()
        assert keys(db, ns) == [key]
    assert put(db, key + "x", b"another").status_code == 200
    assert delete(db, key).status_code == 204
    assert keys(db) == [key + "x"]
    assert keys(db, key) == [key]


def test_keys_that_look_alike_are_different_keys(db):
    alike = ["a", "A", "a ", "a\0", "á", "a\u0301", "1", "01", "1.0"]
    for number, key in enumerate(alike):
        put(db, key, str(number).encode())
    assert [value(db, key) for key in alike] == [str(number).encode() for number in range(len(alike))]


def test_consistency_is_primary_or_cached(db):
    put(db, "k")
    for consistency in ("primary", "cached"):
        assert value(db, "k", consistency=consistency) == b"value"
        assert keys(db, consistency=consistency) == ["k"]
    for response in (get(db, "k", consistency="eventual"), listing(db, consistency="")):
        assert response.status_code == 400
        assert response.json()["error"].startswith("consistency: ")


def test_the_database_must_exist_below_db_and_a_first_put_below_a_profile_makes_it(memory):
    for response in (put(memory, "k"), get(memory, "k"), delete(memory, "k"), listing(memory)):
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    profile = memory.path
    for method, path in (("GET", "/kv/n/k"), ("GET", "/kv/n"), ("DELETE", "/kv/n/k")):
        assert memory.http.request(method, profile + path).status_code == 404
    assert not memory.exists
    assert memory.http.put(f"{profile}/kv/n/k", content=b"1").json() == {"txid": 1}
    assert value(memory, "k") == memory.http.get(f"{profile}/kv/n/k").content == b"1"


# --- listing -------------------------------------------------------------------------------------


def test_item_67_keys_are_sorted_by_their_bytes_and_those_of_other_groups_are_not_there(db):
    every = ["a", "B", "é", "\uffff", "\U00010000", "a/b", "a\0", "Z", "_", "~", "10", "9"]
    for key in every:
        put(db, key)
    put(db, "elsewhere", ns="m")
    response = listing(db)
    assert response.json() == {"keys": sorted(every, key=str.encode)}
    assert response.headers["Memoturn-Txid"] == str(len(every) + 2)


def test_item_67_the_expired_and_the_deleted_are_not_listed(db, live):
    put(db, "stays")
    put(db, "expires", ttl=1)
    put(db, "expires later", ttl=2)
    put(db, "goes")
    delete(db, "goes")
    live.ambient.advance(seconds=1)
    assert keys(db) == ["expires later", "stays"]
    assert keys(db, limit=1) == ["expires later"]


def test_item_67_an_unknown_group_is_empty(db):
    response = listing(db, "nothing")
    assert (response.status_code, response.json()) == (200, {"keys": []})


def test_item_67_limit_is_100_by_default_and_clamps_to_1_000(db, live):
    def fill(transaction: Any) -> None:
        transaction.connection.executemany(
            "INSERT INTO __memoturn_kv VALUES ('n', ?, NULL, x'')", [(f"{n:04}",) for n in range(1_001)]
        )

    live.node.engine.write(ref(live, db), fill).result()
    expected = [f"{n:04}" for n in range(1_001)]
    assert keys(db) == expected[:100]
    assert keys(db, limit=1_001) == keys(db, limit=10**9) == expected[:1_000]
    assert keys(db, limit=0) == keys(db, limit=-1) == expected[:1]


@pytest.mark.parametrize("prefix", ["", "a", "a%", "a_", "\0", "é", "\ud7ff", "\U0010ffff", "a\U0010ffff"])
def test_item_67_a_prefix_means_itself_whatever_it_holds(db, prefix):
    endings = ["", "\0", "b", "%", "\U0010ffff", "\U0010ffff\U0010ffff", "\U0010ffff" * 200]
    starts = ["", "a", "a%", "a_", "\0", "é", "\ud7ff", "\ue000", "\U0010ffff", "a\U0010ffff", "b", "ax"]
    every = {start + ending for start in starts for ending in endings} - {""}
    for key in every:
        put(db, key)
    expected = sorted(key for key in every if key.startswith(prefix))
    assert keys(db, prefix=prefix, limit=1_000) == expected


def pages(memory: Memory, **query: Any) -> Iterator[list[str]]:
    cursor: dict[str, str] = {}
    while True:
        page = listing(memory, **query, **cursor).json()
        yield page["keys"]
        if "next_cursor" not in page:
            return
        cursor = {"cursor": page["next_cursor"]}


def test_pages_hold_every_key_once_and_only_where_there_are_more_is_there_a_cursor(db):
    every = sorted([*UNUSUAL_KEYS, *(key + "\0" for key in UNUSUAL_KEYS), "x" * 1_024])
    for key in every:
        put(db, key)
    for limit in (1, 2, 5, len(every) - 1, len(every), len(every) + 1):
        found = list(pages(db, limit=limit))
        assert [key for page in found for key in page] == every
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert found[-1]


def test_pages_neither_skip_nor_repeat_the_keys_that_stay(db, live):
    for number in range(30):
        put(db, f"{number:02}")
    put(db, "05-expires", ttl=1)
    seen: list[str] = []
    for page in pages(db, limit=4):
        seen += page
        live.ambient.advance(seconds=1)
        last = int(page[-1][:2])
        delete(db, page[-1])  # the one that the cursor knows of
        put(db, f"{last:02}-before")
        put(db, f"{last + 1:02}-after")
        delete(db, f"{last + 2:02}")
    stayed = [key for key in keys(db, limit=1_000) if len(key) == 2]
    assert len(seen) == len(set(seen))
    assert set(stayed) <= set(seen)
    assert seen == sorted(seen)


def test_a_cursor_goes_on_within_the_prefix(db):
    for key in ("a1", "a2", "a3", "b1"):
        put(db, key)
    assert list(pages(db, prefix="a", limit=2)) == [["a1", "a2"], ["a3"]]
    cursor = listing(db, limit=3).json()["next_cursor"]
    assert keys(db, prefix="a", cursor=cursor) == []
    assert keys(db, prefix="b", cursor=listing(db, limit=1).json()["next_cursor"]) == ["b1"]


# --- bad input -----------------------------------------------------------------------------------


def refused(db: Memory, method: str, below: str, field: str, body: bytes = b"x") -> None:
    """400 naming the field, and nothing is changed."""
    response = db.http.request(method, f"{db.database}/kv/{below}", content=body if method == "PUT" else None)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request"), response.text
    assert response.json()["error"].startswith(f"{field}: "), response.text
    assert db.txid == 1
    assert keys(db) == []


@pytest.mark.parametrize(
    "ttl", ["-1", "10000000001", "1e999", "1.5", "soon", "", "nan", "9" * 5_000, "null", "1&ttl=2"]
)
def test_a_ttl_that_is_none_is_refused(db, ttl):
    refused(db, "PUT", f"n/k?ttl={ttl}", "ttl")


@pytest.mark.parametrize(
    ("method", "below", "field"),
    [
        ("PUT", "n/k?value=x", "value"),
        ("PUT", "n/k?key=x", "key"),
        ("PUT", "n/k?expires=1", "expires"),
        ("PUT", "n/k?consistency=primary", "consistency"),
        ("GET", "n/k?ttl=1", "ttl"),
        ("GET", "n/k?prefix=a", "prefix"),
        ("DELETE", "n/k?ttl=1", "ttl"),
        ("GET", "n?key=k", "key"),
        ("GET", "n?limit=many", "limit"),
        ("GET", "n?limit=1.5", "limit"),
        ("GET", "n?limit=", "limit"),
        ("PUT", "n/%FF", "key"),
        ("GET", "n/%C3%28", "key"),
        ("DELETE", "n/a%ED%A0%80", "key"),
        ("GET", "%FF/k", "ns"),
        ("GET", "%80", "ns"),
        ("PUT", "n/" + "k" * 1_025, "key"),
        ("PUT", "n/" + "%C3%A9" * 513, "key"),
        ("GET", "n" * 257 + "/k", "ns"),
        ("GET", "n" * 257, "ns"),
    ],
)
def test_what_is_no_request_is_refused(db, method, below, field):
    refused(db, method, below, field)


CURSORS = ["", "x", "====", "!!", "YQ==", "YR", "_w", "7aCA", "YQ YQ", "%00", "é", "Y" * 10_001, "null"]


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_cursor_that_nobody_gave_is_refused(db, cursor):
    response = listing(db, cursor=cursor)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["error"] == "cursor: must be the next_cursor of an earlier answer"


def test_the_longest_key_and_group_of_keys_are_taken(db):
    assert put(db, "é" * 512, b"1", "n" * 256).status_code == 200
    assert value(db, "é" * 512, "n" * 256) == b"1"


def test_an_empty_key_is_no_route(db):
    for response in (
        db.http.put(f"{db.database}/kv/n/", content=b"x"),
        db.http.put(f"{db.database}/kv//k", content=b"x"),
        db.http.get(f"{db.database}/kv/"),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    response = db.http.post(f"{db.database}/kv/n/k", content=b"x")
    assert (response.status_code, response.json()["code"]) == (405, "invalid_request")


def test_a_body_over_the_limit_is_413_and_one_of_32_mib_is_not(db):
    body = b"\x00\xff" * (16 << 20)
    over = put(db, "k", body + b"\0")
    assert (over.status_code, over.json()["code"]) == (413, "payload_too_large")
    assert value(db, "k") is None
    assert put(db, "k", body).status_code == 200
    assert get(db, "k").content == body
    assert delete(db, "k").status_code == 204


# --- branches (82) -------------------------------------------------------------------------------


def test_item_82_a_fork_has_the_keys_of_its_parent_and_then_neither_sees_the_others_writes(db):
    put(db, "both", b"as it was")
    put(db, "gone", b"soon")
    assert value(db, "both") == b"as it was"
    other = fork(db, "b")
    assert keys(db, branch="b") == ["both", "gone"]
    put(db, "both", b"on main")
    put(db, "both", b"on b", branch="b")
    put(db, "new", branch="b")
    delete(db, "gone")
    for _ in range(2):
        assert [value(db, key) for key in ("both", "gone", "new")] == [b"on main", None, None]
        assert [value(db, key, branch="b") for key in ("both", "gone", "new")] == [b"on b", b"soon", b"value"]
    assert other.txid == 5


def test_item_87_a_rewind_brings_back_what_a_key_held_and_when_it_expires(db, live):
    put(db, "k", b"first", ttl=100)
    put(db, "deleted")
    at = checkpoint(db, "c")
    put(db, "k", b"second")
    put(db, "new")
    delete(db, "deleted")
    assert [value(db, key) for key in ("k", "new", "deleted")] == [b"second", b"value", None]
    assert rewind(db, "c")["rewound_to"] == at == 3
    assert [value(db, key) for key in ("k", "new", "deleted")] == [b"first", None, b"value"]
    assert get(db, "k").headers["Memoturn-Txid"] == "3"
    live.ambient.advance(seconds=100)
    assert value(db, "k") is None


def test_a_branch_that_slept_has_what_it_had(live, tmp_path):
    with serve(tmp_path, limits=Limits(hot_cap=1, threads=1)) as small:
        one, other = small.memory(), small.memory()
        for memory in (one, other):
            memory.keep(event("Something"))
        for number in range(3):
            put(one, "k", f"one {number}".encode())
            put(other, "k", f"other {number}".encode())
            assert (value(one, "k"), value(other, "k")) == (f"one {number}".encode(), f"other {number}".encode())
        assert not small.node.engine.is_open(ref(small, one))


# --- other processes -----------------------------------------------------------------------------


def test_item_112_bytes_go_unchanged_to_and_from_the_process_that_owns_the_database(tmp_path: Path):
    ambient = ManualAmbient()
    with serve(tmp_path, ambient=ambient) as first, serve(tmp_path, ambient=ambient) as second:
        mine = first.memory()
        mine.keep(event("Something"))
        theirs = elsewhere(mine, second)
        for number, (key, body) in enumerate([("a/b", EVERY_BYTE), ("..", b""), ("é", "é".encode())], 2):
            assert put(theirs, key, body, ttl=10).json() == {"txid": number}
            assert value(theirs, key) == value(mine, key) == body
            assert get(theirs, key).headers["Memoturn-Txid"] == str(number)
        for here, there in (
            (listing(mine, limit=2), listing(theirs, limit=2)),
            (get(mine, "no"), get(theirs, "no")),
            (put(mine, "k", ttl=-1), put(theirs, "k", ttl=-1)),
        ):
            assert (here.status_code, here.json()) == (there.status_code, there.json())
        assert delete(theirs, "a/b").status_code == 204
        assert keys(mine) == keys(theirs) == ["..", "é"]
        ambient.advance(seconds=10)
        assert keys(mine) == keys(theirs) == []
        assert value(theirs, "é") is None
        assert not second.node.engine.is_open(ref(second, mine))


def ask(url: str, name: str, address: Address, **arguments: Any) -> Reply:
    async def main() -> Reply:
        door = RemoteDoor(url)
        try:
            return await door.call(OPERATIONS[name], address, arguments)
        finally:
            await door.close()

    return asyncio.run(main())


def test_another_program_uses_the_store_through_the_node(live):
    address = Address.of_profile("acme", "remote")
    encoded = {"$base64": base64.b64encode(EVERY_BYTE).decode()}
    for number, (key, sent, body) in enumerate(
        [("..", "naïve", "naïve".encode()), ("a/b", encoded, EVERY_BYTE), (".", b"\xff", b"\xff"), ("e", "", b"")], 1
    ):
        done = ask(live.url, "kv_put", address, ns=".", key=key, value=sent, ttl=None)
        assert (dict(done.value), done.txid) == ({"txid": number}, number)
        got = ask(live.url, "kv_get", address, ns=".", key=key)
        assert (got.value, got.txid) == ({"value": body}, number)
    page = ask(live.url, "kv_list", address, ns=".", limit=3).value
    assert page["keys"] == [".", "..", "a/b"]
    assert ask(live.url, "kv_list", address, ns=".", cursor=page["next_cursor"]).value == {"keys": ["e"]}
    assert ask(live.url, "kv_delete", address, ns=".", key="..").value == {"deleted": True}
    with pytest.raises(NotFound):
        ask(live.url, "kv_get", address, ns=".", key="..")
    for wrong in ({}, {"value": None}, {"value": 7}, {"value": {"$base64": "?"}}, {"value": "\ud800"}):
        with pytest.raises(InvalidRequest, match=r"^value: "):
            ask(live.url, "kv_put", address, ns=".", key="k", **wrong)
    with pytest.raises(InvalidRequest, match=r"^ttl: "):
        ask(live.url, "kv_put", address, ns=".", key="k", value="", ttl=-1)


# --- tools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "answered", "body"),
    [
        ("naïve 🦊", "naïve 🦊", "naïve 🦊".encode()),
        ("", "", b""),
        ('{"a": 1}', '{"a": 1}', b'{"a": 1}'),
        ({"$base64": "/wA="}, {"$base64": "/wA="}, b"\xff\0"),
        ({"$base64": "bmHDr3Zl"}, "naïve", "naïve".encode()),
        ({"$base64": ""}, "", b""),
    ],
)
def test_a_tool_gives_and_takes_text_or_base64(memory, mcp: RawMcp, given, answered, body):
    assert tool(mcp, memory, "kv_put", ns="n", key="k", value=given) == {"txid": 1, "result": {}}
    assert value(memory, "k") == body
    assert tool(mcp, memory, "kv_get", ns="n", key="k") == {"txid": 1, "result": {"found": True, "value": answered}}


def test_tools_say_what_is_not_there(memory, mcp: RawMcp):
    absent = {"txid": None, "result": {"found": False}}
    assert tool(mcp, memory, "kv_get", ns="n", key="k") == absent
    assert not memory.exists
    tool(mcp, memory, "kv_put", ns="n", key="k", value="v", ttl=5)
    assert tool(mcp, memory, "kv_get", ns="n", key="other") == absent
    for _ in range(2):
        assert tool(mcp, memory, "kv_delete", ns="n", key="k") == {"txid": 2, "result": {"deleted": True}}
    assert tool(mcp, memory, "kv_list", ns="n") == {"txid": 2, "result": {"keys": []}}


def test_tools_list_page_by_page(memory, mcp: RawMcp):
    for key in ("a", "b", "c"):
        tool(mcp, memory, "kv_put", ns="n", key=key, value=key)
    page = tool(mcp, memory, "kv_list", ns="n", limit=2)["result"]
    assert page["keys"] == ["a", "b"]
    rest = tool(mcp, memory, "kv_list", ns="n", limit=2, cursor=page["next_cursor"])
    assert rest["result"] == {"keys": ["c"]}


@pytest.mark.parametrize("value", ["text", "", {"$base64": "/wA="}])
def test_tools_take_and_answer_what_their_schemas_say(memory, mcp: RawMcp, value):
    asked: list[tuple[str, dict[str, Any]]] = [
        ("kv_put", {"key": "k", "value": value, "ttl": 0}),
        ("kv_get", {"key": "k"}),
        ("kv_put", {"key": "k", "value": value}),
        ("kv_put", {"key": "l", "value": value}),
        ("kv_get", {"key": "k", "consistency": "primary"}),
        ("kv_list", {"limit": 1, "prefix": ""}),
        ("kv_list", {}),
        ("kv_delete", {"key": "k"}),
    ]
    for name, arguments in asked:
        described = as_tool(OPERATIONS[name], Defaults())
        given = {"namespace": memory.namespace, "profile": memory.profile, "ns": "n", **arguments}
        Draft202012Validator.check_schema(described.input_schema)
        assert described.output_schema is not None
        Draft202012Validator.check_schema(described.output_schema)
        Draft202012Validator(described.input_schema).validate(given)
        Draft202012Validator(described.output_schema).validate(tool(mcp, memory, name, ns="n", **arguments))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({}, "value"),
        ({"value": None}, "value"),
        ({"value": 7}, "value"),
        ({"value": ["a"]}, "value"),
        ({"value": {"a": 1}}, "value"),
        ({"value": {"$base64": "YQ", "more": 1}}, "value"),
        ({"value": {"$base64": "YQ"}}, "value"),
        ({"value": {"$base64": "ü"}}, "value"),
        ({"value": {"$base64": 7}}, "value"),
        ({"value": "v", "ttl": "5"}, "ttl"),
        ({"value": "v", "ttl": -1}, "ttl"),
        ({"value": "v", "ttl": 1e300}, "ttl"),
        ({"value": "v", "key": ""}, "key"),
        ({"value": "v", "ns": ""}, "ns"),
        ({"value": "v", "ns": "é" * 129}, "ns"),
        ({"value": "v", "key": 5}, "key"),
        ({"value": "v", "response_format": "detailed"}, "response_format"),
    ],
)
def test_a_tool_refuses_what_is_no_value_and_makes_no_profile(memory, mcp: RawMcp, wrong, field):
    arguments = {"namespace": memory.namespace, "profile": memory.profile, "ns": "n", "key": "k", **wrong}
    called = mcp.call("kv_put", **arguments)
    assert called["isError"] is True
    assert called["_meta"]["code"] == "invalid_request"
    assert called["_meta"]["error"].startswith(f"{field}: "), called
    assert not memory.exists


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"$base64": "\udfff"}'])
def test_a_tool_refuses_half_a_character(memory, mcp: RawMcp, text):
    where = f'"namespace": "{memory.namespace}", "profile": "{memory.profile}", "ns": "n"'
    for arguments in (f'{{{where}, "key": "k", "value": {text}}}', f'{{{where}, "key": "a\\ud800", "value": ""}}'):
        response = mcp.call_text("kv_put", arguments)
        assert response.status_code in (200, 400)
        assert "internal" not in response.text
    assert not memory.exists


# --- whatever is sent ----------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(ns=texts, key=texts, body=st.binary(max_size=300), prefix=st.integers(0, 40))
def test_whatever_text_the_key_is_and_whatever_bytes_the_value_they_come_back(live: Live, ns, key, body, prefix):
    memory = Memory(live.http, "acme", "any")
    assert memory.http.put(f"{memory.path}/kv/x/x", content=b"").status_code == 200
    assert put(memory, key, body, ns).status_code == 200
    assert value(memory, key, ns) == body
    assert key in keys(memory, ns, prefix=key[:prefix], limit=1_000)
    assert delete(memory, key, ns).status_code == 204
    assert value(memory, key, ns) is None
    assert key not in keys(memory, ns, limit=1_000)


def test_on_a_durable_node_too_a_read_sees_the_last_write(tmp_path: Path):
    with serve(tmp_path, durable=True) as live:
        memory = live.memory()
        memory.keep(event("Something"))
        for number in range(3):
            assert put(memory, "k", str(number).encode()).status_code == 200
            assert value(memory, "k") == value(memory, "k") == str(number).encode()
