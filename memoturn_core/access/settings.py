"""What the environment says of a node's keys, checked before anything starts. Called by `memoturn_mcp.settings`.

No message and no representation holds a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from memoturn_schemas.errors import InvalidRequest

VARIABLES = ("MEMOTURN_PLATFORM_KEY", "MEMOTURN_CLUSTER_KEY", "MEMOTURN_AUTH_KEY", "MEMOTURN_AUTH_KEY_PREVIOUS")
"""Those that mean something only while auth is on."""


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """The keys as they were given; `keys` says in which form."""

    platform_key: str = field(repr=False)
    cluster_key: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    previous_key: str | None = field(default=None, repr=False)
    persist: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, persist: bool) -> AccessSettings:
        """Read and check the keys of a node with auth on.

        Raises:
            InvalidRequest: names the variable that cannot be honoured.
        """
        platform, cluster = (_header_value(environ, f"MEMOTURN_{name}_KEY") for name in ("PLATFORM", "CLUSTER"))
        if platform is None:
            raise InvalidRequest("MEMOTURN_PLATFORM_KEY: must be set with MEMOTURN_AUTH=on; the control plane needs it")
        if platform == cluster:
            raise InvalidRequest("MEMOTURN_CLUSTER_KEY: must differ from MEMOTURN_PLATFORM_KEY")
        return cls(
            platform_key=platform,
            cluster_key=cluster,
            signing_key=_signing_key(environ, "MEMOTURN_AUTH_KEY"),
            previous_key=_signing_key(environ, "MEMOTURN_AUTH_KEY_PREVIOUS"),
            persist=persist,
        )


def _header_value(environ: Mapping[str, str], variable: str) -> str | None:
    value = environ.get(variable, "")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise InvalidRequest(f"{variable}: must consist of printable ASCII characters without spaces")
    return value or None


def _signing_key(environ: Mapping[str, str], variable: str) -> str | None:
    from memoturn_core.access.keys import decoded  # cryptography, which takes long to import: only with auth on

    text = environ.get(variable) or None
    try:
        if text is not None:
            decoded(text)
    except ValueError as error:
        raise InvalidRequest(f"{variable}: {error}") from None
    return text
