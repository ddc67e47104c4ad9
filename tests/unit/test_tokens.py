"""Tokens: what is minted verifies, and nothing else does; keys and where they are kept; revocation."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.access import ANOTHER_KEY, CLUSTER_KEY, PLATFORM_KEY, SIGNING_KEY, access, made
from memoturn_core.access.authority import Authority
from memoturn_core.access.keys import KEY_FILE, STORED_KEY, Keys, decoded, encoded
from memoturn_core.access.revocations import FRESH_S, KEY, STALE_S, Revocations
from memoturn_core.access.settings import AccessSettings
from memoturn_core.access.tokens import LEEWAY_S, Tokens
from memoturn_core.caller import LOCAL, Kind
from memoturn_core.operations import Scope
from memoturn_schemas.errors import Forbidden, InvalidRequest, NotFound, Unauthorized, Unavailable, Unconfigured
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectStore, StoreUnavailable
from objects.faulty import Faults, FaultyStore

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


# --- what verifies -------------------------------------------------------------------------------


def test_what_is_minted_verifies_and_says_what_was_asked_for():
    it = tokens()
    token, jti = it.mint(scope=Scope.WRITE, expires_at=NOW + 60, database="acme--alice", by="parent")
    claims = it.verify(token)
    assert (claims.scope, claims.database, claims.namespace) == (Scope.WRITE, "acme--alice", None)
    assert (claims.issued_at, claims.expires_at, claims.jti, claims.by) == (NOW, NOW + 60, jti, "parent")
    assert jwt.get_unverified_header(token)["alg"] == "EdDSA"


def test_item_127_a_token_has_the_claims_that_clients_read():
    it = tokens()
    for names, db, ns in (({"database": "plain"}, "plain", None), ({"namespace": "acme"}, "", "acme")):
        token, jti = it.mint(scope=Scope.READ, expires_at=NOW + 60, by=None, **names)
        said = jwt.decode(
            token, SIGNING_KEY.public_key(), ["EdDSA"], options={"verify_exp": False, "verify_aud": False}
        )
        assert {name: said.get(name) for name in ("db", "ns", "scope", "iat", "exp", "jti")} == {
            **{"db": db, "ns": ns, "scope": "read"},
            **{"iat": NOW, "exp": NOW + 60, "jti": jti},
        }


def test_a_token_without_issuer_audience_and_id_verifies():
    assert tokens().verify(made(NOW)).jti is None
    assert tokens().verify(made(NOW, iss="memoturn", aud="memoturn", jti="x")).jti == "x"


@pytest.mark.parametrize(
    ("claims", "seconds", "verifies"),
    [
        ({"exp": NOW}, LEEWAY_S - 1, True),
        ({"exp": NOW}, LEEWAY_S, False),
        ({"exp": NOW + 100}, 0, True),
        ({"exp": NOW + 100}, 100 + LEEWAY_S, False),
        ({"iat": NOW + LEEWAY_S}, 0, True),
        ({"iat": NOW + LEEWAY_S + 1}, 0, False),
        ({"nbf": NOW + LEEWAY_S}, 0, True),
        ({"nbf": NOW + LEEWAY_S + 1}, 0, False),
        ({"nbf": NOW + LEEWAY_S + 1}, 1, True),
    ],
)
def test_item_127_clocks_may_be_five_seconds_apart_and_no_more(claims, seconds, verifies):
    ambient = ManualAmbient()
    ambient.advance(seconds=seconds)
    if verifies:
        tokens(ambient).verify(made(NOW, **claims))
    else:
        with pytest.raises(Unauthorized):
            tokens(ambient).verify(made(NOW, **claims))


def public(key: Any, encoding: Encoding, form: PublicFormat) -> bytes:
    return bytes(key.public_key().public_bytes(encoding, form))


def unsigned(algorithm: str, signature: str = "") -> str:
    head, body, _ = made(NOW).split(".")
    head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).decode().rstrip("=")
    return f"{head}.{body}.{signature}"


RAW = SIGNING_KEY.public_key().public_bytes_raw()
FORGED: dict[str, Callable[[], str]] = {
    "none": lambda: made(NOW, key=None, algorithm="none"),
    "none in capitals": lambda: unsigned("NONE"),
    "none with the signature": lambda: unsigned("none", made(NOW).split(".")[2]),
    "HS256 with the public key": lambda: made(NOW, key=RAW, algorithm="HS256"),
    "HS256 with the public key in text": lambda: made(NOW, key=RAW.hex(), algorithm="HS256"),
    "HS512 with the platform key": lambda: made(NOW, key=PLATFORM_KEY * 3, algorithm="HS512"),
    "RS256": lambda: made(NOW, key=rsa.generate_private_key(65_537, 2_048), algorithm="RS256"),
    "ES256": lambda: made(NOW, key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
    "Ed448": lambda: made(NOW, key=ed448.Ed448PrivateKey.generate()),
    "another key": lambda: made(NOW, key=ANOTHER_KEY),
    "a key of its own in the header": lambda: made(
        NOW, key=ANOTHER_KEY, header={"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, "kid": "../../dev/null"}
    ),
    "what must be understood": lambda: made(NOW, header={"crit": ["exp"]}),
    "a payload outside": lambda: made(NOW, header={"crit": ["b64"], "b64": True}),
    "no exp": lambda: made(NOW, exp=None),
    "no iat": lambda: made(NOW, iat=None),
    "no scope": lambda: made(NOW, scope=None),
    "an unknown scope": lambda: made(NOW, scope="root"),
    "a scope in capitals": lambda: made(NOW, scope="ADMIN"),
    "a list of scopes": lambda: made(NOW, scope=["admin"]),
    "no database": lambda: made(NOW, db=None),
    "an empty database": lambda: made(NOW, db=""),
    "a database and a namespace": lambda: made(NOW, ns="acme"),
    "a database that cannot be": lambda: made(NOW, db="acme--a--b"),
    "a database that is a path": lambda: made(NOW, db="../x"),
    "a database that is a number": lambda: made(NOW, db=7),
    "a list of databases": lambda: made(NOW, db=["acme--alice", "acme--bob"]),
    "a namespace that cannot be": lambda: made(NOW, db="", ns="acme--alice"),
    "all namespaces": lambda: made(NOW, db="", ns="*"),
    "another issuer": lambda: made(NOW, iss="https://evil.test"),
    "another audience": lambda: made(NOW, aud="others"),
    "several audiences": lambda: made(NOW, aud=["memoturn", "others"]),
    "a fraction of exp": lambda: made(NOW, exp=NOW + 0.5),
    "true as exp": lambda: made(NOW, exp=True),
    "exp as text": lambda: made(NOW, exp=str(NOW + 60)),
    "a negative iat": lambda: made(NOW, iat=-1),
    "exp beyond all time": lambda: made(NOW, exp=10**30),
    "exp in milliseconds of the past": lambda: made(NOW, exp=1),
    "nbf as text": lambda: made(NOW, nbf="soon"),
    "an id with spaces": lambda: made(NOW, jti="a b"),
    "an id that is a number": lambda: made(NOW, jti=["a"]),
    "no signature": lambda: ".".join(made(NOW).split(".")[:2]) + ".",
    "two parts": lambda: ".".join(made(NOW).split(".")[:2]),
    "four parts": lambda: made(NOW) + ".AA",
    "the signature of another": lambda: made(NOW).rpartition(".")[0] + "." + made(NOW, scope="read").rpartition(".")[2],
    "a JWE": lambda: "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAA.AAAA.AAAA",
    "nothing": lambda: "",
    "dots": lambda: "..",
    "not ASCII": lambda: "tökên.ü.é",
    "half a surrogate pair": lambda: "\ud800.a.b",
    "NUL": lambda: made(NOW).replace(".", "\0", 1),
    "huge": lambda: "A" * 10_000_000,
    "huge and signed": lambda: made(NOW, more="x" * 5_000),
    "deeply nested": lambda: (
        base64.urlsafe_b64encode(b'{"a":' * 300 + b"1" + b"}" * 300).decode().rstrip("=") + ".e30.AA"
    ),
    "a payload that is no object": lambda: jwt.api_jws.encode(b"[1]", SIGNING_KEY, algorithm="EdDSA"),
    "a payload that is no JSON": lambda: jwt.api_jws.encode(b"\xff", SIGNING_KEY, algorithm="EdDSA"),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_whatever_is_not_one_of_ours_is_unauthorized_and_is_not_repeated(forge):
    token = forge()
    with pytest.raises(Unauthorized) as refused:
        tokens().verify(token)
    assert refused.value.status == 401
    assert not token or token not in str(refused.value)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_no_change_of_a_token_verifies_as_another(data):
    it = tokens()
    token = it.mint(scope=Scope.READ, expires_at=NOW + 60, database="acme--alice", by=None)[0]
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABab01-_.=\u00e9 "))
    changed = token[:at] + other + token[at + 1 :]
    try:
        claims = it.verify(changed)
    except Unauthorized:
        return
    # Base64 leaves bits of a signature's last character unused; what is signed is then the same.
    assert changed.rpartition(".")[0] == token.rpartition(".")[0]
    assert claims == it.verify(token)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
@settings(deadline=None)
def test_garbage_is_unauthorized_and_nothing_else(text):
    async def story() -> None:
        it = authority(ManualAmbient())
        for headers in ((text,), (f"Bearer {text}",), (None, text), (f"Bearer a.{text}.c",)):
            with pytest.raises(Unauthorized):
                await it.caller(*headers)

    run(story())


# --- callers -------------------------------------------------------------------------------------


def test_each_kind_of_credential_is_known_by_what_it_is():
    async def story() -> None:
        it = authority(ManualAmbient())
        platform = await it.caller(f"Bearer {PLATFORM_KEY}")
        assert (platform.kind, platform.namespace, platform.database) == (Kind.PLATFORM, None, None)
        internal = await it.caller(None, CLUSTER_KEY)
        assert internal.kind is Kind.INTERNAL
        for token, bound in ((made(NOW), (None, "acme--alice")), (made(NOW, db="", ns="acme"), ("acme", None))):
            caller = await it.caller(f"bearer {token}")
            assert (caller.kind, caller.namespace, caller.database) == (Kind.TOKEN, *bound)
        with pytest.raises(Unauthorized):
            await it.caller(None)
        with pytest.raises(Unauthorized):
            await it.caller(f"Bearer {CLUSTER_KEY}")
        with pytest.raises(Unauthorized):
            await it.caller(f"Basic {PLATFORM_KEY}")
        with pytest.raises(Unauthorized):  # what is right does not make up for what is wrong
            await it.caller(f"Bearer {PLATFORM_KEY}", "wrong")
        assert len({caller.credential for caller in (platform, internal)}) == 2

    run(story())


def test_a_verified_token_is_remembered_until_it_expires():
    async def story() -> None:
        ambient = ManualAmbient()
        it = authority(ambient)
        token = f"Bearer {made(NOW, exp=NOW + 10)}"
        assert await it.caller(token) is await it.caller(token)
        ambient.advance(seconds=10 + LEEWAY_S)
        with pytest.raises(Unauthorized, match="expired"):
            await it.caller(token)

    run(story())


def test_no_secret_is_in_a_representation():
    settings = access(previous_key=encoded(ANOTHER_KEY))
    caller = run(authority(ManualAmbient()).caller(f"Bearer {PLATFORM_KEY}"))
    for thing in (settings, keys_of(settings), caller, run(authority(ManualAmbient()).caller(None, CLUSTER_KEY))):
        for secret in (PLATFORM_KEY, CLUSTER_KEY, encoded(SIGNING_KEY), encoded(ANOTHER_KEY)):
            assert secret not in repr(thing)


def test_a_token_dies_with_the_one_that_asked_for_it_at_the_latest():
    async def story() -> None:
        ambient = ManualAmbient()
        it = authority(ambient)
        asker = await it.caller(f"Bearer {made(NOW, db='', ns='acme', exp=NOW + 100, jti='parent')}")
        assert it.mint(asker, scope=Scope.READ, expires_in=None, database="acme--alice").expires_in == 100
        assert it.mint(asker, scope=Scope.READ, expires_in=100, database="acme--alice").expires_in == 100
        with pytest.raises(InvalidRequest, match="expires_in: at most 100"):
            it.mint(asker, scope=Scope.READ, expires_in=101, database="acme--alice")
        platform = await it.caller(f"Bearer {PLATFORM_KEY}")
        assert it.mint(platform, scope=Scope.READ, expires_in=None, namespace="acme").expires_in == 3_600

    run(story())


# --- keys ----------------------------------------------------------------------------------------


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


# --- revocation ----------------------------------------------------------------------------------


def test_an_id_is_known_to_concern_a_namespace_or_a_plain_database_and_no_other():
    it = tokens()
    ids = {
        name: it.mint(scope=Scope.READ, expires_at=NOW + 60, by=None, **bound)[1]
        for name, bound in {
            "acme": {"namespace": "acme"},
            "acme--alice": {"database": "acme--alice"},
            "plain": {"database": "acme"},
        }.items()
    }
    assert {name for name, jti in ids.items() if it.concerns(jti, database=None, namespace="acme")} == {
        "acme",
        "acme--alice",
    }
    assert {name for name, jti in ids.items() if it.concerns(jti, database="acme", namespace=None)} == {"plain"}
    forged = ids["acme"][:24] + ids["plain"][24:]
    assert not it.concerns(forged, database=None, namespace="acme")
    assert not it.concerns("nonsense", database=None, namespace="acme")
    assert it.end_of(ids["acme"]) == NOW + 60
    assert it.end_of("f" * 40) is None
    assert it.end_of("nonsense") is None


def test_who_may_revoke_what():
    async def story() -> None:
        ambient = ManualAmbient()
        it = authority(ambient)

        async def holder(scope: Scope, **bound: str) -> Any:
            minted = it.mint(LOCAL, scope=scope, expires_in=60, **bound)
            return await it.caller(f"Bearer {minted.token}")

        victim = await holder(Scope.READ, database="acme--alice")
        for other in (
            await holder(Scope.ADMIN, database="acme--alice"),
            await holder(Scope.ADMIN, database="acme--bob"),
            await holder(Scope.ADMIN, database="acme"),
            await holder(Scope.ADMIN, namespace="acmex"),
            await holder(Scope.WRITE, namespace="acme"),
        ):
            with pytest.raises(Forbidden):
                await it.revoke(other, victim.jti)
        platform = await it.caller(f"Bearer {PLATFORM_KEY}")
        for revoker in (victim, await holder(Scope.ADMIN, namespace="acme"), platform):
            again = it.mint(LOCAL, scope=Scope.READ, expires_in=60, database="acme--alice")
            asked = await it.caller(f"Bearer {again.token}")
            await it.revoke(revoker, revoker.jti if revoker is victim else asked.jti)
            if revoker is not victim:
                with pytest.raises(Unauthorized, match="revoked"):
                    await it.caller(f"Bearer {again.token}")
        for unknown in ("nonsense", "f" * 40):
            with pytest.raises(NotFound):
                await it.revoke(platform, unknown)

    run(story())


def test_what_a_revoked_token_minted_is_revoked_with_it():
    async def story() -> None:
        it = authority(ManualAmbient())
        parent = it.mint(LOCAL, scope=Scope.ADMIN, expires_in=60, namespace="acme")
        asker = await it.caller(f"Bearer {parent.token}")
        child = it.mint(asker, scope=Scope.READ, expires_in=60, database="acme--alice")
        await it.caller(f"Bearer {child.token}")
        await it.revoke(asker, parent.jti)
        for token in (parent.token, child.token):
            with pytest.raises(Unauthorized, match="revoked"):
                await it.caller(f"Bearer {token}")

    run(story())


def test_others_learn_of_a_revocation_within_seconds_and_forget_it_when_the_token_has_expired():
    async def story() -> None:
        ambient = ManualAmbient()
        store = MemoryStore(ambient)
        here, there = authority(ambient, store), authority(ambient, store)
        token = here.mint(LOCAL, scope=Scope.READ, expires_in=60, namespace="acme")
        for it in (here, there):
            await it.caller(f"Bearer {token.token}")
        await here.revoke(LOCAL, token.jti)
        with pytest.raises(Unauthorized):
            await here.caller(f"Bearer {token.token}")
        await there.caller(f"Bearer {token.token}")
        ambient.advance(seconds=STALE_S)
        with pytest.raises(Unauthorized):
            await there.caller(f"Bearer {token.token}")
        ambient.advance(seconds=1_000)
        other = here.mint(LOCAL, scope=Scope.READ, expires_in=60, namespace="acme")
        await here.revoke(LOCAL, other.jti)
        assert set(json.loads(store.get(KEY).data)["revoked"]) == {other.jti}

    run(story())


def test_while_requests_come_nobody_waits_for_the_store():
    async def story() -> None:
        ambient = ManualAmbient()
        asked = 0

        async def wait_for(work: Callable[[], Any]) -> Any:
            nonlocal asked
            asked += 1
            if asked > 1:
                await asyncio.sleep(0)  # as long as it takes
            return work()

        it = authority(ambient, wait_for=wait_for)
        token = f"Bearer {made(NOW)}"
        await it.caller(token)
        for _ in range(10):
            ambient.advance(seconds=FRESH_S)
            await it.caller(token)
            await it.caller(token)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert asked == 11

    run(story())


def test_while_the_store_is_down_what_was_heard_stays_and_who_never_heard_lets_nobody_in():
    async def story() -> None:
        ambient = ManualAmbient()
        store = FaultyStore(MemoryStore(ambient), Random(0), Faults())
        it = authority(ambient, store)
        token, revoked = (it.mint(LOCAL, scope=Scope.READ, expires_in=6_000, namespace="acme") for _ in range(2))
        await it.caller(f"Bearer {token.token}")
        await it.revoke(LOCAL, revoked.jti)
        store.down = True
        for _ in range(3):
            ambient.advance(seconds=STALE_S)
            await it.caller(f"Bearer {token.token}")
            with pytest.raises(Unauthorized):
                await it.caller(f"Bearer {revoked.token}")
        with pytest.raises(Unavailable):
            await it.revoke(LOCAL, token.jti)
        fresh = authority(ambient, store)
        with pytest.raises(Unavailable):
            await fresh.caller(f"Bearer {token.token}")
        await fresh.caller(f"Bearer {PLATFORM_KEY}")
        store.down = False
        await fresh.caller(f"Bearer {token.token}")

    run(story())


def test_revocations_of_many_machines_at_once_are_all_kept_whatever_the_store_loses():
    async def story(seed: int) -> None:
        ambient = ManualAmbient(seed=seed)
        store = MemoryStore(ambient)
        faulty = FaultyStore(store, Random(seed), Faults(before=0.1, after=0.2, lost=0.2))

        async def thread(work: Callable[[], Any]) -> Any:
            return await asyncio.to_thread(work)

        machines = [authority(ambient, faulty, thread) for _ in range(4)]
        minted = [machines[0].mint(LOCAL, scope=Scope.READ, expires_in=60, namespace="acme") for _ in range(12)]

        async def revoke(machine: Authority, jti: str) -> None:
            for _ in range(100):
                try:
                    return await machine.revoke(LOCAL, jti)
                except Unavailable:
                    pass
            raise AssertionError("never revoked")

        await asyncio.gather(*(revoke(machines[n % 4], token.jti) for n, token in enumerate(minted)))
        assert set(json.loads(store.get(KEY).data)["revoked"]) == {token.jti for token in minted}

    for seed in range(5):
        run(story(seed))


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
