"""What looks bad and is good: it is kept, found and given back as it was sent, or bounded, on both surfaces."""

from __future__ import annotations

import json

import pytest

from contract.bad_input import addressed, names, refusal, refused, unharmed, where
from contract.live_node import event, message_of

TOOLSETS = "all"


def test_a_huge_integer_in_content_comes_back_exactly_from_both_surfaces(live, mcp, memory):
    content = {"n": 10**30, "negative": -(10**30), "list": [2**63, 2**64, -(2**63) - 1, 2**53 + 1], "digits": 10**4_000}
    text = json.dumps({"memories": [{"type": "event", "summary": "Big", "content": content}]})
    [kept] = live.http.post(f"{memory.path}/memories", content=text).json()["results"]
    assert kept["status"] == "created"
    assert memory.get(kept["id"]).json()["content"] == content
    assert memory.found(query="big")[0]["content"] == content
    again = message_of(mcp.call_text("memory_ingest", addressed(memory, "memory_ingest", text)))["result"]
    assert again["structuredContent"]["result"]["results"] == [{**kept, "status": "duplicate"}]
    got = mcp.call("memory_get", **where(memory), id=kept["id"])
    assert got["structuredContent"]["result"]["content"] == content
    assert json.loads(got["content"][0]["text"])["result"]["content"] == content


def test_a_huge_k_is_clamped_on_both_surfaces(live, mcp, memory):
    memory.keep(event("Met Ann"), event("Met Bob"))
    for k in (10**30, 2**63, 10**300):
        assert len(memory.found(query="met", k=k)) == 2
        result = mcp.call("memory_recall", **where(memory), query="met", k=k)
        assert len(result["structuredContent"]["result"]["memories"]) == 2
    assert memory.sessions(limit="9" * 30).status_code == 200


@pytest.mark.parametrize("bound", ["since", "until"])
@pytest.mark.parametrize("time", [2**63, -(10**30)])
def test_a_time_beyond_all_calendars_is_refused_by_name_or_honoured(live, mcp, bound, time):
    with unharmed(live) as (used, _):
        response = used.recall(query="Oslo", **{bound: time})
        envelope_or_answer = mcp.call("memory_recall", **where(used), query="Oslo", **{bound: time})
        if response.status_code == 200:
            expected = 1 if (bound == "since") == (time < 0) else 0
            assert len(response.json()["memories"]) == expected
            assert len(envelope_or_answer["structuredContent"]["result"]["memories"]) == expected
        else:
            refused(response, bound)
            assert names(refusal({"result": envelope_or_answer})["error"], bound)


CONTENTS = {
    "100 lists": "[" * 100 + "]" * 100,
    "100 objects": '{"a":' * 99 + "{}" + "}" * 99,
    "an empty key": '{"": {"": ""}}',
    "a key with a nul": '{"a\\u0000b": "\\u0000"}',
    "keys of other types' names": '{"true": 1, "null": 2, "1": 3, "__proto__": 4, "__class__": 5}',
    "control characters": '"\\u0001\\u001f\\u007f\\u2028\\u2029\\ufeff\\uffff"',
    "a surrogate pair": '"\\ud83c\\udf75"',
    "small and large floats": "[5e-324, 1.7976931348623157e308, -0.0, 0.1, 1e22]",
    "falsehood and nothing": "[false, null, 0, 0.0, [], {}]",
    "a long string": '"' + "x" * 1_000_000 + '"',
    "a long list": "[" + "0," * 100_000 + "0]",
    "markup and quotes": '"<script>\\"\'; DROP TABLE memories; --"',
}


@pytest.mark.parametrize("text", CONTENTS.values(), ids=CONTENTS)
def test_unusual_content_comes_back_as_it_was_sent(live, mcp, memory, text):
    body = f'{{"memories": [{{"type": "event", "summary": "Odd", "content": {text}}}]}}'
    [kept] = live.http.post(f"{memory.path}/memories", content=body.encode()).json()["results"]
    expected = json.dumps(json.loads(text), sort_keys=True)
    got = mcp.call("memory_get", **where(memory), id=kept["id"])["structuredContent"]["result"]
    for content in (memory.get(kept["id"]).json()["content"], memory.found(query="odd")[0]["content"], got["content"]):
        assert json.dumps(content, sort_keys=True) == expected


@pytest.mark.parametrize("text", ["a\0b zebra", "zebra\u202e", "\ufeffzebra", "zebra \U0010ffff", "zebra " * 20_000])
def test_unusual_text_is_kept_found_and_forgotten(memory, text):
    [kept] = memory.keep(event(text, keywords=text, source=text))
    record = memory.get(kept["id"]).json()
    assert (record["summary"], record["keywords"], record["source"]) == (text, text, text)
    assert [hit["id"] for hit in memory.found(query="zebra")] == [kept["id"]]
    assert [hit["id"] for hit in memory.found(query="zebra", source=text)] == [kept["id"]]
    assert memory.forget(kept["id"]).status_code == 204
    assert memory.found(query="zebra") == []


def test_embeddings_at_the_edges_of_float32_are_kept_and_found(memory):
    largest, least = 3.4028234663852886e38, 1e-45
    memory.keep(
        event("Largest", embedding=[largest, largest]),
        event("Lowest", embedding=[-largest, largest]),
        event("Least", embedding=[least, 0]),
        event("Zero", embedding=[0, 0]),
    )
    found = memory.found(embedding=[largest, largest])
    assert found[0]["summary"] == "Largest"
    assert "Zero" not in {hit["summary"] for hit in found}
    assert memory.found(embedding=[0.0, 0.0]) == []
    assert memory.found(embedding=[1e-45, 0.0])[0]["summary"] == "Least"
