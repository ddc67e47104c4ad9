"""A file of settings: `NAME=VALUE` lines as a shell sources them, but for expansions, which are refused.

`load` puts them into the environment of this process, where what is set already wins. Called by `main`.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from memoturn_schemas.errors import InvalidRequest

LOADED: set[str] = set()
"""The variables that the file has set."""

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def load(file: str) -> None:
    """Set what the file sets and the environment does not.

    Raises:
        InvalidRequest: names the line that is not right.
    """
    try:
        text = Path(file).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidRequest(f"--env-file: {file} cannot be read: {reason}") from None
    for name, value in parse(text).items():
        if name not in os.environ:
            os.environ[name] = value
            LOADED.add(name)


def parse(text: str) -> dict[str, str]:
    """The variables by name; the last of several lines for one counts.

    Raises:
        InvalidRequest: names the line that is not right.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise InvalidRequest(f"--env-file: line {number}: should be NAME=VALUE, a comment after # or empty")
        found[match[1]] = _value(match[2], number)
    return found


def _value(text: str, number: int) -> str:
    # Within single quotes a shell expands nothing.
    if re.search(r"[$`]", re.sub(r"'[^']*'", "", text)):
        raise InvalidRequest(f"--env-file: line {number}: put a value with $ or ` into single quotes; none is expanded")
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        raise InvalidRequest(f"--env-file: line {number}: a quote is not closed") from None
    if len(words) > 1:
        raise InvalidRequest(f"--env-file: line {number}: put a value with spaces into quotes")
    return words[0] if words else ""
