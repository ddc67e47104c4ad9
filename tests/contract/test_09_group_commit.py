"""Items 102 and 142: writes that wait together, and a queue that is full."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contract.live_node import Live, Memory, assert_envelope, event, serve
from memoturn_storage.engine import Limits
from memoturn_storage.handle import Transaction
from memoturn_storage.manifest import BranchRef

WAIT_S = 30


@contextlib.contextmanager
def held(live: Live, memory: Memory) -> Iterator[None]:
    """While the block runs, another write keeps the profile's engine thread."""
    started, release = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        started.set()
        assert release.wait(WAIT_S)

    entry = live.node.catalog.find(f"{memory.namespace}--{memory.profile}")
    assert entry is not None
    holding = live.node.engine.write(BranchRef(entry.uuid), hold)
    assert started.wait(WAIT_S)
    try:
        yield
    finally:
        release.set()
        holding.result(WAIT_S)


def until_waiting(live: Live, count: int) -> None:
    while live.node.engine.stats().waiting_jobs < count:
        assert live.http.get("/health").status_code == 200


def test_item_102_writes_at_once_share_a_txid_and_one_that_fails_rolls_back_alone(tmp_path: Path) -> None:
    with serve(tmp_path) as live, ThreadPoolExecutor() as pool:
        memory = live.memory()
        memory.keep(event("the first"))
        insert = f"{memory.database}/docs/notes/insert"
        assert live.http.post(insert, json={"docs": [{"_id": "taken"}]}).status_code == 201
        before = memory.txid
        with held(live, memory):
            kept = [pool.submit(memory.ingest, event(f"kept {number}")) for number in range(3)]
            failing = pool.submit(live.http.post, insert, json={"docs": [{"_id": "new"}, {"_id": "taken"}]})
            until_waiting(live, 4)
        assert (failing.result().status_code, failing.result().json()["code"]) == (409, "already_exists")
        assert [response.result().status_code for response in kept] == [201] * 3
        assert {response.result().json()["txid"] for response in kept} == {before + 1}
        assert len(memory.found(query="kept")) == 3
        found = live.http.post(f"{memory.database}/docs/notes/find", json={}).json()
        assert found["docs"] == [{"_id": "taken"}]


def test_item_142_a_full_queue_refuses_at_once_and_what_is_queued_still_lands(tmp_path: Path) -> None:
    with serve(tmp_path, limits=Limits(queue_depth=2)) as live, ThreadPoolExecutor() as pool:
        memory = live.memory()
        memory.keep(event("the first"))
        with held(live, memory):
            queued = [pool.submit(memory.ingest, event(f"queued {number}")) for number in range(2)]
            until_waiting(live, 2)
            refused = memory.ingest(event("one too many"))
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            assert_envelope(refused)
            assert refused.json()["code"] == "overloaded"
        assert [response.result().status_code for response in queued] == [201, 201]
        assert len(memory.found(query="queued many")) == 2
