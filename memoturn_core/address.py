"""What a request is about: a node, a namespace, or one branch of one database.

Made by the surfaces from paths, headers, arguments and defaults; checked here, so that a bad name is
the same error everywhere and nothing is created for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.names import check_branch, check_database, check_name
from memoturn_storage.manifest import MAIN as MAIN


@dataclass(frozen=True, slots=True)
class Address:
    """`database` is None for a namespace, both are None for the node."""

    namespace: str | None = None
    database: str | None = None
    branch: str = MAIN
    may_create: bool = False
    """Whether a first write may create the database."""

    @classmethod
    def of_namespace(cls, namespace: str) -> Self:
        return cls(namespace=_checked("namespace", namespace, check_name))

    @classmethod
    def of_profile(cls, namespace: str, profile: str, branch: str | None = None) -> Self:
        _checked("namespace", namespace, check_name)
        _checked("profile", profile, check_name)
        return cls(
            namespace=namespace,
            database=f"{namespace}--{profile}",
            branch=_checked("branch", branch or MAIN, check_branch),
            may_create=True,
        )

    @classmethod
    def of_database(cls, spec: str, branch: str | None = None) -> Self:
        """`spec` is `name` or `name@branch`; `branch`, where given, wins."""
        name, at, of_spec = spec.partition("@")
        _checked("db", name, check_database)
        if at:
            _checked("db", of_spec, check_branch)
        namespace, separator, _ = name.partition("--")
        return cls(
            namespace=namespace if separator else None,
            database=name,
            branch=_checked("branch", branch or of_spec or MAIN, check_branch),
        )


NODE = Address()


def _checked(field: str, value: str, check: Callable[[str], str]) -> str:
    try:
        return check(value)
    except ValueError as error:
        raise InvalidRequest(f"{field}: {error}") from None
