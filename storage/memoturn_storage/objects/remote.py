"""`s3://`, `gs://` and `az://`: objects in a bucket or container, through obstore.

Opened by `memoturn_storage.objects.opening`, and imported only then: obstore and boto3 are slow to import. Bucket and
credentials are the operator's to make; obstore reads the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`). Without keys
in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, boto3 finds credentials in every way that it knows (profiles, SSO,
roles of a service account or machine).

A process that has used obstore must not fork: the child hangs at its first call. Start processes with `spawn`.

A store that is down is an error within ten seconds. A conditional write is never a multipart upload, and neither is
any other, so an object is there whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from memoturn_storage.objects.store import (
    ObjectInfo,
    ObjectMissing,
    PreconditionFailed,
    StoredObject,
    StoreUnavailable,
    check_key,
    check_prefix,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import ClientConfig, RetryConfig

Scheme = Literal["s3", "gs", "az"]

BULK_BYTES = 256 * 1024
"""Above this, a write may take as long as a slow line needs; below, no answer for some seconds is a failure."""

_PROMPT: ClientConfig = {
    "connect_timeout": timedelta(seconds=3),
    "read_timeout": timedelta(seconds=5),
    "timeout": timedelta(minutes=5),
}
"""obstore's read timeout bounds a whole upload and the wait for its answer, but only each step of a download."""

_BULK: ClientConfig = {"connect_timeout": timedelta(seconds=3), "timeout": timedelta(minutes=5)}

_RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=4)}
"""No try begins after the timeout, so a call ends at most one request's timeout after it."""

_CREDENTIALS_KEPT = timedelta(minutes=9)
"""botocore renews credentials at the latest ten minutes before they end, so a copy must not live longer than that."""

_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "GOOGLE_BASE_URL",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)

# Azure's batch operation, by which obstore deletes, answers in prose.
_OBJECT_MISSING = ("<Code>NoSuchKey</Code>", "<Code>BlobNotFound</Code>", "The specified blob does not exist.")
_BUCKET_MISSING = ("<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>")


class RemoteStore:
    """An `ObjectStore` on the keys of a bucket (or container) that begin with `prefix` and a slash.

    Raises:
        ValueError: the environment does not say how to reach the bucket; the message says what is missing.
    """

    def __init__(self, scheme: Scheme, bucket: str, prefix: str) -> None:
        self._versions_by: Literal["e_tag", "version"] = "version" if scheme == "gs" else "e_tag"
        self._prompt = _client(scheme, bucket, prefix, _PROMPT)
        self._bulk = _client(scheme, bucket, prefix, _BULK)

    def get(self, key: str) -> StoredObject:
        check_key(key)
        with _explained(f"object {key} could not be read", key):
            answer = obstore.get(self._prompt, key)
            data = bytes(answer.bytes())
            return StoredObject(data, self._version(answer.meta))

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data, "overwrite")

    def put_if_absent(self, key: str, data: bytes) -> str:
        return self._version(self._put(key, data, "create"))

    def put_if_match(self, key: str, data: bytes, version: str) -> str:
        wanted: UpdateVersion = {"e_tag": version} if self._versions_by == "e_tag" else {"version": version}
        return self._version(self._put(key, data, wanted))

    def delete(self, key: str) -> None:
        check_key(key)
        with suppress(ObjectMissing), _explained(f"object {key} may not have been deleted", key):
            obstore.delete(self._prompt, key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._below(check_prefix(prefix))

    def close(self) -> None:
        """Nothing is held that could be closed: obstore pools its connections by itself."""

    def _put(self, key: str, data: bytes, mode: Literal["create", "overwrite"] | UpdateVersion) -> PutResult:
        check_key(key)
        client = self._prompt if len(data) <= BULK_BYTES else self._bulk
        with _explained(f"object {key} may not have been written", key):
            return obstore.put(client, key, data, mode=mode, use_multipart=False)

    def _below(self, prefix: str) -> Iterator[ObjectInfo]:
        with _explained("the object store could not be listed"):
            for chunk in obstore.list(self._prompt, prefix[:-1] or None, chunk_size=1000):
                for meta in chunk:
                    yield ObjectInfo(meta["path"], meta["size"], round(meta["last_modified"].timestamp() * 1000))

    def _version(self, answer: PutResult | ObjectMeta) -> str:
        version = answer[self._versions_by]
        if version is None:
            raise StoreUnavailable("the object store sends no versions (ETags), which conditional writes need")
        return version


def _client(scheme: Scheme, bucket: str, prefix: str, timeouts: ClientConfig) -> S3Store | GCSStore | AzureStore:
    options: ClientConfig = {**timeouts}
    if any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS):
        options["allow_http"] = True
    try:
        if scheme == "gs":
            return GCSStore(bucket, prefix=prefix or None, client_options=options, retry_config=_RETRIES)
        if scheme == "az":
            return AzureStore(bucket, prefix=prefix or None, client_options=options, retry_config=_RETRIES)
        return _s3(bucket, prefix, options)
    except BaseError as error:
        raise ValueError(f"{scheme}://{bucket} cannot be opened: {_first_line(error)}") from error


def _s3(bucket: str, prefix: str, options: ClientConfig) -> S3Store:
    credentials = None
    if not (os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")):
        credentials = _credentials(bucket)
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options=options,
        retry_config=_RETRIES,
        credential_provider=credentials,
        # Not every compatible store has the bulk operation, and one object at a time is deleted anyway.
        disable_bulk_delete=True,
    )


def _credentials(bucket: str) -> Boto3CredentialProvider:
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        credentials = Boto3CredentialProvider(ttl=_CREDENTIALS_KEPT)
    except (BotoCoreError, ValueError) as error:
        raise ValueError(
            f"s3://{bucket} cannot be opened: no AWS credentials were found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role"
        ) from error
    # What the provider says of the region goes before the environment, of which boto3 knows only AWS_DEFAULT_REGION.
    if region := os.environ.get("AWS_REGION"):
        credentials.config["region"] = region
    return credentials


@contextmanager
def _explained(complaint: str, key: str = "") -> Iterator[None]:
    """Say what an error of obstore means to a store; the original, which names hosts, is the cause.

    Raises:
        ObjectMissing: the store said that there is no such object, and not only `404` as any proxy might.
        PreconditionFailed: the store said so.
        StoreUnavailable: everything else.
    """
    try:
        yield
    except FileNotFoundError as error:
        if _says(error, _OBJECT_MISSING):
            raise ObjectMissing(key) from None
        reason = (
            "its bucket does not exist" if _says(error, _BUCKET_MISSING) else "something else answered in its place"
        )
        raise StoreUnavailable(f"{complaint}: {reason}") from error
    except (AlreadyExistsError, PreconditionError) as error:
        if _says(error, _BUCKET_MISSING):
            raise StoreUnavailable(f"{complaint}: its bucket does not exist") from error
        raise PreconditionFailed(key) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StoreUnavailable(f"{complaint}: the object store refuses our credentials, or has none") from error
    except (BaseError, OSError) as error:
        raise StoreUnavailable(f"{complaint}: the object store failed or did not answer") from error


def _says(error: Exception, codes: tuple[str, ...]) -> bool:
    return any(code in str(error) for code in codes)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
