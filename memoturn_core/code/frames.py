"""How a worker process and the one that started it speak: frames of a kind, a length and bytes, over pipes.

Downwards goes `JOB`; upwards come `READY` once, and of each job its `STDOUT` and `STDERR` as they are written, and at
last `ENDED`. Used by `worker` and `process`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

READY, JOB, STDOUT, STDERR, ENDED = b"R", b"J", b"1", b"2", b"E"

_HEAD = struct.Struct(">cI")

Frame = tuple[bytes, bytes]


def pack(kind: bytes, payload: bytes) -> bytes:
    return _HEAD.pack(kind, len(payload)) + payload


def read(take: Callable[[int], bytes]) -> Frame | None:
    """The next frame, or None where the other side has ended.

    Args:
        take: gives exactly as many bytes as asked for, fewer only at the end.
    """
    head = take(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, size = _HEAD.unpack(head)
    payload = take(size)
    return None if len(payload) < size else (kind, payload)


class Unpacked:
    """Frames out of bytes that come in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that are complete with this piece."""
        self._bytes += piece
        frames = []
        while len(self._bytes) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._bytes)
            end = _HEAD.size + size
            if len(self._bytes) < end:
                break
            frames.append((kind, bytes(self._bytes[_HEAD.size : end])))
            del self._bytes[:end]
        return frames
