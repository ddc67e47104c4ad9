"""Snippets sent to a served node, alone and many at once."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

SHAPES = {
    "success": {"type", "output", "stdout", "stderr", "execution_time_ms"},
    "error": {"type", "message", "error_type", "stdout", "stderr"},
    "timeout": {"type", "elapsed_ms", "partial_output"},
    "security_violation": {"type", "reason", "violation_type"},
}
"""The fields of each result, all of which it has."""


class Snippets:
    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def post(self, code: str, **more: Any) -> httpx.Response:
        return self.http.post("/v1/code/execute", json={"code": code, **more})

    def run(self, code: str, **more: Any) -> dict[str, Any]:
        """The result of a request that is certainly right."""
        response = self.post(code, **{"preset": "restrictive", **more})
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        assert set(result) == SHAPES[result["type"]], result
        assert "/work" not in response.text and "site-packages" not in response.text, "a path of this machine"
        return result

    def output(self, code: str, **more: Any) -> Any:
        """What a snippet gives that runs to its end."""
        result = self.run(code, **more)
        assert result["type"] == "success", result
        return result["output"]

    def at_once(self, codes: Iterable[str], **more: Any) -> list[dict[str, Any]]:
        codes = list(codes)
        with ThreadPoolExecutor(len(codes)) as threads:
            return list(threads.map(lambda code: self.run(code, **more), codes))


def hidden(code: str) -> str:
    """The same snippet in a form of which the static check sees nothing; the value of its `got` is the output."""
    return f"got = None\nexec(bytes.fromhex('{code.encode().hex()}').decode(), globals())\ngot"


def kind(result: dict[str, Any]) -> str:
    """A result in two words at most."""
    more = result.get("error_type") or result.get("violation_type")
    return f"{result['type']} {more}" if more else str(result["type"])
