"""Which providers a node uses, read once at its start by the composition root.

Nothing is configured unless `MEMOTURN_EMBED_PROVIDER` or `MEMOTURN_LLM_PROVIDER` names a provider; for
each, `…_URL`, `…_MODEL`, `…_API_KEY` and `…_TIMEOUT_MS` say the rest. An empty value counts as unset. A
value that cannot be honoured is refused here, by the name of its variable, and never at the first
request; no value is repeated in a message, for it may be a credential.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import httpx

from memoturn_core.providers import minilm
from memoturn_core.providers.cohere import CohereEmbedder
from memoturn_core.providers.embedding import Embedder, OpenAIEmbedder, VoyageEmbedder
from memoturn_core.providers.http import Endpoint
from memoturn_core.providers.language import AnthropicModel, LanguageModel, OpenAIModel
from memoturn_core.providers.local import LocalEmbedder
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import Ambient

EMBED_TIMEOUT_MS = 2_000
LLM_TIMEOUT_MS = 30_000

_LOCAL = "local"
"""The provider that is in this process: it has neither a URL nor a key."""

_EMBEDDERS: dict[str, Callable[[Endpoint, Ambient], Embedder]] = {
    "cohere": CohereEmbedder,
    _LOCAL: lambda endpoint, _: LocalEmbedder(endpoint.budget_s),
    "openai": OpenAIEmbedder,
    "voyage": VoyageEmbedder,
}
_LANGUAGE_MODELS: dict[str, Callable[[Endpoint, Ambient], LanguageModel]] = {
    "anthropic": AnthropicModel,
    "openai": OpenAIModel,
}
_PUBLIC_URLS = {
    "anthropic": "https://api.anthropic.com",
    "cohere": "https://api.cohere.com",
    "openai": "https://api.openai.com",
    "voyage": "https://api.voyageai.com",
}
_EMBED_MODELS = {"cohere": "embed-v4.0", "openai": "text-embedding-3-small", "voyage": "voyage-3.5"}
"""The default where a provider's public service is used; language models come and go too fast for one."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """The endpoints of a node; `None` where it has no provider."""

    embedding: Endpoint | None = None
    language: Endpoint | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ProviderSettings:
        """The settings `environ` holds; `InvalidRequest` names the variable that cannot be honoured."""
        return cls(
            embedding=_endpoint(environ, "MEMOTURN_EMBED", _EMBEDDERS, EMBED_TIMEOUT_MS, _EMBED_MODELS),
            language=_endpoint(environ, "MEMOTURN_LLM", _LANGUAGE_MODELS, LLM_TIMEOUT_MS, {}),
        )


def make_embedder(settings: ProviderSettings, ambient: Ambient) -> Embedder | None:
    endpoint = settings.embedding
    return None if endpoint is None else _EMBEDDERS[endpoint.provider](endpoint, ambient)


def make_language_model(settings: ProviderSettings, ambient: Ambient) -> LanguageModel | None:
    endpoint = settings.language
    return None if endpoint is None else _LANGUAGE_MODELS[endpoint.provider](endpoint, ambient)


def _endpoint(
    environ: Mapping[str, str],
    prefix: str,
    providers: Iterable[str],
    timeout_ms: int,
    models: Mapping[str, str],
) -> Endpoint | None:
    def value(name: str) -> str:
        return environ.get(f"{prefix}_{name}", "").strip()

    def refusal(name: str, rule: str) -> InvalidRequest:
        return InvalidRequest(f"{prefix}_{name} {rule}.")

    provider, url, key = value("PROVIDER"), value("URL"), value("API_KEY")
    budget_ms = value("TIMEOUT_MS") or str(timeout_ms)
    if not re.fullmatch(r"[1-9][0-9]{0,8}", budget_ms):
        raise refusal("TIMEOUT_MS", f"must be a whole number of milliseconds above 0, such as {timeout_ms}")
    budget_s = int(budget_ms) / 1000
    if url and not _is_base_url(url):
        raise refusal("URL", "must be an http or https URL without credentials, query or fragment")
    if not (key.isascii() and key.isprintable()):
        raise refusal("API_KEY", "must consist of printable ASCII characters")
    if not provider:
        return None
    if provider not in providers:
        raise refusal("PROVIDER", f"must be one of {', '.join(providers)}, or unset for none")
    if provider == _LOCAL:
        for name in ("URL", "API_KEY"):
            if value(name):
                raise refusal(name, f"must be unset with {prefix}_PROVIDER={_LOCAL}, which asks nobody")
        if value("MODEL") not in ("", minilm.MODEL):
            raise refusal("MODEL", f"must be {minilm.MODEL} or unset with {prefix}_PROVIDER={_LOCAL}")
        commands = minilm.missing()
        if commands:
            raise refusal("PROVIDER", f"must not be {_LOCAL} before you `{'` and `'.join(commands)}`")
        return Endpoint(provider, base_url="", model=minilm.MODEL, budget_s=budget_s)
    if not url and not key:
        raise refusal("API_KEY", f"must be set to use {_PUBLIC_URLS[provider]}")
    model = value("MODEL") or ("" if url else models.get(provider, ""))
    if not model:
        raise refusal("MODEL", "must name the model to use")
    return Endpoint(
        provider=provider,
        base_url=url or _PUBLIC_URLS[provider],
        model=model,
        budget_s=budget_s,
        api_key=key or None,
    )


def _is_base_url(url: str) -> bool:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    reachable = bool(parts.host) and (parts.port is None or 0 < parts.port < 65536)
    plain = not (parts.userinfo or "?" in url or "#" in url)
    return parts.scheme in ("http", "https") and reachable and plain
