"""A provider on a real socket that speaks Voyage's protocol and computes: each model has a space of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIMENSIONS = {"ant": 6, "bee": 6, "cow": 9}
"""Of the models that there are."""


def vector(model: str, text: str) -> list[float]:
    """Small whole numbers, so that they are the same in float32."""
    digest = hashlib.sha256(f"{model} {text}".encode()).digest()
    return [float(byte) - 128 or 1.0 for byte in digest[: DIMENSIONS[model]]]


@dataclass
class Embeddings:
    url: str = ""
    failing: set[str] = field(default_factory=set)
    """What it fails to embed: `query`, `document`."""
    batches: list[Sequence[str]] = field(default_factory=list)
    """The documents that it embedded."""


@contextlib.contextmanager
def embedding_server() -> Iterator[Embeddings]:
    state = Embeddings()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            rows = [
                {"index": index, "embedding": vector(asked["model"], text)} for index, text in enumerate(asked["input"])
            ]
            fails = asked["input_type"] in state.failing
            if asked["input_type"] == "document" and not fails:
                state.batches.append(asked["input"])
            body = json.dumps({"data": rows}).encode()
            self.send_response(400 if fails else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
