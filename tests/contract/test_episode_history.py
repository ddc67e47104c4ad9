"""Episodes deleted, forked, rewound, read as they were and opened again: what is there, and what is measured by it."""

from __future__ import annotations

import statistics
from typing import Any

import apsw
import pytest

from contract.branches import fork, on, ref, rewind, selected, sync
from contract.episodes import (
    FAILURE,
    SUCCESS,
    Episodes,
    did,
    episodes_of_memory,  # noqa: F401 - a fixture
    right,
    whole,
)
from contract.live_node import Live, Memory, event, serve
from memoturn_storage.handle import Snapshot

# --- what is typical of a domain -----------------------------------------------------------------


def scales(answer: dict[str, Any]) -> list[str]:
    return [term["because"] for term in answer["reward"]["terms"]["efficiency"]]


def test_from_5_completed_episodes_on_a_domain_measures_by_its_own_medians(live, tmp_path):
    """Through deletions, rewinds and a new start of the node, what is measured by is what is there."""
    with serve(tmp_path, ambient=live.ambient) as own:
        memory = own.memory()
        episodes = Episodes(memory)
        seconds: list[int] = []
        for n, taken in enumerate([40, 10, 90, 20, 30, 70]):
            expect_scale(episodes, seconds, taken)
            assert len(seconds) == n + 1
        txid, kept = memory.txid, list(seconds)
        right(episodes.delete(episodes.listed(domain="ab")[0]))
        seconds.pop()
        expect_scale(episodes, seconds, 500)
        rewind(memory, txid)
        expect_scale(episodes, kept, 3)
        episodes.imported(*(whole(domain="ab", start_time=0, end_time=1_000, outcome=SUCCESS) for _ in range(8)))
        kept += [1] * 8
        expect_scale(episodes, kept, 8)
    with serve(tmp_path, ambient=live.ambient) as again:
        expect_scale(Episodes(Memory(again.http, memory.namespace, memory.profile)), kept, 9)


def expect_scale(episodes: Episodes, before: list[int], seconds: int) -> None:
    """Complete an episode that took so long, and look at what it was measured by."""
    episode = episodes.begun(domain="ab", start_time=0)
    right(episodes.step(episode), 201)
    answer = right(episodes.complete(episode, end_time=seconds * 1_000))
    scale = 2 * statistics.median(before) if len(before) >= 5 else 120
    duration = scales(answer)[0]
    assert f"/ {scale:g} s" in duration, (duration, scale)
    before.append(seconds)
    episodes.imported(whole(domain="another", start_time=0, end_time=7_000, outcome=SUCCESS))


# --- deletion ------------------------------------------------------------------------------------


def rows_of(live: Live, memory: Memory) -> dict[str, Any]:
    """Every row of every table of the file, once its indexes have been found to agree with them."""

    def work(snapshot: Snapshot) -> dict[str, Any]:
        connection = snapshot.connection
        check(connection)
        tables: list[Any] = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '%USING fts5vocab%'"
            " AND name NOT LIKE '%_fts%' AND name <> '__memoturn_txid'"
        ).fetchall()
        rows = {name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}"))) for (name,) in tables}
        words = connection.execute("SELECT * FROM __memoturn_episodes_words").fetchall()
        return {**rows, "words": sorted(map(repr, words))}

    return live.node.engine.read(ref(live, memory), work).result(20).value


def check(connection: apsw.Connection) -> None:
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.execute(
        "INSERT INTO __memoturn_episodes_fts (__memoturn_episodes_fts, rank) VALUES ('integrity-check', 1)"
    )


OFTEN = [
    did("grep"),
    did("edit"),
    did("test", result={"type": "error", "message": "one failed"}),
    did("edit"),
    did("test"),
]


