"""A memory's id: golden values, worked out with `printf ... | sha256sum`, and what must not change it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturn_core.memory.identity import ID_BYTES, canonical_json, format_id, memory_key, parse_id

BOUNDED = settings(max_examples=200, deadline=None)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
types = st.sampled_from(["fact", "event", "instruction", "task"])


def identify(type_: str, topic_key: str | None, content: Any) -> str:
    return format_id(memory_key(type_, topic_key, canonical_json(content)))


def reordered(value: Any) -> Any:
    """An equal value whose objects have their keys the other way round."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("type_", "topic_key", "content", "digits"),
    [
        ("fact", "user.city", {"city": "Berlin"}, "17f804c03fe844a9f1147a42a9308e0e"),
        ("event", None, None, "006e7494200d7e4085a06be94574bda6"),
        ("event", "", None, "006e7494200d7e4085a06be94574bda6"),
        (
            "instruction",
            "style",
            {"z": {"x": "y"}, "b": [True, None, 1.5], "a": 1},
            "8e678e74a95d70bd5d705a42e1c9fce8",
        ),
        ("task", None, "buy milk", "bb8c38a0190744c001d78efa9b26e7cf"),
        ("fact", "café", {"naïve": "🦊"}, "b1db9c5309e1c92e93c20ff4516b3b12"),
        ("fact", "k", {"t": 'line\nbreak "q" \\ \0 /'}, "fe17337df704bfbf36b82bf4fe0fbb04"),
        ("fact", "k", [1, 1.0, -0.0, 1e100, 12345678901234567890], "7236b4df6e72130a5be90d87946e003d"),
    ],
)
def test_an_id_is_the_one_that_the_contract_works_out(
    type_: str, topic_key: str | None, content: Any, digits: str
) -> None:
    assert identify(type_, topic_key, content) == f"mem_{digits}"


@BOUNDED
@given(types, st.none() | st.text(max_size=8), json_values)
def test_the_order_of_keys_does_not_matter(type_: str, topic_key: str | None, content: Any) -> None:
    assert identify(type_, topic_key, content) == identify(type_, topic_key, reordered(content))


@BOUNDED
@given(json_values)
def test_canonical_json_is_json_of_the_same_value_on_one_line(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert "\n" not in text
    assert "\0" not in text


@BOUNDED
@given(st.lists(st.tuples(types, st.text(max_size=4), json_values), min_size=2, max_size=6))
def test_memories_that_differ_have_ids_that_differ(memories: list[tuple[str, str, Any]]) -> None:
    distinct = {(type_, topic_key, json.dumps(content, sort_keys=True)) for type_, topic_key, content in memories}
    assert len({identify(*memory) for memory in memories}) == len(distinct)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": [float("-inf")]}])
def test_what_json_cannot_carry_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(value)


@BOUNDED
@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES))
def test_an_id_is_read_back_as_the_bytes_it_was_made_of(key: bytes) -> None:
    assert parse_id(format_id(key)) == key
    assert len(format_id(key)) == 36


@BOUNDED
@given(st.text(max_size=40) | st.text("0123456789abcdef ", min_size=30, max_size=34).map("mem_".__add__))
def test_text_is_an_id_only_where_it_is_written_exactly_as_one(text: str) -> None:
    key = parse_id(text)
    assert key is None or (len(key) == ID_BYTES and format_id(key) == text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mem_",
        "006e7494200d7e4085a06be94574bda6",
        "mem_006e7494200d7e4085a06be94574bda",
        "mem_006e7494200d7e4085a06be94574bda6a",
        "mem_006E7494200D7E4085A06BE94574BDA6",
        "MEM_006e7494200d7e4085a06be94574bda6",
        "mem_006e7494200d7e4085a06be94574bdag",
        " mem_006e7494200d7e4085a06be94574bda6",
        "mem_mem_7494200d7e4085a06be94574bda6",
        "mem_00 00 00 00 00 00 00 00 00 00 00",
        "mem_                                ",
        "mem_００6e7494200d7e4085a06be94574bda6",
    ],
)
def test_text_that_is_no_id_is_told_from_one(text: str) -> None:
    assert parse_id(text) is None
