"""JSON and bytes that commands take: from an argument, or from a file, of which `-` is stdin.

A file of records is JSON Lines, a record a line, or one JSON array. All records are checked before the
first is sent, and errors name the line or the place in the array. Called by `batch`, `docs`, `kv`, `sql` and `vector`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from memoturn_core.invoke import describe
from memoturn_core.operations import Reply
from memoturn_schemas.errors import InvalidRequest, MemoturnError

BOM = b"\xef\xbb\xbf"
_ARRAY = re.compile(rb"\s*\[")


def read_bytes(name: str) -> bytes:
    """What a file holds.

    Raises:
        InvalidRequest: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequest(f"--file: cannot read {name}: {reason}") from None


def read_text(name: str) -> str:
    """As `read_bytes`, of a file that is UTF-8."""
    try:
        return read_bytes(name).removeprefix(BOM).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"--file: {name} is not valid UTF-8") from None


def parse(text: str | bytes, where: str) -> Any:
    """A JSON value; errors begin with `where` it stands."""
    try:
        return from_json(text.encode() if isinstance(text, str) else text, allow_inf_nan=False)
    except UnicodeEncodeError:
        raise InvalidRequest(f"{where}: is not valid UTF-8") from None
    except ValueError as error:
        raise InvalidRequest(f"{where}: is not valid JSON: {str(error).replace(' line 1 ', ' ')}") from None


def one_of(argument: str | None, file: str | None, what: str) -> str | bytes:
    """The text of `what`, an argument for which a file may stand.

    Raises:
        InvalidRequest: both are given, or none, or the file cannot be read.
    """
    if (argument is None) == (file is None):
        raise InvalidRequest(f"{what}: give it, or --file" if file is None else f"{what}: leave it out with --file")
    return argument if argument is not None else read_bytes(file or "").removeprefix(BOM)


def records(text: str | bytes, what: str, check: Callable[[Any], object]) -> list[Any]:
    """The records of an argument (str) or of a file (bytes), each of which `check` has found to be valid.

    Raises:
        InvalidRequest: the first that is not; says where it stands and what is wrong with it.
    """
    placed = lines(text) if isinstance(text, bytes) and not _ARRAY.match(text) else _array(text, what)
    found = []
    for where, record in placed:
        try:
            check(record)
        except ValidationError as error:
            raise InvalidRequest(f"{where}: {describe(error, record)}") from None
        found.append(record)
    return found


def lines(text: bytes) -> Iterator[tuple[str, Any]]:
    """The places and values of JSON Lines."""
    for number, line in enumerate(text.split(b"\n"), start=1):
        if line.strip():
            yield f"line {number}", parse(line, f"line {number}")


def _array(text: str | bytes, what: str) -> Iterator[tuple[str, Any]]:
    """The places and items of an array; anything else is an array of one."""
    value = parse(text, what if isinstance(text, str) else "--file")
    if not isinstance(value, list):
        yield what, value
        return
    for index, item in enumerate(value):
        yield f"{what}[{index}]", item


async def in_batches(
    items: list[Any], limit: int, what: str, send: Callable[[list[Any]], Awaitable[Reply]]
) -> tuple[list[Mapping[str, Any]], int | None]:
    """Send as many as one request takes at a time, at least one request; the answers, and the last txid.

    Raises:
        MemoturnError: of the first batch that fails, noting how many `what` are kept.
    """
    answers: list[Mapping[str, Any]] = []
    txid = None
    for start in range(0, max(1, len(items)), limit):
        try:
            reply = await send(items[start : start + limit])
        except MemoturnError as error:
            if start:
                error.add_note(f"the first {start} {what} are kept; go on after them")
            raise
        answers.append(reply.value)
        txid = reply.txid
    return answers, txid
