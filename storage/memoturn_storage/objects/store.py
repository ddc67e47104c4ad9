"""What an object store promises, and how it fails. Every store of this package keeps to it.

Called by what publishes, restores, compacts and collects branches, and by the catalogue; the contract suite in
`tests/objects` runs over every store. All calls are synchronous and safe from any thread.

Consistency: a `get` or `list` that starts after a write has returned sees it. A `list` names every object that
is there from its start to its end. Conditional writes of one key are atomic among all processes.

Three answers mean three things to a writer:

- returned: the write has landed and is durable.
- `PreconditionFailed`: another write was first, **or our own was**: where the first try landed and its answer
  was lost, the store's client tries again and loses to itself. So whoever writes conditionally puts something
  of its own into the object (a write id), and reads the object again after a failed precondition: what holds
  our own write id is our own write, and it has landed.
- `StoreUnavailable`: the outcome of a write is unknown; it may have landed, and it may land a little later.
  Read again before anything is built on it, and never guess.

A version may be a hash of the content, so a version that comes back says nothing about what happened in
between (ABA): content that is written conditionally must never repeat, which the write id sees to as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from memoturn_schemas.errors import Unavailable

LONGEST_KEY = 512
"""Characters. S3 takes 1024 bytes, of which the prefix of the store needs some."""

LONGEST_SEGMENT = 200
"""Characters between two slashes; file systems take 255 bytes."""


class ObjectMissing(Exception):
    """There is no object of this key: the store itself said so."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no object {key}")
        self.key = key


class PreconditionFailed(Exception):
    """The object was not in the state that a conditional write asked for, or the write lost to itself."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key} is not in the state that the write asked for")
        self.key = key


class StoreUnavailable(Unavailable):
    """The store failed, refused or did not answer; whether a write landed is unknown."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The bytes of an object and the opaque token that `put_if_match` takes."""

    data: bytes
    version: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing says of an object; `size` in bytes, `modified_ms` in Unix milliseconds by the store's clock."""

    key: str
    size: int
    modified_ms: int


class ObjectStore(Protocol):
    """Objects by key. Every method may raise `StoreUnavailable`, and `ValueError` for a bad key."""

    def get(self, key: str) -> StoredObject:
        """The newest state of an object.

        Raises:
            ObjectMissing: there is none.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write the object, whatever is there."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write the object if there is none; its version.

        Raises:
            PreconditionFailed: there is one, perhaps from this very call.
        """
        ...

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        """Replace the object if it is still at `version`; its new version.

        Raises:
            PreconditionFailed: it is at another version, perhaps by this very call, or it is gone.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below `prefix` in the order of their keys; `prefix` is empty or ends with a slash."""
        ...

    def close(self) -> None:
        """Give back what the store holds; no call may follow."""
        ...


def check_key(key: str) -> str:
    """`key`, if every store can keep it.

    A key is made of printable ASCII characters but the backslash; its segments, parted by slashes, are neither
    empty nor begin with a dot. No key may be another's directory (`a` beside `a/b`), which is not checked here.

    Raises:
        ValueError: it is not; a fault of the caller, who encodes names that come from outside.
    """
    if len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable() or "\\" in key:
        raise ValueError(f"not the key of an object: {key[:LONGEST_KEY]!r}")
    for segment in key.split("/"):
        if not segment or segment.startswith(".") or len(segment) > LONGEST_SEGMENT:
            raise ValueError(f"not the key of an object: {key!r}; its segment {segment!r} cannot be kept")
    return key


def check_prefix(prefix: str) -> str:
    """`prefix`, if it is empty or a key with a slash behind it.

    Raises:
        ValueError: it is neither.
    """
    if prefix:
        if not prefix.endswith("/"):
            raise ValueError(f"not the prefix of a listing: {prefix!r} does not end with a slash")
        check_key(prefix[:-1])
    return prefix
