"""Export, import, backup and restore on the wire."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from memoturn_schemas.common import RequestModel, Shaped
from memoturn_schemas.moment import Moment

IMPORT_LIMIT = 1_000
"""Records in one request."""

Cursor = Annotated[str, Shaped(r"[0-9a-f]{32}\.[0-9]{1,19}\.[0-9]{1,19}", "the next_cursor of the answer before")]
Base64 = Annotated[str, Shaped("[A-Za-z0-9+/]*={0,2}", "base64")]


class ExportRequest(RequestModel):
    """A page of an export."""

    as_of: Moment | None = None
    """As it stood then: a checkpoint, a transaction or a time; the newest state if left out."""
    cursor: Cursor | None = None
    """Go on where the answer with this `next_cursor` ended, in the state of the first page."""


class ExportResponse(TypedDict):
    """`next_cursor` is there only where there is more."""

    txid: int
    records: list[dict[str, Any]]
    next_cursor: NotRequired[str]


class ImportRequest(RequestModel):
    """Records as an export has them; those before must have been imported."""

    records: Annotated[list[Any], Field(min_length=1, max_length=IMPORT_LIMIT)]
    """Up to 1 000 records, in the order of the export. The header may be among them, and the end."""


class RefusedRecord(TypedDict):
    index: int
    """Its place in the request, from 0."""
    kind: str
    """Empty where it says none."""
    reason: str


class ImportResponse(TypedDict):
    """How many of each kind; what is unchanged was there before."""

    txid: int
    imported: dict[str, int]
    unchanged: dict[str, int]
    refused: list[RefusedRecord]


class BackupRequest(RequestModel):
    """A part of a database's file."""

    as_of: Moment | None = None
    """As it stood then: a checkpoint, a transaction or a time; the newest state if left out."""
    cursor: Cursor | None = None
    """Go on where the answer with this `next_cursor` ended, in the state of the first part."""


class BackupResponse(TypedDict):
    """`data` is base64. `next_cursor` is there only where there is more."""

    txid: int
    size: int
    """Bytes of the whole file."""
    data: str
    next_cursor: NotRequired[str]


class RestoreRequest(RequestModel):
    """A part of a file that `backup_database` gave."""

    data: Base64
    """The bytes of this part, as base64."""
    cursor: Cursor | None = None
    """The `next_cursor` of the answer to the part before; none with the first."""
    sha256: Annotated[str, Shaped("[0-9a-f]{64}", "64 hex digits, in lower case")] | None = None
    """With the last part: the SHA-256 of the whole file. The database is then restored."""
    replace: bool = False
    """Whether what the database holds may be replaced."""


class RestoreResponse(TypedDict):
    """The rest is there once the database is restored; `rows` are of each table."""

    received: int
    """Bytes so far."""
    next_cursor: NotRequired[str]
    txid: NotRequired[int]
    rows: NotRequired[dict[str, int]]
