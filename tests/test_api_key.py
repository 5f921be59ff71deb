"""An API key, which the embedded node can't make: what is sent, against a server that looks at it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from elasticsearch import AuthenticationException

from slurp.config import parse
from slurp.elastic.client import Elastic
from slurp.errors import Fatal
from slurp.logs import Secrets

KEY = "aWQ6Z2VoZWlt"


class _Node(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        granted = self.headers["Authorization"] == f"ApiKey {KEY}"
        body = b'{"status":"green"}' if granted else b'{"error":{"type":"security_exception"},"status":401}'
        self.send_response(200 if granted else 401)
        for name, value in (
            ("X-Elastic-Product", "Elasticsearch"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Node) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def elastic(url: str, key: str, option: str = "--es-api-key") -> Elastic:
    config = parse(["--es", url, option, key], {})
    return Elastic(config, Secrets(config.secrets))


def test_it_is_sent_in_place_of_user_and_password(url: str) -> None:
    assert elastic(url, KEY).client.cluster.health()["status"] == "green"


def test_one_that_is_refused_is_named_and_not_shown(url: str) -> None:
    other = elastic(url, "b3RoZXI6a2V5")
    with pytest.raises(AuthenticationException):
        other.client.cluster.health()
    refused = other.refused()
    assert isinstance(refused, Fatal)
    assert "API key" in str(refused)
    assert "b3RoZXI6a2V5" not in str(refused)


def test_its_file_is_read_again_when_it_is_refused(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key"
    file.write_text("b3RoZXI6a2V5")
    one = elastic(url, str(file), "--es-api-key-file")
    with pytest.raises(AuthenticationException):
        one.client.cluster.health()
    file.write_text("no key")
    one.denied()
    assert "--es-api-key-file" in caplog.text
    assert "invalid API key" in caplog.text
    assert "no key" not in caplog.text
    file.write_text(f"{KEY}\n")
    one.denied()
    assert one.client.cluster.health()["status"] == "green"
    assert KEY not in caplog.text
