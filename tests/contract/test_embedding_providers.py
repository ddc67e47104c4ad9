"""The embedding clients against a server that speaks each wire format over a real socket.

What the network may do to any client of a provider is tried with one of them.
"""

from __future__ import annotations

import json
import socket
import threading
from email.utils import formatdate
from typing import Any

import anyio
import pytest

from contract.live_node import event, serve
from contract.provider_server import Reply, provider, reply
from contract.replies import KEY, embeddings, endpoint, using, vectors
from memoturn_core.providers.cohere import CohereEmbedder
from memoturn_core.providers.embedding import OpenAIEmbedder, VoyageEmbedder
from memoturn_core.providers.http import Endpoint
from memoturn_schemas.errors import InvalidRequest, UpstreamFailure
from memoturn_storage.ambient import ManualAmbient

ONE = reply(embeddings((0, [1.0, 2.0])))


def by_cohere(*floats: Any) -> dict[str, Any]:
    """What Cohere answers, with the fields besides."""
    shown = {"id": "e-1", "texts": ["x"], "meta": {"api_version": {"version": "2"}}}
    return {**shown, "embeddings": {"float": list(floats)}, "response_type": "embeddings_by_type"}


def embed(url: str, *texts: str, budget_s: float = 5.0) -> list[list[float]]:
    client = OpenAIEmbedder(endpoint(url, budget_s=budget_s), ManualAmbient())
    return using(client, lambda it: it.embed(texts, purpose="document"))


# --- embeddings ----------------------------------------------------------------------------------


def test_vectors_come_back_in_the_order_of_their_texts():
    with provider(reply(embeddings((2, [3, 0.5]), (0, [1, 0.5]), (1, [2, 0.5])))) as it:
        assert embed(it.url, "a", "b", "c") == [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]]


def test_openai_is_sent_the_texts_and_the_model_and_no_input_type():
    with provider(ONE) as it:
        client = OpenAIEmbedder(endpoint(it.url), ManualAmbient())
        assert client.model == "m-1"
        using(client, lambda e: e.embed(["Zoë"], purpose="query"))
    [seen] = it.seen
    assert seen.path == "/v1/embeddings"
    assert seen.json == {"model": "m-1", "input": ["Zoë"]}
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"


@pytest.mark.parametrize("purpose", ["query", "document"])
def test_voyage_is_told_what_the_texts_are_for(purpose):
    with provider(ONE) as it:
        client = VoyageEmbedder(endpoint(it.url), ManualAmbient())
        assert using(client, lambda e: e.embed(["x"], purpose=purpose)) == [[1.0, 2.0]]
    assert it.seen[0].json == {"model": "m-1", "input": ["x"], "input_type": purpose}


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_base_url_may_end_in_v1(suffix):
    with provider(ONE) as it:
        embed(it.url + suffix, "x")
    assert it.seen[0].path == "/v1/embeddings"


def test_without_a_key_no_credential_is_sent():
    with provider(ONE) as it:
        client = OpenAIEmbedder(Endpoint("local", it.url, "m-1", 5.0), ManualAmbient())
        using(client, lambda e: e.embed(["x"], purpose="query"))
    assert "authorization" not in it.seen[0].headers


def test_many_texts_go_out_in_batches_of_96():
    texts = [f"text {n}" for n in range(200)]
    pages = [embeddings(*((n, [float(n), size]) for n in range(size))) for size in (96, 96, 8)]
    with provider(*(reply(page) for page in pages)) as it:
        answer = embed(it.url, *texts)
    assert [len(seen.json["input"]) for seen in it.seen] == [96, 96, 8]
    assert [text for seen in it.seen for text in seen.json["input"]] == texts
    assert len(answer) == 200
    assert answer[96] == [0.0, 96.0]


