"""Items 45 to 48 with `extractor: "rules"`: what a conversation states is kept without a language model."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from contract.bad_input import refused, unharmed
from contract.live_node import Memory, RawMcp, serve, statuses
from contract.provider_server import provider
from contract.replies import endpoint, openai_says
from memoturn_core.providers.language import OpenAIModel
from memoturn_storage.ambient import ManualAmbient

TOOLSETS = "all"


def extract(memory: Memory, *said: str, **more: Any) -> httpx.Response:
    turns = [{"role": "user", "content": each} for each in said]
    return memory.http.post(f"{memory.path}/extract", json={"turns": turns, "extractor": "rules", **more})


def test_item_45_what_is_stated_is_kept_with_its_session_and_source(memory):
    response = extract(memory, "Hi! I live in Oslo.", "Never use emojis.", session_id="s", source="agent")
    assert response.status_code == 201
    assert set(response.json()) == {"results", "txid"}
    assert statuses(response.json()["results"]) == ["created", "created"]
    city, emojis = (memory.get(each["id"]).json() for each in response.json()["results"])
    assert (city["type"], city["topic_key"], city["summary"]) == ("fact", "user.city", "The user lives in Oslo")
    assert city["content"] == {"text": "user: I live in Oslo"}
    assert (emojis["type"], emojis["topic_key"]) == ("instruction", None)
    assert {(each["session_id"], each["source"]) for each in (city, emojis)} == {("s", "agent")}
    assert [session["id"] for session in memory.sessions().json()["sessions"]] == ["s"]


def test_item_45_the_same_transcript_again_adds_nothing_even_where_it_changed_its_mind(memory):
    said = ("I live in Oslo.", "I like tea.", "I moved to Rome.", "I hate tea.", "I joined a choir.")
    first = extract(memory, *said).json()
    again = extract(memory, *said).json()
    assert statuses(again["results"]) == ["duplicate"] * 3
    assert [each["id"] for each in again["results"]] == [each["id"] for each in first["results"]]
    assert memory.get(first["results"][0]["id"]).json()["summary"] == "The user moved to Rome"


def test_item_45_a_later_conversation_supersedes_by_topic(memory):
    [oslo] = extract(memory, "I live in Oslo.").json()["results"]
    [rome] = extract(memory, "I've moved to Rome.").json()["results"]
    assert rome["superseded"] == [oslo["id"]]


def test_item_46_a_dry_run_proposes_and_makes_no_profile(memory):
    response = extract(memory, "I like tea.", dry_run=True, session_id="s")
    assert (response.status_code, response.json()) == (
        200,
        {
            "proposed": [
                {
                    "type": "fact",
                    "topic_key": "user.preference.tea",
                    "summary": "The user likes tea",
                    "content": {"text": "user: I like tea"},
                    "keywords": "preference",
                    "session_id": "s",
                    "source": None,
                }
            ]
        },
    )
    assert not memory.exists


def test_item_47_nothing_stated_is_201_with_no_results_and_makes_no_profile(memory):
    response = extract(memory, "Do I live in Oslo?", "")
    assert (response.status_code, response.json()) == (201, {"results": [], "txid": None})
    assert not memory.exists


def test_item_47_the_default_is_the_model_and_without_one_503(memory):
    for named in ({}, {"extractor": "model"}):
        body = {"turns": [{"role": "user", "content": "I live in Oslo."}], **named}
        response = memory.http.post(f"{memory.path}/extract", json=body)
        assert (response.status_code, response.json()["code"]) == (503, "unconfigured")
    assert not memory.exists


def test_item_47_rules_ask_no_model_where_there_is_one(tmp_path):
    with provider(openai_says({"memories": []})) as it:
        model = OpenAIModel(endpoint(it.url), ManualAmbient())
        with serve(tmp_path, language_model=model) as live:
            assert statuses(extract(live.memory(), "I live in Oslo.").json()["results"]) == ["created"]
        assert it.seen == []


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"turns": []}, "turns"),
        ({"extractor": "magic"}, "extractor"),
        ({"extractor": None}, "extractor"),
        ({"turns": [{"role": "user", "content": "a" * ((1 << 20) + 1)}]}, "turns"),
        ({"turns": [{"role": "user", "content": "\n".join(f"I like tea {n}." for n in range(1_001))}]}, "turns"),
        ({"turns": [{"role": "a" * 201, "content": "I like tea."}]}, "turns[0].role"),
    ],
    ids=["no turns", "unknown", "null", "too much text", "too many statements", "long role"],
)
def test_item_47_bad_requests_name_their_field_and_change_nothing(live, more, field):
    with unharmed(live) as memories:
        for memory in memories:
            refused(extract(memory, "I like tea.", **more), field)


def test_item_48_events_and_tasks_have_no_topic_and_agents_extract_alike(mcp: RawMcp, memory):
    said = "I joined a choir. Remind me to call Bob."
    result = mcp.call(
        "memory_extract",
        namespace=memory.namespace,
        profile=memory.profile,
        turns=[{"role": "user", "content": said}],
        extractor="rules",
        dry_run=True,
    )
    assert result.get("isError", False) is False
    proposed = extract(memory, said, dry_run=True).json()["proposed"]
    assert [(each["type"], each["topic_key"]) for each in proposed] == [("event", None), ("task", None)]
    assert result["structuredContent"]["result"]["proposed"] == proposed
