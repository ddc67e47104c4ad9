"""What the key-value store does not take, from a request or from a tool, and that it changes nothing."""

from __future__ import annotations

import pytest

from contract.kv import db as db
from contract.kv import delete, get, keys, listing, put, value
from contract.live_node import Memory, RawMcp

TOOLSETS = "all"


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
