"""From the url of an object store to the store. Called by whoever composes the program, with a setting's value."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from memoturn_storage.ambient import Ambient
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.memory import MemoryStore
from memoturn_storage.objects.store import ObjectStore, check_key

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")


def open_store(url: str, ambient: Ambient) -> ObjectStore:
    """The store that `url` names: `mem://`, `file:///directory`, `s3://`, `gs://` or `az://bucket/prefix`.

    Raises:
        ValueError: no store can be opened by it; the message says what would be right.
        StoreUnavailable: the directory cannot be made or used.
    """
    scheme, separator, rest = url.partition("://")
    if separator and "?" not in rest and "#" not in rest:
        bucket, _, prefix = rest.rstrip("/").partition("/")
        match scheme:
            case "mem" if not rest:
                return MemoryStore(ambient)
            case "file" if rest.startswith("/") and "\0" not in unquote(rest):
                return FileStore(Path(unquote(rest)), ambient)
            case "s3" | "gs" | "az" if _BUCKET.fullmatch(bucket) and _is_prefix(prefix):
                from memoturn_storage.objects.remote import RemoteStore

                return RemoteStore(scheme, bucket, prefix)
            case _:
                pass
    raise ValueError(
        "the url of an object store is one of mem://, file:///absolute/directory, s3://bucket/prefix, "
        "gs://bucket/prefix and az://container/prefix, of which the prefix may be left out"
    )


def _is_prefix(prefix: str) -> bool:
    try:
        check_key(prefix or "none")
    except ValueError:
        return False
    return True
