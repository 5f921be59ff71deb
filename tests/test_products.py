"""Relatives of Elasticsearch at --es end the start with one line. The answers are made after real ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from slurp.config import parse
from slurp.elastic.client import Elastic, wait_until_ready
from slurp.errors import Exit, Fatal
from slurp.logs import Secrets

Answer = tuple[int, dict[str, str], Any]

_HEALTH = {"cluster_name": "docker-cluster", "status": "green", "number_of_nodes": 1}
_REASON = "Request for uri [/_cluster/health] with method [GET] exists but is not available when running in "
_SERVERLESS = {"type": "api_not_available_exception", "reason": f"{_REASON}serverless mode"}


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


_JSON = {"Content-Type": "application/json; charset=UTF-8"}
_OPENSEARCH = _HEALTH | {"discovered_master": True, "discovered_cluster_manager": True}


def denied(realm: str) -> Answer:
    headers = {"Content-Type": "text/plain; charset=UTF-8", "WWW-Authenticate": f'Basic realm="{realm}"'}
    return 401, headers, "Unauthorized"


@pytest.mark.parametrize(
    ("answer", "product"),
    [
        (
            (200, _JSON, _OPENSEARCH),
            "OpenSearch",
        ),
        (denied("OpenSearch Security"), "OpenSearch"),
        (
            (
                410,
                {**_JSON, "X-Elastic-Product": "Elasticsearch"},
                {"error": {"root_cause": [_SERVERLESS], **_SERVERLESS}, "status": 410},
            ),
            "Elastic Cloud Serverless",
        ),
    ],
)
def test_a_relative_of_elasticsearch_is_named_at_once(answer: Answer, product: str) -> None:
    with answering(answer) as url:
        config = parse(["--es", url, "--wait", "3s"], {"HOME": "/"})
        elastic = Elastic(config, Secrets(()))
        with pytest.raises(
            Fatal, match=f"^--es: {product} is not supported: .*; use Elasticsearch 8.9"
        ) as stop:
            wait_until_ready(elastic, config, threading.Event())
        assert stop.value.code is Exit.FAILED
        elastic.close()


def test_another_answer_is_waited_for() -> None:
    with answering(denied("gateway")) as url:
        config = parse(["--es", url, "--wait", "300ms"], {"HOME": "/"})
        elastic = Elastic(config, Secrets(()))
        with pytest.raises(Fatal, match="is not Elasticsearch"):
            wait_until_ready(elastic, config, threading.Event())
        elastic.close()
