"""Refuses requests that a web page of another origin, or a rebound name, sends to this node.

A browser on the same machine can reach a loopback port. Such requests give themselves away: by a Host
that is not ours (DNS rebinding) or by the Origin of another site. Called by `front` for every request.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from memoturn_mcp.settings import Settings, is_loopback
from memoturn_schemas.errors import Forbidden


class Guard:
    def __init__(self, settings: Settings) -> None:
        self._any_host = not is_loopback(settings.host) and not settings.allowed_hosts
        self._hosts = settings.allowed_hosts
        self._origins = settings.allowed_origins

    def check(self, headers: Headers) -> None:
        """Raise `Forbidden` for a host or an origin that is not this node's."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Forbidden(f"this node does not answer to the host {host!r}; MEMOTURN_ALLOWED_HOSTS lists more")
        origin = headers.get("origin")
        if not (origin is None or origin in self._origins or _netloc(origin) == host):
            raise Forbidden(f"requests from the origin {origin!r} are refused; MEMOTURN_ALLOWED_ORIGINS lists more")

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return self._any_host or is_loopback(name) or name in self._hosts or host in self._hosts


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