@pytest.mark.parametrize("completed", [False, True])
def test_a_deleted_episode_leaves_nothing_behind(live, memory, episodes, completed):
    about = {"domain": "web-api", "tags": ["tag"], "embedding": [1.0, 0.0], "task_type": "debugging"}
    for n in range(3):
        episodes.completed(*OFTEN, **about, task_description=f"Repair the login {n}")
    other = episodes.listed()[-1]
    before = rows_of(live, memory)
    gone = episodes.begun(**{**about, "tags": ["tag", "another"]}, task_description="Zebra", session_id="s")
    for step in [*OFTEN, did("unheard"), did("of")]:
        right(episodes.step(gone, **step), 201)
    right(episodes.post(f"{gone}/checkpoints", note="here"), 201)
    right(episodes.post(f"{gone}/tags", add=["third"]))
    advice = {"task_description": "Repair the login", "domain": "web-api", "episode_id": gone}
    offered = right(memory.http.post(f"{memory.path}/patterns/recommend", json=advice))
    [first, *_] = [each["pattern_id"] for each in offered["recommended"] + offered["avoid"]]
    said = {
        "recommendation_id": offered["recommendation_id"],
        "episode_id": gone,
        "feedback": [{"pattern_id": first, "outcome": "hindered"}],
    }
    right(memory.http.post(f"{memory.path}/patterns/feedback", json=said))
    if completed:
        right(episodes.complete(gone))
    for source, target in ((gone, other), (other, gone)):
        right(episodes.post(f"{source}/relationships", add=[{"target": target, "type": "related_to"}]))
    assert {name for name, rows in rows_of(live, memory).items() if rows != before[name]} >= {
        *("__memoturn_episodes", "__memoturn_episode_steps", "__memoturn_episode_tags", "__memoturn_episode_links"),
        *("__memoturn_episode_vectors", "__memoturn_recommendations", "__memoturn_pattern_feedback", "words"),
    }
    assert right(episodes.delete(gone))["deleted"] is True
    assert rows_of(live, memory) == before
    for response in (episodes.delete(gone), episodes.get(gone), episodes.step(gone), episodes.complete(gone)):
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert gone in response.json()["error"]
    assert gone not in episodes.listed()


# --- branches and the past -----------------------------------------------------------------------


def test_the_past_is_read_as_it_was(episodes):
    episode = episodes.begun()  # 1
    right(episodes.step(episode), 201)  # 2
    right(episodes.step(episode), 201)  # 3
    right(episodes.complete(episode))  # 4
    right(episodes.delete(episode))  # 5
    for txid, steps, outcome in ((1, 0, None), (2, 1, None), (3, 2, None), (4, 2, "success")):
        found = right(episodes.get(episode, as_of=txid))
        assert len(found["steps"]) == found["episode"]["step_count"] == steps
        [entry] = right(episodes.list(as_of=txid))["episodes"]
        assert (entry["step_count"], entry["outcome"]) == (steps, outcome)
    assert episodes.get(episode, as_of=5).status_code == 404
    assert episodes.listed(as_of=5) == []


def test_a_fork_goes_its_own_way_and_a_rewind_takes_a_completion_back(episodes, memory, live):
    episode = episodes.begun(embedding=[1.0, 0.0])
    right(episodes.step(episode, **did("grep")), 201)
    memory.keep(event("Something else"))
    sync(memory)
    elsewhere = Episodes(fork(memory, "attempt"))
    txid = memory.txid
    for place in (episodes, elsewhere):
        assert right(place.step(episode, **did("edit"), step_number=2), 201)["step_count"] == 2
    right(elsewhere.complete(episode, FAILURE))
    right(episodes.complete(episode, SUCCESS))
    assert (episodes.known(episode)["outcome"], elsewhere.known(episode)["outcome"]) == (
        SUCCESS,
        FAILURE,
    )
    right(elsewhere.delete(episode))
    assert episodes.known(episode)["outcome"] == SUCCESS
    rewind(memory, txid)
    found = right(episodes.get(episode))
    assert (found["episode"]["outcome"], found["episode"]["step_count"], len(found["steps"])) == (None, 1, 1)
    right(episodes.step(episode, **did("sed")), 201)
    assert right(episodes.complete(episode, FAILURE))["reward"]["base"] == 0
    rows_of(live, memory)
    assert [row for (row,) in selected(live, ref(live, memory), "SELECT outcome FROM __memoturn_episodes")] == [
        "failure"
    ]
    assert Episodes(on(memory, "attempt")).listed() == []
