"""Arguments and bodies that no well-behaved client sends are refused by name, write nothing and harm nobody.

Fields that do not exist or have the wrong type, text that is no JSON, bodies that are too long or too short:
each goes to the same node through REST and, where MCP can carry it, through MCP.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import NamedTuple

import pytest

from contract.bad_input import ROUTES, addressed, names, refusal, refused, unharmed
from contract.live_node import Live, event, message_of

TOOLSETS = "all"
LIMIT = 32 * 1024 * 1024


class Case(NamedTuple):
    """An operation's arguments as JSON text, and the path of what is wrong with them."""

    name: str
    tool: str
    arguments: str
    field: str


def item(name: str, fields: str, field: str) -> Case:
    """An ingest whose second item has these fields."""
    arguments = f'{{"memories": [{{"type": "event", "summary": "Good"}}, {{{fields}}}]}}'
    return Case(f"item: {name}", "memory_ingest", arguments, f"memories[1].{field}")


def recall(name: str, fields: str, field: str) -> Case:
    return Case(f"recall: {name}", "memory_recall", f"{{{fields}}}", field)


EVENT = '"type": "event", "summary": "Met Ann"'
DEEP = "[" * 101 + "]" * 101
DEEP_OBJECT = '{"a": ' * 101 + "1" + "}" * 101

