"""From the url of an object store to the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.opening import open_store


def test_a_file_url_names_a_directory_that_only_its_owner_can_read(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/with%20space/objects/", SystemAmbient())
    assert isinstance(store, FileStore)
    store.put("a/b/c", b"1")
    made = tmp_path / "with space"
    assert (made / "objects/a/b/c").read_bytes() == b"1"
    directories = [path for path in (made, *made.rglob("*")) if path.is_dir()]
    assert len(directories) == 6
    assert {path.stat().st_mode & 0o777 for path in directories} == {0o700}


def test_each_store_in_memory_is_alone() -> None:
    store = open_store("mem://", SystemAmbient())
    assert isinstance(store, MemoryStore)
    store.put("a", b"1")
    assert list(open_store("mem://", SystemAmbient()).list("")) == []


@pytest.mark.parametrize(
    "url",
    [
        *("", "mem", "mem:", "mem://shared", "/var/objects", "file:", "file://", "file://relative", "file:relative"),
        *("file:///a%00b", "file:///a?b", "s3://", "s3:///prefix", "s3://b", "s3://bucket//prefix", "s3://bucket/a//b"),
        *("s3://bucket/../other", "s3://key:secret@bucket", "s3://bucket:9000/a", "s3://[", "s3://bucket?region=x"),
        *("gs://bucket#a", "az://", "http://bucket/prefix", "S3://bucket"),
    ],
)
def test_another_url_is_refused_by_a_message_that_says_what_would_be_right(url: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket/prefix") as refused:
        open_store(url, SystemAmbient())
    assert "secret" not in str(refused.value)


@given(st.text(max_size=30))
def test_no_text_is_opened_by_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="one of mem://"):
        open_store(f"https://{text}", SystemAmbient())
