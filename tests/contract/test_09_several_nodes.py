"""Items 116 and 117: processes and machines that make and delete the same databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from contract.branches import KeptStore, elsewhere, fork, ref, summaries, sync
from contract.databases import delete, listed, made, name_of, usage
from contract.live_node import Live, Memory, event, fact, serve
from memoturn_storage.ambient import ManualAmbient


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> Iterator[tuple[Live, Live]]:
    """Two nodes on one data directory, as two processes have it."""
    directory, ambient = tmp_path_factory.mktemp("shared"), ManualAmbient(now_ms=4_000_000_000_000)
    store = KeptStore(ambient)
    with serve(directory, ambient=ambient, store=store) as one, serve(directory, ambient=ambient, store=store) as two:
        yield one, two


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[tuple[Live, Live]]:
    """Two nodes on one object store; each opens what it is asked for, and leaves it at once."""
    ambient = ManualAmbient(now_ms=4_000_000_000_000)
    store = KeptStore(ambient)
    with (
        serve(tmp_path_factory.mktemp("one"), ambient=ambient, store=store) as one,
        serve(tmp_path_factory.mktemp("two"), ambient=ambient, store=store) as two,
    ):
        yield one, two


def leave(live: Live, memory: Memory) -> None:
    """Have the node close a profile, as it does when nobody uses it."""
    if live.node.engine.is_open(ref(live, memory)):
        sync(elsewhere(memory, live))
        engine = live.node.engine
        engine.exclusive(ref(live, memory), engine.sleep).result(20)


@pytest.mark.parametrize("pair", ["processes", "machines"])
def test_item_116_of_racing_creates_one_is_201_and_all_have_its_uuid(request, pair):
    nodes = request.getfixturevalue(pair)
    with ThreadPoolExecutor(8) as threads:
        for name in ("race1", "race2", "race3", "race4"):
            together = threading.Barrier(8)

            def create(live: Live, name: str = name, together: threading.Barrier = together) -> httpx.Response:
                together.wait(20)
                return live.http.post("/v1/databases", json={"name": name})

            answers = list(threads.map(create, nodes * 4))
            assert sorted(answer.status_code for answer in answers) == [201] + 7 * [409]
            [winner] = [answer.json()["uuid"] for answer in answers if answer.status_code == 201]
            for live in nodes:
                assert usage(live.http, name)["uuid"] == winner


@pytest.mark.parametrize("pair", ["processes", "machines"])
def test_item_116_concurrent_first_writes_of_a_profile_make_one_database(request, pair):
    one, two = request.getfixturevalue(pair)
    memories = [one.memory() for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        # On machines that share no leases one of the two owns it and the other is fenced: the uuid is what they share.
        for memory in memories:
            both = (memory, elsewhere(memory, two))
            list(threads.map(lambda each: each.ingest(event("Something")), both * 4))
            assert ref(one, memory).uuid == ref(two, memory).uuid


def test_a_deletion_is_done_by_the_process_that_has_it_open_and_holds_for_all(processes):
    one, two = processes
    mine = one.memory()
    theirs = elsewhere(mine, two)
    mine.keep(fact("user.city", "Lives in Oslo"))
    assert theirs.txid == 1
    old = ref(one, mine)
    assert one.node.engine.is_open(old)
    assert delete(two.http, name_of(mine)).status_code == 204
    assert not one.node.engine.is_open(old)
    for memory in (mine, theirs):
        assert memory.txid == 0
        assert not memory.exists
    assert delete(one.http, name_of(mine)).status_code == 404
    theirs.keep(fact("user.city", "Lives in Rome"))
    assert summaries(mine, "Lives") == summaries(theirs, "Lives") == {"Lives in Rome"}
    assert two.node.engine.is_open(ref(two, mine))
    assert delete(one.http, name_of(mine)).status_code == 204
    assert mine.txid == theirs.txid == 0


def test_item_117_a_profile_that_was_deleted_elsewhere_begins_anew_on_a_machine_that_was_told_nothing(machines):
    one, two = machines
    mine = one.memory()
    theirs = elsewhere(mine, two)
    mine.keep(event("Note of old"))
    leave(one, mine)
    assert summaries(theirs) == {"Note of old"}
    old = ref(two, mine)
    leave(two, mine)
    assert delete(one.http, name_of(mine)).status_code == 204
    assert two.node.catalog.known(name_of(mine)) is not None
    theirs.keep(event("Note of today"))
    assert ref(two, mine).uuid != old.uuid
    leave(two, mine)
    assert summaries(mine) == summaries(theirs) == {"Note of today"}
    assert ref(one, mine) == ref(two, mine)
    assert one.node.catalog.deleted_at(name_of(mine)) == two.node.catalog.deleted_at(name_of(mine)) is not None


def test_item_117_reads_of_what_was_deleted_elsewhere_are_as_of_an_unknown_profile(machines):
    one, two = machines
    mine = one.memory()
    theirs = elsewhere(mine, two)
    [kept] = mine.keep(event("Note of old"))
    fork(mine, "x")
    leave(one, mine)
    assert summaries(theirs) == {"Note of old"}
    leave(two, mine)
    delete(one.http, name_of(mine))
    assert theirs.get(kept["id"]).json()["code"] == "database_not_found"
    assert theirs.recall(query="note").json() == {"memories": [], "txid": 0}
    assert two.http.get(f"/v1/databases/{name_of(mine)}/branches").json()["code"] == "database_not_found"
    assert not theirs.exists


def test_what_another_machine_makes_and_deletes_is_in_the_list_after_some_seconds(machines):
    one, two = machines
    made(one.http, "far-away")
    two.ambient.advance(seconds=5)
    assert "far-away" in listed(two.http)
    delete(one.http, "far-away")
    two.ambient.advance(seconds=5)
    assert "far-away" not in listed(two.http)


@pytest.mark.parametrize("pair", ["processes", "machines"])
def test_writes_beside_deletions_land_before_or_after_and_never_in_between(request, pair):
    """Several write, one deletes: what a write was told holds until the next deletion, and nothing after it."""
    one, two = request.getfixturevalue(pair)
    writers = (one, two) if pair == "processes" else (one, one)
    memory = one.memory()
    stop, sent = threading.Event(), threading.Lock()
    log: list[tuple[str, float, float, int]] = []

    def write(live: Live, number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            text = f"{number}-{count}"
            begun = time.perf_counter()
            status = elsewhere(memory, live).append("s", "user", text).status_code
            with sent:
                log.append((text, begun, time.perf_counter(), status))

    with ThreadPoolExecutor(4) as threads:
        writing = [threads.submit(write, live, number) for number, live in enumerate(writers * 2)]
        deletions = []
        try:
            for live in (one, two if pair == "processes" else one) * 3:
                with sent:
                    log_length = len(log)
                while len(log) < log_length + 8:
                    time.sleep(0.001)
                begun = time.perf_counter()
                status = delete(live.http, name_of(memory)).status_code
                deletions.append((begun, time.perf_counter()))
                assert status in (204, 404)
        finally:
            stop.set()
        for each in writing:
            each.result(20)
    assert {status for *_, status in log} <= {201, 404, 503}
    assert [status for *_, status in log].count(201) > len(log) // 2
    last_begun, last_done = deletions[-1]
    response = one.http.get(f"{memory.database}/memory/s/turns", params={"last": 1_000})
    found = [turn["content"] for turn in response.json()["turns"]] if response.status_code == 200 else []
    assert not {text for text, _, done, _ in log if done < last_begun} & set(found)
    assert {text for text, begun, _, status in log if begun > last_done and status == 201} <= set(found)
