"""Revocation: who may revoke which token, and who hears of it when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from contract.access import PLATFORM_KEY, made
from memoturn_core.access.authority import Authority
from memoturn_core.access.revocations import FRESH_S, KEY, STALE_S
from memoturn_core.caller import LOCAL
from memoturn_core.operations import Scope
from memoturn_schemas.errors import Forbidden, NotFound, Unauthorized, Unavailable
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.objects.memory import MemoryStore
from objects.faulty import Faults, FaultyStore
from unit.credentials import NOW, authority, run, tokens


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
