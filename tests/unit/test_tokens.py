"""Tokens: what is minted verifies, and nothing else does; whom a credential makes its caller."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.access import ANOTHER_KEY, CLUSTER_KEY, PLATFORM_KEY, SIGNING_KEY, access, made
from memoturn_core.access.keys import encoded
from memoturn_core.access.tokens import LEEWAY_S
from memoturn_core.caller import Kind
from memoturn_core.operations import Scope
from memoturn_schemas.errors import InvalidRequest, Unauthorized
from memoturn_storage.ambient import ManualAmbient
from unit.credentials import NOW, authority, keys_of, run, tokens

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
