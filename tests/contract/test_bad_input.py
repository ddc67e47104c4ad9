"""Input that no well-behaved client sends: it is refused by name, writes nothing and harms nobody.

Each case goes to the same node through REST and through MCP. The client itself judges every error of
REST (`live_node.assert_envelope`); `unharmed` looks at what the input may have left behind.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from contract.live_node import Live, Memory, RawMcp, assert_envelope, event, fact, message_of, serve

LIMIT = 32 * 1024 * 1024


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A node that lists every tool."""
    with serve(tmp_path_factory.mktemp("node"), toolsets="all") as served:
        yield served


@pytest.fixture(scope="module")
def mcp(live: Live) -> RawMcp:
    return RawMcp(live.http)


@contextlib.contextmanager
def unharmed(live: Live) -> Iterator[tuple[Memory, Memory]]:
    """A used and an unused profile that are, after the block, as they were, on a node that still serves."""
    used, unused = live.memory(), live.memory()
    [kept] = used.keep(fact("user.city", "Lives in Oslo", session_id="s"))
    before = (used.get(kept["id"]).json(), used.sessions().json())
    yield used, unused
    assert live.http.get("/health").text == "ok"
    assert used.txid == 1
    assert (used.get(kept["id"]).json(), used.sessions().json()) == before
    assert live.http.get(f"/v1/memory/{unused.namespace}").json()["profiles"] == []
    assert used.keep(event("Still serving"))[0]["status"] == "created"
    assert used.txid == 2


def refused(response: httpx.Response, field: str) -> None:
    """400, and the message names the field by its path; an empty path stands for the request as a whole."""
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request"), response.text[:500]
    assert names(response.json()["error"], field), response.json()["error"]


def names(error: str, field: str) -> bool:
    return any(fault.startswith(f"{field}: " if field else "") for fault in error.split("; "))


class Case(NamedTuple):
    """An operation's arguments as JSON text, and the path of what is wrong with them."""

    name: str
    tool: str
    arguments: str
    field: str


ROUTES = {
    "memory_ingest": "/memories",
    "memory_recall": "/recall",
    "memory_append": "/sessions/s/turns",
    "memory_search": "/sessions/s/search",
    "memory_extract": "/extract",
    "memory_ask": "/ask",
}


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


def addressed(memory: Memory, tool: str, arguments: str) -> str:
    """The arguments with the profile's address, and the session where the route has it in its path."""
    given = {"namespace": memory.namespace, "profile": memory.profile}
    if "/sessions/s/" in ROUTES[tool]:
        given["session"] = "s"
    rest = arguments.removeprefix("{")
    return json.dumps(given)[:-1] + ("" if rest == "}" else ", ") + rest


def refusal(message: dict[str, Any]) -> dict[str, str]:
    """The envelope of a tool's error: as text and as `_meta`, and no structured content beside it."""
    result = message["result"]
    assert result["isError"] is True
    assert "structuredContent" not in result
    [content] = result["content"]
    envelope: dict[str, str] = json.loads(content["text"])
    assert set(envelope) == {"error", "code"}
    assert {name: result["_meta"][name] for name in envelope} == envelope
    return envelope


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


def test_an_address_of_the_wrong_type_is_refused_over_mcp(live, mcp):
    with unharmed(live) as (used, _):
        good = {"namespace": used.namespace, "profile": used.profile, "query": "Oslo"}
        for field, value in (
            ("namespace", 7), ("namespace", ["a"]), ("namespace", ""), ("profile", True), ("profile", {}),
            ("profile", ""), ("branch", 1), ("branch", "a b"), ("branch", "../main"), ("response_format", "long"),
        ):  # fmt: skip
            result = mcp.call("memory_recall", **{**good, field: value})
            assert names(refusal({"result": result})["error"], field)
        unknown = refusal({"result": mcp.call("memory_recall", **good, branch="nope")})
        assert unknown["code"] == "branch_not_found"


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


# --- names ---------------------------------------------------------------------------------------

TRAVERSAL = [
    "..", ".", "%2e%2e", "%2E%2E", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc", "a%2fb", "a%2f..%2fb", "a%5cb",
    "..%5c..", "a%00b", "%00", "a%0ab", "a%0a", "a%0db", "%252e%252e", "Acme", "ACME", "a" * 65, "a" * 10_000, "a--b",
    "a-", "-a", "_a", "a.b", "a%20b", "a%3fb", "a%23b", "a@main", "caf%c3%a9", "%ff", "%c0%ae%c0%ae", "%ed%a0%80",
    "%f0%9f%8d%b5", "~", "*", "%25", "a;b", "a:b", "%e2%80%ae",
]  # fmt: skip


