"""`memoturn logs`: the log file of MEMOTURN_LOG_FILE, with those that it followed. Called by `main`."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from memoturn_mcp.cli.flags import Format, Output, wants_table
from memoturn_schemas.errors import InvalidRequest, NotFound

Event = dict[str, Any]

_LOOK_AGAIN_AFTER_S = 0.2
_SHOWN_FIRST = ("timestamp", "level", "event")


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_SEVERITY = {**{str(level): place for place, level in enumerate(Level)}, "critical": len(Level)}


def logs(
    lines: Annotated[int, typer.Option("--lines", metavar="COUNT", min=0, help="How many of the last.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what is logged from now on.")] = False,
    level: Annotated[Level | None, typer.Option("--level", help="Only what is at least so grave.")] = None,
    request_id: Annotated[
        str | None, typer.Option("--request-id", metavar="ID", help="Only what one request has caused.")
    ] = None,
    output: Output = None,
) -> None:
    """Show the last lines of the log file."""
    from memoturn_mcp.cli.output import write
    from memoturn_mcp.cli.reach import settings_of

    file = settings_of().log_file
    if file is None:
        unset = InvalidRequest("MEMOTURN_LOG_FILE: is not set, so there is no log file to show")
        unset.add_note("set it for the node, and for this command; without it a node logs to stderr alone")
        raise unset
    if not file.exists() and not follow:
        raise NotFound(f"there is no log file {file} yet")
    render = _renderer(output)

    def wanted(event: Event) -> bool:
        grave = level is None or _SEVERITY.get(str(event.get("level")), -1) >= _SEVERITY[level]
        return grave and (request_id is None or event.get("request_id") == request_id)

    with closing(_Tail(file)) as tail:
        for event in _last(lines, wanted, tail, file):
            write(render(event), "utf-8")
        if follow:
            asyncio.run(_follow(tail, lambda event: write(render(event), "utf-8") if wanted(event) else None))


def _last(count: int, wanted: Callable[[Event], bool], tail: _Tail, file: Path) -> deque[Event]:
    """The last events, oldest first; what is in `tail` now is read, and older files as far as they are needed."""
    found: deque[Event] = deque()
    for events in (tail.more(), *(_older(file))):
        for event in reversed(events):
            if len(found) == count:
                return found
            if wanted(event):
                found.appendleft(event)
    return found


def _older(file: Path) -> Iterator[list[Event]]:
    from memoturn_mcp.logs import FILES_BEFORE

    for number in range(1, FILES_BEFORE + 1):
        path = file.with_name(f"{file.name}.{number}")
        if path.exists():
            yield [_event(line) for line in path.read_bytes().splitlines()]


async def _follow(tail: _Tail, take: Callable[[Event], None]) -> None:
    while True:
        for event in tail.more():
            take(event)
        await asyncio.sleep(_LOOK_AGAIN_AFTER_S)


class _Tail:
    """A log file that grows, and is another one after each rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._begun = b""

    def more(self) -> list[Event]:
        """What was logged since this was asked last."""
        found: list[Event] = []
        if self._file is None:
            self._open()
        while self._file is not None:
            rotated = self._rotated(self._file)
            *lines, self._begun = (self._begun + self._file.read()).split(b"\n")
            found += [_event(line) for line in lines]
            if not rotated:
                break
            self._file.close()
            self._open()
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> None:
        self._begun = b""
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            self._file = None

    def _rotated(self, file: BinaryIO) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        opened = os.fstat(file.fileno())
        return (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino)


def _event(line: bytes) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"event": line.decode(errors="replace")}


def _renderer(output: Format | None) -> Callable[[Event], str]:
    from memoturn_mcp.cli.output import as_data

    if wants_table(output):
        return _line
    head = "---\n" if output is Format.YAML else ""
    return lambda event: head + as_data(event, output)


def _line(event: Event) -> str:
    from memoturn_mcp.cli.printable import one_line, printable

    rest = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in event.items()
        if name not in (*_SHOWN_FIRST, "exception")
    ]
    first = f"{event.get('timestamp', '')} {event.get('level', ''):<8}{event.get('event', '')}".strip()
    said = one_line("  ".join([first, *rest]))
    return f"{said}\n{printable(event['exception'])}\n" if "exception" in event else f"{said}\n"
