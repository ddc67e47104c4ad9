"""The contract suite of the object stores, over a real MinIO."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from objects.servers import free_port, server

USER, PASSWORD = "interop", "interop-secret"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server, built from its published source."""
    directory = tmp_path_factory.mktemp("go")
    subprocess.run(
        ["go", "install", "github.com/minio/minio@latest"],
        env={**os.environ, "GOBIN": str(directory)},
        check=True,
        timeout=1_800,
    )
    return directory / "minio"


def test_the_contract_suite_passes_over_a_real_minio(minio: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off"}
    suite = [sys.executable, "-m", "pytest", "tests/objects", "-q", "-p", "no:cacheprovider", "-k", "s3 or lost_answer"]
    named = {"ENDPOINT": f"http://{address}", "KEY": USER, "SECRET": PASSWORD, "BUCKET": "contract"}
    environment = {**os.environ, **{f"MEMOTURN_TEST_S3_{name}": value for name, value in named.items()}}
    with server([str(minio), "server", str(tmp_path), "--address", address], settings, ready="API:"):
        done = subprocess.run(suite, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