def ask_literally(live: Live, method: str, path: str, body: str | None) -> tuple[int, dict[str, Any]]:
    """Send a path as it stands, which httpx would tidy; the status and the envelope."""
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        raw = response.read()
        headers = {"content-type": response.headers["content-type"]}
        request = httpx.Request(method, live.url)
        judged = httpx.Response(response.status, content=raw, headers=headers, request=request)
        assert response.headers["memoturn-request-id"], f"no request id: {path!r} -> {response.status} {raw[:200]!r}"
        assert_envelope(judged)
        return response.status, judged.json()
    finally:
        connection.close()


@pytest.mark.parametrize("name", TRAVERSAL)
def test_a_bad_name_in_a_path_is_400_names_its_part_and_makes_nothing(live, tmp_path_factory, name):
    body = json.dumps({"memories": [event("Met Ann")]})
    with unharmed(live) as (used, _):
        files = set(tmp_path_factory.getbasetemp().rglob("*.db"))
        for method, path, field in (
            ("POST", f"/v1/memory/{name}/{used.profile}/memories", "namespace"),
            ("POST", f"/v1/memory/{used.namespace}/{name}/memories", "profile"),
            ("POST", f"/v1/memory/{used.namespace}/{name}/recall", "profile"),
            ("GET", f"/v1/memory/{used.namespace}/{name}/sessions", "profile"),
            ("GET", f"/v1/memory/{name}", "namespace"),
        ):
            status, envelope = ask_literally(live, method, path, body if method == "POST" else None)
            assert (status, envelope["code"]) == (400, "invalid_request"), f"{path} -> {envelope}"
            assert names(envelope["error"], field), envelope["error"]
        assert set(tmp_path_factory.getbasetemp().rglob("*.db")) == files
        profiles = live.http.get(f"/v1/memory/{used.namespace}").json()["profiles"]
        assert [entry["profile"] for entry in profiles] == [used.profile]


@pytest.mark.parametrize("name", sorted({*TRAVERSAL} - {"a@main", "a--b"}))
def test_a_bad_name_of_a_database_is_400_and_makes_nothing(live, name):
    body = json.dumps({"role": "user", "content": "Hi"})
    with unharmed(live) as (used, _):
        for spec in (name, f"{used.namespace}--{name}", f"{name}--{used.profile}", f"{used.namespace}--{name}@main"):
            status, envelope = ask_literally(live, "POST", f"/v1/db/{spec}/memory/s/turns", body)
            assert (status, envelope["code"]) == (400, "invalid_request"), f"{spec} -> {envelope}"
            assert names(envelope["error"], "db"), envelope["error"]


