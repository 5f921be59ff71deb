"""Kibana at the level of requests: a stub stands in, as there is no Kibana among the tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from slurp.config import parse
from slurp.kibana import client


class Stub:
    """Answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {
            "GET /api/status": (
                200,
                {"version": {"number": "9.5.3"}, "status": {"overall": {"level": "available"}}},
            ),
            "GET /api/data_views/data_view/bluesky-events": (404, {"statusCode": 404}),
            "POST /api/data_views/data_view": (200, {"data_view": {"id": "bluesky-events"}}),
        }
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.asked.append((self.command, self.path, headers, json.loads(body) if body else None))
                status, answer = stub.answers.get(f"{self.command} {self.path}", (404, {}))
                text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = _answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def calls(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.asked]


@pytest.fixture
def kibana() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


def prepare(kibana: Stub) -> None:
    client.prepare(parse(["--kibana", kibana.url], {}), threading.Event())


def test_the_data_view_is_created_once(kibana: Stub) -> None:
    prepare(kibana)
    assert kibana.calls[-1] == "POST /api/data_views/data_view"
    _, _, headers, body = kibana.asked[-1]
    assert headers["kbn-xsrf"]
    assert headers["authorization"].startswith("Basic ")
    assert body["data_view"]["title"] == "bluesky-events-*"
    assert body["data_view"]["timeFieldName"] == "@timestamp"
    kibana.answers["GET /api/data_views/data_view/bluesky-events"] = (200, {"data_view": {"id": "x"}})
    asked = len(kibana.calls)
    prepare(kibana)
    assert not [call for call in kibana.calls[asked:] if call.startswith("POST")]


def test_a_kibana_that_is_starting_is_waited_for(
    kibana: Stub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ready = kibana.answers["GET /api/status"]
    kibana.answers["GET /api/status"] = (503, b"Kibana server is not ready yet")
    monkeypatch.setattr(client, "Backoff", lambda first, cap: _Impatient(kibana, ready))
    caplog.set_level("INFO")
    prepare(kibana)
    assert "POST /api/data_views/data_view" in kibana.calls
    assert caplog.text.count("is not ready") == 1


class _Impatient:
    """A back-off that does not wait, and after three tries lets Kibana be ready."""

    def __init__(self, kibana: Stub, ready: tuple[int, Any]) -> None:
        self.failures = 0
        self._kibana, self._ready = kibana, ready

    def next(self) -> float:
        self.failures += 1
        if self.failures == 3:
            self._kibana.answers["GET /api/status"] = self._ready
        return 0.0


@pytest.mark.parametrize("answer", [{"status": "ok"}, {}, {"status": {"overall": 1}, "version": {}}])
def test_what_is_no_kibana_is_waited_for(kibana: Stub, answer: Any) -> None:
    kibana.answers["GET /api/status"] = (200, answer)
    config = parse(["--kibana", kibana.url, "--es-pass", "пароль"], {})
    with pytest.raises(client.NotReady):
        client.Kibana(config).check()


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_said_and_not_repeated(
    kibana: Stub, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    kibana.answers["GET /api/status"] = (status, {})
    prepare(kibana)
    assert kibana.calls == ["GET /api/status"]
    assert "refuses our credentials" in caplog.text


def test_the_body_of_an_error_is_told(kibana: Stub, caplog: pytest.LogCaptureFixture) -> None:
    kibana.answers["POST /api/data_views/data_view"] = (400, {"message": "Duplicate data view"})
    prepare(kibana)
    assert "Duplicate data view" in caplog.text


def test_stopping_ends_the_wait() -> None:
    stop = threading.Event()
    config = parse(["--kibana", "http://127.0.0.1:1"], {})
    thread = threading.Thread(target=client.prepare, args=(config, stop), daemon=True)
    thread.start()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
