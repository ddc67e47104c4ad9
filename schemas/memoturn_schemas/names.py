"""The rules for names, and those that are fields of requests as types that validate themselves.

Namespaces and profiles become part of a database's name (`{namespace}--{profile}`), which is why they
may not hold `--`. No name ever becomes part of a file path. Used by the request models, by
`memoturn_core.address` for what is addressed, and by the settings.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

NAME_RULE = "1-64 of [a-z0-9_-], starting with a letter or digit, not ending in '-', without '--'"
BRANCH_RULE = "1-64 of [A-Za-z0-9_-]"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9_])?")
_BRANCH = re.compile(r"[A-Za-z0-9_-]{1,64}")

SESSION_ID_BYTES = 256


def check_name(value: str) -> str:
    if not _NAME.fullmatch(value) or "--" in value:
        raise ValueError(f"must be {NAME_RULE}")
    return value


def check_branch(value: str) -> str:
    if not _BRANCH.fullmatch(value):
        raise ValueError(f"must be {BRANCH_RULE}")
    return value


def check_database(value: str) -> str:
    """A plain database's name, or a profile's: `{namespace}--{profile}`."""
    for part in value.split("--", 1):
        check_name(part)
    return value


def check_session_id(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    if len(value.encode()) > SESSION_ID_BYTES:
        raise ValueError(f"must be at most {SESSION_ID_BYTES} bytes of UTF-8")
    return value


SessionId = Annotated[
    str,
    AfterValidator(check_session_id),
    Field(description="A conversation: any text up to 256 bytes.", min_length=1),
]

BranchName = Annotated[str, AfterValidator(check_branch), Field(description=f"{BRANCH_RULE}.")]

CollectionName = Annotated[
    str, AfterValidator(check_branch), Field(description=f"A collection's name: {BRANCH_RULE}; case matters.")
]
