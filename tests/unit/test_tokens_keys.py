"""The keys that tokens are signed with: how they are made, where they are kept, and what is refused."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from contract.access import ANOTHER_KEY, SIGNING_KEY, access
from memoturn_core.access.keys import KEY_FILE, STORED_KEY, Keys, decoded, encoded
from memoturn_core.operations import Scope
from memoturn_schemas.errors import Unauthorized, Unconfigured
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import StoreUnavailable
from objects.faulty import Faults, FaultyStore
from unit.credentials import NOW, keys_of, public, tokens


def kept_key(directory: Path, **given: Any) -> str:
    return encoded(keys_of(access(signing_key=None, **given), directory).signing)


def test_a_key_is_made_once_and_nobody_else_can_read_it(tmp_path):
    first = kept_key(tmp_path)
    assert kept_key(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert encoded(decoded((tmp_path / KEY_FILE).read_text())) == first


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o660, 0o601])
def test_a_key_that_others_can_reach_is_refused(tmp_path, mode):
    kept_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(Unconfigured, match="chmod 600") as refused:
        kept_key(tmp_path)
    assert str(tmp_path) not in str(refused.value)


def test_a_key_file_that_is_a_link_or_a_directory_is_refused(tmp_path):
    for make in (lambda path: path.symlink_to(tmp_path / "elsewhere"), lambda path: path.mkdir(mode=0o700)):
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        make(directory / KEY_FILE)
        with pytest.raises(Unconfigured):
            kept_key(directory)


@pytest.mark.parametrize("content", ["", "garbage", "AAAA", "x" * 100_000])
def test_a_damaged_key_is_refused_and_not_replaced(tmp_path, content):
    descriptor = os.open(tmp_path / KEY_FILE, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, content.encode())
    os.close(descriptor)
    with pytest.raises(Unconfigured, match="damaged"):
        kept_key(tmp_path)
    assert (tmp_path / KEY_FILE).read_text() == content


def test_the_variable_wins_over_the_file_and_leaves_it_alone(tmp_path):
    kept = kept_key(tmp_path)
    assert encoded(keys_of(access(), tmp_path).signing) == encoded(SIGNING_KEY) != kept
    assert kept_key(tmp_path) == kept


def test_the_object_store_has_the_key_only_if_that_is_asked_for(tmp_path):
    store = MemoryStore(ManualAmbient())
    alone = keys_of(access(signing_key=None), _made(tmp_path / "a"), store)
    assert list(store.list("")) == []
    shared = keys_of(access(signing_key=None, persist=True), tmp_path / "a", store)
    assert encoded(shared.signing) == encoded(alone.signing)
    assert [info.key for info in store.list("")] == [STORED_KEY]
    fresh = keys_of(access(signing_key=None, persist=True), _made(tmp_path / "b"), store)
    assert encoded(fresh.signing) == encoded(alone.signing)
    assert (tmp_path / "b" / KEY_FILE).stat().st_mode & 0o777 == 0o600
    kept = tmp_path / "b" / KEY_FILE
    kept.write_text(encoded(ANOTHER_KEY))
    with pytest.raises(Unconfigured, match="not the signing key that the object store has"):
        keys_of(access(signing_key=None, persist=True), tmp_path / "b", store)


def test_machines_that_start_at_once_agree_on_one_key_whatever_the_store_loses(tmp_path):
    for seed in range(30):
        ambient = ManualAmbient(seed=seed)
        store = MemoryStore(ambient)
        faulty = FaultyStore(store, Random(seed), Faults(before=0.1, after=0.2, lost=0.2))
        found = set()
        for machine in range(3):
            directory = _made(tmp_path / f"{seed}-{machine}")
            for _ in range(50):
                try:
                    found.add(
                        encoded(Keys.open(access(signing_key=None, persist=True), directory, faulty, ambient).signing)
                    )
                    break
                except StoreUnavailable:
                    pass
        assert len(found) == 1


@pytest.mark.parametrize(
    "key",
    [
        "",
        "no base64!",
        "AAAA",
        base64.b64encode(SIGNING_KEY.private_bytes_raw()).decode(),
        base64.b64encode(SIGNING_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())).decode(),
        base64.b64encode(public(SIGNING_KEY, Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode(),
        base64.b64encode(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        ).decode(),
    ],
)
def test_what_is_no_key_is_refused_without_being_repeated(key):
    with pytest.raises(ValueError, match="base64 of an Ed25519") as refused:
        decoded(key)
    assert not key or key not in str(refused.value)


def test_item_138_the_cluster_key_follows_from_the_signing_key():
    first, again = (keys_of(access(cluster_key=None)).cluster for _ in range(2))
    other = keys_of(access(cluster_key=None, signing_key=encoded(ANOTHER_KEY))).cluster
    assert first == again != other
    assert len(first) == 64
    assert set(first) <= set("0123456789abcdef")


def test_while_keys_rotate_tokens_of_both_verify_and_new_ones_are_of_the_new():
    before = tokens()
    token, jti = before.mint(scope=Scope.READ, expires_at=NOW + 60, namespace="acme", by=None)
    rotating = tokens(signing_key=encoded(ANOTHER_KEY), previous_key=encoded(SIGNING_KEY))
    assert rotating.verify(token) == before.verify(token)
    assert rotating.concerns(jti, database=None, namespace="acme")
    new = rotating.mint(scope=Scope.READ, expires_at=NOW + 60, namespace="acme", by=None)[0]
    rotated = tokens(signing_key=encoded(ANOTHER_KEY))
    assert rotated.verify(new)
    for it, refused in ((rotated, token), (before, new)):
        with pytest.raises(Unauthorized):
            it.verify(refused)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_keys_differ_between_machines(tmp_path):
    keys = {
        encoded(Keys.open(access(signing_key=None), _made(tmp_path / str(n)), MemoryStore(it), it).signing)
        for n in range(3)
        for it in (ManualAmbient(seed=n),)
    }
    assert len(keys) == 3
    assert all(isinstance(decoded(key), Ed25519PrivateKey) for key in keys)
