"""Items 64 to 67 and 112 by other ways in: another process, another program, and the tools."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from contract.branches import elsewhere, ref, tool
from contract.kv import EVERY_BYTE, delete, get, keys, listing, put, value
from contract.live_node import RawMcp, event, serve
from memoturn_core.address import Address
from memoturn_core.door import RemoteDoor
from memoturn_core.operations import Reply
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.tools import Defaults, as_tool
from memoturn_schemas.errors import InvalidRequest, NotFound
from memoturn_storage.ambient import ManualAmbient

TOOLSETS = "all"


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
