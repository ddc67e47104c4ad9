"""Episodes through REST: created, filled with steps, completed, read, listed, imported and deleted."""

from __future__ import annotations

import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apsw
import httpx
import pytest

from contract.bad_input import refused, where
from contract.branches import fork, on, ref, rewind, selected, sync
from contract.live_node import Live, Memory, event, serve
from memoturn_schemas.episodes import EPISODE_BYTES, STEP_NUMBER, STEPS, VALUE_BYTES
from memoturn_storage.handle import Snapshot

TOOLSETS = "all"
SUCCESS = {"type": "success", "verdict": "The login works again", "artifacts": ["auth.py"]}
FAILURE = {"type": "failure", "reason": "The server does not start", "error_details": "port in use"}
NOBODY = "00000000-0000-0000-0000-000000000000"


class Episodes:
    """The episodes of a profile by their routes."""

    def __init__(self, memory: Memory) -> None:
        self.http = memory.http
        self.path = f"{memory.path}/episodes"

    def create(self, **more: Any) -> httpx.Response:
        return self.http.post(self.path, json={"task_description": "Repair the login", **more})

    def step(self, episode: str, **more: Any) -> httpx.Response:
        body = {"tool": "grep", "action": "look for the call", **more}
        return self.http.post(f"{self.path}/{episode}/steps", json=body)

    def complete(self, episode: str, outcome: Any = SUCCESS, **more: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/{episode}/complete", json={"outcome": outcome, **more})

    def get(self, episode: str, **query: Any) -> httpx.Response:
        return self.http.get(f"{self.path}/{episode}", params=query)

    def delete(self, episode: str) -> httpx.Response:
        return self.http.delete(f"{self.path}/{episode}")

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/{path}", json=body)

    def list(self, **query: Any) -> httpx.Response:
        return self.http.get(self.path, params=query)

    def bulk(self, *episodes: dict[str, Any]) -> httpx.Response:
        return self.http.post(f"{self.path}/bulk", json={"episodes": list(episodes)})

    # --- what is certainly right -----------------------------------------------------------------

    def begun(self, **more: Any) -> str:
        return str(right(self.create(**more), 201)["episode_id"])

    def completed(self, *steps: dict[str, Any], outcome: Any = SUCCESS, **more: Any) -> str:
        episode = self.begun(**more)
        for step in steps:
            right(self.step(episode, **step), 201)
        right(self.complete(episode, outcome))
        return episode

    def listed(self, **query: Any) -> list[str]:
        return [entry["episode_id"] for entry in right(self.list(**query))["episodes"]]

    def imported(self, *episodes: dict[str, Any]) -> list[str]:
        ids: list[str] = right(self.bulk(*episodes), 201)["episode_ids"]
        return ids

    def known(self, episode: str, **query: Any) -> dict[str, Any]:
        found: dict[str, Any] = right(self.get(episode, **query))["episode"]
        return found


def right(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.text[:500]
    body: dict[str, Any] = response.json()
    return body


@pytest.fixture
def episodes(memory: Memory) -> Episodes:
    return Episodes(memory)


def whole(description: str = "Repair the login", **more: Any) -> dict[str, Any]:
    return {"task_description": description, **more}


def did(tool: str, **more: Any) -> dict[str, Any]:
    return {"tool": tool, "action": f"use {tool}", "result": {"type": "success", "output": "fine"}, **more}


# --- the life of an episode ----------------------------------------------------------------------


def test_an_open_episode_is_read_as_it_was_created(episodes, live):
    now = live.ambient.now_ms()
    created = right(episodes.create(), 201)
    assert created == {"episode_id": created["episode_id"], "start_time": now, "txid": 1}
    assert right(episodes.get(created["episode_id"])) == {
        "episode": {
            "episode_id": created["episode_id"],
            "task_type": "other",
            "task_description": "Repair the login",
            "context": {
                "domain": "general",
                "language": None,
                "framework": None,
                "complexity": "moderate",
                "tags": [],
            },
            "session_id": None,
            "source": None,
            "start_time": now,
            "end_time": None,
            "step_count": 0,
            **dict.fromkeys(("outcome", "reward", "quality", "reflection", "salient", "summary")),
            **{name: [] for name in ("pattern_ids", "heuristic_ids", "applied_patterns", "checkpoints")},
            "metadata": {},
        },
        "steps": [],
    }


def test_everything_that_is_said_of_an_episode_is_kept(episodes):
    given = {
        "task_description": "Füge eine Suche hinzu \u2028 \x00",
        "task_type": "code_generation",
        "domain": "web-api",
        "language": "python",
        "framework": "starlette",
        "complexity": "complex",
        "tags": ["search", "api", "search"],
        "session_id": "s",
        "source": "an agent",
        "start_time": -5,
        "metadata": {"big": 10**30, "small": 5e-324, "deep": [{"\x00": None}]},
    }
    steps = [
        {
            "step_number": 7,
            "timestamp": -4,
            "tool": "edit",
            "action": "decide",
            "parameters": {"path": "a/b", "count": 2**70},
            "result": {"type": "error", "message": "no such file"},
            "latency_ms": 12,
            "tokens_used": 2**63 - 1,
            "metadata": {"decision": True},
        },
        {"step_number": 3, "timestamp": -3, "tool": "wait", "action": "", "result": {"type": "timeout"}},
    ]
    episode = episodes.begun(**given)
    for step in steps:
        right(episodes.step(episode, **step), 201)
    found = right(episodes.get(episode))
    context = {name: given.pop(name) for name in ("domain", "language", "framework", "complexity")}
    assert found["episode"]["context"] == {**context, "tags": ["search", "api"]}
    del given["tags"]
    assert {name: found["episode"][name] for name in given} == given
    left_out = {"parameters": {}, "latency_ms": None, "tokens_used": None, "metadata": {}}
    assert found["steps"] == [{**left_out, **step} for step in reversed(steps)]
    assert right(episodes.get(episode, steps="false"))["steps"] is None


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize(
    "outcome",
    [
        SUCCESS,
        {"type": "partial_success", "verdict": "Half of it", "completed": ["this"], "failed": ["that"]},
        {"type": "partial_success", "verdict": "", "completed": [], "failed": []},
        FAILURE,
        {"type": "abstained", "reason": "No access", "stopped_at_step": 0, "infeasibility_signals": ["403"]},
    ],
    ids=lambda outcome: outcome["type"],
)
def test_an_episode_of_any_length_and_outcome_is_completed_with_everything_that_follows(episodes, live, steps, outcome):
    episode = episodes.begun()
    for _ in range(steps):
        right(episodes.step(episode), 201)
    live.ambient.advance(seconds=2)
    answer = right(episodes.complete(episode, outcome))
    assert (answer.pop("status"), answer.pop("txid")) == ("completed", steps + 2)
    found = episodes.known(episode)
    assert {name: found[name] for name in answer} == answer
    assert found["outcome"] == outcome
    assert (found["step_count"], found["end_time"]) == (steps, live.ambient.now_ms())
    assert 0 <= found["quality"] <= 1
    reward = found["reward"]
    product = reward["base"] * reward["efficiency"] * reward["complexity"] * reward["quality"]
    assert reward["total"] == product + reward["learning"]
    assert found["summary"]["key_steps"] == list(range(1, steps + 1))
    assert 0 < len(found["summary"]["text"].split()) <= 200


def test_completing_again_answers_the_same_and_changes_nothing(episodes, memory, live):
    episode = episodes.completed(did("grep"))
    first = right(episodes.complete(episode))
    live.ambient.advance(seconds=5)
    again = right(episodes.complete(episode, dict(reversed(SUCCESS.items())), end_time=first["end_time"]))
    assert (first["status"], again) == ("duplicate", first)
    assert memory.txid == first["txid"] == 3


@pytest.mark.parametrize(
    ("outcome", "end_time", "field"),
    [
        (FAILURE, None, "outcome"),
        ({**SUCCESS, "verdict": "It works"}, None, "outcome"),
        ({**SUCCESS, "artifacts": []}, None, "outcome"),
        (SUCCESS, 2**60, "end_time"),
    ],
)
def test_a_completed_episode_has_no_other_end(episodes, outcome, end_time, field):
    episode = episodes.completed()
    before = episodes.known(episode)
    response = episodes.complete(episode, outcome, **({} if end_time is None else {"end_time": end_time}))
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert response.json()["error"].startswith(f"{field}: ")
    assert episodes.known(episode) == before


def test_an_episode_has_a_past_and_no_end_before_its_start(episodes, live):
    began = live.ambient.now_ms() - 365 * 86_400_000
    episode = episodes.begun(start_time=began)
    refused(episodes.complete(episode, end_time=began - 1), "end_time")
    assert episodes.known(episode)["end_time"] is None
    assert right(episodes.complete(episode, end_time=began))["end_time"] == began


def test_an_episode_that_begins_ahead_of_the_clock_ends_then(episodes, live):
    ahead = live.ambient.now_ms() + 60_000
    assert right(episodes.complete(episodes.begun(start_time=ahead)))["end_time"] == ahead


def test_an_agent_is_told_what_is_not_there_instead_of_an_error(mcp, memory, episodes):
    there = episodes.begun()
    for name, flag in (("get_episode", "found"), ("delete_episode", "deleted")):
        absent = mcp.call(name, **where(memory), episode_id=NOBODY)
        assert absent["structuredContent"] == {"txid": None, "result": {flag: False}}
        present = mcp.call(name, **where(memory), episode_id=there)
        assert present["structuredContent"]["result"][flag] is True


def test_the_source_that_an_agent_leaves_out_comes_from_its_environment(mcp, memory, episodes, monkeypatch):
    monkeypatch.setenv("MEMOTURN_SOURCE", "the environment")
    mcp.call("create_episode", **where(memory), task_description="one")
    mcp.call("create_episode", **where(memory), task_description="two", source="itself")
    mcp.call("bulk_episodes", **where(memory), episodes=[whole(), whole(source="itself")])
    sources = [episodes.known(episode)["source"] for episode in reversed(episodes.listed())]
    assert sources == ["the environment", "itself"] * 2


# --- steps ---------------------------------------------------------------------------------------


def test_steps_are_numbered_from_the_highest_and_read_in_order(episodes):
    episode = episodes.begun()
    numbers = []
    for given in (None, 5, None, 2, None):
        more = {} if given is None else {"step_number": given}
        answer = right(episodes.step(episode, action=f"number {given}", **more), 201)
        numbers.append(answer["step_number"])
        assert (answer["step_count"], answer["status"], answer["txid"]) == (len(numbers), "created", len(numbers) + 1)
    assert numbers == [1, 5, 6, 2, 7]
    found = right(episodes.get(episode))
    assert [step["step_number"] for step in found["steps"]] == sorted(numbers)
    assert found["episode"]["step_count"] == 5
    assert right(episodes.list())["episodes"][0]["step_count"] == 5


@pytest.mark.parametrize("completed", [False, True])
def test_the_same_step_again_changes_nothing_and_another_one_is_a_conflict(episodes, memory, live, completed):
    episode = episodes.begun()
    step = did("grep", step_number=3, parameters={"a": 1, "b": [1.0]})
    right(episodes.step(episode, **step), 201)
    if completed:
        right(episodes.complete(episode))
    before, txid = right(episodes.get(episode)), memory.txid
    live.ambient.advance(seconds=9)
    again = right(episodes.step(episode, **{**step, "parameters": {"b": [1.0], "a": 1}}), 200)
    assert again == {"episode_id": episode, "step_number": 3, "step_count": 1, "status": "duplicate", "txid": txid}
    for other in (
        {"tool": "sed"},
        {"action": "Use grep"},
        {"parameters": {"a": 1, "b": [1]}},
        {"parameters": {"a": True, "b": [1.0]}},
        {"result": None},
        {"result": {"type": "success", "output": ""}},
        {"latency_ms": 0},
        {"tokens_used": 0},
        {"metadata": {"decision": None}},
        {"timestamp": live.ambient.now_ms()},
    ):
        response = episodes.step(episode, **{**step, **other})
        assert (response.status_code, response.json()["code"]) == (409, "conflict"), other
        assert response.json()["error"].startswith("step_number: ")
    assert (right(episodes.get(episode)), memory.txid) == (before, txid)


def test_a_step_that_was_given_a_time_is_the_same_without_it(episodes):
    episode = episodes.begun()
    right(episodes.step(episode, step_number=1, timestamp=5), 201)
    for given, status in (({}, 200), ({"timestamp": 5}, 200), ({"timestamp": 6}, 409)):
        assert episodes.step(episode, step_number=1, **given).status_code == status
    assert right(episodes.get(episode))["steps"][0]["timestamp"] == 5


def test_a_completed_episode_takes_no_step(episodes, memory):
    episode = episodes.completed(did("grep"))
    txid = memory.txid
    for number in ({}, {"step_number": 2}):
        response = episodes.step(episode, **number)
        assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert (len(right(episodes.get(episode))["steps"]), memory.txid) == (1, txid)


def test_what_is_sent_at_once_is_taken_one_after_the_other(episodes):
    episode = episodes.begun()
    with ThreadPoolExecutor(8) as pool:
        steps = list(pool.map(lambda n: episodes.step(episode, action=f"action {n}"), range(24)))
        again = list(pool.map(lambda _: episodes.step(episode, action="the same", step_number=99), range(8)))
        ends = list(pool.map(lambda _: episodes.complete(episode), range(8)))
    assert sorted(right(step, 201)["step_number"] for step in steps) == list(range(1, 25))
    assert sorted(step.status_code for step in again) == [200] * 7 + [201]
    assert sorted(right(end)["status"] for end in ends) == ["completed"] + ["duplicate"] * 7
    assert episodes.known(episode)["step_count"] == 25


# --- limits --------------------------------------------------------------------------------------


def sized(size: int) -> dict[str, str]:
    """A JSON object of so many bytes."""
    return {"x": "y" * (size - len('{"x":""}'))}


def too_large(response: httpx.Response, field: str) -> None:
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large"), response.text[:500]
    assert response.json()["error"].startswith(f"{field}: ")


def test_what_is_as_large_as_it_may_be_is_taken_and_a_byte_more_is_not(episodes):
    described = "ü" * 5_000
    episode = episodes.begun(task_description=described, metadata=sized(VALUE_BYTES))
    refused(episodes.create(task_description=described + "x"), "task_description")
    too_large(episodes.create(metadata=sized(VALUE_BYTES + 1)), "metadata")
    right(episodes.step(episode, parameters=sized(VALUE_BYTES), metadata=sized(VALUE_BYTES)), 201)
    too_large(episodes.step(episode, parameters=sized(VALUE_BYTES + 1)), "parameters")
    too_large(episodes.step(episode, metadata=sized(VALUE_BYTES + 1)), "metadata")
    right(episodes.step(episode, action="x" * 10_000, result={"type": "success", "output": "y" * 10_000}), 201)
    refused(episodes.step(episode, action="x" * 10_001), "action")
    refused(episodes.step(episode, result={"type": "error", "message": "x" * 10_001}), "result.message")
    assert right(episodes.list())["episodes"][0]["step_count"] == 2


def test_an_episode_has_at_most_1_000_steps_be_they_sent_one_by_one_or_at_once(episodes):
    steps = [did("grep") for _ in range(STEPS)]
    [episode] = episodes.imported(whole(steps=steps))
    refused(episodes.step(episode), "step_number")
    right(episodes.step(episode, **steps[0], step_number=STEPS, timestamp=None), 200)
    refused(episodes.bulk(whole(), whole(steps=[*steps, did("grep")])), "episodes[1].steps")
    answer = right(episodes.complete(episode))
    assert len(answer["summary"]["text"].split()) <= 200
    assert episodes.known(episode)["step_count"] == STEPS


def test_step_numbers_end_somewhere(episodes):
    episode = episodes.begun()
    right(episodes.step(episode, step_number=STEP_NUMBER), 201)
    refused(episodes.step(episode), "step_number")
    refused(episodes.step(episode, step_number=STEP_NUMBER + 1), "step_number")
    refused(
        episodes.bulk(whole(steps=[did("a", step_number=STEP_NUMBER), did("b")])), "episodes[0].steps[1].step_number"
    )


def test_an_episode_has_at_most_10_mb_be_it_sent_step_by_step_or_at_once(episodes, memory):
    step = did("read", parameters=sized(VALUE_BYTES - 1_000))
    fitting = EPISODE_BYTES // VALUE_BYTES
    [episode] = episodes.imported(whole(steps=[step] * fitting))
    too_large(episodes.step(episode, **step), "parameters")
    right(episodes.step(episode), 201)
    txid = memory.txid
    response = episodes.bulk(whole(), whole(steps=[step] * (fitting + 1)))
    too_large(response, f"episodes[1].steps[{fitting}].parameters")
    assert memory.txid == txid


# --- the list ------------------------------------------------------------------------------------


def test_episodes_are_listed_latest_first_and_each_page_goes_on_where_the_last_one_ended(episodes):
    begun = [whole(f"task {n}", start_time=n // 3 - 2) for n in range(10)]
    ids = episodes.imported(*begun)
    expected = ids[::-1]
    assert episodes.listed() == expected
    for limit in (1, 2, 3, 9, 10, 1_000):
        pages, cursor = [], {}
        while True:
            page = right(episodes.list(limit=limit, **cursor))
            pages.append([entry["episode_id"] for entry in page["episodes"]])
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert [episode for page in pages for episode in page] == expected
        assert {len(page) for page in pages[:-1]} <= {limit}
        assert pages[-1]
    page = right(episodes.list(limit=4))
    episodes.delete(expected[3])
    episodes.begun(start_time=100)
    assert episodes.listed(cursor=page["next_cursor"]) == expected[4:], "what comes and goes meanwhile moves nothing"


def test_the_list_is_narrowed_by_everything_that_it_shows(episodes):
    ids = episodes.imported(
        whole(start_time=1, domain="a", task_type="testing", tags=["x1", "x,2"], session_id="s", outcome=SUCCESS),
        whole(start_time=2, domain="a", task_type="debugging", tags=["x1"], session_id="s", outcome=FAILURE),
        whole(start_time=3, domain="b", task_type="testing", tags=["x1", "x3"], session_id="t"),
        whole(start_time=4, domain="b", task_type="testing", outcome=SUCCESS),
    )
    for query, expected in (
        ({"domain": "a"}, [1, 0]),
        ({"task_type": "testing"}, [3, 2, 0]),
        ({"domain": "b", "task_type": "testing"}, [3, 2]),
        ({"domain": "c"}, []),
        ({"tags": "x1"}, [2, 1, 0]),
        ({"tags": "x1,x3"}, [2]),
        ({"tags": '["x,2"]'}, [0]),
        ({"tags": "x1,no"}, []),
        ({"session_id": "s"}, [1, 0]),
        ({"outcome": "success"}, [3, 0]),
        ({"outcome": "open"}, [2]),
        ({"outcome": "abstained"}, []),
        ({"since": 2}, [3, 2, 1]),
        ({"until": 3}, [1, 0]),
        ({"since": 2, "until": 3}, [1]),
        ({"domain": "a", "outcome": "failure", "tags": "x1", "session_id": "s", "since": 2}, [1]),
    ):
        assert episodes.listed(**query) == [ids[place] for place in expected], query
    entry = right(episodes.list(since=1, until=2))["episodes"][0]
    reward = episodes.known(ids[0])["reward"]["total"]
    assert {name: entry[name] for name in ("tags", "outcome", "reward", "domain", "session_id", "step_count")} == {
        "tags": ["x1", "x,2"],
        "outcome": "success",
        "reward": reward,
        "domain": "a",
        "session_id": "s",
        "step_count": 0,
    }


def test_tools_take_tags_as_a_list(mcp, memory, episodes):
    [wanted, _] = episodes.imported(whole(tags=["a,b", "cd"]), whole(tags=["cd"]))
    found = mcp.call("list_episodes", **where(memory), tags=["a,b", "cd"])["structuredContent"]["result"]
    assert [entry["episode_id"] for entry in found["episodes"]] == [wanted]


# --- whole episodes at once ----------------------------------------------------------------------


def test_an_imported_episode_is_what_it_would_be_had_it_happened_here(live):
    here, imported = Episodes(live.memory()), Episodes(live.memory())
    given = []
    for number in range(9):
        began = live.ambient.now_ms()
        steps = [did(tool, timestamp=began + 1) for tool in ("grep", "edit", "test")[: number % 4]]
        outcome = (SUCCESS, FAILURE)[number % 5 == 4]
        more = {"domain": "ab"[number % 7 == 3], "tags": ["tag"], "start_time": began}
        live.ambient.advance(seconds=number * 7)
        episode = here.begun(**more)
        for step in steps:
            right(here.step(episode, **step), 201)
        right(here.complete(episode, outcome))
        given.append(whole(**more, steps=steps, outcome=outcome, end_time=live.ambient.now_ms()))
    ids = imported.imported(*given[:2]) + imported.imported(*given[2:])
    for mine, other in zip(reversed(here.listed()), ids, strict=True):
        lived, brought = right(here.get(mine)), right(imported.get(other))
        del lived["episode"]["episode_id"], brought["episode"]["episode_id"]
        assert lived == brought


def test_a_batch_is_kept_whole_or_not_at_all(episodes, memory):
    for bad, field in (
        (whole(outcome=SUCCESS, start_time=5, end_time=4), "end_time"),
        (whole(end_time=4), "end_time"),
        (whole(steps=[did("a", step_number=2), did("b", step_number=2)]), "steps[1].step_number"),
        (
            whole(steps=[did("a", step_number=2), did("b", step_number=1), did("b", step_number=0)]),
            "steps[2].step_number",
        ),
        (whole(tags=["x"]), "tags[0]"),
    ):
        refused(episodes.bulk(whole(), whole(outcome=SUCCESS), bad), f"episodes[2].{field}")
    assert not memory.exists
    refused(episodes.bulk(), "episodes")
    refused(episodes.bulk(*[whole()] * 101), "episodes")
    assert len(set(episodes.imported(*[whole()] * 100))) == 100
    assert memory.txid == 1


def test_a_batch_that_takes_long_is_kept_like_any_other(episodes):
    steps = [did(("grep", "edit", "test")[n % 3], action=f"action {n}") for n in range(50)]
    ids = episodes.imported(*(whole(f"task {n}", steps=steps, outcome=SUCCESS) for n in range(20)))
    assert episodes.listed() == ids[::-1]
    assert {episodes.known(episode)["step_count"] for episode in ids} == {50}


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


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"task_description": ""}, "task_description"),
        ({"task_description": " \n"}, "task_description"),
        ({"task_description": None}, "task_description"),
        ({"task_type": "coding"}, "task_type"),
        ({"complexity": "hard"}, "complexity"),
        ({"domain": ""}, "domain"),
        ({"domain": "x" * 101}, "domain"),
        ({"language": 3}, "language"),
        ({"framework": " "}, "framework"),
        ({"tags": "tag"}, "tags"),
        ({"tags": ["ok", "x"]}, "tags[1]"),
        ({"tags": ["x" * 101]}, "tags[0]"),
        ({"tags": [f"tag {n}" for n in range(51)]}, "tags"),
        ({"session_id": ""}, "session_id"),
        ({"source": ""}, "source"),
        ({"start_time": "now"}, "start_time"),
        ({"start_time": 2**63}, "start_time"),
        ({"start_time": 1.5}, "start_time"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"x": json.loads("[" * 101 + "]" * 101)}}, "metadata"),
        ({"embedding": []}, "embedding"),
        ({"embedding": ["x"]}, "embedding[0]"),
        ({"outcome": SUCCESS}, "outcome"),
        ({"steps": []}, "steps"),
        ({"episode_id": NOBODY}, "episode_id"),
    ],
)
def test_a_bad_episode_is_refused_by_its_field_and_makes_no_profile(episodes, memory, body, field):
    refused(episodes.create(**body), field)
    if field not in ("outcome", "steps"):
        refused(episodes.bulk(whole(), whole(**body)), f"episodes[1].{field}")
    assert not memory.exists


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"step_number": 0}, "step_number"),
        ({"step_number": 1.0}, "step_number"),
        ({"tool": ""}, "tool"),
        ({"tool": None}, "tool"),
        ({"action": None}, "action"),
        ({"parameters": None}, "parameters"),
        ({"parameters": []}, "parameters"),
        ({"result": "fine"}, "result"),
        ({"result": {"type": "fine"}}, "result"),
        ({"result": {"type": "error"}}, "result.message"),
        ({"result": {"type": "timeout", "output": "x"}}, "result.output"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": 10**400}, "latency_ms"),
        ({"tokens_used": 2**63}, "tokens_used"),
        ({"timestamp": -(2**63) - 1}, "timestamp"),
        ({"metadata": 3}, "metadata"),
        ({"output": "x"}, "output"),
    ],
)
def test_a_bad_step_is_refused_by_its_field_and_nothing_is_changed(episodes, memory, body, field):
    episode = episodes.begun()
    refused(episodes.step(episode, **body), field)
    refused(episodes.bulk(whole(steps=[did("grep"), {**did("grep"), **body}])), f"episodes[0].steps[1].{field}")
    assert (episodes.listed(), memory.txid) == ([episode], 1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"outcome": None}, "outcome"),
        ({"outcome": "success"}, "outcome"),
        ({"outcome": {"verdict": "x"}}, "outcome"),
        ({"outcome": {"type": "win", "verdict": "x"}}, "outcome"),
        ({"outcome": {"type": "success"}}, "outcome.verdict"),
        ({"outcome": {"type": "success", "verdict": "x", "reason": "y"}}, "outcome.reason"),
        ({"outcome": {"type": "success", "verdict": "x" * 10_001}}, "outcome.verdict"),
        ({"outcome": {"type": "success", "verdict": "x", "artifacts": ["a"] * 101}}, "outcome.artifacts"),
        ({"outcome": {"type": "success", "verdict": "x", "artifacts": [" "]}}, "outcome.artifacts[0]"),
        ({"outcome": {"type": "abstained", "reason": "x"}}, "outcome.stopped_at_step"),
        (
            {"outcome": {"type": "abstained", "reason": "x", "stopped_at_step": 2**63}},
            "outcome.stopped_at_step",
        ),
        ({"end_time": 2**63}, "end_time"),
        ({"reward": 1}, "reward"),
    ],
)
def test_a_bad_end_is_refused_by_its_field_and_the_episode_stays_open(episodes, memory, body, field):
    episode = episodes.begun()
    refused(episodes.complete(episode, **body), field)
    assert (episodes.known(episode)["outcome"], memory.txid) == (None, 1)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"cursor": ""}, "cursor"),
        ({"cursor": "%"}, "cursor"),
        ({"cursor": "MS4"}, "cursor"),
        ({"cursor": "OTIyMzM3MjAzNjg1NDc3NTgwOC4x"}, "cursor"),
        ({"tags": "x"}, "tags[0]"),
        ({"tags": "["}, "tags"),
        ({"tags": "[3]"}, "tags[0]"),
        ({"outcome": "closed"}, "outcome"),
        ({"task_type": ""}, "task_type"),
        ({"since": "yesterday"}, "since"),
        ({"limit": "many"}, "limit"),
        ({"as_of": "no such name!"}, "as_of"),
        ({"order": "asc"}, "order"),
    ],
)
def test_a_bad_query_of_the_list_is_refused_by_its_field(episodes, query, field):
    episodes.begun()
    refused(episodes.list(**query), field)


