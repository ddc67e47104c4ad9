"""The store that fails on purpose: what it says of a write is compatible with what happened, and a seed replays."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectMissing, PreconditionFailed, StoreUnavailable
from objects.faulty import Faults, FaultyStore
from objects.writers import WRITERS, in_threads, increment, lines

FAULTS = Faults(before=0.15, after=0.15, lost=0.15)


def run(seed: int) -> tuple[list[Any], FaultyStore, ManualAmbient]:
    """A story of random calls: what each said and what is there after it."""
    ambient = ManualAmbient()
    store = FaultyStore(
        MemoryStore(ambient), Random(seed), FAULTS, delay=lambda s: ambient.advance(seconds=s), slowest=0.5
    )
    story: list[Any] = []
    choices = Random(seed + 1)

    def content(key: str) -> bytes | None:
        try:
            return store.inner.get(key).data
        except ObjectMissing:
            return None

    for step in range(120):
        key, data = choices.choice(["a/1", "a/2", "b"]), b"%d" % step
        operation = choices.choice(["get", "put", "put_if_absent", "put_if_match", "delete", "list"])
        before = content(key)
        said: Any
        try:
            match operation:
                case "put_if_match":
                    version = store.inner.get(key).version if before is not None else "none"
                    store.put_if_match(key, data, version)
                case "list":
                    said = [info.key for info in store.list("")]
                    assert said == [info.key for info in store.inner.list("")]
                case "get" | "delete":
                    getattr(store, operation)(key)
                case _:
                    getattr(store, operation)(key, data)
            said = "fine"
        except (StoreUnavailable, PreconditionFailed, ObjectMissing) as error:
            said = type(error).__name__
        after = content(key)
        wanted = {"get": before, "list": before, "delete": None}.get(operation, data)
        match said:
            case "fine":
                assert after == wanted
            case "StoreUnavailable":
                assert after in (before, wanted)
            case "PreconditionFailed":
                assert operation in ("put_if_absent", "put_if_match")
                assert after in (before, wanted)
            case _:
                assert before is None and operation == "get"
        story.append((operation, key, said, after, ambient.now_ms()))
    return story, store, ambient


def test_what_it_says_of_a_call_is_compatible_with_what_happened() -> None:
    fates = set()
    for seed in range(20):
        fates |= set(run(seed)[1].fates)
    operations = ("get", "put", "put_if_absent", "put_if_match", "delete", "list")
    conditional = ("put_if_absent", "put_if_match")
    assert fates == {
        *((operation, fate) for operation in operations for fate in ("fine", "before", "after")),
        *((operation, "lost") for operation in conditional),
    }


def test_the_same_seed_tells_the_same_story() -> None:
    assert run(7)[0] == run(7)[0] != run(8)[0]


def test_while_it_is_down_every_call_fails_and_nothing_changes() -> None:
    store = FaultyStore(MemoryStore(ManualAmbient()), Random(0), {"put": Faults()})
    version = store.put_if_absent("a", b"1")
    store.down = True
    for call in (
        lambda: store.get("a"),
        lambda: store.put("a", b"2"),
        lambda: store.put_if_absent("b", b"2"),
        lambda: store.put_if_match("a", b"2", version),
        lambda: store.delete("a"),
        lambda: store.list(""),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    store.down = False
    assert store.get("a").data == b"1"
    assert [info.key for info in store.list("")] == ["a"]


def test_writers_who_recognise_their_own_write_lose_and_repeat_none_whatever_answers_are_lost() -> None:
    store = FaultyStore(MemoryStore(ManualAmbient()), Random(3), FAULTS)
    store.inner.put("counter", b"")
    in_threads(lambda name: increment(store, "counter", name, 10))
    written = lines(store.inner, "counter")
    assert sorted(written) == sorted(f"{name}-{number}" for name in range(WRITERS) for number in range(10))
    assert store.fates["put_if_match", "lost"] > 0 and store.fates["put_if_match", "after"] > 0
