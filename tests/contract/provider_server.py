"""A provider on a real socket that answers by script, one reply a request, the last one again and again."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What to answer. `held_by` is waited for first; `cut` closes the connection before the last byte."""

    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    held_by: threading.Event | None = None
    cut: bool = False


@dataclass(frozen=True)
class Seen:
    """A request that arrived; the names of its headers are in lower case."""

    path: str
    headers: dict[str, str]
    json: dict[str, Any]


@dataclass(frozen=True)
class Provider:
    url: str
    seen: list[Seen]
    script: list[Reply]
    """Replies still to come; may be replaced while the provider runs."""


def reply(value: object, **kwargs: Any) -> Reply:
    return Reply(json.dumps(value).encode(), **kwargs)


@contextlib.contextmanager
def provider(*script: Reply) -> Iterator[Provider]:
    remaining, seen, lock = list(script), [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen.append(Seen(self.path, headers, json.loads(body)))
                answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            if answer.held_by is not None:
                answer.held_by.wait()
            with contextlib.suppress(ConnectionError):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[:-1] if answer.cut else answer.body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield Provider(f"http://127.0.0.1:{server.server_port}", seen, remaining)
    finally:
        for each in script:
            if each.held_by is not None:
                each.held_by.set()
        server.shutdown()
        thread.join()
        server.server_close()
