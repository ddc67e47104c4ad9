"""What the sender of a snippet is told of how it ended. Pure; the interpreter's own words are checked, not believed."""

from __future__ import annotations

import json
import signal
from typing import Any, Final, get_args

from memoturn_core.code.limits import OUTPUT_BYTES
from memoturn_core.code.worker import Ended
from memoturn_schemas.code import (
    CodeError,
    CodeSuccess,
    CodeTimeout,
    CodeViolation,
    ErrorType,
    ExecuteResponse,
    ViolationType,
)
from memoturn_schemas.common import check_json

_REASONS: Final[dict[str, tuple[ErrorType, str]]] = {
    "too_deep": ("resource", "the snippet went too deep: the interpreter's stack is exhausted"),
    "flood": ("resource", f"the snippet gave more than the {OUTPUT_BYTES} bytes that it may print or return"),
    "aborted": ("unknown", "the snippet ended its interpreter, which could not go on"),
    "failed": ("unknown", "the snippet ended its interpreter"),
}


def result(ended: Ended) -> ExecuteResponse:
    """The wire's form of how a job ended."""
    if ended.kind in ("timeout", "overran") or ended.exit_status == -signal.SIGXCPU:
        printed = ended.stdout + ended.stderr
        return CodeTimeout(type="timeout", elapsed_ms=ended.milliseconds, partial_output=printed)
    if ended.kind == "system_call":
        reason = "the snippet was stopped at a call to the operating system, of which the sandbox has none"
        return CodeViolation(type="security_violation", reason=reason, violation_type="system_call")
    if ended.kind == "answered":
        return _answered(ended)
    if ended.kind == "died":
        return _failed(ended, "unknown", f"the process that ran the snippet died (status {ended.exit_status})")
    kind, message = _REASONS.get(ended.kind, _REASONS["failed"])
    return _failed(ended, kind, message)


def _answered(ended: Ended) -> ExecuteResponse:
    try:
        said: Any = json.loads(ended.answer)
        match said:
            case {"type": "success", "output": output}:
                return CodeSuccess(
                    type="success",
                    output=check_json(output),
                    stdout=ended.stdout,
                    stderr=ended.stderr,
                    execution_time_ms=ended.milliseconds,
                )
            case {"type": "error", "message": str(message), "error_type": kind} if kind in get_args(ErrorType):
                return _failed(ended, kind, check_json(message))
            case {"type": "security_violation", "reason": str(reason), "violation_type": kind} if kind in get_args(
                ViolationType
            ):
                return CodeViolation(type="security_violation", reason=check_json(reason), violation_type=kind)
    except (ValueError, RecursionError) as error:
        return _failed(ended, "runtime", f"the output cannot be given as JSON: {error}")
    return _failed(ended, *_REASONS["failed"])


def _failed(ended: Ended, kind: ErrorType, message: str) -> CodeError:
    return CodeError(type="error", message=message, error_type=kind, stdout=ended.stdout, stderr=ended.stderr)
