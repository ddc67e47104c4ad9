"""A whole node over S3: its disk is lost, its process killed, two share a data directory, and answers get lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.live_node import event, fact
from e2e.nodes import (
    DURABLE,
    Launcher,
    Node,
    act,
    fork,
    restored,
    summaries,
    sync,
    turns,
    uuid_of,
    wait_until,
)
from memoturn_storage.manifest import BranchRef
from objects.proxy import proxy
from objects.servers import Remote, environment, s3

BOUND_S = 12
"""After which a request has been answered that needs a store whose answers get lost."""


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with s3() as running:
        yield running


@pytest.fixture(autouse=True)
def _credentials(remote: Remote) -> Iterator[None]:
    with environment(remote.environment):
        yield


def seen(node: Node, profile: str) -> object:
    """Everything that the node tells of a profile, its branch and its transcript."""
    memory = node.memory(profile)
    there = {"branch": "x"}
    recall = {"query": "note lives", "k": 100, "include_superseded": True, "embedding": [0.0, 1.0]}
    branches = memory.http.get(f"{memory.database}/branches").json()
    return (
        memory.found(**recall),
        memory.http.post(f"{memory.path}/recall", json=recall, params=there).json(),
        turns(memory),
        branches,
        memory.sessions().json(),
        memory.http.get(f"{memory.database}/storage").json()["checkpoints"],
    )


def test_items_97_and_190_what_was_synced_outlives_the_process_and_its_disk(
    launch: Launcher, remote: Remote, tmp_path: Path
) -> None:
    url = remote.url()
    node = launch(tmp_path / "home", url)
    profiles = ("alice", "bob")
    for profile in profiles:
        memory = node.memory(profile)
        memory.keep(fact("city", f"{profile} lives in Oslo", embedding=[1.0, 0.0]))
        memory.keep(fact("city", f"{profile} lives in Rome", embedding=[0.0, 1.0]), event("note"))
        memory.append("s", "user", f"Hello from {profile}")
        assert act(memory, "checkpoint", name="c").status_code == 200
        assert fork(memory, "x").status_code == 201
        body = {"memories": [event("note of x")]}
        assert memory.http.post(f"{memory.path}/memories", json=body, params={"branch": "x"}).status_code == 201
        memory.append("s", "assistant", "Hello")
        assert sync(memory).status_code == 200
        assert memory.http.post(f"{memory.database}/sync", params={"branch": "x"}).status_code == 200
    before = [seen(node, profile) for profile in profiles]
    node.kill()
    shutil.rmtree(tmp_path / "home")
    fresh = launch(tmp_path / "home", url)
    assert [seen(fresh, profile) for profile in profiles] == before
    objects = remote.open(url)
    for profile in profiles:
        memory = fresh.memory(profile)
        with restored(objects, BranchRef(uuid_of(objects, memory), "main")) as state:
            assert state.execute("SELECT count(*) FROM __memoturn_memories").get == 3
        assert act(memory, "rewind", to="c").status_code == 200
        assert turns(memory) == [(1, f"Hello from {profile}")]
        assert memory.ingest(event("note 2"), headers=DURABLE).status_code == 201
    listed = fresh.http.get("/v1/memory/acme").json()["profiles"]
    assert {entry["profile"] for entry in listed} == set(profiles)
    objects.close()


def test_two_processes_on_one_data_directory_lose_nothing_when_the_owner_and_then_the_disk_is_lost(
    launch: Launcher, remote: Remote, tmp_path: Path
) -> None:
    url = remote.url()
    first, second = launch(tmp_path / "home", url), launch(tmp_path / "home", url)
    first.memory("alice").keep(event("note"))

    def write(node: Node, by: str) -> None:
        for number in range(10):
            assert node.memory("alice").append("s", "user", f"{number} by {by}").status_code == 201

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(write, first, "a"), pool.submit(write, second, "b")]:
            each.result()
    expected = {f"{n} by {by}" for n in range(10) for by in "ab"}
    assert turns(first.memory("alice")) == turns(second.memory("alice"))
    first.kill()
    assert second.memory("alice").append("s", "user", "last").status_code == 201
    transcript = turns(second.memory("alice"))
    assert [seq for seq, _ in transcript] == list(range(1, 22))
    assert {content for _, content in transcript} == expected | {"last"}
    assert sync(second.memory("alice")).status_code == 200
    second.kill()
    shutil.rmtree(tmp_path / "home")
    fresh = launch(tmp_path / "home", url).memory("alice")
    assert turns(fresh) == transcript
    assert summaries(fresh) == {"note"}


def test_while_answers_of_the_store_get_lost_standard_writes_go_on_and_all_is_there_once_afterwards(
    launch: Launcher, remote: Remote, tmp_path: Path
) -> None:
    url = remote.url()
    endpoint = remote.environment["AWS_ENDPOINT_URL"]
    with proxy(int(endpoint.rpartition(":")[2])) as between:
        with environment({**remote.environment, "AWS_ENDPOINT_URL": between.endpoint}):
            node = launch(tmp_path / "home", url)
        memory, kept = node.memory("alice"), set[str]()
        for number in range(12):
            between.lose = number % 3
            response = memory.ingest(event(f"note {number}"), headers=DURABLE)
            assert response.status_code in (201, 503), response.text
            kept |= {f"note {number}"} if response.status_code == 201 else set()
        between.lose = 1 << 30
        memory.keep(event("note of the dark"))
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            dark = [
                pool.submit(call)
                for call in (
                    lambda: memory.ingest(event("note that is durable"), headers=DURABLE),
                    lambda: sync(memory),
                    lambda: act(memory, "checkpoint", name="c"),
                    lambda: node.memory("stranger").recall(query="note"),
                )
            ]
            assert [each.result().status_code for each in dark] == [503] * 4
        assert time.monotonic() - began < BOUND_S
        assert summaries(memory) >= kept | {"note of the dark"}
        between.lose = 0
        wait_until(lambda: node.unshipped() == 0, "everything is shipped")
        there = summaries(memory)
        node.kill()
    objects = remote.open(url)
    with restored(objects, BranchRef(uuid_of(objects, memory), "main")) as state:
        rows = [row for (row,) in state.execute("SELECT summary FROM __memoturn_memories")]
    objects.close()
    assert set(rows) == there >= kept | {"note of the dark"}
    assert len(rows) == len(there)
