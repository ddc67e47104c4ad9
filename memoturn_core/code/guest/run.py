"""One run: parse, check, execute, and say in JSON how it ended.

The answer is `{"type": "success", "output"}`, `{"type": "error", "message", "error_type"}` or
`{"type": "security_violation", "reason", "violation_type"}`. Who called is outside the sandbox and believes nothing of
it: a snippet can make this say whatever it likes.
"""

from __future__ import annotations

import ast
import json
import linecache
import sys
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any

from memoturn_core.code.guest import world
from memoturn_core.code.guest.check import violation

FILE = "<snippet>"
_MESSAGE = 4_000
"""Characters of an error's message that are told."""
_FRAMES = 20

Answer = dict[str, Any]


class WitWorld:
    """What `sandbox.wit` exports."""

    def run(self, code: str, input: str, seed: bytes) -> str:
        world.begin(seed)
        answer = _answer(code, input)
        for channel in (sys.stdout, sys.stderr):
            with suppress(Exception):  # the snippet may have put something of its own there
                channel.flush()
        return json.dumps(answer)


def _answer(code: str, given: str) -> Answer:
    try:
        tree = ast.parse(code, FILE)
        found = violation(tree)
        if found is not None:
            return {"type": "security_violation", "reason": found.reason, "violation_type": found.violation_type}
        value = None
        match tree.body:
            case [*_, ast.Expr(value=last)]:
                tree.body.pop()
                value = compile(ast.Expression(last), FILE, "eval")
        body = compile(tree, FILE, "exec")
    except (SyntaxError, ValueError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        return _error("syntax", f"{type(error).__name__}: {said}{line}")
    except (MemoryError, RecursionError) as error:
        return _error("resource", f"{type(error).__name__}: the snippet is too large or nested too deeply to be read")
    names = {"__name__": "__main__", "input_data": json.loads(given)}
    linecache.cache[FILE] = (len(code), None, code.splitlines(keepends=True), FILE)
    try:
        exec(body, names)  # noqa: S102 - what all this is for
        output = None if value is None else eval(value, names)  # noqa: S307
        return {"type": "success", "output": _as_json(output)}
    except SystemExit as leaving:
        if leaving.code is None or leaving.code == 0:
            return {"type": "success", "output": None}
        return _error("runtime", f"SystemExit: the snippet exited with status {leaving.code}")
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its result
        trace, error.__traceback__ = error.__traceback__, None
        names.clear()  # in which all the memory may be that is needed now
        return _raised(error, trace)


def _as_json(value: Any) -> Any:
    """A value as JSON has it; what JSON has no form for is told as Python would show it."""
    try:
        return json.loads(json.dumps(value, default=repr, allow_nan=False))
    except (TypeError, ValueError):
        return repr(value)


def _raised(error: BaseException, trace: TracebackType | None) -> Answer:
    kinds: dict[type[BaseException], str] = {
        MemoryError: "resource",
        RecursionError: "resource",
        PermissionError: "permission",
    }
    kind = next((kinds[base] for base in kinds if isinstance(error, base)), "runtime")
    try:
        said = str(error)
    except BaseException:  # noqa: BLE001 - its own `__str__`
        said = ""
    name = type(error).__name__
    message = f"{name}: {said}" if said else name
    _show(trace, message)
    return _error(kind, message + _line(trace))


def _show(trace: TracebackType | None, message: str) -> None:
    """What Python would print of an exception, of the snippet's own lines."""
    try:
        frames = [frame for frame in traceback.extract_tb(trace, limit=-_FRAMES) if frame.filename == FILE]
        shown = "".join(traceback.format_list(frames))
        print(f"Traceback (most recent call last):\n{shown}{_short(message)}", file=sys.stderr)
    except Exception:  # noqa: BLE001, S110 - the snippet has changed what this needs, and the message is told anyway
        pass


def _line(trace: TracebackType | None) -> str:
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" (line {line})"


def _error(kind: str, message: str) -> Answer:
    return {"type": "error", "message": _short(message), "error_type": kind}


def _short(message: str) -> str:
    left_out = len(message) - _MESSAGE
    return message if left_out <= 0 else f"{message[:_MESSAGE]}... and {left_out} characters more"