def test_long_texts_go_out_in_smaller_batches_and_only_their_beginnings_do():
    texts = [*(f"{n:x}" * 8_000 for n in range(12)), "long" * 10_000, "", "short"]
    first, second = vectors(*([1.0],) * 12), vectors(*([2.0],) * 3)
    with provider(first, second) as it:
        assert embed(it.url, *texts) == [[1.0]] * 12 + [[2.0]] * 3
    assert [seen.json["input"] for seen in it.seen] == [texts[:12], ["long" * 2_000, "", "short"]]


def test_no_texts_are_answered_without_a_request():
    with provider(ONE) as it:
        assert embed(it.url) == []
    assert it.seen == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(json.dumps(embeddings((0, [1.0]))), id="too few"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (1, [1.0]), (2, [1.0]))), id="too many"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (0, [1.0]))), id="one index twice"),
        pytest.param(json.dumps(embeddings((1, [1.0]), (2, [1.0]))), id="indexes from one"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (1, [1.0, 2.0]))), id="two dimensions"),
        pytest.param(json.dumps(embeddings((0, []), (1, []))), id="empty vectors"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (1, [float("nan")]))), id="NaN"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (1, [float("inf")]))), id="infinity"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (1, [0]))).replace("[0]", "[1e999]"), id="overflow"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (1, ["2.0"]))), id="text for a number"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (1, [True]))), id="a truth value for a number"),
        pytest.param(json.dumps(embeddings((0, [1.0]), (1, [None]))), id="null for a number"),
        pytest.param('{"data": {"0": [1.0]}}', id="no list"),
        pytest.param("{}", id="nothing in it"),
        pytest.param("[]", id="not an object"),
        pytest.param("<html>secret stack trace</html>", id="not JSON"),
        pytest.param("", id="empty body"),
        pytest.param("[" * 100_000, id="nested without end"),
    ],
)
def test_an_answer_that_is_not_one_good_vector_for_each_text_is_a_provider_failure(body):
    with provider(Reply(body.encode())) as it, pytest.raises(UpstreamFailure, match="acme") as caught:
        embed(it.url, "a", "b")
    assert "secret" not in str(caught.value)
    assert len(it.seen) == 1


def test_a_body_that_is_not_utf8_or_not_what_its_encoding_says_is_a_provider_failure():
    for answer in (Reply(b'{"a": "\xff"}'), Reply(b"plain", headers={"content-encoding": "gzip"})):
        with provider(answer) as it, pytest.raises(UpstreamFailure):
            embed(it.url, "a")


def test_batches_of_different_dimensions_are_a_provider_failure():
    first = embeddings(*((n, [1.0, 2.0]) for n in range(96)))
    with provider(reply(first), reply(embeddings((0, [1.0])))) as it, pytest.raises(UpstreamFailure):
        embed(it.url, *["x"] * 97)


def test_text_that_is_not_unicode_is_the_callers_fault_and_is_not_sent():
    with provider(ONE) as it, pytest.raises(InvalidRequest):
        embed(it.url, "\ud800")
    assert it.seen == []


