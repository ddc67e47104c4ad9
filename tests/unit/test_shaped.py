"""Texts of a certain shape: what is refused, in which words, and what schemas say of them."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from memoturn_schemas.common import Shaped

Plate = TypeAdapter(Annotated[str, Shaped("[a-z]{2}|[0-9]{3}", "two letters or three digits")])


@pytest.mark.parametrize("text", ["ab", "123"])
def test_a_text_of_the_shape_is_taken_as_it_is(text: str) -> None:
    assert Plate.validate_python(text) == text


@pytest.mark.parametrize("text", ["", "abc", "ab\n", " ab", "AB", "12", "ab123"])
def test_the_whole_text_has_to_be_of_the_shape_and_the_error_says_which_it_is(text: str) -> None:
    with pytest.raises(ValidationError, match="should be two letters or three digits"):
        Plate.validate_python(text)


def test_the_schema_has_the_pattern_of_the_whole_text() -> None:
    assert Plate.json_schema() == {"type": "string", "pattern": "^(?:[a-z]{2}|[0-9]{3})$"}
