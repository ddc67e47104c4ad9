"""Many episodes at a time through REST: listed by pages and by filters, and imported whole in batches."""

from __future__ import annotations

import pytest

from contract.bad_input import refused, where
from contract.episodes import (
    FAILURE,
    SUCCESS,
    Episodes,
    did,
    episodes_of_memory,  # noqa: F401 - a fixture
    right,
    whole,
)

TOOLSETS = "all"


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