# --- Cohere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/", "/v2", "/v2/"])
@pytest.mark.parametrize("purpose", ["query", "document"])
def test_cohere_is_asked_by_its_own_protocol(purpose, suffix):
    with provider(reply(by_cohere([1, 0.5], [2, 0.5]))) as it:
        client = CohereEmbedder(endpoint(it.url + suffix), ManualAmbient())
        assert client.model == "m-1"
        assert using(client, lambda e: e.embed(["Zoë", "x"], purpose=purpose)) == [[1.0, 0.5], [2.0, 0.5]]
    [seen] = it.seen
    assert seen.path == "/v2/embed"
    assert seen.json == {
        "model": "m-1",
        "texts": ["Zoë", "x"],
        "input_type": f"search_{purpose}",
        "embedding_types": ["float"],
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"


def test_cohere_is_sent_96_texts_at_once_at_most():
    texts = [f"text {n}" for n in range(100)]
    pages = [by_cohere(*([float(n), size] for n in range(size))) for size in (96, 4)]
    with provider(*(reply(page) for page in pages)) as it:
        client = CohereEmbedder(endpoint(it.url), ManualAmbient())
        answer = using(client, lambda e: e.embed(texts, purpose="document"))
    assert [seen.json["texts"] for seen in it.seen] == [texts[:96], texts[96:]]
    assert answer == [[float(n), 96.0] for n in range(96)] + [[float(n), 4.0] for n in range(4)]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(by_cohere([1.0]), id="too few"),
        pytest.param(by_cohere([1.0], [1.0], [1.0]), id="too many"),
        pytest.param(by_cohere([1.0], [1.0, 2.0]), id="two dimensions"),
        pytest.param(by_cohere([], []), id="empty vectors"),
        pytest.param(by_cohere([1.0], [float("nan")]), id="NaN"),
        pytest.param(by_cohere([1.0], ["2.0"]), id="text for a number"),
        pytest.param(by_cohere([1.0], 2.0), id="a number for a vector"),
        pytest.param({"embeddings": {"int8": [[1], [2]]}}, id="another type of embeddings"),
        pytest.param({"embeddings": [[1.0], [2.0]]}, id="the answer of version 1"),
        pytest.param(embeddings((0, [1.0]), (1, [1.0])), id="the answer of another provider"),
        pytest.param({"message": "secret"}, id="nothing in it"),
    ],
)
def test_an_answer_of_cohere_that_is_not_one_good_vector_for_each_text_is_a_provider_failure(value):
    with provider(reply(value)) as it:
        client = CohereEmbedder(endpoint(it.url), ManualAmbient())
        with pytest.raises(UpstreamFailure, match="acme") as caught:
            using(client, lambda e: e.embed(["a", "b"], purpose="document"))
    assert "secret" not in str(caught.value)
    assert len(it.seen) == 1


# --- a node with each of them ---------------------------------------------------------------------

PROTOCOLS = [
    pytest.param(OpenAIEmbedder, lambda *rows: vectors(*rows), id="openai"),
    pytest.param(VoyageEmbedder, lambda *rows: vectors(*rows), id="voyage"),
    pytest.param(CohereEmbedder, lambda *rows: reply(by_cohere(*rows)), id="cohere"),
]


@pytest.mark.parametrize(("embedder", "answer"), PROTOCOLS)
def test_item_41_memories_are_found_by_meaning_whoever_embeds(tmp_path, embedder, answer):
    with (
        provider(answer([0.1, 1.0], [1.0, 0.1]), answer([1.0, 0.0])) as it,
        serve(tmp_path, embedder=embedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        memory.keep(event("Red"), event("Green"))
        found = memory.found(query="verdant")
        assert [(hit["summary"], hit["channels"]) for hit in found] == [("Green", ["vector"]), ("Red", ["vector"])]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Reply(held_by=threading.Event()), id="hangs"),
        pytest.param(Reply(status=429, headers={"retry-after": "3600"}), id="is busy"),
        pytest.param(Reply(status=503), id="is down"),
        pytest.param(Reply(status=401), id="rejects the key"),
        pytest.param(Reply(reply(by_cohere([1.0])).body, cut=True), id="hangs up"),
        pytest.param(Reply(b"garbage"), id="talks nonsense"),
        pytest.param(reply(by_cohere([1.0, 0.0], [1.0, 0.0])), id="answers too much"),
    ],
)
def test_item_20_a_write_and_a_recall_succeed_whatever_the_provider_does(tmp_path, failure):
    with (
        provider(failure) as it,
        serve(tmp_path, embedder=CohereEmbedder(endpoint(it.url, budget_s=0.2), ManualAmbient())) as live,
    ):
        memory = live.memory()
        [red] = memory.keep(event("Red"))
        assert "embedding" not in red
        recalled = memory.recall(query="red").json()
        assert it.seen != []
        assert [(hit["id"], hit["channels"]) for hit in recalled["memories"]] == [(red["id"], ["keyword"])]
        assert recalled["degraded"] == ["vector"]