@pytest.mark.parametrize("name", ["", "/", "a/b", "../b", "a/../b"])
def test_slashes_that_are_not_encoded_lead_to_no_route_and_make_nothing(live, name):
    body = json.dumps({"memories": [event("Met Ann")]})
    with unharmed(live) as (used, _):
        path = f"/v1/memory/{used.namespace}/{name}/{used.profile}/memories"
        status, envelope = ask_literally(live, "POST", path, body)
        assert (status, envelope["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "name",
    ["Acme", "a/b", "../../etc/passwd", "..", "%2e%2e%2f", "a\0b", "a\n", "a" * 65, "a--b", "a-", "é", " ", "😀"],
)
def test_a_bad_name_is_refused_over_mcp_and_makes_nothing(live, mcp, name):
    with unharmed(live) as (used, unused):
        for field in ("namespace", "profile"):
            address = {"namespace": unused.namespace, "profile": unused.profile, field: name}
            for tool, arguments in (
                ("memory_ingest", {"memories": [event("Met Ann")]}),
                ("memory_recall", {"query": "Ann"}),
                ("memory_append", {"session": "s", "role": "user", "content": "Hi"}),
            ):
                envelope = refusal({"result": mcp.call(tool, **address, **arguments)})
                assert envelope["code"] == "invalid_request"
                assert names(envelope["error"], field), envelope["error"]
        branch = refusal({"result": mcp.call("memory_recall", **where(used), query="Ann", branch="../x")})
        assert names(branch["error"], "branch")


def where(memory: Memory) -> dict[str, str]:
    return {"namespace": memory.namespace, "profile": memory.profile}


SESSIONS = {
    "256 bytes": "s" * 256,
    "256 bytes in two-byte letters": "é" * 128,
    "256 bytes in four-byte letters": "😀" * 64,
    "a slash": "chat/2024/05",
    "dots": "..",
    "traversal": "../../etc/passwd",
    "percent": "%2e%2e%2f 100%",
    "query and fragment": "a?b=c&d#e",
    "unicode": "日本語 Straße e\u0301",
    "spaces": " two words ",
    "a line break": "one\ntwo",
    "a nul": "a\0b",
    "quotes": '"it\'s"; DROP TABLE x; --',
    "a right-to-left mark": "\u202eabc",
    "a plus": "a+b",
    "a backslash": "a\\b",
    "the word turns": "turns",
}


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
def test_a_session_may_be_any_text_up_to_256_bytes(live, mcp, memory, session):
    encoded = quote(session, safe="").replace(".", "%2E")
    memory.keep(event("Met Ann", session_id=session))
    assert memory.append(encoded, "user", "Hello").json()["seq"] == 1
    assert mcp.call("memory_append", **where(memory), session=session, role="user", content="Hi")["isError"] is False
    assert [entry["id"] for entry in memory.sessions().json()["sessions"]] == [session]
    for base in (f"{memory.path}/sessions", f"{memory.database}/memory"):
        window = live.http.get(f"{base}/{encoded}/turns").json()["turns"]
        assert [turn["content"] for turn in window] == ["Hello", "Hi"]
    assert len(memory.found(query="Ann", session_id=session)) == 1
    assert memory.found(query="Ann", session_id=session[:-1] + "x") == []
    assert live.http.delete(f"{memory.path}/sessions/{encoded}", params={"turns": "true"}).status_code == 204
    assert memory.sessions().json()["sessions"] == []
    assert live.http.get(f"{memory.database}/memory/{encoded}/turns").json()["turns"] == []


@pytest.mark.parametrize("session", ["s" * 257, "é" * 128 + "x", "😀" * 64 + "x", "s" * 5_000])
def test_a_session_of_more_than_256_bytes_is_refused_wherever_it_stands(live, mcp, session):
    turn = {"role": "user", "content": "Hello"}
    with unharmed(live) as profiles:
        for memory in profiles:
            encoded = quote(session, safe="")
            refused(memory.ingest(event("Met Ann", session_id=session)), "memories[0].session_id")
            refused(memory.recall(query="Ann", session_id=session), "session_id")
            refused(live.http.post(f"{memory.path}/sessions/{encoded}/turns", json=turn), "session")
            refused(live.http.post(f"{memory.database}/memory/{encoded}/turns", json=turn), "session")
            refused(live.http.get(f"{memory.path}/sessions/{encoded}/turns"), "session")
            refused(live.http.post(f"{memory.path}/sessions/{encoded}/search", json={"vector": [1.0]}), "session")
            refused(live.http.delete(f"{memory.path}/sessions/{encoded}"), "session")
            envelope = refusal({"result": mcp.call("memory_append", **where(memory), session=session, **turn)})
            assert names(envelope["error"], "session")


@pytest.mark.parametrize("session", ["%ff", "%ed%a0%80", "a%c0%af"])
def test_a_session_in_a_path_that_is_no_utf8_is_refused(live, session):
    with unharmed(live) as profiles:
        for memory in profiles:
            turn = {"role": "user", "content": "Hello"}
            refused(live.http.post(f"{memory.path}/sessions/{session}/turns", json=turn), "session")


# --- query strings and headers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "rest", "field"),
    [
        ("GET", "/sessions?limit=1&limit=2", "limit"),
        ("GET", "/sessions?limit=1&limit=1", "limit"),
        ("GET", "/sessions?branch=main&branch=main", "branch"),
        ("GET", "/sessions/s/turns?last=1&last=2", "last"),
        ("DELETE", "/sessions/s?turns=true&turns=false", "turns"),
        ("GET", "/sessions?limit=many", "limit"),
        ("GET", "/sessions?limit=1.5", "limit"),
        ("GET", "/sessions?limit=", "limit"),
        ("GET", "/sessions?limit", "limit"),
        ("GET", "/sessions?limit=1e3", "limit"),
        ("GET", "/sessions?limit=NaN", "limit"),
        ("GET", "/sessions?limit=%ff", "limit"),
        ("GET", "/sessions?limit=" + "9" * 5_000, "limit"),
        ("GET", "/sessions?k=3", "k"),
        ("GET", "/sessions?Limit=3", "Limit"),
        ("GET", "/sessions?branch=a%20b", "branch"),
        ("GET", "/sessions?branch=..%2Fmain", "branch"),
        ("GET", "/sessions?branch=" + "a" * 65, "branch"),
        ("GET", "/sessions/s/turns?last=all", "last"),
        ("GET", "/sessions/s/turns?session=t", "session"),
        ("DELETE", "/sessions/s?turns=maybe", "turns"),
        ("DELETE", "/sessions/s?turn=true", "turn"),
        ("DELETE", "/memories/mem_1?id=mem_2", "id"),
        ("POST", "/memories?memories=1", "memories"),
        ("POST", "/recall?k=3", "k"),
        ("POST", "/recall?query=Oslo", "query"),
        ("POST", "/recall?branch=main&branch=nope", "branch"),
    ],
)
def test_a_bad_query_string_is_refused_by_the_name_of_its_parameter(live, method, rest, field):
    body = {"memories": [event("Met Ann")]} if "/memories" in rest else {"query": "Ann"}
    with unharmed(live) as profiles:
        for memory in profiles:
            options = {"json": body} if method == "POST" else {}
            refused(live.http.request(method, memory.path + rest, **options), field)


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "1e3", "0x1", "new", "1 2", "1,2", "NaN"])
def test_a_bad_min_txid_is_refused_by_its_name_on_reads(live, value):
    headers = {"Memoturn-Min-Txid": value}
    with unharmed(live) as profiles:
        for memory in profiles:
            refused(live.http.get(f"{memory.path}/sessions", headers=headers), "Memoturn-Min-Txid")
            response = live.http.post(f"{memory.path}/recall", json={"query": "Oslo"}, headers=headers)
            refused(response, "Memoturn-Min-Txid")


