"""What the environment asks for, checked as a whole before anything starts.

Every variable that begins with `MEMOTURN_` must be one that this version honours: a misspelt or
unsupported one is refused, not ignored. Called by `app` and the CLI.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeVar

import platformdirs

from memoturn_core.access.settings import VARIABLES as KEYS
from memoturn_core.access.settings import AccessSettings
from memoturn_core.providers.settings import ProviderSettings
from memoturn_mcp.variables import VARIABLES
from memoturn_schemas.errors import InvalidRequest
from memoturn_schemas.names import check_name
from memoturn_storage.engine import Limits

T = TypeVar("T")

PREFIX = "MEMOTURN_"
STORE_SCHEMES = ("file://", "s3://", "gs://", "az://", "mem://")
DEFAULT_LISTEN = "127.0.0.1:8787"
DEFAULT_NAME = "default"
"""The namespace and profile of the stdio server where none are set: one person, one machine."""

ALL, DEFAULT = "all", "default"
"""Toolsets beside those of the operations: every tool, and the few that most agents need."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools an MCP server lists: those of the toolsets and the single ones, less the excluded."""

    toolsets: frozenset[str] = frozenset({DEFAULT})
    tools: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8787
    namespace: str | None = None
    profile: str | None = None
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    platform_key: str | None = field(default=None, repr=False)
    """What opens the control plane of the node at `url`; that of this node is in `access`."""
    object_store: str | None = None
    """URL; None: the directory `objects` in the data directory."""
    durable: bool = False
    limits: Limits = field(default_factory=lambda: Limits(hot_cap=1_024))
    vector_memory_bytes: int = 256 << 20
    """What the vector indexes of the process may hold."""
    code: str = "auto"
    """Whether snippets are run: `off`, `auto` or `on`, with which the sandbox is prepared at the start."""
    max_body_bytes: int = 32 * 1024 * 1024
    request_timeout_s: float = 30.0
    max_in_flight: int = 1_024
    control_rate: int = 10
    """Requests a second to the control plane; twice as many at once."""
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()
    log_level: str = "info"
    log_file: Path | None = None
    toolsets: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()
    excluded_tools: frozenset[str] = frozenset()
    read_only: bool = False
    providers: ProviderSettings = field(default_factory=ProviderSettings)
    access: AccessSettings | None = None
    """The keys of a node with auth on; None while it is off."""

    def tool_choice(self, otherwise: str) -> ToolChoice:
        """What was asked for, or the toolset `otherwise` where neither toolsets nor tools were."""
        toolsets = self.toolsets or (frozenset() if self.tools else frozenset({otherwise}))
        return ToolChoice(toolsets, self.tools, self.excluded_tools, self.read_only)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read and check everything.

        Raises:
            InvalidRequest: names the variable and says what would be right.
        """
        _refuse_unknown(environ)
        access = _access(environ)
        host, port = _listen(environ.get("MEMOTURN_LISTEN", DEFAULT_LISTEN))
        insecure = _flag(environ, "MEMOTURN_INSECURE")
        if not is_loopback(host) and access is None and not insecure:
            raise InvalidRequest(
                f"MEMOTURN_LISTEN: {host} is reachable from other machines and auth is off; set MEMOTURN_AUTH=on,"
                " listen on 127.0.0.1, or set MEMOTURN_INSECURE=1 behind a proxy that checks access"
            )
        default = cls(data_dir=_path(environ, "MEMOTURN_DATA_DIR") or default_data_dir())
        return replace(
            default,
            host=host,
            port=port,
            namespace=_name(environ, "MEMOTURN_NAMESPACE"),
            profile=_name(environ, "MEMOTURN_PROFILE"),
            url=_url(environ),
            token=environ.get("MEMOTURN_TOKEN") or None,
            platform_key=(environ.get("MEMOTURN_PLATFORM_KEY") or None) if environ.get("MEMOTURN_URL") else None,
            object_store=_object_store(environ),
            durable=_one_of(environ, "MEMOTURN_DURABILITY", "standard", ("standard", "durable")) == "durable",
            limits=_limits(environ, default.limits),
            vector_memory_bytes=_integer(environ, "MEMOTURN_VECTOR_MEMORY_BYTES", default.vector_memory_bytes, 1 << 20),
            code=_one_of(environ, "MEMOTURN_CODE", default.code, ("off", "auto", "on")),
            max_body_bytes=_integer(environ, "MEMOTURN_MAX_BODY_BYTES", default.max_body_bytes, 1_024),
            request_timeout_s=_integer(
                environ, "MEMOTURN_REQUEST_TIMEOUT_MS", round(default.request_timeout_s * 1_000), 1
            )
            / 1_000,
            max_in_flight=_integer(environ, "MEMOTURN_MAX_IN_FLIGHT", default.max_in_flight, 1),
            control_rate=_integer(environ, "MEMOTURN_CONTROL_RATE", default.control_rate, 1),
            allowed_hosts=_words(environ, "MEMOTURN_ALLOWED_HOSTS"),
            allowed_origins=_words(environ, "MEMOTURN_ALLOWED_ORIGINS"),
            log_level=_one_of(environ, "MEMOTURN_LOG_LEVEL", default.log_level, ("debug", "info", "warning", "error")),
            log_file=_path(environ, "MEMOTURN_LOG_FILE"),
            tools=_words(environ, "MEMOTURN_TOOLS"),
            toolsets=_words(environ, "MEMOTURN_TOOLSETS"),
            excluded_tools=_words(environ, "MEMOTURN_EXCLUDE_TOOLS"),
            read_only=_flag(environ, "MEMOTURN_READ_ONLY"),
            providers=ProviderSettings.from_environment(environ),
            access=access,
        )


def default_source() -> str | None:
    """Who fills a missing `source`; read at each call, since a client may set it late."""
    return os.environ.get("MEMOTURN_SOURCE") or None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidRequest(f"{name}: this version has no such setting{hint}")


def _access(environ: Mapping[str, str]) -> AccessSettings | None:
    """Half a configuration is refused: a node that was meant to be closed must not start open.

    Who asks a node elsewhere serves nobody and needs none, though the shell may hold that node's variables.
    """
    if environ.get("MEMOTURN_URL"):
        return None
    single_node, persist = (_flag(environ, f"MEMOTURN_{name}") for name in ("SINGLE_NODE", "PERSIST_AUTH_KEY"))
    if _one_of(environ, "MEMOTURN_AUTH", "off", ("off", "on")) == "off":
        for name in KEYS:
            if environ.get(name):
                raise InvalidRequest(f"{name}: means nothing while auth is off; set MEMOTURN_AUTH=on, or unset it")
        return None
    access = AccessSettings.from_environment(environ, persist=persist)
    if not single_node:
        raise InvalidRequest(
            "MEMOTURN_SINGLE_NODE: must be 1 with MEMOTURN_AUTH=on, for this version has no leases between machines:"
            " no other machine may serve the same databases"
        )
    return access


def _limits(environ: Mapping[str, str], default: Limits) -> Limits:
    def whole(name: str, otherwise: float, least: int) -> int:
        return _integer(environ, PREFIX + name, round(otherwise), least)

    return replace(
        default,
        threads=whole("ENGINE_THREADS", default.threads, 1),
        hot_cap=whole("HOT_CAP", default.hot_cap, 1),
        queue_depth=whole("WRITE_QUEUE_DEPTH", default.queue_depth, 1),
        backlog_bytes=whole("BACKLOG_BYTES", default.backlog_bytes, 1 << 20),
        idle_s=whole("IDLE_SECS", default.idle_s, 1),
        cold_s=whole("COLD_SECS", default.cold_s, 1),
        grace_s=whole("GC_GRACE_SECS", default.grace_s, 1),
        fine_s=whole("PITR_RETENTION_SECS", default.fine_s, 0),
        snapshots_s=whole("PITR_SNAPSHOT_RETENTION_SECS", default.snapshots_s, 0),
        upkeep_s=whole("MAINTENANCE_SECS", default.upkeep_s, 1),
    )


def _object_store(environ: Mapping[str, str]) -> str | None:
    url = environ.get("MEMOTURN_OBJECT_STORE") or None
    if url is not None and not url.startswith(STORE_SCHEMES):
        schemes = ", ".join(STORE_SCHEMES)
        raise InvalidRequest(f"MEMOTURN_OBJECT_STORE: must start with one of {schemes}, not {url!r}")
    return url


def default_data_dir() -> Path:
    return Path(platformdirs.user_data_dir("memoturn", appauthor=False))


def _path(environ: Mapping[str, str], variable: str) -> Path | None:
    given = environ.get(variable)
    return Path(given).expanduser().absolute() if given else None


def _listen(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidRequest(f"MEMOTURN_LISTEN: must be HOST:PORT, for example {DEFAULT_LISTEN}, not {text!r}")
    return host, int(port)


def _url(environ: Mapping[str, str]) -> str | None:
    url = environ.get("MEMOTURN_URL") or None
    if url is not None and not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"MEMOTURN_URL: must start with http:// or https://, not {url!r}")
    return url


def _name(environ: Mapping[str, str], variable: str) -> str | None:
    return _checked(variable, environ[variable], check_name) if environ.get(variable) else None


def _integer(environ: Mapping[str, str], variable: str, default: int, least: int) -> int:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)

    return _checked(variable, environ[variable], parse) if environ.get(variable) else default


def _flag(environ: Mapping[str, str], variable: str) -> bool:
    return _one_of(environ, variable, "0", ("0", "1", "false", "true")) in ("1", "true")


def _one_of(environ: Mapping[str, str], variable: str, default: str, choices: tuple[str, ...]) -> str:
    value = (environ.get(variable) or default).lower()
    if value not in choices:
        raise InvalidRequest(f"{variable}: must be one of {', '.join(choices)}, not {value!r}")
    return value


def _words(environ: Mapping[str, str], variable: str) -> frozenset[str]:
    return frozenset(word.strip() for word in environ.get(variable, "").split(",") if word.strip())


def _checked(variable: str, text: str, check: Callable[[str], T]) -> T:
    try:
        return check(text)
    except ValueError as error:
        raise InvalidRequest(f"{variable}: {error}") from None