def test_item_19_a_provider_that_changes_the_dimension_costs_no_memory(tmp_path):
    with (
        provider(vectors([1.0, 0.0]), vectors([1.0, 0.0, 0.0])) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        memory.keep(event("Red"))
        [green] = memory.keep(event("Green"))
        assert green["embedding"] == "skipped_dimension"
        recalled = memory.recall(query="green").json()
        assert [hit["summary"] for hit in recalled["memories"]] == ["Green"]
        assert recalled["degraded"] == ["vector"]


def test_a_provider_that_is_down_is_soon_no_longer_asked_by_writes(tmp_path):
    with (
        provider(Reply(b"garbage")) as it,
        serve(tmp_path, embedder=OpenAIEmbedder(endpoint(it.url), ManualAmbient())) as live,
    ):
        memory = live.memory()
        for number in range(8):
            memory.keep(event(f"Red {number}"))
        assert len(it.seen) == 5
        assert len(memory.found(query="red", k=8)) == 8


# --- the network ---------------------------------------------------------------------------------


def test_a_provider_that_hangs_fails_when_the_budget_is_spent():
    released = threading.Event()
    with provider(Reply(held_by=released)) as it, pytest.raises(UpstreamFailure, match=r"within 0\.1 s"):
        embed(it.url, "x", budget_s=0.1)


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_passing_fault_is_retried(status):
    with provider(Reply(status=status), ONE) as it:
        assert embed(it.url, "x") == [[1.0, 2.0]]
    assert len(it.seen) == 2


def test_a_lasting_fault_is_reported_after_three_attempts():
    with provider(reply({"error": "secret"}, status=500)) as it, pytest.raises(UpstreamFailure) as caught:
        embed(it.url, "x")
    assert len(it.seen) == 3
    assert str(caught.value) == "The provider acme answered 500 Internal Server Error."
    assert caught.value.envelope()["code"] == "internal"
    assert caught.value.status == 502


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_a_rejection_is_not_retried(status):
    body = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    rejection = reply(body, status=status, headers={"location": "http://127.0.0.1:1/"})
    with provider(rejection) as it, pytest.raises(UpstreamFailure, match=f"answered {status} ") as caught:
        embed(it.url, "x")
    assert len(it.seen) == 1
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("value", ["0", "soon", "", "-5", "Thu, 01 Jan 1970 00:00:00 GMT", "9 9 9"])
def test_a_retry_after_that_is_short_or_unreadable_is_retried_soon(value):
    with provider(Reply(status=429, headers={"retry-after": value}), ONE) as it:
        assert embed(it.url, "x") == [[1.0, 2.0]]
    assert len(it.seen) == 2


@pytest.mark.parametrize("value", ["3600", "9" * 400, formatdate(ManualAmbient().now_ms() / 1000 + 3600, usegmt=True)])
def test_a_retry_after_beyond_the_budget_is_not_waited_for(value):
    limited = Reply(status=429, headers={"retry-after": value})
    with provider(limited, ONE) as it, pytest.raises(UpstreamFailure, match="429 Too Many Requests"):
        embed(it.url, "x")
    assert len(it.seen) == 1


def test_a_retry_after_within_the_budget_is_waited_for():
    ambient = ManualAmbient(now_ms=1_700_000_000_700)

    async def main(url: str) -> float:
        client = OpenAIEmbedder(endpoint(url), ambient)
        begun = anyio.current_time()
        await client.embed(["x"], purpose="query")
        await client.aclose()
        return anyio.current_time() - begun

    limited = Reply(status=429, headers={"retry-after": formatdate(1_700_000_001, usegmt=True)})
    with provider(limited, ONE) as it:
        assert 0.29 <= anyio.run(main, it.url) < 5.0


def test_a_refused_connection_is_a_provider_failure():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UpstreamFailure, match=r"could not be reached \(ConnectError\)"):
            embed(url, "x")


