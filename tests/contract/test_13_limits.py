"""Items 140 to 143: how large, how often, how long, how many at once; full queues: `surfaces.test_backpressure`."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from contract.access import PLATFORM, bearer, closed_node, of_namespace
from contract.live_node import Live, assert_envelope, event, serve

MIB = 1024 * 1024


# --- how large -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/databases", "/v1/databases/plain/branches", "/v1/databases/plain/tokens"])
def test_item_140_a_body_over_1_mib_to_the_control_plane_is_413(live, path):
    live.http.post("/v1/databases", json={"name": "plain"})
    response = live.http.post(path, content=b" " * 2 * MIB)
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    assert str(MIB) in response.json()["error"]
    assert live.http.post(path, content=b" " * MIB).status_code == 400


def test_item_140_a_body_that_grows_over_the_limit_on_the_way_is_413(live):
    def chunks() -> Any:
        for _ in range(20):
            yield b" " * (MIB // 8)

    response = live.http.post("/v1/databases", content=chunks())
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")


def test_item_140_the_data_plane_takes_32_mib(live):
    memory = live.memory()
    body = json.dumps({"memories": [event("Large")]}).encode()
    assert live.http.post(f"{memory.path}/memories", content=body + b" " * 3 * MIB).status_code == 201
    assert live.http.put(f"{memory.database}/kv/n/k", content=b"v" * 3 * MIB).status_code == 200
    for method, path in (("POST", f"{memory.path}/memories"), ("PUT", f"{memory.database}/kv/n/k")):
        response = live.http.request(method, path, content=b" " * (32 * MIB + 1))
        assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")


def test_item_140_the_limit_of_the_data_plane_can_be_set_and_holds_for_control_where_it_is_lower(tmp_path):
    with serve(tmp_path, max_body_bytes=2_048) as live:
        memory = live.memory()
        for path in (f"{memory.path}/memories", "/v1/databases"):
            assert live.http.post(path, content=b" " * 2_049).status_code == 413
            assert live.http.post(path, content=b" " * 2_048).status_code == 400


# --- how often -----------------------------------------------------------------------------------


def rapid(live: Live, count: int, headers: dict[str, str]) -> list[httpx.Response]:
    return [live.http.get("/v1/databases", headers=headers) for _ in range(count)]


def test_item_141_the_control_plane_takes_20_at_once_and_10_a_second(tmp_path):
    with serve(tmp_path, control_rate=10) as live:
        responses = rapid(live, 40, {})
        assert [response.status_code for response in responses] == [200] * 20 + [429] * 20
        for refused in responses[20:]:
            assert_envelope(refused)
            assert refused.json()["code"] == "overloaded"
            assert refused.headers["Retry-After"] == "1"
        live.ambient.advance(seconds=0.5)
        assert [response.status_code for response in rapid(live, 6, {})] == [200] * 5 + [429]
        live.ambient.advance(seconds=3_600)
        assert [response.status_code for response in rapid(live, 21, {})] == [200] * 20 + [429]


def test_item_141_all_routes_of_control_share_one_bucket_and_data_has_none(tmp_path):
    with serve(tmp_path, control_rate=1) as live:
        memory = live.memory()
        assert live.http.get("/v1/databases").status_code == 200
        assert live.http.post("/v1/databases", json={"name": "plain"}).status_code == 201
        for method, path in (
            ("GET", "/v1/databases"),
            ("POST", "/v1/databases"),
            ("DELETE", "/v1/databases/plain"),
            ("GET", "/v1/databases/plain/usage"),
            ("GET", "/v1/databases/plain/branches"),
            ("POST", "/v1/namespaces/acme/tokens"),
        ):
            assert live.http.request(method, path).status_code == 429, path
        for _ in range(10):
            assert memory.keep(event("Met Ann"))
            assert live.http.get("/v1/db/plain/branches").status_code == 200
            assert live.http.get("/health").status_code == 200


def test_item_141_auth_comes_before_the_limiter(tmp_path):
    with closed_node(tmp_path, control_rate=1) as live:
        for headers in ({}, bearer("garbage"), of_namespace(live, "acme", "admin")):
            assert {response.status_code for response in rapid(live, 10, headers)} == {401}
        assert [response.status_code for response in rapid(live, 2, PLATFORM)] == [200, 429]


# --- how long, and how many ----------------------------------------------------------------------


def test_item_143_what_is_over_the_number_in_flight_waits_and_is_then_served(tmp_path):
    with serve(tmp_path, max_in_flight=1) as live, ThreadPoolExecutor() as pool:
        memory = live.memory()
        body = json.dumps({"memories": [event("Met Ann")]}).encode()
        head = f"POST {memory.path}/memories HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", live.port)) as first:
            first.settimeout(20)
            first.sendall(head.encode() + body[:-1])
            waiting = [pool.submit(live.http.get, "/v1/health") for _ in range(5)]
            # Not through the limit, and an answer says that what was sent before it has arrived.
            assert live.http.get("/health").text == "ok"
            assert not any(request.done() for request in waiting)
            first.sendall(body[-1:])
            assert first.recv(65_536).startswith(b"HTTP/1.1 201 ")
            assert {request.result(20).status_code for request in waiting} == {200}


def test_item_143_there_are_no_cors_headers(live):
    own = {"Origin": live.url}
    asked = own | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for path in ("/v1/databases", "/v1/memory/acme/alice/recall", "/health", "/mcp"):
        for response in (
            live.http.request("OPTIONS", path, headers=asked),
            live.http.get(path, headers=own),
        ):
            assert not [name for name in response.headers if name.startswith("access-control-")], path
    assert live.http.request("OPTIONS", "/v1/databases", headers=asked).status_code == 405


def test_item_143_a_budget_of_time_is_each_requests_own(tmp_path):
    """A body that comes slowly uses its own request's time and nobody else's."""
    with serve(tmp_path, request_timeout_s=0.5) as live:
        memory = live.memory()
        started = threading.Barrier(2)

        def slow() -> bytes:
            with socket.create_connection(("127.0.0.1", live.port)) as sender:
                sender.settimeout(20)
                head = f"PUT {memory.database}/kv/n/k HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
                sender.sendall(head.encode() + b"12345678")
                started.wait(20)
                return sender.recv(65_536)

        with ThreadPoolExecutor() as pool:
            answer = pool.submit(slow)
            started.wait(20)
            assert memory.keep(event("Met Ann"))
            assert answer.result(20).startswith(b"HTTP/1.1 408 ")
        assert memory.http.get(f"{memory.database}/kv/n/k").status_code == 404


# --- consistency ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["primary", "cached"])
def test_item_194_a_request_may_say_how_fresh_its_answer_must_be(memory, wanted):
    memory.keep(event("Met Ann"))
    response = memory.http.get(f"{memory.path}/sessions", headers={"Memoturn-Consistency": wanted})
    assert response.status_code == 200


@pytest.mark.parametrize("wanted", ["", "strong", "Primary", "primary, cached", "x" * 1_000])
def test_item_194_any_other_consistency_is_400_and_changes_nothing(memory, wanted):
    body = {"memories": [event("Met Ann")]}
    response = memory.http.post(f"{memory.path}/memories", json=body, headers={"Memoturn-Consistency": wanted})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["error"].startswith("Memoturn-Consistency: ")
    assert not memory.exists
