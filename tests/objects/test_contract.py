"""What `memoturn_storage.objects.store` promises, over every kind of store."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.store import (
    LONGEST_KEY,
    LONGEST_SEGMENT,
    ObjectMissing,
    ObjectStore,
    PreconditionFailed,
)
from objects.conftest import Opener
from objects.faulty import FaultyStore
from objects.writers import WRITERS, create, in_threads, increment, lines

SEGMENTS = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="/\\"), min_size=1, max_size=12
).filter(lambda segment: not segment.startswith("."))
KEYS = st.lists(st.one_of(st.sampled_from(["a", "a-", "b", "B"]), SEGMENTS), min_size=1, max_size=3).map("/".join)


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_an_object_reads_as_it_was_written_until_it_is_deleted(store: ObjectStore) -> None:
    for data in (b"", b"one", bytes(range(256)) * 4_000):
        store.put("v1/a/b", data)
        assert store.get("v1/a/b").data == data
    store.delete("v1/a/b")
    store.delete("v1/a/b")
    store.delete("v1/never/there")
    with pytest.raises(ObjectMissing) as missing:
        store.get("v1/a/b")
    assert missing.value.key == "v1/a/b"
    assert keys(store) == []


def test_a_large_object_is_taken_whole(store: ObjectStore) -> None:
    data = bytes(range(251)) * 50_000
    first = store.put_if_absent("large", data)
    store.put_if_match("large", data[::-1], first)
    assert store.get("large").data == data[::-1]


def test_only_the_first_create_lands(store: ObjectStore) -> None:
    version = store.put_if_absent("v1/a", b"first")
    with pytest.raises(PreconditionFailed) as failed:
        store.put_if_absent("v1/a", b"second")
    assert failed.value.key == "v1/a"
    found = store.get("v1/a")
    assert (found.data, found.version) == (b"first", version)
    store.delete("v1/a")
    store.put_if_absent("v1/a", b"third")
    assert store.get("v1/a").data == b"third"


def test_a_replacement_lands_only_on_the_version_that_it_names(store: ObjectStore) -> None:
    first = store.put_if_absent("v1/a", b"first")
    second = store.put_if_match("v1/a", b"second", first)
    assert second != first
    with pytest.raises(PreconditionFailed):
        store.put_if_match("v1/a", b"lost", first)
    assert store.get("v1/a").data == b"second"
    store.put("v1/a", b"third")
    with pytest.raises(PreconditionFailed):
        store.put_if_match("v1/a", b"lost", second)
    found = store.get("v1/a")
    assert found.data == b"third"
    store.put_if_match("v1/a", b"fourth", found.version)
    assert store.get("v1/a").data == b"fourth"


def test_a_replacement_of_what_is_gone_fails(store: ObjectStore) -> None:
    version = store.put_if_absent("v1/a", b"first")
    store.delete("v1/a")
    with pytest.raises(PreconditionFailed):
        store.put_if_match("v1/a", b"lost", version)
    assert keys(store) == []


def test_a_listing_is_in_key_order_below_its_prefix_and_knows_sizes_and_times(store: ObjectStore) -> None:
    ordered = ["a-b", "a.b", "a/b", "a/b-", "a/c/d", "aa", "b/a", "b/b", "b/c", "b/d", "c%2Fd", "c/d e+f?g#h&<i>"]
    for number, key in enumerate(reversed(ordered)):
        store.put(key, b"x" * number)
    listed = list(store.list(""))
    assert [info.key for info in listed] == ordered
    assert [info.size for info in listed] == list(reversed(range(len(ordered))))
    assert keys(store, "a/") == ["a/b", "a/b-", "a/c/d"]
    assert keys(store, "a/c/") == ["a/c/d"]
    assert keys(store, "nothing/here/") == []
    for info in listed:
        assert store.get(info.key).data == b"x" * info.size
        assert 1_600_000_000_000 < info.modified_ms < SystemAmbient().now_ms() + 60_000


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", ".store/lock-00", "a/.hidden"),
        *("a\\b", "a\nb", "a\0b", "é", "\udce9", "x" * (LONGEST_SEGMENT + 1), "/".join(["x"] * LONGEST_KEY)),
    ],
)
def test_a_key_that_some_store_cannot_keep_is_refused_by_every_store(store: ObjectStore, key: str) -> None:
    for call in (
        lambda: store.get(key),
        lambda: store.put(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.put_if_match(key, b"", "version"),
        lambda: store.delete(key),
        lambda: store.list(f"{key}/"),
    ):
        with pytest.raises(ValueError, match="not the"):
            call()
    assert keys(store) == []


def test_a_prefix_without_a_slash_is_refused(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="slash"):
        store.list("v1")


def test_of_sixteen_writers_who_create_one_object_one_is_the_first(store: ObjectStore) -> None:
    for attempt in range(5):
        key = f"race/{attempt}"
        versions = in_threads(lambda name, key=key: create(store, key, name))
        winners = [name for name, version in enumerate(versions) if version is not None]
        assert len(winners) == 1
        found = store.get(key)
        assert (found.data.decode(), found.version) == (str(winners[0]), versions[winners[0]])


def test_sixteen_writers_who_replace_one_object_lose_no_change(store: ObjectStore) -> None:
    times = 4
    store.put("counter", b"")
    in_threads(lambda name: increment(store, "counter", name, times))
    written = lines(store, "counter")
    assert sorted(written) == sorted(f"{name}-{number}" for name in range(WRITERS) for number in range(times))


WRITES = st.sampled_from(["put", "create", "replace", "replace an old version", "delete"])


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(st.tuples(WRITES, KEYS, st.binary(max_size=40)), max_size=25), known=st.lists(KEYS, max_size=3))
def test_any_sequence_of_writes_leaves_what_a_dictionary_would_hold(
    opener: Opener, steps: list[tuple[str, str, bytes]], known: list[str]
) -> None:
    store = opener()
    model: dict[str, bytes] = {}
    versions: dict[str, list[str]] = {}
    unique = itertools.count()
    for write, key, written in steps:
        if any(other != key and (f"{other}/".startswith(f"{key}/") or key.startswith(f"{other}/")) for other in model):
            continue
        data = b"%d " % next(unique) + written
        match write:
            case "put":
                store.put(key, data)
                model[key] = data
            case "create" if key in model:
                with pytest.raises(PreconditionFailed):
                    store.put_if_absent(key, data)
            case "create":
                versions.setdefault(key, []).append(store.put_if_absent(key, data))
                model[key] = data
            case "replace" if key in model:
                versions.setdefault(key, []).append(store.put_if_match(key, data, store.get(key).version))
                model[key] = data
            case "delete":
                store.delete(key)
                model.pop(key, None)
            case _:
                current = store.get(key).version if key in model else None
                for old in versions.get(key, []):
                    if old != current:
                        with pytest.raises(PreconditionFailed):
                            store.put_if_match(key, data, old)
    assert [(info.key, info.size) for info in store.list("")] == [(key, len(model[key])) for key in sorted(model)]
    for key in {*model, *known}:
        if key in model:
            assert store.get(key).data == model[key]
        else:
            with pytest.raises(ObjectMissing):
                store.get(key)
        prefix = f"{key.partition('/')[0]}/"
        assert keys(store, prefix) == sorted(other for other in model if other.startswith(prefix))
    assert not isinstance(store, FaultyStore) or {fate for _, fate in store.fates} <= {"fine"}
    store.close()
