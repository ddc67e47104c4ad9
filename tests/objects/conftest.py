"""Every kind of object store: `opener` makes stores of one kind, each of them empty; `store` is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from random import Random
from typing import Any

import pytest

from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectStore
from objects import servers
from objects.faulty import Faults, FaultyStore

Opener = Callable[[], ObjectStore]


def running(start: Callable[[], AbstractContextManager[servers.Remote]]) -> Any:
    @pytest.fixture(scope="session")
    def remote() -> Iterator[servers.Remote]:
        with start() as remote:
            yield remote

    return remote


s3 = running(servers.s3)
azure = running(servers.azure)
gcs = running(servers.gcs)


@pytest.fixture(params=["mem", "faulty", "file", "s3", "azure", "gcs"])
def opener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opener:
    match request.param:
        case "mem":
            return lambda: MemoryStore(SystemAmbient())
        case "faulty":
            return lambda: FaultyStore(MemoryStore(SystemAmbient()), Random(0), Faults())
        case "file":
            return lambda: FileStore(tmp_path_factory.mktemp("objects"), SystemAmbient())
        case kind:
            remote: servers.Remote = request.getfixturevalue(kind)
            return remote.open


@pytest.fixture
def store(opener: Opener) -> Iterator[ObjectStore]:
    opened = opener()
    yield opened
    opened.close()
