"""An HTTP gateway before Elasticsearch, which can answer by itself what it should have passed on."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


class Answer:
    """What the gateway says: a status, a content type, a body, and whether it looks like Elasticsearch."""

    def __init__(
        self, status: int, body: bytes = b"<h1>Oops</h1>", kind: str = "text/html", *, product: bool = False
    ) -> None:
        self.status = status
        self.body = body
        self.kind = kind
        self.product = product


class Gateway(ThreadingHTTPServer):
    """Passes requests on to 127.0.0.1:`port` while `answer` returns None for their method and path."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = port
        self.answer: Callable[[str, str], Answer | None] = lambda method, path: None
        self.answered: list[str] = []
        # Bytes of a request body; a larger one is rejected.
        self.limit: int | None = None

    def __enter__(self) -> Gateway:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fail(self, answer: Answer, path: str = "") -> None:
        """Answer every request whose path contains `path` like this, until `pass_on`."""
        self.answer = lambda method, asked: answer if path in asked else None

    def pass_on(self) -> None:
        self.answer = lambda method, path: None

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is no fault of the test


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = self.server.answer(self.command, self.path)
        if self.server.limit is not None and len(body) > self.server.limit:
            answer = Answer(413)
        if answer is not None:
            self.server.answered.append(f"{self.command} {self.path}")
            headers = {"Content-Type": answer.kind}
            if answer.product:
                headers["X-elastic-product"] = "Elasticsearch"
            self._send(answer.status, headers, answer.body)
            return
        node = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        with contextlib.closing(node):
            node.request(self.command, self.path, body, dict(self.headers.items()))
            found = node.getresponse()
            headers = {name: value for name, value in found.getheaders() if name.lower() not in _HOP_BY_HOP}
            self._send(found.status, headers, found.read())

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
