"""What every HTTP request passes first: a request id, the guard, and the way to REST or to the rest.

`/v1` is dispatched here on the raw path, before anything decodes it (`routes`). Whatever is answered with
401 says where a client learns what it needs. Wraps the application that `app` puts together.
"""

from __future__ import annotations

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memoturn_mcp.guard import Guard
from memoturn_mcp.responses import REQUEST_ID, error_response
from memoturn_schemas.errors import Forbidden
from memoturn_storage.ambient import Ambient, new_uuid

METADATA_PATH = "/.well-known/oauth-protected-resource"


class Front:
    def __init__(self, rest: ASGIApp, others: ASGIApp, guard: Guard, ambient: Ambient) -> None:
        self._rest = rest
        self._others = others
        self._guard = guard
        self._ambient = ambient

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._others(scope, receive, send)
            return
        request_id = new_uuid(self._ambient)

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if message["status"] == 401:
                    headers["WWW-Authenticate"] = _challenge(scope)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app_for(scope)(scope, receive, identified)

    def _app_for(self, scope: Scope) -> ASGIApp:
        try:
            self._guard.check(Headers(scope=scope))
        except Forbidden as refusal:
            return error_response(refusal)
        return self._rest if scope["path"].startswith("/v1/") else self._others


def metadata_url(scope: Scope) -> str:
    """Where the description of this node as a protected resource is, as the sender of a request sees it."""
    below = "/mcp" if scope["path"] == "/mcp" else ""
    return f"{origin(scope)}{METADATA_PATH}{below}"


def origin(scope: Scope) -> str:
    """The address of this node, as the sender of a request knows it; the guard has looked at the Host."""
    return f"{scope['scheme']}://{Headers(scope=scope).get('host', '')}"


def _challenge(scope: Scope) -> str:
    failed = 'error="invalid_token", ' if "authorization" in Headers(scope=scope) else ""
    return f'Bearer {failed}resource_metadata="{metadata_url(scope)}"'