def test_an_address_that_no_request_can_go_to_is_a_provider_failure():
    for url in ("ftp://127.0.0.1", "http://127.0.0.1:99999", "http://\x00"):
        with pytest.raises(UpstreamFailure, match="could not be asked"):
            embed(url, "x")


def test_a_connection_dropped_in_mid_answer_is_retried():
    with provider(Reply(ONE.body, cut=True), ONE) as it:
        assert embed(it.url, "x") == [[1.0, 2.0]]


def test_a_connection_dropped_every_time_is_a_provider_failure():
    with provider(Reply(ONE.body, cut=True)) as it, pytest.raises(UpstreamFailure, match="RemoteProtocol"):
        embed(it.url, "x")
    assert len(it.seen) == 3


def test_a_credential_that_no_header_can_carry_does_not_reach_the_message():
    for key in ("sk-secret\n", "sk-secret’"):
        client = OpenAIEmbedder(Endpoint("acme", "http://127.0.0.1:1", "m-1", 5.0, key), ManualAmbient())
        with pytest.raises(UpstreamFailure, match="could not be") as caught:
            using(client, lambda e: e.embed(["x"], purpose="query"))
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_after_five_failures_the_provider_is_left_alone_for_30_s_and_then_probed():
    ambient = ManualAmbient()

    async def ask(client: OpenAIEmbedder, expected: str | None) -> None:
        if expected is None:
            await client.embed(["x"], purpose="query")
        else:
            with pytest.raises(UpstreamFailure, match=expected):
                await client.embed(["x"], purpose="query")

    async def story(client: OpenAIEmbedder) -> None:
        for _ in range(5):
            await ask(client, "not JSON")
        assert len(it.seen) == 5
        await ask(client, "left alone")
        ambient.advance(seconds=29.9)
        await ask(client, "left alone")
        assert len(it.seen) == 5
        ambient.advance(seconds=0.1)
        await ask(client, "not JSON")
        await ask(client, "left alone")
        assert len(it.seen) == 6
        ambient.advance(seconds=30)
        it.script[:] = [ONE]
        await ask(client, None)
        await ask(client, None)
        it.script[:] = [Reply(b"garbage")]
        for _ in range(5):
            await ask(client, "not JSON")
        await ask(client, "left alone")
        assert len(it.seen) == 13

    with provider(Reply(b"garbage")) as it:
        using(OpenAIEmbedder(endpoint(it.url), ambient), story)


def test_only_one_request_probes_an_open_circuit():
    ambient, released = ManualAmbient(), threading.Event()

    async def story(client: OpenAIEmbedder) -> None:
        for _ in range(5):
            with pytest.raises(UpstreamFailure, match="not JSON"):
                await client.embed(["x"], purpose="query")
        ambient.advance(seconds=30)
        async with anyio.create_task_group() as group:

            async def probe() -> None:
                assert await client.embed(["x"], purpose="query") == [[1.0, 2.0]]

            group.start_soon(probe)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(UpstreamFailure, match="left alone"):
                await client.embed(["x"], purpose="query")
            released.set()
        assert await client.embed(["x"], purpose="query") == [[1.0, 2.0]]
        assert len(it.seen) == 7

    with provider(*[Reply(b"garbage")] * 5, Reply(ONE.body, held_by=released)) as it:
        using(OpenAIEmbedder(endpoint(it.url), ambient), story)


def test_rejected_requests_do_not_open_the_circuit():
    async def story(client: OpenAIEmbedder) -> None:
        for _ in range(8):
            with pytest.raises(UpstreamFailure, match="400 Bad Request"):
                await client.embed(["x"], purpose="query")

    with provider(Reply(status=400)) as it:
        using(OpenAIEmbedder(endpoint(it.url), ManualAmbient()), story)
    assert len(it.seen) == 8