CASES = [
    # --- fields that do not exist, are missing, or have the wrong type
    Case("ingest: unknown field", "memory_ingest", '{"memories": [], "memorys": []}', "memorys"),
    Case("ingest: no memories", "memory_ingest", "{}", "memories"),
    Case("ingest: memories an object", "memory_ingest", '{"memories": {"type": "event"}}', "memories"),
    Case("ingest: memories a string", "memory_ingest", '{"memories": "Met Ann"}', "memories"),
    Case("ingest: memories null", "memory_ingest", '{"memories": null}', "memories"),
    Case("ingest: an item a string", "memory_ingest", '{"memories": ["Met Ann"]}', "memories[0]"),
    Case("ingest: an item null", "memory_ingest", '{"memories": [null]}', "memories[0]"),
    Case("ingest: an item a list", "memory_ingest", '{"memories": [[]]}', "memories[0]"),
    item("unknown field", f'{EVENT}, "sumary": "x"', "sumary"),
    item("empty field name", f'{EVENT}, "": "x"', ""),
    item("a field of the answer", f'{EVENT}, "id": "mem_{"0" * 32}"', "id"),
    item("summary a number", '"type": "event", "summary": 7', "summary"),
    item("summary null", '"type": "event", "summary": null', "summary"),
    item("summary a list", '"type": "event", "summary": ["x"]', "summary"),
    item("type a number", '"type": 1, "summary": "x"', "type"),
    item("type in upper case", '"type": "EVENT", "summary": "x"', "type"),
    item("topic a number", '"type": "fact", "summary": "x", "topic_key": 7', "topic_key"),
    item("keywords a list", f'{EVENT}, "keywords": ["a", "b"]', "keywords"),
    item("session a number", f'{EVENT}, "session_id": 7', "session_id"),
    item("session empty", f'{EVENT}, "session_id": ""', "session_id"),
    item("session of 257 bytes", f'{EVENT}, "session_id": "{"s" * 257}"', "session_id"),
    item("session of 129 two-byte letters", f'{EVENT}, "session_id": "{"é" * 129}"', "session_id"),
    item("source a truth value", f'{EVENT}, "source": true', "source"),
    item("ttl a string", '"type": "task", "summary": "x", "ttl": "60"', "ttl"),
    item("ttl a fraction", '"type": "task", "summary": "x", "ttl": 1.5', "ttl"),
    item("ttl a truth value", '"type": "task", "summary": "x", "ttl": true', "ttl"),
    item("ttl negative", '"type": "task", "summary": "x", "ttl": -1', "ttl"),
    item("ttl beyond all calendars", f'"type": "task", "summary": "x", "ttl": {10**30}', "ttl"),
    recall("unknown field", '"query": "x", "limit": 3', "limit"),
    recall("k a string", '"query": "x", "k": "8"', "k"),
    recall("k null", '"query": "x", "k": null', "k"),
    recall("k a truth value", '"query": "x", "k": true', "k"),
    recall("k a fraction", '"query": "x", "k": 1.5', "k"),
    recall("k a list", '"query": "x", "k": [8]', "k"),
    recall("k beyond floats", '"query": "x", "k": 1e400', "k"),
    recall("query a number", '"query": 7', "query"),
    recall("query a list", '"query": ["x"]', "query"),
    recall("topic a number", '"topic_key": 7', "topic_key"),
    recall("types a string", '"query": "x", "types": "fact"', "types"),
    recall("types of numbers", '"query": "x", "types": [1]', "types[0]"),
    recall("a type unknown", '"query": "x", "types": ["fact", "opinion"]', "types[1]"),
    recall("source a number", '"query": "x", "source": 7', "source"),
    recall("session of 257 bytes", f'"query": "x", "session_id": "{"s" * 257}"', "session_id"),
    recall("include_turns a string", '"query": "x", "include_turns": "true"', "include_turns"),
    recall("include_superseded a number", '"query": "x", "include_superseded": 1', "include_superseded"),
    recall("fusion unknown", '"query": "x", "fusion": "borda"', "fusion"),
    recall("since a string", '"query": "x", "since": "2024-01-01"', "since"),
    Case("append: no role", "memory_append", '{"content": "Hi"}', "role"),
    Case("append: role empty", "memory_append", '{"role": "", "content": "Hi"}', "role"),
    Case("append: role a number", "memory_append", '{"role": 1, "content": "Hi"}', "role"),
    Case("append: no content", "memory_append", '{"role": "user"}', "content"),
    Case("append: content an object", "memory_append", '{"role": "user", "content": {}}', "content"),
    Case("append: unknown field", "memory_append", '{"role": "user", "content": "Hi", "seq": 1}', "seq"),
    Case("append: a string", "memory_append", '{"role": "user", "content": "", "embedding": ["1"]}', "embedding[0]"),
    Case("search: no vector", "memory_search", "{}", "vector"),
    Case("search: an empty vector", "memory_search", '{"vector": []}', "vector"),
    Case("search: a vector with null", "memory_search", '{"vector": [1, null]}', "vector[1]"),
    Case("search: k a string", "memory_search", '{"vector": [1], "k": "5"}', "k"),
    Case("extract: turns an object", "memory_extract", '{"turns": {}}', "turns"),
    Case("extract: a turn without role", "memory_extract", '{"turns": [{"content": "Hi"}]}', "turns[0].role"),
    Case(
        "extract: dry_run a string",
        "memory_extract",
        '{"turns": [{"role": "user", "content": "Hi"}], "dry_run": "no"}',
        "dry_run",
    ),
    Case("ask: question a number", "memory_ask", '{"question": 42}', "question"),
    Case("ask: k a string", "memory_ask", '{"question": "Where?", "k": "8"}', "k"),
    # --- numbers and nesting that JSON text can hold and a memory cannot
    item("embedding with a string", f'{EVENT}, "embedding": [1, "2"]', "embedding[1]"),
    item("embedding with a truth value", f'{EVENT}, "embedding": [true]', "embedding[0]"),
    item("embedding with null", f'{EVENT}, "embedding": [1, 2, null]', "embedding[2]"),
    item("embedding of embeddings", f'{EVENT}, "embedding": [[1, 2]]', "embedding[0]"),
    item("embedding a string", f'{EVENT}, "embedding": "1, 2"', "embedding"),
    item("embedding an object", f'{EVENT}, "embedding": {{"0": 1}}', "embedding"),
    item("embedding beyond floats", f'{EVENT}, "embedding": [0, 1e400]', "embedding[1]"),
    item("embedding below floats", f'{EVENT}, "embedding": [-1e400]', "embedding[0]"),
    item("embedding beyond float32", f'{EVENT}, "embedding": [0, 3.5e38]', "embedding[1]"),
    item("embedding below float32", f'{EVENT}, "embedding": [-3.5e38]', "embedding[0]"),
    item("embedding of a huge integer", f'{EVENT}, "embedding": [{10**39}]', "embedding[0]"),
    item("embedding of 65 537 numbers", f'{EVENT}, "embedding": [{"0," * 65_536}0]', "embedding"),
    recall("embedding beyond float32", '"embedding": [1e39]', "embedding[0]"),
    recall("embedding beyond floats", '"embedding": [1e400]', "embedding[0]"),
    recall("embedding with a string", '"embedding": ["1"]', "embedding[0]"),
    item("content beyond floats", f'{EVENT}, "content": 1e400', "content"),
    item("content below floats within", f'{EVENT}, "content": {{"a": [1, {{"b": -1e400}}]}}', "content"),
    item("content 101 lists deep", f'{EVENT}, "content": {DEEP}', "content"),
    item("content 101 objects deep", f'{EVENT}, "content": {DEEP_OBJECT}', "content"),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@each_case
def test_bad_arguments_are_refused_over_rest_by_the_path_of_the_field(live, case):
    with unharmed(live) as profiles:
        for memory in profiles:
            refused(live.http.post(memory.path + ROUTES[case.tool], content=case.arguments.encode()), case.field)


@each_case
def test_bad_arguments_are_refused_over_mcp_by_the_path_of_the_field(live, mcp, case):
    with unharmed(live) as profiles:
        for memory in profiles:
            arguments = addressed(memory, case.tool, case.arguments)
            envelope = refusal(message_of(mcp.call_text(case.tool, arguments)))
            assert envelope["code"] == "invalid_request"
            assert names(envelope["error"], case.field), envelope["error"]


# --- text that is no JSON ------------------------------------------------------------------------

NO_JSON = {
    "broken": b'{"memories": [',
    "a comma too many": b'{"memories": [],}',
    "single quotes": b"{'memories': []}",
    "a comment": b'{"memories": []} // done',
    "two documents": b'{"memories": []}{"memories": []}',
    "a byte order mark": b'\xef\xbb\xbf{"memories": []}',
    "UTF-16": '{"memories": []}'.encode("utf-16"),
    "invalid UTF-8": b'{"memories": [{"type": "event", "summary": "\xff\xfe"}]}',
    "overlong UTF-8": b'{"memories": [{"type": "event", "summary": "\xc0\xaf"}]}',
    "a surrogate in UTF-8": b'{"memories": [{"type": "event", "summary": "\xed\xa0\x80"}]}',
    "a raw control character": b'{"memories": [{"type": "event", "summary": "a\x00b"}]}',
    "a lone high surrogate": rb'{"memories": [{"type": "event", "summary": "\ud800"}]}',
    "a lone low surrogate": rb'{"memories": [{"type": "event", "summary": "\udc00 x"}]}',
    "a lone surrogate in content": rb'{"memories": [{"type": "event", "summary": "x", "content": {"a": ["\ud83d"]}}]}',
    "a lone surrogate as key": rb'{"memories": [{"type": "event", "summary": "x", "content": {"\ud83d": 1}}]}',
    "an integer of 5 000 digits": b'{"memories": [{"type": "event", "summary": "x", "content": %s}]}' % (b"9" * 5_000),
    "100 000 lists": b'{"memories": [{"type": "event", "summary": "x", "content": %s}]}'
    % (b"[" * 100_000 + b"]" * 100_000),
    "100 000 objects": b'{"memories": [{"type": "event", "summary": "x", "content": %s}]}'
    % (b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "100 000 lists that do not end": b'{"memories": ' + b"[" * 100_000,
    "100 000 lists as a field": b'{"memories": %s}' % (b"[" * 100_000 + b"]" * 100_000),
}
each_no_json = pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
NOT_NUMBERS = ["NaN", "Infinity", "-Infinity"]


@each_no_json
def test_a_body_that_is_no_json_is_refused_over_rest(live, body):
    with unharmed(live) as profiles:
        for memory in profiles:
            response = live.http.post(f"{memory.path}/memories", content=body)
            refused(response, "")
            assert "JSON" in response.json()["error"]


@each_no_json
def test_a_body_that_is_no_json_is_a_parse_error_over_mcp(live, mcp, body):
    with unharmed(live) as profiles:
        for memory in profiles:
            address = f'{{"namespace": "{memory.namespace}", "profile": "{memory.profile}", '.encode()
            head = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "memory_ingest", '
            response = mcp.post(head + b'"arguments": ' + address + body.removeprefix(b"{") + b"}}")
            assert response.status_code == 400, response.text[:300]
            assert response.json()["error"]["code"] in (-32700, -32600)


@pytest.mark.parametrize("literal", NOT_NUMBERS)
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ('"embedding": [1, {}]', "embedding[1]"),
        ('"content": {}', "content"),
        ('"content": {{"a": [{}]}}', "content"),
        ('"ttl": {}', "ttl"),
    ],
)
def test_nan_and_infinities_are_refused_on_both_surfaces(live, mcp, literal, fields, field):
    body = f'{{"memories": [{{"type": "task", "summary": "x", {fields.format(literal)}}}]}}'
    with unharmed(live) as profiles:
        for memory in profiles:
            response = live.http.post(f"{memory.path}/memories", content=body)
            refused(response, "")
            envelope = refusal(message_of(mcp.call_text("memory_ingest", addressed(memory, "memory_ingest", body))))
            assert envelope["code"] == "invalid_request"
            assert names(envelope["error"], f"memories[0].{field}"), envelope["error"]


