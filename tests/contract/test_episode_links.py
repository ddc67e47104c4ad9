"""What episodes are found by and bound by: tags and relationships."""

from __future__ import annotations

import itertools
import random

import pytest

from contract.bad_input import refused
from contract.episode_story import NOWHERE, begin, complete, error, get, link, post, related, tagged

# --- tags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("completed", [False, True])
def test_tags_are_added_and_removed_and_filter_at_once(memory, completed):
    episode, other = begin(memory, tags=["one", "two"]), begin(memory, tags=["two"])
    if completed:
        complete(memory, episode)
    before = get(memory, episode)["episode"]
    answer = post(memory, f"{episode}/tags", add=["three", "one", "three"], remove=["two", "never there"])
    assert answer == {"episode_id": episode, "tags": ["one", "three"], "txid": memory.txid}
    assert get(memory, episode)["episode"] == before | {"context": before["context"] | {"tags": ["one", "three"]}}
    assert tagged(memory, "three") == tagged(memory, "one", "three") == {episode}
    assert tagged(memory, "two") == {other}
    assert post(memory, f"{episode}/tags", remove=["one", "three"])["tags"] == []
    assert tagged(memory, "three") == set()


def test_tags_that_change_nothing_write_nothing(memory):
    episode = begin(memory, tags=["one"])
    before = memory.txid
    assert post(memory, f"{episode}/tags", add=["one"], remove=["two"])["txid"] == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "add or remove"),
        ({"add": ["one"], "remove": ["one"]}, "remove"),
        ({"add": ["x"]}, "add[0]"),
        ({"add": ["y" * 101]}, "add[0]"),
        ({"add": ["  "]}, "add[0]"),
        ({"add": "one"}, "add"),
        ({"add": ["one"], "tag": "x"}, "tag"),
        ({"add": [f"tag {n}" for n in range(50)]}, "add"),
    ],
)
def test_wrong_tags_are_refused_and_nothing_changes(memory, body, field):
    episode = begin(memory, tags=["kept"])
    before = memory.txid
    refused(memory.http.post(f"{memory.path}/episodes/{episode}/tags", json=body), field)
    assert memory.txid == before


# --- relationships -------------------------------------------------------------------------------


def test_a_relationship_is_seen_from_both_ends(memory, live):
    one, two = begin(memory, "Build it"), begin(memory, "Ship it")
    complete(memory, one)
    answer = post(memory, f"{two}/relationships", add=[link(one, "depends_on", reason="It ships what is built")])
    common = {"type": "depends_on", "reason": "It ships what is built", "created_at": live.ambient.now_ms()}
    assert answer == {
        "episode_id": two,
        "relationships": [
            common | {"direction": "outgoing", "episode_id": one, "task_description": "Build it", "outcome": "success"}
        ],
        "txid": memory.txid,
    }
    assert get(memory, one, "/relationships")["relationships"] == [
        common | {"direction": "incoming", "episode_id": two, "task_description": "Ship it", "outcome": None}
    ]


def test_adding_again_changes_the_reason_alone_and_without_one_nothing(memory, live):
    one, two = begin(memory), begin(memory)
    [first] = post(memory, f"{one}/relationships", add=[link(two, "follows", reason="So")])["relationships"]
    before = memory.txid
    live.ambient.advance(seconds=1)
    [again] = post(memory, f"{one}/relationships", add=[link(two, "follows")])["relationships"]
    assert (again, memory.txid) == (first, before)
    [changed] = post(memory, f"{one}/relationships", add=[link(two, "follows", reason="Or so")])["relationships"]
    assert changed == first | {"reason": "Or so"}


def test_removals_come_before_additions_so_that_one_request_turns_a_link_round(memory):
    one, two = begin(memory), begin(memory)
    post(memory, f"{one}/relationships", add=[link(two, "follows")])
    assert error(memory, f"{two}/relationships", add=[link(one, "follows")])[0] == 409
    post(memory, f"{one}/relationships", add=[link(two, "references")], remove=[link(two, "follows")])
    post(memory, f"{two}/relationships", add=[link(one, "follows")], remove=[link(NOWHERE, "follows")])
    assert related(memory, one) == {("outgoing", "references", two), ("incoming", "follows", two)}


@pytest.mark.parametrize("type_", ["parent_child", "depends_on", "blocks", "follows"])
def test_a_circle_is_a_conflict_that_names_the_way(memory, type_):
    one, two, three = (begin(memory) for _ in range(3))
    post(memory, f"{one}/relationships", add=[link(two, type_)])
    post(memory, f"{two}/relationships", add=[link(three, type_)])
    before = memory.txid
    status, said = error(memory, f"{three}/relationships", add=[link(two, "references"), link(one, type_)])
    assert status == 409
    assert said == f"add[1].target: {type_} would go in a circle: {three} -> {one} -> {two} -> {three}"
    assert memory.txid == before
    assert related(memory, three) == {("incoming", type_, two)}


