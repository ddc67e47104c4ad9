"""Keys, tokens and an authority over them, of a test's own settings, clock and store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from contract.access import access
from memoturn_core.access.authority import Authority
from memoturn_core.access.keys import Keys
from memoturn_core.access.revocations import Revocations
from memoturn_core.access.settings import AccessSettings
from memoturn_core.access.tokens import Tokens
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectStore

NOW = 1_700_000_000


def keys_of(settings: AccessSettings, directory: Path = Path("/nowhere"), store: ObjectStore | None = None) -> Keys:
    ambient = ManualAmbient()
    return Keys.open(settings, directory, store or MemoryStore(ambient), ambient)


def tokens(ambient: ManualAmbient | None = None, **given: Any) -> Tokens:
    return Tokens(keys_of(access(**given)), ambient or ManualAmbient())


def authority(
    ambient: ManualAmbient, store: ObjectStore | None = None, wait_for: Any = None, **given: Any
) -> Authority:
    async def at_once(work: Callable[[], Any]) -> Any:
        return work()

    keys = keys_of(access(**given))
    revocations = Revocations(store or MemoryStore(ambient), ambient, wait_for or at_once)
    return Authority(keys, Tokens(keys, ambient), revocations)


def run(story: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(story)


def public(key: Any, encoding: Encoding, form: PublicFormat) -> bytes:
    return bytes(key.public_key().public_bytes(encoding, form))
