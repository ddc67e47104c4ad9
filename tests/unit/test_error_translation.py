"""Every error of SQLite and of the system comes out as one of ours, saying nothing of the host."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from contract.statuses import STATUSES as CONTRACT
from memoturn_schemas import errors
from memoturn_schemas.errors import (
    AlreadyExists,
    BranchNotFound,
    Conflict,
    DatabaseNotFound,
    Forbidden,
    Internal,
    InvalidRequest,
    MemoturnError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    Unconfigured,
    UpstreamFailure,
)
from memoturn_storage.errors import translate

SQLITE: dict[str, type[MemoturnError]] = {
    # SQLite's result codes, in the order of their numbers.
    "SQLError": Internal,
    "InternalError": Internal,
    "PermissionsError": Unavailable,
    "AbortError": Internal,
    "BusyError": Unavailable,
    "LockedError": Unavailable,
    "NoMemError": Unavailable,
    "ReadOnlyError": Unavailable,
    "InterruptError": RequestTimeout,
    "IOError": Unavailable,
    "CorruptError": Internal,
    "NotFoundError": Internal,
    "FullError": Unavailable,
    "CantOpenError": Unavailable,
    "ProtocolError": Unavailable,
    "EmptyError": Internal,
    "SchemaChangeError": Unavailable,
    "TooBigError": PayloadTooLarge,
    "ConstraintError": Conflict,
    "MismatchError": InvalidRequest,
    "MisuseError": Internal,
    "NoLFSError": Unavailable,
    "AuthError": Internal,
    "FormatError": Internal,
    "RangeError": Internal,
    "NotADBError": Internal,
    # What apsw itself raises: always a fault of the program.
    "ThreadingViolationError": Internal,
    "IncompleteExecutionError": Internal,
    "BindingsError": Internal,
    "ExecutionCompleteError": Internal,
    "ExecTraceAbort": Internal,
    "ExtensionLoadingError": Internal,
    "ConnectionNotClosedError": Internal,
    "ConnectionClosedError": Internal,
    "CursorClosedError": Internal,
    "VFSNotImplementedError": Internal,
    "VFSFileClosedError": Internal,
    "ForkingViolationError": Internal,
    "NoFTS5Error": Internal,
    "InvalidContextError": Internal,
}

KINDS: dict[type[MemoturnError], tuple[str, int, int, bool]] = {
    # kind: code, HTTP status, exit code, whether the same request may succeed later
    MemoturnError: ("internal", 500, 1, False),
    InvalidRequest: ("invalid_request", 400, 2, False),
    MethodNotAllowed: ("invalid_request", 405, 2, False),
    PayloadTooLarge: ("payload_too_large", 413, 2, False),
    NotFound: ("not_found", 404, 3, False),
    DatabaseNotFound: ("database_not_found", 404, 3, False),
    BranchNotFound: ("branch_not_found", 404, 3, False),
    Conflict: ("conflict", 409, 4, False),
    AlreadyExists: ("already_exists", 409, 4, False),
    Unauthorized: ("unauthorized", 401, 5, False),
    Forbidden: ("forbidden", 403, 5, False),
    RequestTimeout: ("request_timeout", 408, 7, True),
    Overloaded: ("overloaded", 429, 6, True),
    Unavailable: ("unavailable", 503, 6, True),
    Unconfigured: ("unconfigured", 503, 6, False),
    Internal: ("internal", 500, 1, False),
    UpstreamFailure: ("internal", 502, 6, True),
}

SECRET = "/home/somebody/secret.db: SELECT password FROM accounts"


def below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from below(subclass)


def test_the_table_names_every_error_of_apsw() -> None:
    assert {kind.__name__ for kind in below(apsw.Error) if kind.__module__ == "apsw"} == set(SQLITE)
    assert len(SQLITE) == 40


@pytest.mark.parametrize("name", SQLITE)
def test_each_error_of_apsw_has_its_kind_and_tells_nothing_of_the_host(name: str) -> None:
    original = getattr(apsw, name)(SECRET)
    translated = translate(original)
    assert type(translated) is SQLITE[name]
    assert translated.__cause__ is original
    assert str(translated)
    for word in ("secret", "somebody", "/", "SELECT", "password"):
        assert word not in str(translated)


def test_a_kind_that_a_later_apsw_adds_is_taken_for_the_nearest_that_is_known() -> None:
    class NewerIOError(apsw.IOError):
        pass

    class NewerError(apsw.Error):
        pass

    assert type(translate(NewerIOError(SECRET))) is Unavailable
    assert type(translate(NewerError(SECRET))) is Internal
    assert type(translate(apsw.Error(SECRET))) is Internal


@pytest.mark.parametrize("kind", [OSError, FileNotFoundError, PermissionError, TimeoutError, BlockingIOError])
def test_an_error_of_the_system_is_unavailable(kind: type[OSError]) -> None:
    original = kind(28, "No space left", "/home/somebody/secret.db")
    translated = translate(original)
    assert type(translated) is Unavailable
    assert translated.__cause__ is original
    assert "secret" not in str(translated)
    assert "No space" not in str(translated)


def test_text_that_no_encoding_has_is_the_callers_fault() -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        "secret \ud800".encode()
    translated = translate(raised.value)
    assert type(translated) is InvalidRequest
    assert "secret" not in str(translated)


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError, AssertionError, TypeError, MemoryError])
def test_any_other_error_is_a_fault_of_ours(kind: type[Exception]) -> None:
    original = kind(SECRET)
    translated = translate(original)
    assert type(translated) is Internal
    assert translated.__cause__ is original
    assert "secret" not in str(translated)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_our_tree_is_handed_back_as_it_is(kind: type[MemoturnError]) -> None:
    original = kind("said to the caller")
    assert translate(original) is original
    assert original.__cause__ is None


def test_the_table_names_every_kind_of_the_tree() -> None:
    declared = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MemoturnError)}
    assert declared == set(KINDS)
    assert {MemoturnError, *(kind for kind in below(MemoturnError) if kind.__module__ == errors.__name__)} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_the_code_and_the_status_of_the_contract(kind: type[MemoturnError]) -> None:
    assert (kind.code, kind.status, kind.exit_code, kind.retryable) == KINDS[kind]
    assert kind.status in CONTRACT[kind.code]
    assert kind("what is wrong").envelope() == {"error": "what is wrong", "code": kind.code}


def test_the_tree_has_all_codes_and_all_statuses_of_the_contract() -> None:
    raised: dict[str, set[int]] = {}
    for kind in KINDS:
        raised.setdefault(kind.code, set()).add(kind.status)
    assert raised == CONTRACT
    assert set(errors.ErrorCode.__args__) == set(CONTRACT)
    assert len(CONTRACT) == 14


def test_only_overload_says_when_to_come_back() -> None:
    assert Overloaded("full").retry_after_s == 1
    assert Overloaded("full", retry_after_s=7).retry_after_s == 7
