"""JSON over HTTP to one provider: what the embedding and language clients beside this file stand on.

`ProviderClient.post` returns the JSON object the provider answered with, or raises `UpstreamFailure`.
Its message names the provider, the status and at most the kind of a network fault; neither a
credential nor a word of the response gets into it. Every exception of httpx ends here.

- Budget: one `post`, retries and pauses included, takes at most `Endpoint.budget_s`.
- Retries: connection faults, timeouts, 429 and 5xx, at most three attempts. A pause that would outlast
  the budget (`Retry-After` among them) is not begun: the failure is reported at once.
- Circuit: five failed posts in a row open it; for 30 s every post then fails without a request, after
  which one post may probe, and one more each 30 s until a probe succeeds. A request the provider
  rejects (4xx) shows that it is alive, and closes the circuit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import anyio
import httpx
import orjson

from memoturn_schemas.errors import InvalidRequest, UpstreamFailure
from memoturn_storage.ambient import Ambient

FAILURES_TO_OPEN = 5
OPEN_S = 30.0
PAUSES_S = (0.05, 0.1, math.inf)
"""The least pause after each attempt; none is short enough after the last."""

_trust = functools.cache(httpx.create_ssl_context)
"""The trusted certificates, which take 20 ms to read: once a process, at its first request."""

_TRANSIENT = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
_FOREIGN = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError, ExceptionGroup)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is, which of its models to use, and how long one request may take."""

    provider: str
    base_url: str
    """With or without a trailing `/v1`."""
    model: str
    budget_s: float
    api_key: str | None = field(default=None, repr=False)


class ProviderClient:
    """The connection to one endpoint. Used from one event loop; `aclose` ends it."""

    def __init__(self, endpoint: Endpoint, ambient: Ambient, *, headers: Mapping[str, str]) -> None:
        self.name = endpoint.provider
        self._root = endpoint.base_url.rstrip("/").removesuffix("/v1")
        self._budget_s = endpoint.budget_s
        self._headers = {"content-type": "application/json", **headers}
        self._ambient = ambient
        self._circuit = Circuit(ambient)
        self._http: httpx.AsyncClient | None = None

    async def post(self, path: str, payload: Mapping[str, object]) -> dict[str, object]:
        """The JSON object that `path` (from the root: `/v1/...`) answers `payload` with.

        Raises `UpstreamFailure`, or `InvalidRequest` for a payload that JSON cannot carry.
        """
        body = encode(payload)
        if not self._circuit.admits():
            raise self.failure(f"failed {FAILURES_TO_OPEN} times in a row and is left alone for a while")
        try:
            response = await self._response(path, body)
            answer = self.decode(response.content) if response.is_success else None
        except UpstreamFailure:
            self._circuit.failed()
            raise
        self._circuit.answered()
        if answer is None:
            raise self.failure(_answered(response))
        return answer

    @property
    def failing(self) -> bool:
        """Whether its last posts failed, so many in a row that it is left alone for a while."""
        return self._circuit.is_open

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    def failure(self, what: str) -> UpstreamFailure:
        """What to raise when the provider, the grammatical subject, did `what`."""
        return UpstreamFailure(f"The provider {self.name} {what}.")

    def decode(self, text: bytes | str) -> dict[str, object]:
        """The JSON object that `text`, a part of the provider's answer, must be."""
        try:
            value = orjson.loads(text)
        except ValueError:
            raise self.failure("answered with something that is not JSON") from None
        if not isinstance(value, dict):
            raise self.failure("answered with JSON that is not an object")
        return value

    async def _response(self, path: str, body: bytes) -> httpx.Response:
        """The first response that is neither 429 nor 5xx."""
        with anyio.move_on_after(self._budget_s):
            for least_pause_s in PAUSES_S:
                pause_s = least_pause_s
                try:
                    response = await self._connected().post(self._root + path, content=body)
                except _TRANSIENT as error:
                    trouble = f"could not be reached ({type(error).__name__})"
                except _FOREIGN as error:
                    raise self.failure(f"could not be asked ({type(error).__name__})") from None
                else:
                    if response.status_code != 429 and response.status_code < 500:
                        return response
                    trouble = _answered(response)
                    pause_s = max(pause_s, self._retry_after_s(response.headers.get("retry-after", "")))
                if anyio.current_time() + pause_s >= anyio.current_effective_deadline():
                    raise self.failure(trouble)
                await anyio.sleep(pause_s)
        raise self.failure(f"did not answer within {self._budget_s:g} s")

    def _connected(self) -> httpx.AsyncClient:
        if self._http is None:
            # The budget bounds everything; only a connection that never opens is worth another attempt.
            timeout = httpx.Timeout(None, connect=self._budget_s / len(PAUSES_S))
            self._http = httpx.AsyncClient(headers=self._headers, timeout=timeout, verify=_trust())
        return self._http

    def _retry_after_s(self, value: str) -> float:
        """Seconds that a `Retry-After` header, in either of its forms, asks for; 0 if unreadable."""
        if value.isascii() and value.isdecimal():
            return float(value)
        try:
            return parsedate_to_datetime(value).timestamp() - self._ambient.now_ms() / 1000
        except (ValueError, OverflowError):
            return 0.0


class Circuit:
    """Whether a provider is worth asking, judged by its last answers."""

    def __init__(self, ambient: Ambient) -> None:
        self._ambient = ambient
        self._failures = 0
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES_TO_OPEN

    def admits(self) -> bool:
        """Whether to ask now. An open circuit says yes once each `OPEN_S`, to the caller that probes."""
        if not self.is_open:
            return True
        now = self._ambient.monotonic()
        if now < self._probe_at:
            return False
        self._probe_at = now + OPEN_S
        return True

    def answered(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._probe_at = self._ambient.monotonic() + OPEN_S


def encode(value: object) -> bytes:
    """`value` as JSON; `InvalidRequest` if it holds text that is not Unicode (a lone surrogate)."""
    try:
        return orjson.dumps(value)
    except TypeError:
        raise InvalidRequest("The text meant for the provider is not valid Unicode.") from None


def _answered(response: httpx.Response) -> str:
    phrase = httpx.codes.get_reason_phrase(response.status_code)
    return f"answered {response.status_code} {phrase}".rstrip()
