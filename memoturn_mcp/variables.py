"""The settings there are: what each variable of the environment is for, and what it is where it is not set.

`settings` honours these and refuses all others; `memoturn config` shows them. docs/configuration.md says more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variable:
    meaning: str
    default: str | None = None
    """As one would set it; None where nothing set means none, or depends on where."""
    secret: bool = False
    """Whether its value must not be shown."""


VARIABLES: dict[str, Variable] = {
    "MEMOTURN_DATA_DIR": Variable("where this machine's memories lie; by default in the user's data directory"),
    "MEMOTURN_OBJECT_STORE": Variable(
        "where everything is kept: file:///directory, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or"
        " mem://; by default the directory objects in the data directory"
    ),
    "MEMOTURN_DURABILITY": Variable(
        "standard acknowledges a write that is on this machine's disk, durable one that the object store has",
        "standard",
    ),
    "MEMOTURN_BACKLOG_BYTES": Variable(
        "log that may wait for the object store, for each database, before writes are refused", "67108864"
    ),
    "MEMOTURN_IDLE_SECS": Variable("after which an unused database is closed", "60"),
    "MEMOTURN_COLD_SECS": Variable("after which the local files of a closed database are removed", "3600"),
    "MEMOTURN_PITR_RETENTION_SECS": Variable(
        "how far back every transaction can be restored; 0 is without end", "86400"
    ),
    "MEMOTURN_PITR_SNAPSHOT_RETENTION_SECS": Variable("how far back snapshots can be restored", "2592000"),
    "MEMOTURN_GC_GRACE_SECS": Variable("how long objects that nothing needs any more are kept", "600"),
    "MEMOTURN_MAINTENANCE_SECS": Variable("between two looks at what is idle or has expired", "30"),
    "MEMOTURN_LISTEN": Variable("host and port of a node; port 0 takes a free one", "127.0.0.1:8787"),
    "MEMOTURN_INSECURE": Variable("1 lets a node listen beyond loopback although auth is off", "0"),
    "MEMOTURN_ALLOWED_HOSTS": Variable("further Host headers to accept, with commas; {db}. may stand before one"),
    "MEMOTURN_ALLOWED_ORIGINS": Variable("further Origin headers to accept, with commas"),
    "MEMOTURN_NAMESPACE": Variable("whose memories are meant where nothing says so"),
    "MEMOTURN_PROFILE": Variable("the user, agent or project that is meant where nothing says so"),
    "MEMOTURN_SOURCE": Variable("fills a missing source"),
    "MEMOTURN_URL": Variable("a node to use instead of local files"),
    "MEMOTURN_TOKEN": Variable("the token for that node", secret=True),
    "MEMOTURN_TOOLSETS": Variable("the toolsets to list, with commas; by default those of an agent, of a node all"),
    "MEMOTURN_TOOLS": Variable("single tools to list, with commas"),
    "MEMOTURN_EXCLUDE_TOOLS": Variable("tools not to list, with commas"),
    "MEMOTURN_READ_ONLY": Variable("1 lists only tools that change nothing", "0"),
    "MEMOTURN_ENGINE_THREADS": Variable("engine threads", "2"),
    "MEMOTURN_HOT_CAP": Variable("open databases at most", "1024"),
    "MEMOTURN_WRITE_QUEUE_DEPTH": Variable("writes that may wait for one database", "256"),
    "MEMOTURN_VECTOR_MEMORY_BYTES": Variable("what the vector indexes of the process may hold", "268435456"),
    "MEMOTURN_CODE": Variable(
        "off: no snippets are run; auto: the sandbox is prepared when it is first needed; on: at the start", "auto"
    ),
    "MEMOTURN_MAX_BODY_BYTES": Variable("a request's body at most", "33554432"),
    "MEMOTURN_REQUEST_TIMEOUT_MS": Variable("time for a request", "30000"),
    "MEMOTURN_MAX_IN_FLIGHT": Variable("REST requests served at once", "1024"),
    "MEMOTURN_CONTROL_RATE": Variable("requests a second to the control plane", "10"),
    "MEMOTURN_LOG_LEVEL": Variable("debug, info, warning or error", "info"),
    "MEMOTURN_LOG_FILE": Variable("a file for the log, which goes to stderr too; rotated at 10 MiB, five are kept"),
    "MEMOTURN_EMBED_PROVIDER": Variable("local, openai (and compatible servers), voyage or cohere"),
    "MEMOTURN_EMBED_URL": Variable("where to embed; by default the provider's"),
    "MEMOTURN_EMBED_MODEL": Variable("the model to embed with; by default the provider's"),
    "MEMOTURN_EMBED_API_KEY": Variable("the provider's key", secret=True),
    "MEMOTURN_EMBED_TIMEOUT_MS": Variable("time to embed", "2000"),
    "MEMOTURN_LLM_PROVIDER": Variable("anthropic, or openai (and compatible servers)"),
    "MEMOTURN_LLM_URL": Variable("where to ask; by default the provider's"),
    "MEMOTURN_LLM_MODEL": Variable("the model that extracts and answers"),
    "MEMOTURN_LLM_API_KEY": Variable("the provider's key", secret=True),
    "MEMOTURN_LLM_TIMEOUT_MS": Variable("time for one request to it", "30000"),
    "MEMOTURN_AUTH": Variable("on: every request needs a credential", "off"),
    "MEMOTURN_PLATFORM_KEY": Variable("opens the control plane; needed with auth on", secret=True),
    "MEMOTURN_CLUSTER_KEY": Variable("what nodes show each other; follows from the signing key", secret=True),
    "MEMOTURN_AUTH_KEY": Variable("base64 of the key that signs tokens, Ed25519 in PKCS#8", secret=True),
    "MEMOTURN_AUTH_KEY_PREVIOUS": Variable("the one before it, whose tokens still verify", secret=True),
    "MEMOTURN_PERSIST_AUTH_KEY": Variable("1 keeps the signing key in the object store too", "0"),
    "MEMOTURN_SINGLE_NODE": Variable(
        "1 says that no other machine serves the same databases; needed with auth on", "0"
    ),
}
"""In the order in which people are shown them."""
