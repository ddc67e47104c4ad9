"""Flags that several commands share, and values of flags that need reading. Imports typer alone.

Used as the annotations of the commands' parameters, so that a flag reads the same everywhere. Commands of
the data plane and the control plane take them all together, as a `Reach` (`on_a_branch`, `on_a_node`).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial, wraps
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from memoturn_schemas.errors import InvalidRequest

P = ParamSpec("P")


class Format(StrEnum):
    HUMAN = "human"
    JSON = "json"
    YAML = "yaml"


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
NoUrl = Annotated[str | None, typer.Option("--url", hidden=True)]
"""Refused with the reason, where the flag alone would be unknown."""
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
Db = Annotated[
    str | None,
    typer.Option("--db", metavar="NAME[@BRANCH]", help="A database of `memoturn db create`, instead of a profile."),
]
Output = Annotated[
    Format | None,
    typer.Option("--format", help="By default a table for a person at a terminal, and JSON for a pipe or a file."),
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="COUNT", help="How many at most; 100 by default.")]
Cursor = Annotated[
    str | None, typer.Option("--cursor", metavar="TEXT", help="Go on where the answer with this next_cursor ended.")
]


@dataclass(frozen=True, slots=True)
class Reach:
    """Which data a command is about and where they are; None where its flag was not given."""

    url: Url
    data_dir: DataDir
    namespace: Namespace
    profile: Profile = None
    branch: Branch = None
    db: Db = None


Command = Callable[Concatenate[Reach, Format | None, P], None]
"""What begins with the two, and goes on with arguments and flags of its own."""


def _sharing(flags: tuple[str, ...], command: Command[P], *, no_url: bool = False) -> Callable[..., None]:
    """The command as typer is to see it: with these flags of a `Reach` and `--format` in place of the two."""
    own = inspect.signature(command, eval_str=True)
    kinds = {**get_type_hints(Reach, include_extras=True), "output": Output}
    if no_url:
        kinds["url"] = NoUrl
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kinds[name])
        for name in (*flags, "output")
    ]

    @wraps(command)
    def run(*, output: Format | None, **given: Any) -> None:
        reach = dict.fromkeys(("url", "data_dir", "namespace")) | {flag: given.pop(flag) for flag in flags}
        command(Reach(**reach), output, **given)  # type: ignore[call-arg]  # typer passes them all by name

    signature = own.replace(parameters=[*list(own.parameters.values())[2:], *shared])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


_WHERE = ("url", "data_dir")

on_a_node = partial(_sharing, _WHERE)
"""Decorates a command that says by its arguments what it is about."""
on_a_url = partial(_sharing, ("url",))
"""Decorates a command about a node that runs."""
on_a_namespace = partial(_sharing, ("namespace", *_WHERE))
on_a_profile = partial(_sharing, ("namespace", "profile", "branch", *_WHERE))
on_a_database = partial(_sharing, ("db", "namespace", "profile", *_WHERE))
"""Decorates a command about all of a database, with its branches."""
on_a_branch = partial(_sharing, ("db", "namespace", "profile", "branch", *_WHERE))
"""Decorates a command about one branch of a profile or of a plain database."""
on_the_store = partial(_sharing, ("db", "namespace", "profile", "branch", *_WHERE), no_url=True)
"""Decorates a command that reads the object store itself."""


def wants_table(given: Format | None) -> bool:
    return given is Format.HUMAN or (given is None and on_a_terminal())


def on_a_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


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