def test_what_is_no_id_is_refused_and_what_is_nobodys_is_not_found(episodes, memory):
    other = episodes.begun()
    for bad in ("x", other.upper(), other + "0", other.replace("-", "")):
        for response in (episodes.get(bad), episodes.delete(bad), episodes.step(bad), episodes.complete(bad)):
            refused(response, "episode_id")
    for ask in (episodes.get, episodes.delete, episodes.step, episodes.complete):
        response = ask(NOBODY)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert memory.txid == 1


def test_only_what_begins_an_episode_makes_a_profile(live):
    for ask in (
        lambda episodes: episodes.get(NOBODY),
        lambda episodes: episodes.delete(NOBODY),
        lambda episodes: episodes.step(NOBODY),
        lambda episodes: episodes.complete(NOBODY),
        lambda episodes: episodes.list(),
    ):
        memory = live.memory()
        response = ask(Episodes(memory))
        assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
        assert not memory.exists


def test_a_vector_of_another_dimension_is_not_kept_and_that_is_said(episodes):
    assert "embedding" not in right(episodes.create(embedding=[1.0, 0.0]), 201)
    assert right(episodes.create(embedding=[1.0]), 201)["embedding"] == "skipped_dimension"
    answer = right(episodes.bulk(whole(embedding=[1.0]), whole(embedding=[0.0, 2.0]), whole()), 201)
    assert answer["skipped_dimension"] == answer["episode_ids"][:1]
