"""Items 1 to 6: errors, health, transaction ids, freshness, durability."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import httpx
import pytest

from contract.branches import KeptStore
from contract.live_node import Memory, assert_envelope, event, serve, task
from contract.provider_server import Reply, provider
from contract.replies import endpoint, openai_says, proposed
from contract.statuses import STATUSES
from memoturn_core.providers.language import OpenAIModel
from memoturn_storage.ambient import ManualAmbient
from objects.faulty import Faults, FaultyStore

DURABLE = {"Memoturn-Durability": "durable"}


class Wrong(NamedTuple):
    """A request that fails on a node without providers, and how it fails."""

    name: str
    send: Callable[[httpx.Client, Memory], httpx.Response]
    status: int
    code: str


WRONG = [
    Wrong("a field of the wrong type", lambda c, m: m.recall(query=7), 400, "invalid_request"),
    Wrong("an unknown field", lambda c, m: m.recall(query="x", limit=1), 400, "invalid_request"),
    Wrong("nothing to recall by", lambda c, m: m.recall(), 400, "invalid_request"),
    Wrong("a body that is no JSON", lambda c, m: c.post(f"{m.path}/recall", content="{"), 400, "invalid_request"),
    Wrong("a body that is no object", lambda c, m: c.post(f"{m.path}/recall", json=[]), 400, "invalid_request"),
    Wrong("a bad name", lambda c, m: c.get("/v1/memory/Acme"), 400, "invalid_request"),
    Wrong("a bad branch", lambda c, m: m.sessions(branch="a b"), 400, "invalid_request"),
    Wrong("a bad query parameter", lambda c, m: m.sessions(limit="many"), 400, "invalid_request"),
    Wrong("a bad database", lambda c, m: c.get("/v1/db/A/memory/s/turns"), 400, "invalid_request"),
    Wrong(
        "a bad header",
        lambda c, m: c.get(f"{m.path}/sessions", headers={"Memoturn-Min-Txid": "new"}),
        400,
        "invalid_request",
    ),
    Wrong("another origin", lambda c, m: c.get("/health", headers={"Origin": "http://evil.test"}), 403, "forbidden"),
    Wrong("another host", lambda c, m: c.get("/health", headers={"Host": "evil.test"}), 403, "forbidden"),
    Wrong("a host that is none", lambda c, m: c.get("/health", headers={"Host": "["}), 403, "forbidden"),
    Wrong("an origin that is none", lambda c, m: c.get("/health", headers={"Origin": "http://["}), 403, "forbidden"),
    Wrong("an unknown route", lambda c, m: c.get("/v1/nonsense"), 404, "not_found"),
    Wrong("an unknown route at the root", lambda c, m: c.get("/nonsense"), 404, "not_found"),
    Wrong("an unknown memory", lambda c, m: m.get("mem_" + "0" * 32), 404, "not_found"),
    Wrong("an unknown profile", lambda c, m: c.get("/v1/memory/no/body/sessions"), 404, "database_not_found"),
    Wrong("an unknown database", lambda c, m: c.get("/v1/db/nobody/memory/s/turns"), 404, "database_not_found"),
    Wrong("an unknown branch", lambda c, m: m.sessions(branch="nope"), 404, "branch_not_found"),
    Wrong("a wrong method", lambda c, m: c.put(f"{m.path}/recall", json={}), 405, "invalid_request"),
    Wrong("a wrong method at the root", lambda c, m: c.post("/health"), 405, "invalid_request"),
    Wrong(
        "a body that is too large",
        lambda c, m: c.post(f"{m.path}/recall", content=b" " * (32 * 1024 * 1024 + 1)),
        413,
        "payload_too_large",
    ),
    Wrong(
        "a model that is not there",
        lambda c, m: c.post(f"{m.path}/ask", json={"question": "Where?"}),
        503,
        "unconfigured",
    ),
    Wrong(
        "a state that is still to come",
        lambda c, m: c.get(f"{m.path}/sessions", headers={"Memoturn-Min-Txid": "99"}),
        503,
        "unavailable",
    ),
]
each_wrong = pytest.mark.parametrize("wrong", WRONG, ids=[wrong.name for wrong in WRONG])


@each_wrong
def test_items_1_and_2_an_error_is_the_envelope_with_a_code_that_fits_its_status(memory, wrong):
    memory.keep(event("Something"))
    response = wrong.send(memory.http, memory)
    assert response.status_code == wrong.status, response.text
    assert_envelope(response)
    assert response.json()["code"] == wrong.code
    assert memory.http.get("/health").text == "ok"


@each_wrong
def test_every_error_carries_the_header_memoturn_request_id(memory, wrong):
    memory.keep(event("Something"))
    first, second = (wrong.send(memory.http, memory).headers.get("Memoturn-Request-Id") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first != second


def test_item_1_the_codes_are_the_fourteen_of_the_contract(live):
    described = live.http.get("/openapi.json").json()["components"]["schemas"]["ErrorEnvelope"]
    assert set(described["properties"]["code"]["enum"]) == set(STATUSES)
    assert described["required"] == ["error", "code"]
    assert len(STATUSES) == 14


def test_item_1_a_fault_of_the_node_is_500_internal_and_tells_no_path(tmp_path):
    with serve(tmp_path) as live:
        memory = live.memory()
        memory.keep(event("Something"))
    for file in (*tmp_path.rglob("main.db"), *tmp_path.rglob("*.ltx")):
        file.write_bytes(b"This is no database. " * 500)
    with serve(tmp_path) as live:
        for response in (
            live.http.get(f"{memory.path}/sessions"),
            live.http.post(f"{memory.path}/recall", json={"query": "x"}),
            live.http.post(f"{memory.path}/memories", json={"memories": [event("More")]}),
        ):
            assert (response.status_code, response.json()["code"]) == (500, "internal")
            assert str(tmp_path) not in response.text
            assert "Traceback" not in response.text
        assert live.memory().keep(event("Others still work"))[0]["status"] == "created"


def test_item_1_a_provider_that_fails_is_502_internal(tmp_path):
    with provider(Reply(status=400)) as it, serve(tmp_path, language_model=model(it.url)) as live:
        memory = live.memory()
        response = live.http.post(f"{memory.path}/extract", json={"turns": [{"role": "user", "content": "Hi"}]})
        assert (response.status_code, response.json()["code"]) == (502, "internal")
        assert not memory.exists


def test_item_2_a_request_that_takes_too_long_is_408_request_timeout(tmp_path):
    with (
        provider(Reply(held_by=threading.Event())) as it,
        serve(tmp_path, language_model=model(it.url), request_timeout_s=0.5) as live,
    ):
        memory = live.memory()
        response = live.http.post(f"{memory.path}/extract", json={"turns": [{"role": "user", "content": "Hi"}]})
        assert (response.status_code, response.json()["code"]) == (408, "request_timeout")
        assert not memory.exists
        assert live.http.get("/health").text == "ok"


def test_item_2_a_body_that_never_ends_is_408_request_timeout(tmp_path):
    with serve(tmp_path, request_timeout_s=0.5) as live, socket.create_connection(("127.0.0.1", live.port)) as slow:
        memory = live.memory()
        head = f"POST {memory.path}/memories HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n"
        slow.sendall(head.encode() + b'{"memories": [')
        slow.settimeout(20)
        answer = slow.recv(65_536).decode()
        status_line, _, rest = answer.partition("\r\n")
        assert status_line.startswith("HTTP/1.1 408 ")
        assert "memoturn-request-id: " in rest
        envelope = json.loads(rest.partition("\r\n\r\n")[2])
        assert set(envelope) == {"error", "code"}
        assert envelope["code"] == "request_timeout"
        assert not memory.exists
        assert live.http.get("/health").text == "ok"


def test_item_3_health_is_200_and_the_text_ok(live):
    response = httpx.get(f"{live.url}/health", trust_env=False)
    assert (response.status_code, response.text) == (200, "ok")
    assert response.headers["content-type"].startswith("text/plain")


def test_item_4_writes_answer_with_the_header_memoturn_txid(memory):
    def txid(response: httpx.Response) -> int:
        assert response.is_success, response.text
        return int(response.headers["Memoturn-Txid"])

    kept = memory.ingest(task("Call Ann", session_id="s"))
    assert txid(kept) == kept.json()["txid"] == 1
    appended = memory.http.post(f"{memory.database}/memory/s/turns", json={"role": "user", "content": "Hi"})
    assert txid(appended) == appended.json()["txid"] == 2
    assert txid(memory.forget(kept.json()["results"][0]["id"])) == 3
    assert txid(memory.http.delete(f"{memory.path}/sessions/s")) == 4


def test_item_4_reads_answer_with_the_header_memoturn_txid(memory):
    [kept] = memory.keep(event("Met Ann", session_id="s"))
    for response in (
        memory.recall(query="Ann"),
        memory.get(kept["id"]),
        memory.sessions(),
        memory.http.get(f"{memory.database}/memory/s/turns"),
        memory.http.post(f"{memory.database}/memory/s/search", json={"vector": [1.0]}),
    ):
        assert response.status_code == 200, response.text
        assert response.headers["Memoturn-Txid"] == "1"


def test_item_4_a_write_that_changes_nothing_reflects_the_last_transaction(memory):
    first = memory.ingest(event("Met Ann"))
    again = memory.ingest(event("Met Ann"))
    assert again.headers["Memoturn-Txid"] == first.headers["Memoturn-Txid"] == "1"


def test_item_5_a_read_at_its_own_write_is_answered_and_discloses_the_txid(memory):
    written = memory.ingest(event("Met Ann")).headers["Memoturn-Txid"]
    response = memory.http.post(f"{memory.path}/recall", json={"query": "Ann"}, headers={"Memoturn-Min-Txid": written})
    assert response.status_code == 200
    assert len(response.json()["memories"]) == 1
    assert response.headers["Memoturn-Txid"] == written
    assert memory.http.get(f"{memory.path}/sessions", headers={"Memoturn-Min-Txid": "0"}).status_code == 200


def test_item_5_no_read_is_answered_from_below_the_txid_asked_for(memory):
    [kept] = memory.keep(event("Met Ann", session_id="s"))
    newer = {"Memoturn-Min-Txid": "2"}
    for response in (
        memory.http.post(f"{memory.path}/recall", json={"query": "Ann"}, headers=newer),
        memory.http.get(f"{memory.path}/memories/{kept['id']}", headers=newer),
        memory.http.get(f"{memory.path}/sessions", headers=newer),
        memory.http.get(f"{memory.database}/memory/s/turns", headers=newer),
        memory.http.post(f"{memory.database}/memory/s/search", json={"vector": [1.0]}, headers=newer),
    ):
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    memory.keep(event("Met Bob"))
    assert memory.http.get(f"{memory.path}/sessions", headers=newer).headers["Memoturn-Txid"] == "2"


@pytest.mark.parametrize("digits", [19, 30])
def test_item_5_a_txid_beyond_all_transactions_is_refused_and_is_no_fault_of_the_node(memory, digits):
    memory.keep(event("Met Ann"))
    response = memory.http.get(f"{memory.path}/sessions", headers={"Memoturn-Min-Txid": "9" * digits})
    assert (response.status_code, response.json()["code"]) in [(503, "unavailable"), (400, "invalid_request")]


def on_a_fresh_node(directory: Path, store: KeptStore, memory: Memory) -> set[str]:
    """What a node finds of the profile that has nothing but what is in the object store now."""
    with serve(directory, store=store.copy()) as fresh:
        return {hit["summary"] for hit in Memory(fresh.http, memory.namespace, memory.profile).found(query="met")}


def test_item_6_a_durable_ingest_is_in_the_object_store_when_it_is_acknowledged_a_standard_one_is_not(tmp_path):
    ambient = ManualAmbient()
    store = KeptStore(ambient)
    with serve(tmp_path / "node", ambient=ambient, store=store) as live:
        memory = live.memory()
        assert memory.ingest(event("Met Ann")).status_code == 201
        assert on_a_fresh_node(tmp_path / "1", store, memory) == set()
        durable = memory.ingest(event("Met Bob"), headers=DURABLE)
        assert (durable.status_code, durable.headers["Memoturn-Txid"]) == (201, "2")
        memory.keep(event("Met Carl"))
        assert on_a_fresh_node(tmp_path / "2", store, memory) == {"Met Ann", "Met Bob"}
    assert on_a_fresh_node(tmp_path / "3", store, memory) == {"Met Ann", "Met Bob", "Met Carl"}


def test_item_6_while_the_object_store_fails_durable_writes_are_503_unavailable_and_standard_ones_go_on(tmp_path):
    ambient = ManualAmbient()
    store = KeptStore(ambient)
    failing = FaultyStore(store, Random(0), Faults())
    reply = openai_says({"memories": [proposed(summary="Met Dora")]})
    with (
        provider(reply) as it,
        serve(tmp_path / "node", ambient=ambient, store=failing, language_model=model(it.url)) as live,
    ):
        memory = live.memory()
        memory.keep(event("Met Ann"))
        failing.down = True
        extract = {"turns": [{"role": "user", "content": "Hi"}]}
        for response in (
            memory.ingest(event("Met Bob"), headers=DURABLE),
            memory.http.post(f"{memory.path}/extract", json=extract, headers=DURABLE),
        ):
            assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        memory.keep(event("Met Carl"))
        assert {"Met Ann", "Met Carl"} <= {hit["summary"] for hit in memory.found(query="met")}
        assert on_a_fresh_node(tmp_path / "1", store, memory) == set()
        failing.down = False
        assert memory.ingest(event("Met Eve"), headers=DURABLE).status_code == 201
        here = {hit["summary"] for hit in memory.found(query="met")}
        assert here >= {"Met Ann", "Met Carl", "Met Eve"}
        assert on_a_fresh_node(tmp_path / "2", store, memory) == here


def test_item_6_elsewhere_the_wish_for_durability_is_ignored(tmp_path):
    ambient = ManualAmbient()
    failing = FaultyStore(KeptStore(ambient), Random(0), Faults())
    with serve(tmp_path, ambient=ambient, store=failing) as live:
        memory = live.memory()
        [kept] = memory.keep(event("Met Ann", session_id="s"))
        failing.down = True  # whoever waited for the object store would be told
        http, path = memory.http, memory.path
        assert http.post(f"{path}/recall", json={"query": "Ann"}, headers=DURABLE).json()["memories"] != []
        assert http.get(f"{path}/memories/{kept['id']}", headers=DURABLE).status_code == 200
        assert http.get(f"{path}/sessions", headers=DURABLE).status_code == 200
        turn = {"role": "user", "content": "Hi"}
        assert http.post(f"{memory.database}/memory/s/turns", json=turn, headers=DURABLE).status_code == 201
        assert http.get(f"{memory.database}/memory/s/turns", headers=DURABLE).status_code == 200
        assert http.delete(f"{path}/memories/{kept['id']}", headers=DURABLE).status_code == 204
        assert http.delete(f"{path}/sessions/s", headers=DURABLE).status_code == 204
        failing.down = False


def model(url: str) -> OpenAIModel:
    return OpenAIModel(endpoint(url), ManualAmbient())
