"""A node that is busy says so: 429 when a database's queue is full, 408 when the time budget runs out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from contract.live_node import Live, Memory, assert_envelope, event, serve
from memoturn_storage.handle import Transaction
from memoturn_storage.manifest import BranchRef


@contextmanager
def busy_engine(live: Live, memory: Memory) -> Iterator[None]:
    """While the block runs, the engine thread of this profile is held up by another write."""
    memory.keep(event("the first"))
    entry = live.node.catalog.create(f"{memory.namespace}--{memory.profile}")
    started, release = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        started.set()
        assert release.wait(30)

    held = live.node.engine.write(BranchRef(entry.uuid), hold)
    assert started.wait(30)
    try:
        yield
    finally:
        release.set()
        held.result(30)


def test_a_full_queue_is_429_with_retry_after_at_once_and_what_is_queued_still_lands(tmp_path):
    too_many = 300 - 256

    async def flood(live: Live, memory: Memory) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(base_url=live.url, trust_env=False, timeout=30, limits=limits) as client:
            with busy_engine(live, memory):
                bodies = [{"memories": [event(f"flood {number}")]} for number in range(300)]
                pending = {asyncio.create_task(client.post(f"{memory.path}/memories", json=body)) for body in bodies}
                refused: set[asyncio.Task[httpx.Response]] = set()
                while len(refused) < too_many:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    refused |= done
            return await asyncio.gather(*refused, *pending)

    with serve(tmp_path) as live:
        memory = live.memory()
        responses = asyncio.run(flood(live, memory))
        refused, kept = responses[:too_many], responses[too_many:]
        for response in refused:
            assert response.status_code == 429
            assert_envelope(response)
            assert response.json()["code"] == "overloaded"
            assert response.headers["Retry-After"] == "1"
        assert {response.status_code for response in kept} == {201}
        assert len(memory.found(query="flood", k=1000)) == len(kept) == 256


def test_a_request_whose_time_runs_out_is_408_and_changes_nothing(tmp_path):
    with serve(tmp_path, request_timeout_s=0.3) as live:
        memory = live.memory()
        with busy_engine(live, memory):
            late = memory.ingest(event("too late"))
            assert late.status_code == 408
            assert late.json()["code"] == "request_timeout"
        assert memory.found(query="late") == []
        assert [hit["summary"] for hit in memory.found(query="first")] == ["the first"]
