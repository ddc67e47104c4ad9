"""Opens what the settings ask for: this machine's node, or a door to it or to another one.

Imports neither the MCP library, a web framework nor cryptography, so that a command starts fast. Called by
`serving`, `app` and the command line.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from memoturn_core.caller import LOCAL, Caller
from memoturn_core.code.sandbox import Sandbox
from memoturn_core.door import Door, LocalDoor, RemoteDoor
from memoturn_core.node import Node
from memoturn_core.providers.settings import make_embedder, make_language_model
from memoturn_core.vectors.index import VectorIndex
from memoturn_mcp.settings import Settings
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import Ambient, SystemAmbient
from memoturn_storage.connection import turn_lookaside_off
from memoturn_storage.descriptors import handle_capacity, raise_descriptor_limit
from memoturn_storage.objects.opening import open_store
from memoturn_storage.objects.store import ObjectStore

if TYPE_CHECKING:
    from memoturn_core.access.authority import Authority


def open_node(settings: Settings, *, create: bool = True) -> Node:
    """The node of this process, on its data directory, which without `create` only a write makes.

    Raises:
        InvalidRequest: there is no object store by the url of the settings.
        Unavailable: the data directory or the object store cannot be used.
    """
    turn_lookaside_off()
    raise_descriptor_limit()
    VectorIndex.budget.limit = settings.vector_memory_bytes
    ambient = SystemAmbient()
    return Node.open(
        settings.data_dir,
        ambient=ambient,
        store=None if settings.object_store is None else open_objects(settings.object_store, ambient),
        limits=replace(settings.limits, hot_cap=handle_capacity(settings.limits.hot_cap)),
        durable=settings.durable,
        embedder=make_embedder(settings.providers, ambient),
        language_model=make_language_model(settings.providers, ambient),
        sandbox=_sandbox(settings, ambient),
        create=create,
    )


def _sandbox(settings: Settings, ambient: Ambient) -> Sandbox | None:
    if settings.code == "off":
        return None
    return Sandbox(settings.data_dir / "sandbox", ambient, from_start=settings.code == "on")


def open_objects(url: str, ambient: Ambient) -> ObjectStore:
    """The object store of MEMOTURN_OBJECT_STORE.

    Raises:
        InvalidRequest: none can be opened by this url.
        StoreUnavailable: it cannot be used.
    """
    try:
        return open_store(url, ambient)
    except ValueError as error:
        raise InvalidRequest(f"MEMOTURN_OBJECT_STORE: {error}") from error


def open_door(settings: Settings, *, create: bool = True) -> Door:
    """To the node at `settings.url` where it is set, else to the files of this machine (`open_node`)."""
    if settings.url is not None:
        return RemoteDoor(settings.url, settings.token, settings.platform_key)
    return local_door(open_node(settings, create=create), settings)


def local_door(node: Node, settings: Settings, caller: Caller = LOCAL) -> LocalDoor:
    return LocalDoor(node, caller, settings.request_timeout_s)


def open_authority(node: Node, settings: Settings) -> Authority | None:
    """What knows the callers of a node with auth on; None while it is off.

    Raises:
        Unconfigured: the signing key that is there cannot be used.
        StoreUnavailable: the object store was to have it.
    """
    if settings.access is None:
        return None
    from memoturn_core.access.authority import Authority  # cryptography, which takes long to import

    return Authority.open(settings.access, settings.data_dir, node.metered, node.ambient, node.wait_for)
