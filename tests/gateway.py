"""An HTTP gateway before Elasticsearch, which can answer by itself what it should have passed on."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

# What an ingest pipeline makes of a document, by its `_id` and routing: None lets it pass, else it is the
# bulk item.
Pipeline = Callable[[str, str | None], dict[str, Any] | None]

# As Elasticsearch 8 answers for a document that the processor `drop` has met, and for one that `fail` has.
DROPPED = {"_version": -3, "result": "noop", "status": 200}
FAILED = {"status": 500, "error": {"type": "fail_processor_exception", "reason": "not this one"}}

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
        # The small node has no ingest processors: documents of bulk requests meet this one here.
        self.pipeline: Pipeline | None = None

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
        failed: dict[int, dict[str, Any]] = {}
        if self.server.pipeline is not None and urlsplit(self.path).path == "/_bulk":
            body, failed = _ingest(self.server.pipeline, body)
        if failed and not body:
            headers = {"Content-Type": "application/json", "X-elastic-product": "Elasticsearch"}
            self._send(200, headers, _with_items(b'{"items":[]}', failed, self.path))
            return
        node = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        with contextlib.closing(node):
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            node.request(self.command, self.path, body, headers)
            found = node.getresponse()
            headers = {name: value for name, value in found.getheaders() if name.lower() not in _HOP_BY_HOP}
            text = found.read()
            self._send(found.status, headers, _with_items(text, failed, self.path) if failed else text)

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


def _ingest(pipeline: Pipeline, body: bytes) -> tuple[bytes, dict[int, dict[str, Any]]]:
    """The bulk request without the documents that the pipeline keeps, and their items by position."""
    lines = iter(body.splitlines())
    left: list[bytes] = []
    kept: dict[int, dict[str, Any]] = {}
    for position, line in enumerate(lines):
        ((action, target),) = orjson.loads(line).items()
        if action == "delete":
            left.append(line)
            continue
        source = next(lines)
        item = pipeline(target["_id"], target.get("routing"))
        if item is None:
            left += [line, source]
        else:
            kept[position] = {action: {**target, **item}}
    return b"".join(line + b"\n" for line in left), kept


def _with_items(text: bytes, items: dict[int, dict[str, Any]], path: str) -> bytes:
    """The answer to a bulk request with these items at their positions, with the fields of `filter_path`."""
    answer = orjson.loads(text)
    (wanted,) = parse_qs(urlsplit(path).query)["filter_path"]
    fields = {one.split(".")[2] for one in wanted.split(",")}
    for position, item in sorted(items.items()):
        ((action, found),) = item.items()
        shown = {name: value for name, value in found.items() if name in fields}
        answer["items"].insert(position, {action: shown})
    return orjson.dumps(answer)
