"""Who may speak to this node over HTTP: hosts and origins, credentials, and whose MCP session is whose.

A browser on the same machine can reach a loopback port. Requests of a web page give themselves away: by a
Host that is not ours (DNS rebinding) or by the Origin of another site. `Guard` refuses them for every
request; `Gate` knows the sender of those that need one; `Bound` puts MCP's transports behind it.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memoturn_core.access.authority import Authority
from memoturn_core.caller import LOCAL, Caller
from memoturn_mcp.responses import error_response
from memoturn_mcp.settings import Settings, is_loopback
from memoturn_schemas.errors import Forbidden, MemoturnError, Unauthorized
from memoturn_schemas.names import check_database
from memoturn_storage.ambient import Ambient

CALLER = "memoturn.caller"
"""Under which the scope of a request has its `Caller`."""

_SESSION = "mcp-session-id"


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

    def database(self, headers: Headers) -> str | None:
        """The database that the Host names: `{db}.{host}`, where MEMOTURN_ALLOWED_HOSTS lists the host."""
        return self._database(headers.get("host", "").lower())

    def _database(self, host: str) -> str | None:
        label, _, parent = host.partition(".")
        if self._lists(host) or not self._lists(parent):
            return None
        try:
            return check_database(label)
        except ValueError:
            return None

    def _is_ours(self, host: str) -> bool:
        name = _hostname(host)
        if name is None:
            return False
        host = host.lower()
        return self._any_host or is_loopback(name) or self._lists(host) or self._database(host) is not None

    def _lists(self, host: str) -> bool:
        """Whether the settings name this host, with its port or without."""
        return bool(host) and (host in self._hosts or _hostname(host) in self._hosts)


class Gate:
    """Who sends a request, by its headers: everybody is `LOCAL` while auth is off."""

    def __init__(self, authority: Authority | None) -> None:
        self._authority = authority

    async def caller(self, headers: Headers) -> Caller:
        """Raises `Unauthorized` where nobody known sends it; a header that comes twice is none."""
        if self._authority is None:
            return LOCAL
        shown = {name: headers.getlist(name) for name in ("Authorization", "X-Memoturn-Internal")}
        for name, values in shown.items():
            if len(values) > 1:
                raise Unauthorized(f"{name}: is given more than once")
        authorization, internal = (values[0] if values else None for values in shown.values())
        return await self._authority.caller(authorization, internal)


class Bound:
    """A transport of MCP whose requests must say who sends them; a session is its opener's alone.

    The id of a session leaves with a seal over it and over the credential that opened it, and is taken back
    only with that credential: 401 otherwise. The SDK, which learns of the credential, keeps the same rule.
    """

    def __init__(self, app: ASGIApp, gate: Gate, ambient: Ambient) -> None:
        self._app = app
        self._gate = gate
        self._key = ambient.token(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            caller = await self._gate.caller(Headers(scope=scope))
            scope = {**scope, CALLER: caller, "headers": self._unsealed(scope, caller)}
        except MemoturnError as refusal:
            await error_response(refusal)(scope, receive, send)
            return
        if caller.credential is None:
            await self._app(scope, receive, send)
            return
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=caller.credential, scopes=[]))

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if _SESSION in headers:
                    headers[_SESSION] = f"{headers[_SESSION]}.{self._seal(headers[_SESSION], caller)}"
            await send(message)

        await self._app(scope, receive, sealed)

    def _unsealed(self, scope: Scope, caller: Caller) -> list[tuple[bytes, bytes]]:
        """The headers as the SDK knows them; an id without a seal is none of ours, which it says itself."""
        headers = MutableHeaders(raw=list(scope["headers"]))
        session, dot, seal = headers.get(_SESSION, "").rpartition(".")
        if dot and caller.credential is not None:
            if not hmac.compare_digest(seal.encode(), self._seal(session, caller).encode()):
                raise Unauthorized("this session belongs to another credential")
            headers[_SESSION] = session
        return headers.raw

    def _seal(self, session: str, caller: Caller) -> str:
        return hmac.digest(self._key, f"{session} {caller.credential}".encode(), "sha256")[:16].hex()


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _hostname(host: str) -> str | None:
    """Without its port; None where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return None
