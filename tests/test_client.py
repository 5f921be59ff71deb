"""Credentials and readiness, with responses that a real node sends rarely or not when a test needs them."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurp.config import Config, parse
from slurp.elastic.client import Elastic
from slurp.elastic.readiness import retry_setup, wait_until_ready
from slurp.errors import Exit, Fatal
from slurp.logs import Secrets
from tests.stub_server import ELASTICSEARCH, JSON, Request, Response, StubServer
from tests.tiers import slow_except

# Without the header of Elasticsearch, as from its security layer.
MISSING_PRIVILEGE = Response(403, {"error": {"type": "security_exception", "reason": "unauthorized"}}, JSON)
WRONG_PASSWORD = Response(401, {"error": {"type": "security_exception", "reason": "unauthorized"}}, JSON)


class Clock(threading.Event):
    """A clock and a stop event: waiting for the event only advances the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return self.is_set()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubServer]:
    """A server whose `respond` a test sets."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with StubServer(lambda request: Response()) as server:
        yield server


def connect(server: StubServer, clock: Clock, *options: str) -> tuple[Elastic, Config]:
    config = parse(["--es", server.url, *options], {})
    return Elastic(config, Secrets(()), clock), config


def startup_error(server: StubServer, *options: str) -> Fatal:
    """Return the error that ends the wait for this server."""
    clock = Clock()
    elastic, config = connect(server, clock, *options)
    with pytest.raises(Fatal) as stopped:
        wait_until_ready(elastic, config, clock, clock)
    return stopped.value


def test_a_missing_privilege_is_reported_as_such(server: StubServer) -> None:
    server.respond = lambda request: MISSING_PRIVILEGE
    error = startup_error(server)
    assert "the cluster privilege 'monitor' in Elasticsearch is missing" in str(error)
    assert error.code is Exit.USAGE


def test_a_wrong_password_is_reported_also_after_a_short_wait(server: StubServer) -> None:
    server.respond = lambda request: WRONG_PASSWORD
    error = startup_error(server, "--wait", "1s")
    assert "rejects the password of user 'elastic'" in str(error)
    assert error.code is Exit.USAGE


def test_a_password_file_that_changes_during_the_setup_is_read_again(
    server: StubServer, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("old")
    clock = Clock()
    elastic, _ = connect(server, clock, "--es-pass-file", str(file))

    def respond(request: Request) -> Response:
        return Response(401 if len(server.requests) == 1 else 200, {"status": "green"}, ELASTICSEARCH)

    server.respond = respond
    file.write_text("new")
    assert retry_setup(elastic, lambda: elastic.client.cluster.health(), 30, clock, clock)  # noqa: PLW0108
    first, second = (request.headers["Authorization"] for request in server.requests[:2])
    assert first != second
    assert second == f"Basic {b64encode(b'elastic:new').decode()}"


@pytest.mark.parametrize("wait", slow_except([1, 60], 1))
def test_a_password_that_is_rejected_during_the_setup_ends_it(server: StubServer, wait: int) -> None:
    server.respond = lambda request: WRONG_PASSWORD
    clock = Clock()
    elastic, _ = connect(server, clock)
    with pytest.raises(Fatal, match="rejects the password") as stopped:
        retry_setup(elastic, elastic.client.cluster.health, wait, clock, clock)
    assert stopped.value.code is Exit.USAGE
    assert clock.now < 15


@pytest.mark.parametrize("status", slow_except([429, 502, 503], 503))
def test_a_proxy_in_front_of_a_starting_cluster_does_not_end_the_wait(
    server: StubServer, status: int
) -> None:
    server.respond = lambda request: Response(status, {"message": "no upstream"}, JSON)
    assert "is not ready after 4 s" in str(startup_error(server, "--wait", "4s"))
