"""An error as a person at a shell sees it: `memoturn: <what is wrong>`, and `hint: <what to do>`.

Notes on the error (`add_note`) are hints of whoever knew more than the error's kind. Called by `main`.
"""

from __future__ import annotations

import os
import sys

from memoturn_mcp.cli.printable import one_line
from memoturn_schemas import errors
from memoturn_schemas.errors import MemoturnError

_HINTS: dict[type[MemoturnError], str] = {
    errors.PayloadTooLarge: "send less at a time, or raise MEMOTURN_MAX_BODY_BYTES of the node",
    errors.NotFound: "`memoturn memory recall` finds the ids of memories",
    errors.BranchNotFound: "without --branch it is main",
    errors.Unauthorized: "MEMOTURN_TOKEN holds the token for the node",
    errors.RequestTimeout: "MEMOTURN_REQUEST_TIMEOUT_MS of whoever runs the operation sets the time budget",
    errors.Overloaded: "the same command may succeed in a moment",
    errors.Unavailable: "`memoturn doctor` looks for the cause on this machine",
    errors.Internal: "the cause is in the node's log; on this machine MEMOTURN_LOG_LEVEL=error shows it",
}


def report(error: MemoturnError) -> None:
    """Print the error and its hints to stderr, each on one line."""
    print(f"memoturn: {one_line(str(error))}", file=sys.stderr)
    for hint in _hints(error):
        print(f"hint: {one_line(hint)}", file=sys.stderr)


def _hints(error: MemoturnError) -> list[str]:
    notes = getattr(error, "__notes__", None)
    if notes:
        return list(notes)
    hint = _HINTS.get(type(error))
    if hint is None or (isinstance(error, errors.Internal) and "MEMOTURN_LOG_LEVEL" in os.environ):
        return []
    return [hint]