@pytest.mark.parametrize("body", [b"[]", b'[{"memories": []}]', b"7", b'"memories"', b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(live, mcp, body):
    with unharmed(live) as profiles:
        for memory in profiles:
            for route in ROUTES.values():
                response = live.http.post(memory.path + route, content=body)
                refused(response, "")
                assert "object" in response.json()["error"]
        if body != b"null":
            message = mcp.call_text("memory_ingest", body.decode())
            assert message_of(message)["error"]["code"] == -32602


@pytest.mark.parametrize("body", [b"", b"  \n"])
@pytest.mark.parametrize(
    ("route", "field"),
    [
        ("/memories", "memories"),
        ("/sessions/s/turns", "role"),
        ("/sessions/s/search", "vector"),
        ("/extract", "turns"),
        ("/ask", "question"),
    ],
)
def test_an_empty_body_lacks_the_required_field(live, route, field, body):
    with unharmed(live) as profiles:
        for memory in profiles:
            refused(live.http.post(memory.path + route, content=body), field)


def test_a_call_without_arguments_lacks_the_required_address(live, mcp):
    with unharmed(live):
        for tool in ROUTES:
            for arguments in ("", ', "arguments": null', ', "arguments": {}'):
                head = f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {{"name": "{tool}"'
                envelope = refusal(message_of(mcp.post(head + arguments + "}}")))
                assert envelope["code"] == "invalid_request"
                assert names(envelope["error"], "namespace")


def test_a_call_of_an_unknown_tool_is_a_protocol_error_that_names_it(live, mcp):
    with unharmed(live):
        for tool in ("memory_drop", "", "MEMORY_RECALL", "memory_recall ", "../memory_recall"):
            error = message_of(mcp.call_text(tool, "{}"))["error"]
            assert error["code"] == -32602
            assert repr(tool) in error["message"]


# --- bodies that are too long or too short -------------------------------------------------------


def test_a_body_of_33_mib_with_its_length_is_413(live, mcp):
    body = b'{"memories": [{"type": "event", "summary": "%s"}]}' % (b"x" * (33 * 1024 * 1024))
    with unharmed(live) as profiles:
        for memory in profiles:
            response = live.http.post(f"{memory.path}/memories", content=body)
            assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
            assert str(LIMIT) in response.json()["error"]
        assert mcp.post(body).status_code == 413


def test_a_body_of_33_mib_in_chunks_is_413(live, mcp):
    with unharmed(live) as profiles:
        for memory in profiles:
            response = live.http.post(f"{memory.path}/memories", content=(b"x" * 2**20 for _ in range(33)))
            assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
        response = live.http.post("/mcp", content=(b" " * 2**20 for _ in range(33)), headers=mcp.headers)
        assert response.status_code == 413


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_413(live, memory, chunked):
    body = json.dumps({"memories": [event("Met Ann")]}).encode()
    for length, status in ((LIMIT + 1, 413), (LIMIT, 201)):
        padded = body + b" " * (length - len(body))
        content = (padded[at : at + 2**20] for at in range(0, length, 2**20)) if chunked else padded
        assert live.http.post(f"{memory.path}/memories", content=content).status_code == status
    assert memory.txid == 1


@pytest.mark.parametrize("length", ["99999999999999999999", "9" * 5_000, "-1", "many"])
def test_a_length_that_is_a_lie_is_refused(live, length):
    with unharmed(live) as (used, _):
        status = exchange(live, f"POST {used.path}/memories HTTP/1.1", f"Content-Length: {length}", b'{"memories": []}')
        assert status in (b"HTTP/1.1 400", b"HTTP/1.1 413")


def test_a_truncated_body_writes_nothing(live):
    whole = json.dumps({"memories": [event("Met Ann")]}).encode()
    with unharmed(live) as profiles:
        for memory in profiles:
            line = f"POST {memory.path}/memories HTTP/1.1"
            for sent in (b"", whole[:20], whole):
                assert exchange(live, line, f"Content-Length: {len(whole) + 1}", sent) in (b"", b"HTTP/1.1 400")
            chunk = b"%x\r\n%s\r\n" % (len(whole), whole)
            assert exchange(live, line, "Transfer-Encoding: chunked", chunk) in (b"", b"HTTP/1.1 400")


def exchange(live: Live, request_line: str, header: str, body: bytes) -> bytes:
    """Send one request, end the connection's sending side, and read to its end: the first 12 bytes."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(f"{request_line}\r\nHost: 127.0.0.1\r\n{header}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                received += part
        return received[:12]
