"""Calls between the processes of one machine: whoever does not own a database asks the one who does.

Every process listens on a Unix socket; its path is the address in its leases. A call carries a whole
operation and brings back the reply, or the error that the owner raised. What passes over a connection
is frames, each its length in four bytes and then JSON; one call at a time:

    request ->    <- empty frame: accepted    <- answer

The owner sends the empty frame before it starts anything, so a caller who lost the connection without
having seen it knows that nothing was done. A caller who gives up closes the connection, and the owner
cancels the operation. Sockets lie in directories that only their user may enter: whoever can connect is
trusted, with the caller that the request names. Called by whoever opens databases.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import structlog

from memoturn_core.address import Address
from memoturn_core.caller import Caller, Kind
from memoturn_core.operations import Reply, Scope
from memoturn_schemas.errors import (
    InvalidRequest,
    MemoturnError,
    PayloadTooLarge,
    RequestTimeout,
    Unavailable,
    raised_elsewhere,
)
from memoturn_storage.ambient import Ambient
from memoturn_storage.errors import translate
from memoturn_storage.leases.file import gate
from memoturn_storage.leases.lease import OwnedElsewhere

log = structlog.get_logger("memoturn")

LARGEST_FRAME = 64 * 1024 * 1024
"""Bytes of one request or answer."""

_PROTOCOL = 1
_LONGEST_PATH = 103
"""Bytes of a socket's path that every system allows."""

_BUFFER = 1024 * 1024
_BACKLOG = 1024
_CALLS_AT_ONCE = 64
_IDLE_CONNECTIONS = 4
_GRACE_S = 1.0
"""How much longer than the time budget a caller waits, so that it is the owner who says that it ran out."""

_ACCEPTED = b""

_servers = itertools.count()


class PeerLost(Unavailable):
    """The owner cannot be reached, or went away during the call.

    `sent` False: it surely started nothing, and the request may be tried again wherever the database is
    now. True: the request may have been carried out, wholly or not at all.
    """

    def __init__(self, *, sent: bool) -> None:
        outcome = "it may have been carried out" if sent else "nothing was done"
        super().__init__(f"the process that has the database open went away during the request; {outcome}")
        self.sent = sent


class _Malformed(Exception):
    """What came over a connection is not of this protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRequest:
    """One operation for the owner to run: what `invoke` takes, with the operation by name.

    The values of `arguments` are JSON or, at the top level, bytes.
    """

    operation: str
    address: Address
    arguments: Mapping[str, Any]
    caller: Caller
    text_arguments: bool = False
    min_txid: int = 0
    timeout_s: float | None = None
    """What is left of the time budget, in seconds."""
    durable: bool = False


Answer = Callable[[PeerRequest], Awaitable[Reply]]


# --- the owner's side ----------------------------------------------------------------------------


class PeerServer:
    """Listens for the other processes, one a process. `directory` is the data directory."""

    def __init__(self, directory: Path, answer: Answer, ambient: Ambient) -> None:
        self._directory = directory.absolute()
        # Neither two processes nor two servers of one may get the same name, whatever the ambient says.
        name = f"{os.getpid()}-{next(_servers)}-{ambient.token(8).hex()}"
        self._path = _socket_path(self._directory, name)
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def address(self) -> str:
        """Where the others reach this process once it has started."""
        return str(self._path)

    async def start(self) -> None:
        """Listen; sockets of processes that were killed are removed first.

        Raises:
            Unavailable: the socket cannot be made, or others than its user could enter its directory.
        """
        try:
            listening = _listening(self._path, self._directory)
        except OSError as error:
            raise Unavailable(f"the socket between processes cannot be made: {error.strerror or error}") from error
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=_BUFFER)

    async def close(self, wait_s: float = 10.0) -> None:
        """Accept nothing more, let what runs finish for `wait_s` seconds, cancel the rest, remove the socket."""
        self._closing = True
        if self._server is None:
            return
        self._server.close()
        self._path.unlink(missing_ok=True)
        for connection in list(self._idle):
            connection.cancel()
        if self._connections:
            _, unfinished = await asyncio.wait(self._connections, timeout=wait_s)
            for connection in unfinished:
                connection.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: before Python 3.12, one that asyncio's streams made is a fault in the log when cancelled.
        connection = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None  # noqa: S101 - `_accept` made one
        # `drain` then waits until the system has every byte, which `_ACCEPTED` means to be true.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            while not self._closing:
                self._idle.add(connection)
                request = await _read(reader)
                self._idle.discard(connection)
                if request is None or not await self._converse(request, reader, writer):
                    break
        except _Malformed as fault:
            log.warning("connection of another process closed", reason=str(fault))
        except (OSError, EOFError) as lost:
            log.debug("connection of another process lost", reason=repr(lost))
        finally:
            self._idle.discard(connection)
            await _hang_up(writer)

    async def _converse(self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False where the caller gave it up."""
        try:
            request = _decoded_request(body)
        except Unavailable as refusal:
            await _write(writer, _encoded_error(refusal))
            return True
        await _write(writer, _ACCEPTED)
        answering = asyncio.ensure_future(self._outcome(request))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                if leaving.result():
                    raise _Malformed("a request came before the last one was answered")
                return False
        finally:
            answered = answering.done()
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        assert answered  # noqa: S101 - one of the two was done
        await _write(writer, answering.result())
        return True

    async def _outcome(self, request: PeerRequest) -> bytes:
        try:
            return _encoded_reply(await self._answer(request))
        except Exception as error:
            failure = translate(error)
            if failure is not error:
                log.error("operation for another process failed", operation=request.operation, exc_info=error)
            return _encoded_error(failure)


