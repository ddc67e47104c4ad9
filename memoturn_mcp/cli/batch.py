"""Memories to keep, from a file or from flags: all read and checked before the first one is sent.

A file holds JSON Lines (a memory a line), a JSON array of memories, `{"memories": [...]}` or one
memory. Errors name the line, or the place in the array. Called by `memory`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from memoturn_core.invoke import describe
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.cli.inputs import BOM, lines, parse, read_bytes
from memoturn_mcp.settings import default_source
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.memory import MemoryItem

Placed = tuple[str, Any]
"""Where a memory stands, for errors, and the memory as parsed JSON."""

_ONE_DOCUMENT = re.compile(rb'\s*(\[|\{\s*("memories"|[\r\n]))')
"""How a document starts that is not JSON Lines: a line of those is a whole object, and a memory."""


def read_file(name: str) -> list[Placed]:
    """The memories of a file; `-` is stdin.

    Raises:
        InvalidRequest: it cannot be read, or holds something else.
    """
    text = read_bytes(name).removeprefix(BOM)
    return list(_document(text) if _ONE_DOCUMENT.match(text) else lines(text))


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
            raise InvalidRequest(_at(where, describe(error, memory))) from None
    return filled


def _document(text: bytes) -> Iterator[Placed]:
    document = parse(text, "--file")
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
