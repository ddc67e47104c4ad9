"""Episodes, steps and ends that are refused: by their field, by their size, and without leaving anything."""

from __future__ import annotations

import json

import httpx
import pytest

from contract.bad_input import refused
from contract.episodes import (
    NOBODY,
    SUCCESS,
    Episodes,
    did,
    episodes_of_memory,  # noqa: F401 - a fixture
    right,
    whole,
)
from memoturn_schemas.episodes import EPISODE_BYTES, STEP_NUMBER, STEPS, VALUE_BYTES

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
