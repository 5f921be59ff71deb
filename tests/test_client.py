"""What the client makes of answers that a real node gives seldom, or not when a test wants them."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from slurp.config import Config, parse
from slurp.elastic.client import Elastic, insist, wait_until_ready
from slurp.errors import Exit, Fatal
from slurp.logs import Secrets
from tests.tiers import slow_except

DENIED = {"error": {"type": "security_exception", "reason": "unauthorized for user"}}


class Answering(ThreadingHTTPServer):
    """Answers each request with `status` and `body`; a status in `first` is used up before."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.body: Any = {}
        self.first: list[int] = []
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers["Authorization"])
        status = server.first.pop(0) if server.first else server.status
        data = json.dumps(server.body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **server.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Answering]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Answering() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def connect(server: Answering, *options: str) -> tuple[Elastic, Config]:
    config = parse(["--es", server.url, *options], {})
    return Elastic(config, Secrets(())), config


def not_ready(server: Answering, *options: str) -> Fatal:
    elastic, config = connect(server, *options)
    with pytest.raises(Fatal) as stopped:
        wait_until_ready(elastic, config, threading.Event())
    return stopped.value


def test_a_missing_privilege_is_no_stranger(server: Answering) -> None:
    # As a real one does, without the header of Elasticsearch.
    server.status, server.body = 403, DENIED
    error = not_ready(server)
    assert "denies the cluster privilege 'monitor'" in str(error)
    assert error.code is Exit.USAGE


def test_a_short_wait_does_not_hide_a_wrong_password(server: Answering) -> None:
    server.status, server.body = 401, DENIED
    error = not_ready(server, "--wait", "1s")
    assert "refuses the password of user 'elastic'" in str(error)
    assert error.code is Exit.USAGE


def test_a_password_that_changes_during_the_set_up_is_read_again(server: Answering, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("old")
    elastic, _ = connect(server, "--es-pass-file", str(secret))
    server.headers["X-Elastic-Product"] = "Elasticsearch"
    server.body, server.first = {"status": "green"}, [401]
    secret.write_text("new")
    assert insist(elastic, lambda: elastic.client.cluster.health(), 30, threading.Event())  # noqa: PLW0108
    assert server.asked[0] != server.asked[1], "with another password"
    assert server.asked[1] == f"Basic {b64encode(b'elastic:new').decode()}"


@pytest.mark.parametrize("wait", slow_except([1, 60], 1))
def test_a_password_that_is_refused_during_the_set_up_ends_it(server: Answering, wait: int) -> None:
    server.status, server.body = 401, DENIED
    elastic, _ = connect(server)
    began = time.monotonic()
    with pytest.raises(Fatal, match="refuses the password") as stopped:
        insist(elastic, elastic.client.cluster.health, wait, threading.Event())
    assert stopped.value.code is Exit.USAGE
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("status", slow_except([429, 502, 503], 503))
def test_a_proxy_before_a_starting_cluster_is_waited_for(server: Answering, status: int) -> None:
    server.status, server.body = status, {"message": "no upstream"}
    assert "is not ready after 4 s" in str(not_ready(server, "--wait", "4s"))
