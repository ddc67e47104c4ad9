"""Snippets of Python on the wire: what is to be run, and how it ended. What they may do is in docs/code.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import to_json
from typing_extensions import TypedDict

from memoturn_schemas.common import Json, RequestModel, check_json

Preset = Literal["restrictive", "default", "permissive"]
ErrorType = Literal["syntax", "runtime", "resource", "permission", "unknown"]
ViolationType = Literal["file_system", "network", "process", "introspection", "system_call"]

CODE_BYTES = 100_000
INPUT_BYTES = 1_000_000


def _bounded(value: str) -> str:
    size = len(value.encode())
    if size > CODE_BYTES:
        raise ValueError(f"must be at most {CODE_BYTES} bytes of UTF-8, not {size}")
    return value


def _not_large(value: Any) -> Any:
    size = len(to_json(value))
    if size > INPUT_BYTES:
        raise ValueError(f"must be at most {INPUT_BYTES} bytes of JSON, not {size}")
    return value


class ExecuteRequest(RequestModel):
    """A snippet and what it may use."""

    code: Annotated[str, Field(min_length=1), AfterValidator(check_json), AfterValidator(_bounded)]
    """Python 3.14, at most 100 000 bytes; what its last line evaluates to is the output."""
    input: Annotated[Json, AfterValidator(_not_large)] = None
    """Any JSON of at most a megabyte; the snippet has it as `input_data`."""
    preset: Preset = "default"
    """What it may use: restrictive 3 s and 64 MB of memory, default 5 s and 128 MB, permissive 10 s and 256 MB."""


class CodeSuccess(TypedDict):
    """It ran to its end. `output` is the value of its last line, null where that is no expression."""

    type: Literal["success"]
    output: Any
    stdout: str
    stderr: str
    execution_time_ms: float


class CodeError(TypedDict):
    """It could not be parsed, it raised something, or it needed more than it may have."""

    type: Literal["error"]
    message: str
    error_type: ErrorType
    stdout: str
    stderr: str


class CodeTimeout(TypedDict):
    """It was stopped at the end of its time; `partial_output` is what it had printed."""

    type: Literal["timeout"]
    elapsed_ms: float
    partial_output: str


class CodeViolation(TypedDict):
    """It was not run, or was stopped, for what it tried to reach."""

    type: Literal["security_violation"]
    reason: str
    violation_type: ViolationType


ExecuteResponse = CodeSuccess | CodeError | CodeTimeout | CodeViolation