def _socket_path(directory: Path, name: str) -> Path:
    """In `run` of the data directory or, where that is too deep for a socket, among the temporary files."""
    path = directory / "run" / f"{name}.sock"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        path = Path(tempfile.gettempdir()).absolute() / f"memoturn-{os.geteuid()}" / path.name
    return path


def _listening(path: Path, directory: Path) -> socket.socket:
    # Nobody but the owner may read memories; the data directory may not exist before the first write.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    run = path.parent
    run.mkdir(mode=0o700, exist_ok=True)
    found = run.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise Unavailable(f"the directory {run.name}, for sockets, must be this user's and closed to all others")
    with gate(run):  # or somebody removes a socket that is bound and does not listen yet
        for other in run.glob("*.sock"):
            if _is_stale(other):
                other.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(path))
            listening.listen(_BACKLOG)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
    return listening


def _is_stale(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except (BlockingIOError, FileNotFoundError):
            return False
    return False


# --- the caller's side ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ended(self) -> bool:
        return self.reader.at_eof() or self.writer.is_closing()


@dataclass(slots=True)
class _Pool:
    """The connections to one address."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CALLS_AT_ONCE))
    idle: list[_Connection] = field(default_factory=list)
    calls: int = 0


class Peers:
    """Asks other processes; belongs to one event loop."""

    def __init__(self, ambient: Ambient) -> None:
        self._ambient = ambient
        self._pools: dict[str, _Pool] = {}
        self._closed = False

    async def call(self, address: str, request: PeerRequest) -> Reply:
        """Have the process at `address` run the operation. Cancelling the call cancels the operation.

        Raises:
            PeerLost: it cannot be reached or went away.
            OwnedElsewhere: it does not own the database any more; look again.
            RequestTimeout: the time budget ran out, there or on the way.
            PayloadTooLarge: the request or its answer is over `LARGEST_FRAME`.
            MemoturnError: whatever the owner raised, as the kind that it was.
        """
        self._drop_ended()
        started = self._ambient.monotonic()
        pool = self._pools.setdefault(address, _Pool())
        pool.calls += 1
        try:
            async with asyncio.timeout(None if request.timeout_s is None else request.timeout_s + _GRACE_S), pool.slots:
                if request.timeout_s is not None:
                    left = request.timeout_s - (self._ambient.monotonic() - started)
                    request = replace(request, timeout_s=max(0.0, left))
                return await self._exchange(address, pool, _encoded_request(request))
        except TimeoutError as error:
            raise RequestTimeout("the request took longer than its time budget") from error
        finally:
            pool.calls -= 1

    async def close(self) -> None:
        """Close the connections; calls under way come to their end."""
        self._closed = True
        idle = [connection for pool in self._pools.values() for connection in pool.idle]
        self._pools.clear()
        await asyncio.gather(*(_hang_up(connection.writer) for connection in idle))

    async def _exchange(self, address: str, pool: _Pool, request: bytes) -> Reply:
        connection = pool.idle.pop() if pool.idle else None
        accepted = whole = False
        try:
            if connection is None:
                connection = _Connection(*await asyncio.open_unix_connection(address, limit=_BUFFER))
            await _write(connection.writer, request)
            answer = await _read(connection.reader)
            if answer == _ACCEPTED:
                accepted = True
                answer = await _read(connection.reader)
            if answer is None:
                raise EOFError("the connection was closed instead of an answer")
            outcome = _decoded_answer(answer)
            whole = True
        except (OSError, EOFError) as error:
            raise PeerLost(sent=accepted) from error
        except _Malformed as fault:
            log.warning("connection to another process closed", reason=str(fault))
            raise PeerLost(sent=accepted) from fault
        finally:
            if connection is not None:
                if whole and not self._closed and len(pool.idle) < _IDLE_CONNECTIONS:
                    pool.idle.append(connection)
                else:
                    connection.writer.transport.abort()
        if isinstance(outcome, MemoturnError):
            raise outcome
        return outcome

    def _drop_ended(self) -> None:
        """Processes come and go: keep nothing of those that are gone."""
        for address, pool in list(self._pools.items()):
            for connection in [connection for connection in pool.idle if connection.ended()]:
                pool.idle.remove(connection)
                connection.writer.transport.abort()
            if not pool.idle and not pool.calls:
                del self._pools[address]


# --- frames --------------------------------------------------------------------------------------


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame, or None where the other side closed the connection between two."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    if size > LARGEST_FRAME:
        raise _Malformed(f"a frame of {size} bytes is over the limit of {LARGEST_FRAME}")
    return await reader.readexactly(size)


async def _write(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(len(body).to_bytes(4, "big") + body)
    await writer.drain()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):  # the other side was faster
        await writer.wait_closed()


def _encoded_request(request: PeerRequest) -> bytes:
    said = {part.name: getattr(request, part.name) for part in fields(request)}
    said |= {"protocol": _PROTOCOL, "address": asdict(request.address), "caller": _encoded_caller(request.caller)}
    try:
        body = json.dumps(said | {"arguments": _packed(request.arguments)}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be sent to the process that has the database open: {error}") from None
    if len(body) > LARGEST_FRAME:
        raise PayloadTooLarge(f"the request has {len(body)} bytes as JSON, more than the {LARGEST_FRAME} allowed")
    return body


def _decoded_request(body: bytes) -> PeerRequest:
    said = _parsed(body)
    if "protocol" in said and said["protocol"] != _PROTOCOL:
        raise Unavailable("the process that has the database open runs another version of Memoturn; stop it")
    try:
        read = {part.name: said[part.name] for part in fields(PeerRequest)}
        read |= {
            "address": Address(**said["address"]),
            "caller": _decoded_caller(said["caller"]),
            "arguments": _unpacked(said["arguments"]),
        }
        return PeerRequest(**read)
    except (KeyError, TypeError, ValueError) as error:
        raise _Malformed(f"not a request: {error!r}") from error


def _encoded_caller(caller: Caller) -> dict[str, Any]:
    return {part.name: getattr(caller, part.name) for part in fields(caller) if part.name != "authority"}


def _decoded_caller(said: dict[str, Any]) -> Caller:
    kinds = {"scope": Scope(said["scope"]), "kind": Kind(said.get("kind", Kind.LOCAL))}
    return Caller(**said | kinds)


def _encoded_reply(reply: Reply) -> bytes:
    said = {"value": _packed(reply.value), "txid": reply.txid, "status": reply.status}
    body = json.dumps({"reply": said}).encode()
    if len(body) > LARGEST_FRAME:
        raise PayloadTooLarge(f"the answer has {len(body)} bytes as JSON, more than the {LARGEST_FRAME} allowed")
    return body


def _encoded_error(error: MemoturnError) -> bytes:
    said: dict[str, Any] = {"message": str(error), "code": error.code, "status": error.status}
    if error.retry_after_s is not None:
        said["retry_after_s"] = error.retry_after_s
    if isinstance(error, OwnedElsewhere):
        said["owner"] = error.address
    return json.dumps({"error": said}).encode()


def _decoded_answer(body: bytes) -> Reply | MemoturnError:
    said = _parsed(body)
    try:
        if "reply" in said:
            reply = said["reply"]
            return Reply(_unpacked(reply["value"]), reply["txid"], reply["status"])
        error = said["error"]
        if "owner" in error:
            return OwnedElsewhere(error["owner"])
        return raised_elsewhere(error["message"], error["code"], error["status"], error.get("retry_after_s"))
    except (KeyError, TypeError, ValueError) as fault:
        raise _Malformed(f"not an answer: {fault!r}") from fault


def _parsed(body: bytes) -> dict[str, Any]:
    # Not orjson: what a memory holds may be an integer of any size, NaN, or half a surrogate pair.
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"not JSON: {error}") from error
    if not isinstance(said, dict):
        raise _Malformed("not an object")
    return said


def _packed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no bytes: those at the top level go as base64, with their names beside."""
    names = [name for name, value in values.items() if isinstance(value, bytes)]
    return {"fields": {**values, **{name: base64.b64encode(values[name]).decode() for name in names}}, "bytes": names}


def _unpacked(packed: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = packed["fields"]
    return values | {name: base64.b64decode(values[name]) for name in packed["bytes"]}
