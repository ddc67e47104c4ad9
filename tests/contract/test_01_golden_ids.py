"""Items 9 to 11: identity. The ids of given memories, digest by digest, and what an id does not depend on."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from contract.live_node import event, fact, ids, statuses, task

GOLDEN = [
    pytest.param(
        "fact",
        "user.city",
        '{"since": 2021, "city": "Oslo"}',
        b'fact\0user.city\0{"city":"Oslo","since":2021}',
        "f840166c412b2653709869371a5846cc",
        id="a fact with a topic",
    ),
    pytest.param(
        "instruction",
        "user.city",
        '{"since": 2021, "city": "Oslo"}',
        b'instruction\0user.city\0{"city":"Oslo","since":2021}',
        "4339dc22fd88850754472d04b870fb7b",
        id="an instruction of the same topic and content",
    ),
    pytest.param(
        "event",
        None,
        '"Zo\\u00eb mag Straßencafés — 日本 \\ud83c\\udf75"',
        'event\0\0"Zoë mag Straßencafés — 日本 🍵"'.encode(),
        "d24f8b3411876ba6ad071ab4192e8f70",
        id="unicode, not escaped",
    ),
    pytest.param(
        "instruction",
        "style",
        '{"b": "last", "a": {"y": 2, "x": [1, {"z": true, "k": null}]}}',
        b'instruction\0style\0{"a":{"x":[1,{"k":null,"z":true}],"y":2},"b":"last"}',
        "bda7e80c3e11805c50e302c97fdef774",
        id="nested keys in another order",
    ),
    pytest.param("event", None, "null", b"event\0\0null", "006e7494200d7e4085a06be94574bda6", id="null"),
    pytest.param("fact", None, "{}", b"fact\0\0{}", "3d6e21195021a70ec4d4f8eaf6ea1009", id="an empty object"),
    pytest.param(
        "task",
        None,
        '{"ratio": 0.1, "estimate_h": 1.50, "zero": 0.0, "due": null, "low": -0.25}',
        b'task\0\0{"due":null,"estimate_h":1.5,"low":-0.25,"ratio":0.1,"zero":0.0}',
        "908782ce2af46be5762261712934d83b",
        id="floats",
    ),
    pytest.param(
        "fact",
        "limits",
        "[1000000000000000000000000000000, -9223372036854775809, 18446744073709551616]",
        b"fact\0limits\0[1000000000000000000000000000000,-9223372036854775809,18446744073709551616]",
        "740b1e63b986d8058a45ad3f4b433da4",
        id="integers beyond 64 bits",
    ),
    pytest.param(
        "fact",
        "keys",
        '{"\\ud83d\\ude00": 5, "\\uff5e": 4, "é": 3, "a": 2, "A": 1}',
        'fact\0keys\0{"A":1,"a":2,"é":3,"～":4,"😀":5}'.encode(),
        "d0948b3aded22034801d432c1d06c2d0",
        id="unicode keys in the order of their code points",
    ),
    pytest.param(
        "event",
        None,
        '"tab\\tquote\\"slash\\/backslash\\\\newline\\nnull\\u0000bell\\u0007"',
        b'event\0\0"tab\\tquote\\"slash/backslash\\\\newline\\nnull\\u0000bell\\u0007"',
        "3e6459f78c06aefc310350874b490d43",
        id="escapes",
    ),
]


@pytest.mark.parametrize(("type_", "topic_key", "content", "preimage", "digest"), GOLDEN)
def test_item_9_an_id_is_mem_and_the_first_16_bytes_of_a_sha_256(memory, type_, topic_key, content, preimage, digest):
    assert hashlib.sha256(preimage).hexdigest()[:32] == digest
    head = json.dumps({"type": type_, "topic_key": topic_key, "summary": "Something"})[:-1]
    body = f'{{"memories": [{head}, "content": {content}}}]}}'
    response = memory.http.post(f"{memory.path}/memories", content=body.encode())
    assert response.status_code == 201, response.text
    assert ids(response.json()["results"]) == [f"mem_{digest}"]


def test_item_9_the_key_order_in_content_does_not_matter_at_any_depth(memory):
    memory.keep(event("Met Ann", content={"a": 1, "b": {"c": [{"d": 2, "e": 3}], "f": 4}}))
    [again] = memory.keep(event("Met Ann", content={"b": {"f": 4, "c": [{"e": 3, "d": 2}]}, "a": 1}))
    assert again["status"] == "duplicate"


def test_item_9_type_topic_and_content_make_different_memories(memory):
    results = memory.keep(
        event("x", content=1),
        event("x", content=2),
        event("x", content="1"),
        event("x", content=[1]),
        task("x", content=1),
        fact("a", "x", content=1),
        fact("b", "x", content=1),
        {"type": "fact", "summary": "x", "content": 1},
        {"type": "instruction", "topic_key": "a", "summary": "x", "content": 1},
    )
    assert statuses(results) == ["created"] * 9
    assert len(set(ids(results))) == 9
    assert all(re.fullmatch("mem_[0-9a-f]{32}", each) for each in ids(results))


def test_item_10_summary_keywords_session_source_and_embedding_are_outside_the_id(memory):
    [first] = memory.keep(event("Met Ann", content={"who": "Ann"}))
    [second] = memory.keep(
        event("Ann was met", content={"who": "Ann"}, keywords="k", session_id="s", source="b", embedding=[1.0, 2.0])
    )
    assert second == {"id": first["id"], "status": "duplicate", "superseded": []}
    assert memory.get(first["id"]).json()["summary"] == "Met Ann"


def test_item_11_the_same_memory_again_while_active_is_a_duplicate(memory):
    [first] = memory.keep(fact("user.city", "Lives in Oslo"))
    [second] = memory.keep(fact("user.city", "Lives in Oslo"))
    assert second == {"id": first["id"], "status": "duplicate", "superseded": []}
    assert memory.txid == 1
