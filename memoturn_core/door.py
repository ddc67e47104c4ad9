"""Two ways to have an operation run: on this machine's files, or by a node over HTTP.

The MCP server and the CLI speak to a `Door` and so work the same way with either. `RemoteDoor` builds
each request from the operation's own declaration, and turns the envelope of an error back into the
error that the node raised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from memoturn_core.address import MAIN, Address
from memoturn_core.caller import Caller
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.operations import Operation, Reply, Rest, Target
from memoturn_schemas import blob
from memoturn_schemas.errors import InvalidRequest, MemoturnError, Unavailable, UpstreamFailure, raised_elsewhere


class Door(Protocol):
    async def call(self, operation: Operation, address: Address, arguments: Mapping[str, Any]) -> Reply:
        """Run one operation; raises `MemoturnError` and nothing else."""
        ...

    def offers(self, operation: Operation) -> bool:
        """Whether what is behind it is known to have all that the operation needs."""
        ...

    async def close(self) -> None: ...


class LocalDoor:
    """Runs operations in this process."""

    def __init__(self, node: Node, caller: Caller, timeout_s: float | None = 30.0) -> None:
        self._node = node
        self._caller = caller
        self._timeout_s = timeout_s

    async def call(self, operation: Operation, address: Address, arguments: Mapping[str, Any]) -> Reply:
        return await invoke(
            self._node,
            operation,
            address,
            arguments,
            self._caller,
            timeout_s=self._timeout_s,
        )

    def offers(self, operation: Operation) -> bool:
        return operation.available is None or operation.available(self._node)

    async def close(self) -> None:
        await self._node.close()


class RemoteDoor:
    """Has a node at `url` run operations, with `token` as the bearer where there is one.

    Those of the control plane are asked for with the `platform_key` instead, where there is one.
    """

    def __init__(self, url: str, token: str | None = None, platform_key: str | None = None) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=35.0)
        self._data = _bearer(token)
        self._control = _bearer(platform_key) or self._data

    async def call(self, operation: Operation, address: Address, arguments: Mapping[str, Any]) -> Reply:
        rest = operation.rest
        if rest is None:
            raise InvalidRequest(f"{operation.name} is not served over HTTP")
        try:
            request = self._request(operation.target, rest, address, arguments)
            request.headers.update(self._control if operation.control else self._data)
            response = await self._client.send(request)
            body = _body(rest, response)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Unavailable(f"the node at {self._client.base_url} cannot be reached or does not answer") from error
        if response.is_error:
            raise _raised_there(response, body)
        if body is None:
            # 204: the operation's answer is that it was done, each of its fields a flag that says so.
            body = dict.fromkeys(operation.response.__annotations__, True)
        txid = response.headers.get("Memoturn-Txid")
        return Reply(body, None if txid is None else int(txid), response.status_code)

    def offers(self, operation: Operation) -> bool:
        return operation.available is None  # of what the node has, nothing is known before it is asked

    async def close(self) -> None:
        await self._client.aclose()

    def _request(self, target: Target, rest: Rest, address: Address, arguments: Mapping[str, Any]) -> httpx.Request:
        params = {} if address.branch == MAIN else {"branch": address.branch}
        try:
            path, remaining = _path(target, rest, address, arguments)
            content = None if rest.raw_body is None else _raw(rest.raw_body, remaining)
            if rest.has_body and content is None:
                return self._client.build_request(rest.method, path, params=params, json=remaining)
            params |= {key: _text(value) for key, value in remaining.items() if value is not None}
            return self._client.build_request(rest.method, path, params=params, content=content)
        except ValueError as error:
            raise InvalidRequest(f"the request cannot be sent as JSON: {error}") from error


def _bearer(credential: str | None) -> dict[str, str]:
    if credential is None:
        return {}
    if not (credential.isascii() and credential.isprintable()) or " " in credential:
        raise InvalidRequest("the credential for the node should be printable ASCII characters without spaces")
    return {"Authorization": f"Bearer {credential}"}


def _path(target: Target, rest: Rest, address: Address, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The URL's path, and the arguments that are not in it."""
    template = (rest.at or target.prefix) + rest.path
    if rest.below_profile is not None and address.may_create:
        template = Target.PROFILE.prefix + rest.below_profile
    profile = (address.database or "").partition("--")[2]
    known = {"namespace": address.namespace, "profile": profile, "db": address.database}
    remaining = dict(arguments)
    segments = []
    for segment in template.split("/"):
        if segment.startswith("{"):
            name = segment[1:-1]
            value = known[name] if name in known else remaining.pop(name, None)
            if not isinstance(value, str) or not value:
                raise InvalidRequest(f"{name}: is required")
            segment = quote(value, safe="").replace(".", "%2E")  # a segment of dots would mean another path
        segments.append(segment)
    return "/".join(segments), remaining


def _body(rest: Rest, response: httpx.Response) -> Any:
    if rest.raw_reply is not None and response.is_success:
        return {rest.raw_reply: response.content}
    return response.json() if response.content else None


def _raw(name: str, arguments: dict[str, Any]) -> bytes:
    """Take the field that is the body out of the arguments."""
    try:
        return blob.from_json(arguments.pop(name))
    except KeyError:
        raise InvalidRequest(f"{name}: is required") from None
    except ValueError as error:
        raise InvalidRequest(f"{name}: {error}") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _raised_there(response: httpx.Response, body: Any) -> MemoturnError:
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return UpstreamFailure(f"the node answered with status {response.status_code} and no error envelope")
    after = response.headers.get("Retry-After", "")
    retry_after_s = int(after) if after.isascii() and after.isdecimal() else None
    return raised_elsewhere(body["error"], str(body.get("code")), response.status_code, retry_after_s)
