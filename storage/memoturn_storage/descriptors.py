"""How many databases a process may keep open, from its limit on file descriptors."""

from __future__ import annotations

import resource

DESCRIPTORS_PER_HANDLE = 4
"""The file, its WAL, its shared memory, and its database's lease."""

_RESERVED = 256
"""Sockets of clients and other processes, the object store, logs, the catalogue, libraries."""

_ENOUGH = 65_536


def raise_descriptor_limit() -> None:
    """Lift the soft limit as far as the hard one allows, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def handle_capacity(wanted: int) -> int:
    """`wanted`, or as many handles as the descriptors of this process allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - _RESERVED) // DESCRIPTORS_PER_HANDLE))