def test_a_min_txid_of_thousands_of_digits_is_refused_by_its_name(live):
    with unharmed(live) as (used, _):
        response = live.http.get(f"{used.path}/sessions", headers={"Memoturn-Min-Txid": "9" * 5_000})
        refused(response, "Memoturn-Min-Txid")


@pytest.mark.parametrize("branch", ["a b", "../main", "a" * 65, "a.b", "main@x", "\t"])
def test_a_bad_branch_in_the_header_is_refused_by_its_name(live, branch):
    with unharmed(live) as profiles:
        for memory in profiles:
            if branch.strip():
                headers = {"Memoturn-Branch": branch}
                refused(live.http.get(f"{memory.path}/sessions", headers=headers), "branch")
                refused(memory.ingest(event("Met Ann"), headers=headers), "branch")


def test_a_bad_branch_in_the_header_does_not_matter_where_the_query_has_a_good_one(live):
    with unharmed(live) as (used, _):
        for header in ("nope", "a b", "../main"):
            good = live.http.get(f"{used.path}/sessions?branch=main", headers={"Memoturn-Branch": header})
            assert good.status_code == 200
        bad = live.http.get(f"{used.path}/sessions?branch=nope", headers={"Memoturn-Branch": "main"})
        assert (bad.status_code, bad.json()["code"]) == (404, "branch_not_found")


# --- routes and methods --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("route", ["/memories", "/recall", "/ask", "/extract"])
def test_a_wrong_method_is_405_and_changes_nothing(live, method, route):
    with unharmed(live) as profiles:
        for memory in profiles:
            response = live.http.request(method, memory.path + route)
            assert (response.status_code, response.json()["code"]) == (405, "invalid_request")
            assert method in response.json()["error"]


@pytest.mark.parametrize(
    "rest", ["", "/", "/memory", "/memories/", "/recall/x", "//recall", "/Recall", "/sessions/s", "/memories/a/b"]
)
def test_an_unknown_route_is_404_or_405_and_changes_nothing(live, rest):
    with unharmed(live) as profiles:
        for memory in profiles:
            body = {"memories": [event("Met Ann")], "query": "Ann"}
            response = live.http.post(memory.path + rest, json=body)
            expected = (405, "invalid_request") if rest == "/sessions/s" else (404, "not_found")
            assert (response.status_code, response.json()["code"]) == expected


# --- what looks bad and is good ------------------------------------------------------------------


def test_a_huge_integer_in_content_comes_back_exactly_from_both_surfaces(live, mcp, memory):
    content = {"n": 10**30, "negative": -(10**30), "list": [2**63, 2**64, -(2**63) - 1, 2**53 + 1], "digits": 10**4_000}
    text = json.dumps({"memories": [{"type": "event", "summary": "Big", "content": content}]})
    [kept] = live.http.post(f"{memory.path}/memories", content=text).json()["results"]
    assert kept["status"] == "created"
    assert memory.get(kept["id"]).json()["content"] == content
    assert memory.found(query="big")[0]["content"] == content
    again = message_of(mcp.call_text("memory_ingest", addressed(memory, "memory_ingest", text)))["result"]
    assert again["structuredContent"]["result"]["results"] == [{**kept, "status": "duplicate"}]
    got = mcp.call("memory_get", **where(memory), id=kept["id"])
    assert got["structuredContent"]["result"]["content"] == content
    assert json.loads(got["content"][0]["text"])["result"]["content"] == content


