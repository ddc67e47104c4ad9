"""Items 64 to 67, and 82 for what they keep: the key-value store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.branches import checkpoint, fork, ref, rewind
from contract.kv import EVERY_BYTE, delete, get, keys, listing, put, value
from contract.kv import db as db
from contract.live_node import Live, Memory, event, serve
from memoturn_storage.engine import Limits

UNUSUAL_KEYS = ["a/b", "..", ".", "a b", "é", "日本🍵", "nul\0inside", "\0", "%2F", "a?b#c&d=e", "'\";--", "\U0010ffff"]


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
