"""Access tokens on the wire: what mints and revokes them. Lives are in seconds. Source: contract item 129."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from memoturn_schemas.common import RequestModel

ScopeName = Literal["read", "write", "admin"]

LONGEST_LIFE_S = 365 * 86_400


class TokenCreateRequest(RequestModel):
    """What a new token may do."""

    scope: ScopeName
    """What it allows; write includes read, admin both."""
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_LIFE_S)] | None = None
    """Seconds that it lives; 3600 if left out, less where the token that asks dies sooner."""


class TokenCreated(TypedDict):
    token: str
    """Shown once, and kept nowhere."""
    expires_in: int
    jti: str
    """Its id, for revoking it."""
    scope: ScopeName


class TokenRevokeRequest(RequestModel):
    """One token."""

    jti: Annotated[str, Field(min_length=1, max_length=128)]
    """The id that minting answered with, or the claim of the token."""


class TokenRevoked(TypedDict):
    revoked: bool