def test_a_huge_k_is_clamped_on_both_surfaces(live, mcp, memory):
    memory.keep(event("Met Ann"), event("Met Bob"))
    for k in (10**30, 2**63, 10**300):
        assert len(memory.found(query="met", k=k)) == 2
        result = mcp.call("memory_recall", **where(memory), query="met", k=k)
        assert len(result["structuredContent"]["result"]["memories"]) == 2
    assert memory.sessions(limit="9" * 30).status_code == 200


@pytest.mark.parametrize("bound", ["since", "until"])
@pytest.mark.parametrize("time", [2**63, -(10**30)])
def test_a_time_beyond_all_calendars_is_refused_by_name_or_honoured(live, mcp, bound, time):
    with unharmed(live) as (used, _):
        response = used.recall(query="Oslo", **{bound: time})
        envelope_or_answer = mcp.call("memory_recall", **where(used), query="Oslo", **{bound: time})
        if response.status_code == 200:
            expected = 1 if (bound == "since") == (time < 0) else 0
            assert len(response.json()["memories"]) == expected
            assert len(envelope_or_answer["structuredContent"]["result"]["memories"]) == expected
        else:
            refused(response, bound)
            assert names(refusal({"result": envelope_or_answer})["error"], bound)


CONTENTS = {
    "100 lists": "[" * 100 + "]" * 100,
    "100 objects": '{"a":' * 99 + "{}" + "}" * 99,
    "an empty key": '{"": {"": ""}}',
    "a key with a nul": '{"a\\u0000b": "\\u0000"}',
    "keys of other types' names": '{"true": 1, "null": 2, "1": 3, "__proto__": 4, "__class__": 5}',
    "control characters": '"\\u0001\\u001f\\u007f\\u2028\\u2029\\ufeff\\uffff"',
    "a surrogate pair": '"\\ud83c\\udf75"',
    "small and large floats": "[5e-324, 1.7976931348623157e308, -0.0, 0.1, 1e22]",
    "falsehood and nothing": "[false, null, 0, 0.0, [], {}]",
    "a long string": '"' + "x" * 1_000_000 + '"',
    "a long list": "[" + "0," * 100_000 + "0]",
    "markup and quotes": '"<script>\\"\'; DROP TABLE memories; --"',
}


@pytest.mark.parametrize("text", CONTENTS.values(), ids=CONTENTS)
def test_unusual_content_comes_back_as_it_was_sent(live, mcp, memory, text):
    body = f'{{"memories": [{{"type": "event", "summary": "Odd", "content": {text}}}]}}'
    [kept] = live.http.post(f"{memory.path}/memories", content=body.encode()).json()["results"]
    expected = json.dumps(json.loads(text), sort_keys=True)
    got = mcp.call("memory_get", **where(memory), id=kept["id"])["structuredContent"]["result"]
    for content in (memory.get(kept["id"]).json()["content"], memory.found(query="odd")[0]["content"], got["content"]):
        assert json.dumps(content, sort_keys=True) == expected


@pytest.mark.parametrize("text", ["a\0b zebra", "zebra\u202e", "\ufeffzebra", "zebra \U0010ffff", "zebra " * 20_000])
def test_unusual_text_is_kept_found_and_forgotten(memory, text):
    [kept] = memory.keep(event(text, keywords=text, source=text))
    record = memory.get(kept["id"]).json()
    assert (record["summary"], record["keywords"], record["source"]) == (text, text, text)
    assert [hit["id"] for hit in memory.found(query="zebra")] == [kept["id"]]
    assert [hit["id"] for hit in memory.found(query="zebra", source=text)] == [kept["id"]]
    assert memory.forget(kept["id"]).status_code == 204
    assert memory.found(query="zebra") == []


def test_embeddings_at_the_edges_of_float32_are_kept_and_found(memory):
    largest, least = 3.4028234663852886e38, 1e-45
    memory.keep(
        event("Largest", embedding=[largest, largest]),
        event("Lowest", embedding=[-largest, largest]),
        event("Least", embedding=[least, 0]),
        event("Zero", embedding=[0, 0]),
    )
    found = memory.found(embedding=[largest, largest])
    assert found[0]["summary"] == "Largest"
    assert "Zero" not in {hit["summary"] for hit in found}
    assert memory.found(embedding=[0.0, 0.0]) == []
    assert memory.found(embedding=[1e-45, 0.0])[0]["summary"] == "Least"
