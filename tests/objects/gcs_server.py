"""As much of Google Cloud Storage's XML interface as `gs://` uses, in this process and in memory.

Generations are its versions: a conditional write carries `x-goog-if-generation-match`, 0 for a create.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 3
"""Objects a page of a listing, few, so that listings have pages."""

MODIFIED = "Fri, 02 Jan 2026 03:04:05 GMT"


@contextmanager
def gcs_server(bucket: str) -> Iterator[str]:
    """The endpoint of a server with one empty bucket."""
    objects: dict[str, tuple[bytes, int]] = {}
    generations = iter(range(1, 1 << 40))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, code: str) -> None:
            self.answer(status, f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode())

        def key(self) -> str | None:
            found, _, key = unquote(urlsplit(self.path).path).removeprefix("/").partition("/")
            if found != bucket:
                self.refuse(404, "NoSuchBucket")
                return None
            return key

        def do_GET(self) -> None:
            key = self.key()
            if key == "":
                self.do_list()
            elif key in objects:
                data, generation = objects[key]
                self.answer(200, data, ETag=f'"{len(data)}"', x_goog_generation=str(generation), Last_Modified=MODIFIED)
            elif key is not None:
                self.refuse(404, "NoSuchKey")

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            key = self.key()
            if key is None:
                return
            wanted = self.headers.get("x-goog-if-generation-match")
            with lock:
                if wanted is not None and objects.get(key, (b"", 0))[1] != int(wanted):
                    self.refuse(412, "PreconditionFailed")
                    return
                objects[key] = data, next(generations)
                generation = objects[key][1]
            self.answer(200, ETag=f'"{len(data)}"', x_goog_generation=str(generation))

        def do_DELETE(self) -> None:
            key = self.key()
            if key is not None and objects.pop(key, None) is None:
                self.refuse(404, "NoSuchKey")
            elif key is not None:
                self.answer(204)

        def do_list(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            after = query.get("continuation-token", "")
            found = sorted(key for key in list(objects) if key.startswith(query.get("prefix", "")) and key > after)
            page = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified>"
                f'<ETag>"e"</ETag><Size>{len(objects[key][0])}</Size></Contents>'
                for key in found[:PAGE]
            )
            more = f"<NextContinuationToken>{escape(found[PAGE - 1])}</NextContinuationToken>" if found[PAGE:] else ""
            body = f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>{page}{more}</ListBucketResult>"
            self.answer(200, body.encode(), Content_Type="application/xml")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
