"""Flags that several commands share, and values of flags that need reading. Imports typer alone.

Used as the annotations of the commands' parameters, so that a flag reads the same everywhere.
"""

from __future__ import annotations

import re
import sys
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from memoturn_schemas.errors import InvalidRequest


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


class Kind(StrEnum):
    """The types of memories, as `memoturn_schemas.memory` has them."""

    FACT = "fact"
    EVENT = "event"
    INSTRUCTION = "instruction"
    TASK = "task"


Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="A node to ask, instead of this machine's data. [MEMOTURN_URL]"),
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", metavar="DIR", help="Where this machine's memories lie. [MEMOTURN_DATA_DIR]"),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "-n", "--namespace", metavar="NAME", help="Who the memories belong to. [MEMOTURN_NAMESPACE, else default]"
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "-p", "--profile", metavar="NAME", help="One user, agent or project. [MEMOTURN_PROFILE, else default]"
    ),
]
Branch = Annotated[str | None, typer.Option("--branch", metavar="NAME", help="A branch of the profile, else main.")]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="MOMENT", help="As it stood then: a checkpoint, a transaction or a time."),
]
Output = Annotated[
    Format | None, typer.Option("--format", help="By default a table on a terminal, and JSON for a pipe or a file.")
]


def wants_table(given: Format | None) -> bool:
    return given is Format.TABLE or (given is None and sys.stdout is not None and sys.stdout.isatty())


def as_unix_ms(flag: str, text: str) -> int:
    """A point in time: an ISO date or time, local unless it names its zone, or Unix milliseconds.

    Raises:
        InvalidRequest: it is none of these, or could be several: years, `20260131` and Unix seconds.
    """
    try:
        if re.fullmatch(r"-?[0-9]+", text) and len(text) not in (4, 8, 10):
            return int(text)
        if text.isdecimal():
            raise ValueError
        return round(datetime.fromisoformat(text).timestamp() * 1_000)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            f"{flag}: should be like 2026-01-31, 2026-01-31T09:30, 2026-01-31T09:30Z or Unix time in milliseconds,"
            f" not {text!r}"
        ) from None


def as_moment(flag: str, text: str) -> str:
    """A moment of a branch's history, for an operation: what has a colon is a time, local unless it names its zone.

    All else is handed on: a transaction, Unix milliseconds or a checkpoint's name.

    Raises:
        InvalidRequest: it has a colon and is no time.
    """
    if ":" not in text:
        return text
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            f"{flag}: should be a checkpoint, a transaction or a time like 2026-01-31T09:30 or 2026-01-31T09:30Z,"
            f" not {text!r}"
        ) from None
