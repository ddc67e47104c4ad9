"""What all wire models share. Used by every module of this package."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

CONTENT_DEPTH = 100
"""Levels of nesting at most in a JSON value."""


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class RequestModel(BaseModel):
    """A request: unknown fields are refused, so that a misspelt one is never silently ignored.

    A model is built when it is first needed: a command needs one of them, and a tenth of its time were the others.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, defer_build=True
    )


def check_json(value: Any) -> Any:
    """Refuse what JSON cannot carry or what nothing could read back: NaN, infinities, deep nesting."""
    level = [value]
    for _ in range(CONTENT_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.keys())
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("must not hold NaN or an infinity")
            elif isinstance(item, str) and not item.isascii() and _LONE_SURROGATE.search(item):
                raise ValueError("must be valid Unicode")
        if not below:
            return value
        level = below
    raise ValueError(f"must not be nested deeper than {CONTENT_DEPTH} levels")


Json = Annotated[Any, AfterValidator(check_json)]

_FLOAT32_MAX = 3.4028234663852886e38

Embedding = Annotated[
    list[Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX), WithJsonSchema({"type": "number"})]],
    Field(min_length=1, max_length=65_536),
]
"""A vector of finite floats that float32 can hold, not empty."""


def _clamp(value: int) -> int:
    return max(1, min(value, 1_000))


@dataclass(frozen=True)
class Shaped:
    """Metadata of a text that a pattern describes as a whole; errors say `what` it should be."""

    pattern: str
    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}

    def _checked(self, value: str) -> str:
        if re.fullmatch(self.pattern, value) is None:
            raise ValueError(f"should be {self.what}")
        return value


UnixMs = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""A time in Unix milliseconds."""

Count = Annotated[int, AfterValidator(_clamp)]
"""How many results are wanted; clamped to 1...1 000."""
