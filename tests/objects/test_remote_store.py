"""Remote stores when something is in the way: lost answers, no answers, no bucket, no credentials."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from memoturn_schemas.errors import Unavailable
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.opening import open_store
from memoturn_storage.objects.remote import BULK_BYTES
from memoturn_storage.objects.store import ObjectStore, PreconditionFailed, StoreUnavailable
from objects.proxy import proxy
from objects.servers import Remote, environment, free_port
from objects.writers import WRITERS, in_threads

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def calls(store: ObjectStore) -> list[Callable[[], Any]]:
    return [
        lambda: store.get("a"),
        lambda: store.put("a", b"1"),
        lambda: store.put("b", b"1" * (BULK_BYTES + 1)),
        lambda: store.put_if_absent("c", b"1"),
        lambda: store.put_if_match("a", b"1", '"0123456789abcdef0123456789abcdef"'),
        lambda: store.delete("a"),
        lambda: list(store.list("")),
        lambda: list(store.list("v1/")),
    ]


def test_a_lost_answer_makes_a_conditional_write_lose_to_itself(s3: Remote) -> None:
    port = urlsplit(s3.environment["AWS_ENDPOINT_URL"]).port
    assert port is not None
    with proxy(port) as between:
        store = replace(s3, environment={**s3.environment, "AWS_ENDPOINT_URL": between.endpoint}).open()
        store.put("other", b"1")
        between.lose = 1
        with pytest.raises(PreconditionFailed):
            store.put_if_absent("a", b"created by me")
        found = store.get("a")
        assert found.data == b"created by me"
        between.lose = 1
        with pytest.raises(PreconditionFailed):
            store.put_if_match("a", b"replaced by me", found.version)
        assert store.get("a").data == b"replaced by me"
        between.lose = 2
        store.put("a", b"written by me")
        assert store.get("a").data == b"written by me"
        between.lose = 99
        with pytest.raises(StoreUnavailable):
            store.put("a", b"landed all the same")
        between.lose = 0
        assert store.get("a").data == b"landed all the same"


def test_a_store_that_does_not_answer_is_an_error_within_ten_seconds() -> None:
    clock = SystemAmbient()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = Remote("s3://bucket", {**KEYS, "AWS_ENDPOINT_URL": endpoint}).open()
        # A large object may take as long as a slow line needs.
        waiting = [call for number, call in enumerate(calls(store)) if number != 2]

        def call(name: str) -> None:
            with pytest.raises(StoreUnavailable, match="did not answer"):
                waiting[int(name) % len(waiting)]()

        began = clock.monotonic()
        assert len(in_threads(call)) == WRITERS
        assert clock.monotonic() - began < 10


def test_a_store_that_is_down_is_an_error_at_once() -> None:
    remote = Remote("s3://bucket", {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"})
    for call in calls(remote.open()):
        with pytest.raises(StoreUnavailable, match="did not answer") as failed:
            call()
        assert isinstance(failed.value, Unavailable)
        assert "127.0.0.1" not in str(failed.value)


@pytest.mark.parametrize("kind", ["s3", "azure", "gcs"])
def test_a_bucket_that_does_not_exist_is_not_an_empty_store(request: pytest.FixtureRequest, kind: str) -> None:
    remote: Remote = request.getfixturevalue(kind)
    scheme = remote.bucket_url.partition("://")[0]
    for call in calls(remote.open(f"{scheme}://no-such-bucket/prefix")):
        with pytest.raises(StoreUnavailable):
            call()


def test_an_answer_of_something_else_in_the_place_of_the_store_is_not_a_missing_object() -> None:
    program = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)
    do_PUT = do_DELETE = do_GET
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as other:
        try:
            assert other.stdout is not None
            endpoint = f"http://127.0.0.1:{int(other.stdout.readline())}"
            store = Remote("s3://bucket", {**KEYS, "AWS_ENDPOINT_URL": endpoint}).open()
            with pytest.raises(StoreUnavailable):
                store.get("a")
            with pytest.raises(StoreUnavailable):
                store.delete("a")
            with pytest.raises(StoreUnavailable):
                list(store.list(""))
        finally:
            other.kill()


def test_credentials_come_from_a_profile_of_aws_where_the_environment_has_no_keys(s3: Remote, tmp_path: Path) -> None:
    key, secret = s3.environment["AWS_ACCESS_KEY_ID"], s3.environment["AWS_SECRET_ACCESS_KEY"]
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    variables = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_CONFIG_FILE": str(tmp_path / "none")}
    variables |= {"AWS_ENDPOINT_URL": s3.environment["AWS_ENDPOINT_URL"], "AWS_EC2_METADATA_DISABLED": "true"}
    url = s3.url()
    store = Remote(s3.bucket_url, {**variables, "AWS_PROFILE": "work", "AWS_REGION": "us-east-1"}).open(url)
    store.put("a", b"1")
    assert s3.open(url).get("a").data == b"1"
    for without in ({**variables}, {**variables, "AWS_PROFILE": "home"}):
        with environment(without), pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID"):
            open_store(url, SystemAmbient())


def test_an_account_that_is_not_named_is_an_error_at_opening() -> None:
    with environment({}), pytest.raises(ValueError, match="az://container"):
        open_store("az://container/prefix", SystemAmbient())


def test_neither_obstore_nor_boto3_is_imported_before_a_remote_store_is_opened(tmp_path: Path) -> None:
    program = f"""
import sys
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.opening import open_store
open_store("mem://", SystemAmbient())
open_store("file://{tmp_path}/objects", SystemAmbient())
print(sorted({{"obstore", "boto3", "botocore"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
