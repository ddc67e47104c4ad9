"""Who sends a request, by the credential that it shows; and the makings of new credentials.

The surfaces of a node with auth on ask it for every request. What it hands out is a `Caller`; what that may
do is the registry's to say (`memoturn_core.caller`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from memoturn_core.access.keys import Keys
from memoturn_core.access.revocations import Revocations, WaitFor
from memoturn_core.access.settings import AccessSettings
from memoturn_core.access.tokens import DEFAULT_LIFE_S, Claims, Tokens
from memoturn_core.caller import Caller, Kind
from memoturn_core.operations import Scope
from memoturn_schemas.errors import Forbidden, InvalidRequest, NotFound, Unauthorized
from memoturn_storage.ambient import Ambient
from memoturn_storage.objects.store import ObjectStore

_REMEMBERED = 10_000
"""Verified tokens; verifying one takes a hundred times as long as finding it here."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token; `expires_in` in seconds."""

    token: str
    jti: str
    expires_in: int


class Authority:
    """Knows callers by their credentials. Belongs to one event loop."""

    def __init__(self, keys: Keys, tokens: Tokens, revocations: Revocations) -> None:
        self._keys = keys
        self._platform, self._cluster = _digest(keys.platform), _digest(keys.cluster)
        self._tokens = tokens
        self._revocations = revocations
        self._verified: OrderedDict[bytes, tuple[Caller, str | None]] = OrderedDict()

    @classmethod
    def open(
        cls, settings: AccessSettings, directory: Path, store: ObjectStore, ambient: Ambient, wait_for: WaitFor
    ) -> Authority:
        """The authority of a node.

        Raises:
            Unconfigured: the signing key that is there cannot be used.
            StoreUnavailable: the object store was to have it.
        """
        keys = Keys.open(settings, directory, store, ambient)
        return cls(keys, Tokens(keys, ambient), Revocations(store, ambient, wait_for))

    @property
    def cluster_key(self) -> str:
        """What another node shows (`X-Memoturn-Internal`)."""
        return self._keys.cluster

    async def caller(self, authorization: str | None, internal: str | None = None) -> Caller:
        """Who sends a request with these headers, `Authorization` and `X-Memoturn-Internal`.

        Raises:
            Unauthorized: nobody that is known. Messages never repeat what was shown.
            Unavailable: whether the token was revoked cannot be found out.
        """
        if internal is not None:
            digest = _digest(internal)
            if not hmac.compare_digest(digest, self._cluster):
                raise Unauthorized("X-Memoturn-Internal does not hold the cluster key")
            return self._known_by_key(digest, Kind.INTERNAL)
        if authorization is None:
            raise Unauthorized("a credential is needed; send it as Authorization: Bearer")
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise Unauthorized("Authorization: should be Bearer and a token")
        digest = _digest(credential)
        if hmac.compare_digest(digest, self._platform):
            return self._known_by_key(digest, Kind.PLATFORM)
        return await self._known_by_token(credential, digest)

    def mint(
        self,
        asker: Caller,
        *,
        scope: Scope,
        expires_in: int | None,
        database: str | None = None,
        namespace: str | None = None,
    ) -> Minted:
        """A token for a database or a namespace, which dies with the token that asks for it at the latest.

        Raises:
            InvalidRequest: it would live longer.
        """
        now = self._tokens.now()
        left = None if asker.expires_at is None else max(1, asker.expires_at - now)
        life = expires_in or (DEFAULT_LIFE_S if left is None else min(DEFAULT_LIFE_S, left))
        if left is not None and life > left:
            raise InvalidRequest(f"expires_in: at most {left}, for the token that asks lives no longer")
        token, jti = self._tokens.mint(
            scope=scope, expires_at=now + life, database=database, namespace=namespace, by=asker.jti
        )
        return Minted(token, jti, life)

    async def revoke(self, asker: Caller, jti: str) -> None:
        """Have a token, and what was minted with it, be refused everywhere.

        The platform key revokes any token; an administrator those of its namespace, or of its plain database;
        and every token itself.

        Raises:
            NotFound: no token has such an id.
            Forbidden: it is another's.
        """
        expires_at = self._tokens.end_of(jti) if asker.jti != jti else asker.expires_at
        if expires_at is None:
            raise NotFound("no token has such an id")
        if asker.kind is Kind.TOKEN and asker.jti != jti and not self._administers(asker, jti):
            raise Forbidden("the credential does not cover this token")
        if not self._tokens.expired(expires_at):
            await self._revocations.add(jti, expires_at)

    def _administers(self, asker: Caller, jti: str) -> bool:
        of_a_profile = asker.database is not None and "--" in asker.database
        if asker.scope < Scope.ADMIN or of_a_profile:
            return False
        return self._tokens.concerns(jti, database=asker.database, namespace=asker.namespace)

    def _known_by_key(self, digest: bytes, kind: Kind) -> Caller:
        return Caller(Scope.ADMIN, kind=kind, credential=digest.hex(), authority=self)

    async def _known_by_token(self, token: str, digest: bytes) -> Caller:
        known = self._verified.get(digest)
        if known is None:
            known = self._remember(digest, self._tokens.verify(token))
        caller, by = known
        if caller.expires_at is None or self._tokens.expired(caller.expires_at):
            del self._verified[digest]
            raise Unauthorized("the token has expired")
        await self._revocations.require()
        if caller.jti in self._revocations or by in self._revocations:
            raise Unauthorized("the token was revoked")
        return caller

    def _remember(self, digest: bytes, claims: Claims) -> tuple[Caller, str | None]:
        caller = Caller(
            claims.scope,
            namespace=claims.namespace,
            database=claims.database,
            kind=Kind.TOKEN,
            issued_at=claims.issued_at,
            expires_at=claims.expires_at,
            jti=claims.jti,
            credential=digest.hex(),
            authority=self,
        )
        if len(self._verified) >= _REMEMBERED:
            self._verified.popitem(last=False)
        self._verified[digest] = caller, claims.by
        return caller, claims.by


def _digest(credential: str) -> bytes:
    """Of these, secrets are compared: in constant time, and whatever their lengths are."""
    return hashlib.sha256(b"memoturn credential v1\0" + credential.encode("utf-8", "surrogateescape")).digest()
