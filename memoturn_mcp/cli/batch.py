"""Memories to keep, from a file or from flags: all read and checked before the first one is sent.

A file holds JSON Lines (a memory a line), a JSON array of memories, `{"memories": [...]}` or one
memory. Errors name the line, or the place in the array. Called by `memory`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from memoturn_core.invoke import describe
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.settings import default_source
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.memory import BATCH_LIMIT, MemoryItem

Placed = tuple[str, Any]
"""Where a memory stands, for errors, and the memory as parsed JSON."""

_BOM = b"\xef\xbb\xbf"
_ONE_DOCUMENT = re.compile(rb'\s*(\[|\{\s*("memories"|[\r\n]))')
"""How a document starts that is not JSON Lines: a line of those is a whole object, and a memory."""


def read_file(name: str) -> list[Placed]:
    """The memories of a file; `-` is stdin.

    Raises:
        InvalidRequest: it cannot be read, or holds something else.
    """
    try:
        text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"--file: cannot read {name}: {error.strerror}") from None
    text = text.removeprefix(_BOM)
    return list(_document(text) if _ONE_DOCUMENT.match(text) else _lines(text))


def parse_json(text: str | bytes, where: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"{where}: is not valid JSON: {str(error).replace(' line 1 ', ' ')}") from None


def checked(memories: Iterable[Placed], *, session: str | None, source: str | None) -> list[dict[str, Any]]:
    """The memories with what they leave out filled in, each one valid.

    Raises:
        InvalidRequest: the first that is not; says where it stands and what is wrong with it.
    """
    placed = list(memories)
    for where, memory in placed:
        if not isinstance(memory, dict):
            raise InvalidRequest(_at(where, "should be a JSON object, one memory"))
        if session is not None and memory.get("session_id") is None:
            memory["session_id"] = session
    fill_defaults = OPERATIONS["memory_ingest"].fill_defaults
    arguments: dict[str, Any] = {"memories": [memory for _, memory in placed]}
    if fill_defaults is not None:
        arguments = fill_defaults(arguments, default_source() if source is None else source)
    filled: list[dict[str, Any]] = arguments["memories"]
    for (where, _), memory in zip(placed, filled, strict=True):
        try:
            MemoryItem.model_validate(memory, strict=True)
        except ValidationError as error:
            raise InvalidRequest(_at(where, describe(error))) from None
    return filled


def batches(memories: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many as one request takes at a time; one empty batch where there is nothing."""
    for start in range(0, max(1, len(memories)), BATCH_LIMIT):
        yield memories[start : start + BATCH_LIMIT]


def _lines(text: bytes) -> Iterator[Placed]:
    for number, line in enumerate(text.split(b"\n"), start=1):
        if line.strip():
            yield f"line {number}", parse_json(line, f"line {number}")


def _document(text: bytes) -> Iterator[Placed]:
    try:
        document = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"--file: is not valid JSON: {error}") from None
    if isinstance(document, dict) and "memories" in document:
        unknown = sorted(document.keys() - {"memories"})
        if unknown:
            raise InvalidRequest(f"{unknown[0]}: unknown field")
        document = document["memories"]
        if not isinstance(document, list):
            raise InvalidRequest("memories: should be an array")
    elif isinstance(document, dict):
        document = [document]
    for index, memory in enumerate(document):
        yield f"memories[{index}]", memory


def _at(where: str, what: str) -> str:
    return f"{where}: {what}" if where else what
