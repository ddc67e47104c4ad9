"""Which operation a REST request means: the registry's paths, matched on the undecoded URL.

Segments are split before they are percent-decoded, so that a session id may hold a `/` (`%2F`) and a
name may not smuggle one. Called by `rest` and `openapi`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from memoturn_core.operations import Operation, Rest, Target
from memoturn_core.registry import OPERATIONS
from memoturn_schemas.errors import InvalidRequest, MethodNotAllowed, NotFound

ADDRESS_PARTS = frozenset({"namespace", "profile", "db"})


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path of an operation."""

    operation: Operation
    rest: Rest
    path: str

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"\{(\w+)\}", self.path)

    @property
    def control(self) -> bool:
        """Whether it belongs to the control plane, which has its own credentials and limits."""
        return self.operation.control or self.path.startswith("/v1/databases/")

    @property
    def bare(self) -> str | None:
        """The path without its database, where it is served so too."""
        below = f"{Target.DATABASE.prefix}/"
        return self.path.replace(below, "/v1/") if self.path.startswith(below) else None


def all_routes() -> Iterator[Route]:
    for operation in OPERATIONS.values():
        rest = operation.rest
        if rest is not None:
            yield Route(operation, rest, (rest.at or operation.target.prefix) + rest.path)
            if rest.also_at is not None:
                yield Route(operation, rest, rest.also_at + rest.path)
            if rest.below_profile is not None:
                yield Route(operation, rest, Target.PROFILE.prefix + rest.below_profile)


class Router:
    """Finds a request's route. Fixed segments win over parameters."""

    def __init__(self) -> None:
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in all_routes():
            by_path.setdefault(route.path, {})[route.rest.method] = route
        for path in sorted(by_path, key=lambda path: path.count("{")):
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
            self._patterns.append((re.compile(pattern), by_path[path]))

    def match(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route, and the decoded parameters of its path.

        Raises:
            NotFound: no route has this path. MethodNotAllowed: none has it with this method.
            InvalidRequest: a segment does not decode to UTF-8.
        """
        allowed: set[str] = set()
        for pattern, by_method in self._patterns:
            found = pattern.fullmatch(raw_path)
            if found is None:
                continue
            if method in by_method:
                return by_method[method], {name: _decoded(name, value) for name, value in found.groupdict().items()}
            allowed |= by_method.keys()
        if allowed:
            raise MethodNotAllowed(f"{method} is not allowed here; allowed: {', '.join(sorted(allowed))}")
        raise NotFound(f"there is no route {method} {raw_path[:200]}")


def _decoded(name: str, segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name}: the path does not decode to UTF-8") from None
