"""Translation of SQLite's and the operating system's errors into the tree of `memoturn_schemas`.

Called around every job of the engine, by the catalogue, and by `memoturn_core.invoke` for what is left.
"""

from __future__ import annotations

import apsw

from memoturn_schemas.errors import (
    Conflict,
    Internal,
    InvalidRequest,
    MemoturnError,
    PayloadTooLarge,
    RequestTimeout,
    Unavailable,
)

_KINDS: dict[type[apsw.Error], tuple[type[MemoturnError], str]] = {
    # The statement ran out of its time budget.
    apsw.InterruptError: (RequestTimeout, "the request took longer than its time budget; it changed nothing"),
    # Another process holds the lock, or the machine is in the way: the same request may succeed later.
    apsw.BusyError: (Unavailable, "the database is locked by another process; try again"),
    apsw.LockedError: (Unavailable, "the database is locked; try again"),
    apsw.ProtocolError: (Unavailable, "the database's lock protocol failed; try again"),
    apsw.SchemaChangeError: (Unavailable, "the database's schema changed under the request; try again"),
    apsw.FullError: (Unavailable, "the disk is full; nothing was written"),
    apsw.IOError: (Unavailable, "the disk failed; nothing was written"),
    apsw.CantOpenError: (Unavailable, "the database file cannot be opened"),
    apsw.PermissionsError: (Unavailable, "the database file's permissions forbid this"),
    apsw.ReadOnlyError: (Unavailable, "the database file is read-only; nothing was written"),
    apsw.NoMemError: (Unavailable, "out of memory; nothing was written"),
    apsw.NoLFSError: (Unavailable, "the file system does not support files this large"),
    # The file is not what it should be: no retry helps, an operator must restore it.
    apsw.CorruptError: (Internal, "the database file is corrupt"),
    apsw.NotADBError: (Internal, "the database file is not a SQLite database"),
    apsw.FormatError: (Internal, "the database file's format is not supported"),
    # What the caller sent broke a rule of the database.
    apsw.ConstraintError: (Conflict, "a constraint of the database was violated"),
    apsw.TooBigError: (PayloadTooLarge, "a value is larger than the database can hold"),
    apsw.MismatchError: (InvalidRequest, "a value has the wrong type for its column"),
}
"""Kinds with a meaning for the caller. Every other `apsw.Error` is a fault of ours: `Internal`."""


def translate(error: Exception) -> MemoturnError:
    """The error of our tree that `error` amounts to; one of the tree is handed back as it is.

    The message never repeats what SQLite or the system said, which may hold paths; that goes to the
    log with the original, which is the `__cause__`.
    """
    if isinstance(error, MemoturnError):
        return error
    translated: MemoturnError = Internal("internal error")
    if isinstance(error, UnicodeEncodeError):
        translated = InvalidRequest("the request holds text that is not valid Unicode")
    if isinstance(error, OSError):
        translated = Unavailable("the storage of this node failed; nothing was written")
    for kind in type(error).__mro__:
        if kind in _KINDS:
            tree_kind, message = _KINDS[kind]
            translated = tree_kind(message)
            break
    translated.__cause__ = error
    return translated
