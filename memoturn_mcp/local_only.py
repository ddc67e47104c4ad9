"""Refuses requests that a web page of another origin, or a rebound name, sends to this node.

A browser on the same machine can reach a loopback port. Such requests give themselves away: by a Host
that is not ours (DNS rebinding) or by the Origin of another site. Wraps the whole HTTP application.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from memoturn_mcp.responses import error_response
from memoturn_mcp.settings import Settings, is_loopback
from memoturn_schemas.errors import Forbidden


class LocalOnly:
    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._any_host = not is_loopback(settings.host) and not settings.allowed_hosts
        self._hosts = settings.allowed_hosts
        self._origins = settings.allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(Headers(scope=scope))
            if refusal is not None:
                await error_response(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> Forbidden | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return Forbidden(f"this node does not answer to the host {host!r}; MEMOTURN_ALLOWED_HOSTS lists more")
        origin = headers.get("origin")
        if origin is None or origin in self._origins or urlsplit(origin).netloc == host:
            return None
        return Forbidden(f"requests from the origin {origin!r} are refused; MEMOTURN_ALLOWED_ORIGINS lists more")

    def _is_ours(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        return self._any_host or is_loopback(name) or name in self._hosts or host in self._hosts
