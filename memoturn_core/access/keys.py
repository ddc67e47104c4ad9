"""The keys of a node with auth on: where they come from, and what is derived from them.

The signing key is, in this order: `MEMOTURN_AUTH_KEY`; the file `auth.key` of the data directory, which
nobody but its owner may read; with `MEMOTURN_PERSIST_AUTH_KEY=1` the object store's; a new one. A key is
base64 of an Ed25519 key in PKCS#8, in the variable and the file alike. No message, log or representation
holds one. Called by `authority`, and by `settings` to check what was given.
"""

from __future__ import annotations

import base64
import hmac
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from memoturn_core.access.settings import AccessSettings
from memoturn_schemas.errors import Unconfigured
from memoturn_storage.ambient import Ambient
from memoturn_storage.objects.store import ObjectMissing, ObjectStore, PreconditionFailed

KEY_FILE = "auth.key"
STORED_KEY = "v1/_node/auth_key"

_LARGEST_KEY = 4_096


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """What a node signs and verifies with."""

    signing: Ed25519PrivateKey
    verifying: tuple[Ed25519PublicKey, ...]
    """The signing key's and, while keys rotate, the one's before it."""
    sealing: tuple[bytes, ...]
    """Derived from the same keys in the same order: what the ids of tokens are sealed with (`tokens`)."""
    platform: str
    cluster: str
    """64 hex digits that follow from the signing key, unless they were set."""

    @classmethod
    def open(cls, settings: AccessSettings, directory: Path, store: ObjectStore, ambient: Ambient) -> Keys:
        """The keys that `settings` ask for; a signing key is made and kept where there is none.

        Raises:
            Unconfigured: the key that is there cannot be used, or others can read it.
            StoreUnavailable: the object store was to have it.
        """
        if settings.signing_key is not None:
            signing = decoded(settings.signing_key)
        else:
            signing = _kept(directory / KEY_FILE, settings.persist, store, ambient)
        keys = [signing] if settings.previous_key is None else [signing, decoded(settings.previous_key)]
        return cls(
            signing=signing,
            verifying=tuple(key.public_key() for key in keys),
            sealing=tuple(_derived(key, b"memoturn token ids v1") for key in keys),
            platform=settings.platform_key,
            cluster=settings.cluster_key or _derived(signing, b"memoturn cluster key v1").hex(),
        )


def encoded(key: Ed25519PrivateKey) -> str:
    """As the variable and the file have it."""
    return base64.b64encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()


def decoded(text: str) -> Ed25519PrivateKey:
    """Raises `ValueError`, which does not repeat the text."""
    try:
        key = load_der_private_key(base64.b64decode("".join(text.split()), validate=True), password=None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass  # what they say may repeat some of it
    raise ValueError("must be base64 of an Ed25519 private key in PKCS#8 (DER)")


def _derived(key: Ed25519PrivateKey, purpose: bytes) -> bytes:
    return hmac.digest(key.private_bytes_raw(), purpose, "sha256")


# --- where a key is kept -------------------------------------------------------------------------


def _kept(path: Path, persist: bool, store: ObjectStore, ambient: Ambient) -> Ed25519PrivateKey:
    here = _read(path)
    if persist:
        proposed = here or _generated(ambient)
        agreed = _agreed(store, proposed)
        if here is not None and encoded(agreed) != encoded(here):
            raise Unconfigured(
                f"{KEY_FILE} in the data directory is not the signing key that the object store has"
                " (MEMOTURN_PERSIST_AUTH_KEY); remove one of them, or set MEMOTURN_AUTH_KEY"
            )
        return here or _write(path, agreed, ambient)
    return here or _write(path, _generated(ambient), ambient)


def _generated(ambient: Ambient) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(ambient.token(32))


def _agreed(store: ObjectStore, proposed: Ed25519PrivateKey) -> Ed25519PrivateKey:
    """The object store's key, which is `proposed` where it had none."""
    try:
        text = store.get(STORED_KEY).data
    except ObjectMissing:
        try:
            store.put_if_absent(STORED_KEY, encoded(proposed).encode())
            return proposed
        except PreconditionFailed:
            text = store.get(STORED_KEY).data
    try:
        return decoded(text.decode("ascii", "replace"))
    except ValueError as error:
        raise Unconfigured(f"the signing key in the object store ({STORED_KEY}) is damaged: it {error}") from None


def _read(path: Path) -> Ed25519PrivateKey | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unconfigured(f"{path.name} in the data directory cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Unconfigured(
                f"{path.name} in the data directory must be this user's and closed to all others (chmod 600):"
                " who can read it can make tokens"
            )
        text = os.read(descriptor, _LARGEST_KEY)
    finally:
        os.close(descriptor)
    try:
        return decoded(text.decode("ascii", "replace"))
    except ValueError as error:
        raise Unconfigured(f"{path.name} in the data directory is damaged: it {error}") from None


def _write(path: Path, key: Ed25519PrivateKey, ambient: Ambient) -> Ed25519PrivateKey:
    """Keep the key, unless another process was first: then it is that one's for both."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{ambient.token(8).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(encoded(key).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            _link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise Unconfigured(f"{path.name} cannot be made in the data directory: {error.strerror}") from error
    kept = _read(path)
    if kept is None:
        raise Unconfigured(f"{path.name} in the data directory was removed while this process started")
    return kept


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
