"""What the SDK's stdio transport leaves to us: bad lines are answered, and the end of input waits.

The transport hands over each line of stdin as a message, or as the exception that parsing it raised, and
at the end of input cancels whatever still runs. `Requests` answers the exceptions with a JSON-RPC error,
so that no client waits for a reply that will not come, and holds back the end of input until every
request has its answer, so that `printf ... | memoturn-mcp` works. Called by `serving`.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, Self

import anyio
import mcp_types as types
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

_ID = re.compile(r'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,200}")')


class Outstanding:
    """The ids of the requests that have no answer yet."""

    def __init__(self) -> None:
        self._ids: set[int | str] = set()
        self._changed = anyio.Condition()

    def opened(self, message: Any) -> None:
        if isinstance(message, types.JSONRPCRequest):
            self._ids.add(message.id)
        elif isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            self._ids.discard((message.params or {}).get("requestId", ""))

    async def closed(self, message: Any) -> None:
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError) and message.id is not None:
            async with self._changed:
                self._ids.discard(message.id)
                self._changed.notify_all()

    async def none_left(self, within_s: float) -> None:
        with anyio.move_on_after(within_s):
            async with self._changed:
                while self._ids:
                    await self._changed.wait()


class _Scoped:
    """A stream that is closed where its `async with` ends."""

    async def aclose(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Answers(_Scoped):
    """The way out: as given, and each answer closes its request."""

    def __init__(self, inner: WriteStream[SessionMessage], outstanding: Outstanding) -> None:
        self._inner = inner
        self._outstanding = outstanding

    async def send(self, item: SessionMessage, /) -> None:
        await self._inner.send(item)
        await self._outstanding.closed(item.message)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Requests(_Scoped):
    """The way in: messages only."""

    def __init__(
        self,
        inner: ReadStream[SessionMessage | Exception],
        answers: Answers,
        outstanding: Outstanding,
        patience_s: float,
    ) -> None:
        self._inner = inner
        self._answers = answers
        self._outstanding = outstanding
        self._patience_s = patience_s

    async def receive(self) -> SessionMessage | Exception:
        while True:
            try:
                item = await self._inner.receive()
            except anyio.EndOfStream:
                await self._outstanding.none_left(self._patience_s)
                raise
            if isinstance(item, Exception):
                await self._answers.send(SessionMessage(refusal(item)))
                continue
            self._outstanding.opened(item.message)
            return item

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


def refusal(error: Exception) -> types.JSONRPCError:
    """The answer to a line that is no message, under the id that it seems to have."""
    code, what, line = types.PARSE_ERROR, "cannot be read", ""
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        line = str(fault["input"])
        if fault["type"] == "json_invalid":
            what = f"is not valid JSON: {fault['msg'].removeprefix('Invalid JSON: ')}"
        elif fault["type"] == "string_unicode":
            what = "is not valid UTF-8"
        else:
            code, what, line = types.INVALID_REQUEST, "is not a JSON-RPC 2.0 message", ""
    found = _ID.search(line)
    id_ = None if found is None else found[1].strip('"') if found[1].startswith('"') else int(found[1])
    message = f"the line {what}; nothing was done"
    return types.JSONRPCError(jsonrpc="2.0", id=id_, error=types.ErrorData(code=code, message=message))
