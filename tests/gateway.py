"""An HTTP gateway in front of Elasticsearch that can send responses of its own."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.stub_server import ELASTICSEARCH, Request, Response, StubServer

# Simulates an ingest pipeline: called with the `_id` and the routing of a document, it returns None to pass
# the document, or the result of its bulk action.
Pipeline = Callable[[str, str | None], dict[str, Any] | None]

# The results of Elasticsearch 8 for a document in a pipeline with the processor `drop`, and with `fail`.
DROPPED = {"_version": -3, "result": "noop", "status": 200}
FAILED = {"status": 500, "error": {"type": "fail_processor_exception", "reason": "not this one"}}

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


class Gateway(StubServer):
    """A gateway to 127.0.0.1:`port`; `override` and `max_body_bytes` define which requests it responds to
    itself."""

    def __init__(self, port: int) -> None:
        super().__init__(self._respond)
        self.target = port
        self.override: Callable[[Request], Response | None] = lambda request: None
        # A larger request is rejected with 413.
        self.max_body_bytes: int | None = None
        # The embedded node has no ingest processors: documents in bulk requests pass this one here.
        self.pipeline: Pipeline | None = None
        # The requests that were not forwarded, as method and path.
        self.overridden: list[str] = []

    def send_always(self, response: Response, path: str = "") -> None:
        """Send this response to every request whose path contains `path`, until `forward_all`."""
        self.override = lambda request: response if path in request.path else None

    def forward_all(self) -> None:
        """Forward all requests again."""
        self.override = lambda request: None

    def _respond(self, request: Request) -> Response:
        response = self.override(request)
        if self.max_body_bytes is not None and len(request.body) > self.max_body_bytes:
            response = Response(413, b"<h1>Too large</h1>", {"Content-Type": "text/html"})
        if response is not None:
            self.overridden.append(f"{request.method} {request.path}")
            return response
        body, results = request.body, dict[int, dict[str, Any]]()
        if self.pipeline is not None and urlsplit(request.path).path == "/_bulk":
            body, results = _ingest(self.pipeline, body)
        if results and not body:
            return Response(200, _insert_results(b'{"items":[]}', results, request.path), ELASTICSEARCH)
        forwarded = self._forward(request, body)
        if results:
            return Response(
                forwarded.status, _insert_results(forwarded.body, results, request.path), forwarded.headers
            )
        return forwarded

    def _forward(self, request: Request, body: bytes) -> Response:
        node = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        with contextlib.closing(node):
            node.request(request.method, request.path, body, _end_to_end(request.headers.items()))
            response = node.getresponse()
            headers = _end_to_end(response.getheaders())
            return Response(response.status, response.read(), headers)


def _end_to_end(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in _HOP_BY_HOP}


def _ingest(pipeline: Pipeline, body: bytes) -> tuple[bytes, dict[int, dict[str, Any]]]:
    """Return a bulk request without the documents that the pipeline stops, and their results by position."""
    lines = iter(body.splitlines())
    passed: list[bytes] = []
    results: dict[int, dict[str, Any]] = {}
    for position, line in enumerate(lines):
        ((action, target),) = orjson.loads(line).items()
        if action == "delete":
            passed.append(line)
            continue
        source = next(lines)
        result = pipeline(target["_id"], target.get("routing"))
        if result is None:
            passed += [line, source]
        else:
            results[position] = {action: {**target, **result}}
    return b"".join(line + b"\n" for line in passed), results


def _insert_results(text: bytes, results: dict[int, dict[str, Any]], path: str) -> bytes:
    """Return a bulk response with these results at their positions, limited to the fields of
    `filter_path`."""
    response = orjson.loads(text)
    (filter_path,) = parse_qs(urlsplit(path).query)["filter_path"]
    fields = {part.split(".")[2] for part in filter_path.split(",")}
    for position, result in sorted(results.items()):
        ((action, values),) = result.items()
        response["items"].insert(
            position, {action: {name: values[name] for name in values if name in fields}}
        )
    return orjson.dumps(response)
