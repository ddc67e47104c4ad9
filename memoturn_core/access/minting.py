"""Tokens over the wire: mint one for a database or a namespace, revoke one. Contract item 129.

Revocation needs no more than the id that minting answered with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoturn_core.caller import current_caller
from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.errors import DatabaseNotFound, InvalidRequest
from memoturn_schemas.tokens import TokenCreated, TokenCreateRequest, TokenRevoked, TokenRevokeRequest

if TYPE_CHECKING:
    from memoturn_core.access.authority import Authority, Minted


@operation(
    name="token_create",
    title="Mint a token for a database",
    target=Target.DATABASE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=TokenCreateRequest,
    response=TokenCreated,
    rest=Rest("POST", "/tokens", status=201, at="/v1/databases/{db}"),
    whole_database=True,
    asleep=True,
    control=True,
)
async def create(profile: Profile, request: TokenCreateRequest) -> Reply:
    """Mint a token that opens one database with all its branches; call it to give an agent its access."""
    authority = _authority()
    if not profile.exists():
        raise DatabaseNotFound(f"there is no database {profile.name}")
    scope = Scope[request.scope.upper()]
    return _reply(
        authority.mint(current_caller(), scope=scope, expires_in=request.expires_in, database=profile.name), request
    )


@operation(
    name="token_create_ns",
    title="Mint a token for a namespace",
    target=Target.NAMESPACE,
    scope=Scope.ADMIN,
    toolset="admin",
    request=TokenCreateRequest,
    response=TokenCreated,
    rest=Rest("POST", "/tokens", status=201, at="/v1/namespaces/{namespace}"),
    control=True,
)
async def create_for_namespace(subject: tuple[Node, str], request: TokenCreateRequest) -> Reply:
    """Mint a token that opens every profile of a namespace; call it to set a tenant up."""
    _, namespace = subject
    scope = Scope[request.scope.upper()]
    return _reply(
        _authority().mint(current_caller(), scope=scope, expires_in=request.expires_in, namespace=namespace), request
    )


@operation(
    name="token_revoke",
    title="Revoke a token",
    target=Target.NODE,
    scope=Scope.READ,
    toolset="admin",
    request=TokenRevokeRequest,
    response=TokenRevoked,
    rest=Rest("DELETE", "/tokens/{jti}", status=204),
    destructive=True,
    idempotent=True,
    control=True,
)
async def revoke(_: Node, request: TokenRevokeRequest) -> Reply:
    """Refuse one token from now on, before it expires; call it when a token has leaked or is not needed any more.

    What was minted with it is refused too. The platform key revokes any token, an administrator those of
    its namespace or plain database, and any token itself.
    """
    await _authority().revoke(current_caller(), request.jti)
    return Reply(TokenRevoked(revoked=True))


def _authority() -> Authority:
    authority = current_caller().authority
    if authority is None:
        raise InvalidRequest("there are no tokens while auth is off; MEMOTURN_AUTH=on turns it on")
    return authority


def _reply(minted: Minted, request: TokenCreateRequest) -> Reply:
    return Reply(TokenCreated(token=minted.token, expires_in=minted.expires_in, jti=minted.jti, scope=request.scope))
