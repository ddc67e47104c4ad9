"""What a request is addressed to, where that is bad: it is refused by name, writes nothing and harms nobody.

Names of namespaces, profiles, databases and branches; sessions, which may be any text up to 256 bytes; query
strings and headers; routes and methods.
"""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from contract.bad_input import names, refusal, refused, unharmed, where
from contract.live_node import Live, assert_envelope, event

TOOLSETS = "all"

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


# --- sessions ------------------------------------------------------------------------------------

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
