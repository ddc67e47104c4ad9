"""Access tokens: JSON Web Tokens signed with Ed25519, minted and verified. Called by `authority`.

Claims: `db` (empty for a namespace's token), `ns`, `scope` (`read`, `write` or `admin`), `iat` and `exp` in
Unix seconds, `jti`, `iss` and `aud` (both `memoturn`), and `by`, the `jti` of the token that asked for this
one. Tokens without `iss`, `aud` and `jti` verify as well, for earlier programs made such; with other values
they do not.

A `jti` is 40 hex digits: the end of the token's life, so that a revocation knows how long it must be kept;
8 random bytes; and a seal over both and over whom the token concerns, so that who administers a namespace
or a database can be seen to revoke one of its own tokens although nobody keeps a list of them.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from memoturn_core.access.keys import Keys
from memoturn_core.operations import Scope
from memoturn_schemas.errors import Unauthorized
from memoturn_schemas.names import check_database, check_name
from memoturn_schemas.tokens import LONGEST_LIFE_S
from memoturn_storage.ambient import Ambient

ISSUER = "memoturn"
LEEWAY_S = 5
"""How far the clocks of two machines may be apart."""

DEFAULT_LIFE_S = 3_600

_ALGORITHM = "EdDSA"
_LONGEST_TOKEN = 4_096
_LATEST = 2**53
_SCOPES = {scope.name.lower(): scope for scope in (Scope.READ, Scope.WRITE, Scope.ADMIN)}
_JTI = re.compile("([0-9a-f]{8})([0-9a-f]{16})([0-9a-f]{16})")
_ANY_ID = re.compile("[!-~]{1,128}")

# The time is checked here, by the clock of the node, and not by the library, which knows only the system's.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss"), False),
    **dict.fromkeys(("verify_sub", "verify_jti"), False),
}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says; exactly one of `database` and `namespace` is there. Times in Unix seconds."""

    scope: Scope
    database: str | None
    namespace: str | None
    issued_at: int
    expires_at: int
    jti: str | None
    by: str | None


class Tokens:
    """Mints and verifies with the keys of a node."""

    def __init__(self, keys: Keys, ambient: Ambient) -> None:
        self._keys = keys
        self._ambient = ambient

    def mint(
        self,
        *,
        scope: Scope,
        expires_at: int,
        database: str | None = None,
        namespace: str | None = None,
        by: str | None,
    ) -> tuple[str, str]:
        """A token and its `jti`."""
        jti = self._new_jti(expires_at, _tenant(database, namespace))
        claims: dict[str, Any] = {"iss": ISSUER, "aud": ISSUER, "db": database or "", "scope": scope.name.lower()}
        if namespace is not None:
            claims["ns"] = namespace
        if by is not None:
            claims["by"] = by
        claims |= {"iat": self.now(), "exp": expires_at, "jti": jti}
        return jwt.encode(claims, self._keys.signing, algorithm=_ALGORITHM), jti

    def verify(self, token: str) -> Claims:
        """What a token says that one of the keys signed and whose time it is.

        Raises:
            Unauthorized: anything else. The message does not repeat the token.
        """
        if len(token) > _LONGEST_TOKEN:
            raise Unauthorized("the token is longer than any of this node's")
        said = self._signed(token)
        claims = _claims(said)
        now, not_before = self.now(), said.get("nbf", 0)
        if not _is_time(not_before):
            raise Unauthorized("the token's nbf is not a time")
        if now >= claims.expires_at + LEEWAY_S:
            raise Unauthorized("the token has expired")
        if now + LEEWAY_S < max(claims.issued_at, not_before):
            raise Unauthorized("the token is not valid yet")
        return claims

    def expired(self, expires_at: int) -> bool:
        return self.now() >= expires_at + LEEWAY_S

    def end_of(self, jti: str) -> int | None:
        """When the token of this id expires, in Unix seconds; None where no token of this program has such an id."""
        parts = _JTI.fullmatch(jti)
        if parts is None or (end := int(parts[1], 16)) > self.now() + LONGEST_LIFE_S + LEEWAY_S:
            return None
        return end

    def concerns(self, jti: str, *, database: str | None, namespace: str | None) -> bool:
        """Whether a token of this id was minted for this plain database, or for this namespace or one of its profiles.

        Of which profile of a namespace a token was is not known.
        """
        parts = _JTI.fullmatch(jti)
        if parts is None:
            return False
        tenant = _tenant(database, namespace)
        seals = [_seal(key, parts[1] + parts[2], tenant) for key in self._keys.sealing]
        return any(hmac.compare_digest(seal, parts[3]) for seal in seals)

    def now(self) -> int:
        """Unix seconds."""
        return self._ambient.now_ms() // 1_000

    def _signed(self, token: str) -> dict[str, Any]:
        for key in self._keys.verifying:
            said = _signed_by(key, token)
            if said is not None:
                return said
        raise Unauthorized("the token is not one of this node's, or it was changed")

    def _new_jti(self, expires_at: int, tenant: str) -> str:
        body = f"{expires_at:08x}{self._ambient.token(8).hex()}"
        return body + _seal(self._keys.sealing[0], body, tenant)


def _signed_by(key: Ed25519PublicKey, token: str) -> dict[str, Any] | None:
    try:
        whole = jwt.decode_complete(token, key, algorithms=[_ALGORITHM], options=_SIGNATURE_ONLY)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    if "crit" in whole["header"]:
        return None  # it asks for an understanding that we do not have
    said: dict[str, Any] = whole["payload"]
    return said


def _claims(said: dict[str, Any]) -> Claims:
    database, namespace = said.get("db") or None, said.get("ns") or None
    issued_at, expires_at = said.get("iat"), said.get("exp")
    scope = said.get("scope")
    if any(said.get(name, ISSUER) != ISSUER for name in ("iss", "aud")):
        raise Unauthorized("the token was made by another issuer or for another audience")
    if not isinstance(scope, str) or scope not in _SCOPES:
        raise Unauthorized("the token's scope is none that exists")
    if not (_is_time(issued_at) and _is_time(expires_at)):
        raise Unauthorized("the token does not say when it was issued and when it expires")
    if (database is None) == (namespace is None):
        raise Unauthorized("the token names neither a database nor a namespace, or both")
    return Claims(
        scope=_SCOPES[scope],
        database=_name(database, check_database),
        namespace=_name(namespace, check_name),
        issued_at=issued_at,
        expires_at=expires_at,
        jti=_id(said.get("jti")),
        by=_id(said.get("by")),
    )


def _is_time(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _LATEST


def _name(value: Any, check: Any) -> str | None:
    try:
        return None if value is None else str(check(value))
    except (ValueError, TypeError, AttributeError):
        raise Unauthorized("the token names no database or namespace that can be") from None


def _id(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _ANY_ID.fullmatch(value):
        raise Unauthorized("the token's id is none that can be")
    return value


def _tenant(database: str | None, namespace: str | None) -> str:
    """Whom a token concerns: a namespace, with all its profiles, or a plain database."""
    if database is not None:
        name, separator, _ = database.partition("--")
        if not separator:
            return f"database {name}"
        namespace = name
    return f"namespace {namespace}"


def _seal(key: bytes, body: str, tenant: str) -> str:
    return hmac.digest(key, f"{body} {tenant}".encode(), "sha256")[:8].hex()