def test_a_long_circle_is_named_in_short(memory):
    chain = [begin(memory) for _ in range(40)]
    for one, two in itertools.pairwise(chain):
        post(memory, f"{one}/relationships", add=[link(two, "follows")])
    status, said = error(memory, f"{chain[-1]}/relationships", add=[link(chain[0], "follows")])
    names = said.partition("circle: ")[2].split(" -> ")
    assert status == 409
    assert names == [chain[-1], *chain[:18], "(21 more)", chain[-1]]


def test_other_types_may_go_round(memory):
    one, two = begin(memory), begin(memory)
    for type_ in ("related_to", "duplicates", "references", "continues"):
        post(memory, f"{one}/relationships", add=[link(two, type_)])
        post(memory, f"{two}/relationships", add=[link(one, type_)])
    assert len(related(memory, one)) == 8


@pytest.mark.parametrize("seed", range(3))
def test_relationships_are_those_of_a_simple_model(live, seed):
    """At random, against a set of links and a walk over it."""
    memory, chance = live.memory(), random.Random(seed)
    episodes = [begin(memory) for _ in range(6)]
    links: set[tuple[str, str, str]] = set()

    def reaches(start: str, goal: str, type_: str) -> bool:
        seen, edge = {start}, [start]
        while edge:
            edge = [to for each in edge for of, t, to in links if (of, t) == (each, type_) and to not in seen]
            seen.update(edge)
        return goal in seen

    for _ in range(60):
        one, two = chance.sample(episodes, 2)
        type_ = chance.choice(["follows", "blocks", "related_to"])
        if chance.random() < 0.25:
            post(memory, f"{one}/relationships", remove=[link(two, type_)])
            links.discard((one, type_, two))
        elif type_ != "related_to" and reaches(two, one, type_):
            assert error(memory, f"{one}/relationships", add=[link(two, type_)])[0] == 409
        else:
            post(memory, f"{one}/relationships", add=[link(two, type_)])
            links.add((one, type_, two))
    gone = episodes.pop()
    assert memory.http.delete(f"{memory.path}/episodes/{gone}").status_code in (200, 204)
    links = {each for each in links if gone not in each}
    for episode in episodes:
        expected = {("outgoing", type_, to) for of, type_, to in links if of == episode}
        expected |= {("incoming", type_, of) for of, type_, to in links if to == episode}
        assert related(memory, episode) == expected


def test_an_unknown_target_is_404_that_names_the_field_and_nothing_is_linked(memory):
    one, two = begin(memory), begin(memory)
    status, said = error(memory, f"{one}/relationships", add=[link(two, "follows"), link(NOWHERE, "follows")])
    assert (status, said) == (404, f"add[1].target: there is no episode {NOWHERE}")
    assert related(memory, one) == set()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (lambda one, _: {"add": [link(one, "follows")]}, "add[0].target"),
        (lambda _, two: {"add": [link(two, "likes")]}, "add[0].type"),
        (lambda _, two: {"add": [link(two, "follows", reason=" ")]}, "add[0].reason"),
        (lambda _, two: {"add": [link(two, "follows", why="")]}, "add[0].why"),
        (lambda *_: {"add": [link("x", "follows")]}, "add[0].target"),
        (lambda *_: {"remove": [{"type": "follows"}]}, "remove[0].target"),
        (lambda _, two: {"add": [link(two, "follows")] * 101}, "add"),
        (lambda *_: {}, "add or remove"),
    ],
)
def test_wrong_relationships_are_refused(memory, body, field):
    one, two = begin(memory), begin(memory)
    refused(memory.http.post(f"{memory.path}/episodes/{one}/relationships", json=body(one, two)), field)
    assert related(memory, one) == set()


def test_an_episode_has_at_most_1_000_relationships_in_both_directions(memory):
    hub, extra = begin(memory), begin(memory)
    others = []
    for _ in range(10):
        new = [{"task_description": "One of many"}] * 100
        others += post(memory, "bulk", 201, episodes=new)["episode_ids"]
    for place in range(0, 1_000, 100):
        post(memory, f"{hub}/relationships", add=[link(other, "blocks") for other in others[place : place + 100]])
    before = memory.txid
    path = f"{memory.path}/episodes/{{}}/relationships"
    refused(memory.http.post(path.format(hub), json={"add": [link(extra, "blocks")]}), "episode_id")
    refused(memory.http.post(path.format(extra), json={"add": [link(hub, "follows")]}), "add[0].target")
    assert memory.txid == before
    assert len(related(memory, hub)) == 1_000
    post(memory, f"{hub}/relationships", add=[link(extra, "blocks")], remove=[link(others[0], "blocks")])
