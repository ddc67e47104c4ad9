"""Object stores to test against: an S3 server and an Azure one as processes, a Google one in this process.

Used by the fixtures of `conftest.py` and by any other test that needs a real store. Each server gives a `Remote`,
which opens stores on prefixes of one bucket. `MEMOTURN_TEST_S3_ENDPOINT` (with `MEMOTURN_TEST_S3_KEY`, `_SECRET` and
`_BUCKET`) puts any other S3 server in the place of MiniStack.
"""

from __future__ import annotations

import base64
import hmac
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import boto3
import platformdirs
import pytest
from botocore.exceptions import ClientError

from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.opening import open_store
from memoturn_storage.objects.store import ObjectStore
from objects.gcs_server import gcs_server

AZURITE = "azurite@3.37.0"
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that every Azurite has; its key is public."""

_FOREIGN = ("AWS_", "AZURE_", "AZURITE_", "GOOGLE_")


@dataclass(frozen=True)
class Remote:
    """A bucket, and the environment in which a store on it opens."""

    bucket_url: str
    environment: Mapping[str, str]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self) -> str:
        """An url with a prefix that nobody else uses."""
        return f"{self.bucket_url}/{SystemAmbient().token(6).hex()}/{next(self._numbers)}"

    def open(self, url: str | None = None) -> ObjectStore:
        with environment(self.environment):
            return open_store(url or self.url(), SystemAmbient())


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """`variables`, and nothing else that a cloud's client would read."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_FOREIGN):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def s3() -> Iterator[Remote]:
    """The S3 server that the environment names, or a MiniStack."""
    endpoint = os.environ.get("MEMOTURN_TEST_S3_ENDPOINT")
    if endpoint:
        named = {name: os.environ[f"MEMOTURN_TEST_S3_{name}"] for name in ("KEY", "SECRET", "BUCKET")}
        yield s3_remote(endpoint, named["KEY"], named["SECRET"], named["BUCKET"])
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        settings = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "SERVICES": "s3,kms",
            "S3_PERSIST": "1",
            "S3_DATA_DIR": data,
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
        }
        with server([sys.executable, "-m", "ministack"], settings, ready="Running on"):
            yield s3_remote(f"http://127.0.0.1:{port}", "test", "test", "memoturn")


def s3_remote(endpoint: str, key: str, secret: str, bucket: str) -> Remote:
    """A bucket of a running S3 server, made unless it is there."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
    finally:
        client.close()
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    return Remote(f"s3://{bucket}", settings)


@contextmanager
def azure() -> Iterator[Remote]:
    """An Azurite, which npm installs into a cache directory at its first use."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("AZURE IS NOT TESTED: Azurite needs node and npm, which are not on this machine")
    port = free_port()
    program = _installed_azurite(npm) / "node_modules/azurite/dist/src/blob/main.js"
    options = [f"--blobPort={port}", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence", "--silent"]
    with server([node, str(program), "--blobHost=127.0.0.1", *options], {}, ready="successfully listens"):
        endpoint = f"http://127.0.0.1:{port}"
        _make_container(endpoint, "memoturn")
        yield Remote("az://memoturn", {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": endpoint})


@contextmanager
def gcs() -> Iterator[Remote]:
    """A stand-in for Google's store: what it checks is what we send, not how Google behaves."""
    with gcs_server("memoturn") as endpoint:
        yield Remote("gs://memoturn", {"GOOGLE_BASE_URL": endpoint, "GOOGLE_BEARER_TOKEN": "any"})


@contextmanager
def server(command: list[str], settings: Mapping[str, str], *, ready: str) -> Iterator[None]:
    """Run a server from when it says `ready` until the end of the block."""
    said: list[str] = []
    started = threading.Event()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **settings}
    ) as process:

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if not started.is_set():
                    said.append(line)
                if ready in line:
                    started.set()
            started.set()

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            assert started.wait(60) and process.poll() is None, "".join(said)
            yield
        finally:
            process.kill()
            listener.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _installed_azurite(npm: str) -> Path:
    cache = platformdirs.user_cache_path("memoturn-tests")
    installed = cache / AZURITE.replace("@", "-")
    if installed.is_dir():
        return installed
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache))
    try:
        command = [npm, "install", "--prefix", str(fresh), "--no-audit", "--no-fund", "--ignore-scripts", AZURITE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            report = pytest.fail if os.environ.get("CI") else pytest.skip
            report(f"AZURE IS NOT TESTED: npm could not install {AZURITE}: {done.stderr[-500:]}")
        if not installed.is_dir():
            fresh.rename(installed)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return installed


def _make_container(endpoint: str, name: str) -> None:
    headers = {
        "x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "x-ms-version": "2021-08-06",
    }
    resource = f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{name}\nrestype:container"
    signed = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in headers.items()) + resource
    signature = base64.b64encode(hmac.digest(base64.b64decode(AZURITE_KEY), signed.encode(), "sha256")).decode()
    headers |= {"Authorization": f"SharedKey {AZURITE_ACCOUNT}:{signature}", "Content-Type": ""}
    url = f"{endpoint}/{AZURITE_ACCOUNT}/{name}?restype=container"
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=b"", headers=headers)) as answer:
        assert answer.status == 201
